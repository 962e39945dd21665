"""OpenSSF model signatures: made with a private key, checked with its public one.

The format is that of the `model_signing` package, whose own command verifies what is signed here.
"""

import hashlib
import os
from pathlib import Path
from typing import Any

from foundry.errors import ConfigError
from foundry.release import SIGNATURE

PASSWORD = "FOUNDRY_SIGN_PASSWORD"  # noqa: S105  # the variable's name
"""The environment variable that opens an encrypted private key."""

_INSTALL = "signatures need the package model-signing, which is not installed; pip install 'model-foundry[sign]'"


def sign(folder: Path, key: Path) -> None:
    """Write a signature over every file of a folder into the folder.

    Args:
        folder: The release, complete but for the signature.
        key: A private key on an elliptic curve, PEM.

    Raises:
        ConfigError: The key cannot be used, or model-signing is not installed.
    """
    signing, hashing = _library("signing"), _library("hashing")
    signature = folder / SIGNATURE
    _private(key)
    password = os.environ.get(PASSWORD)
    config = signing.Config()
    config.use_elliptic_key_signer(private_key=key, password=password.encode() if password else None)
    config.set_hashing_config(hashing.Config().set_ignored_paths(paths=[signature], ignore_git_paths=True))
    config.sign(folder, signature)


def check(folder: Path, key: Path) -> str:
    """Check the signature of a folder; returns what is wrong with it, empty if nothing is.

    Raises:
        ConfigError: The public key cannot be read, or model-signing is not installed.
    """
    verifying, hashing = _library("verifying"), _library("hashing")
    signature = folder / SIGNATURE
    _public(key)
    config = verifying.Config().use_elliptic_key_verifier(public_key=key)
    config.set_hashing_config(hashing.Config().set_ignored_paths(paths=[signature], ignore_git_paths=True))
    try:
        config.verify(folder, signature)
    except Exception as error:  # noqa: BLE001  # a broken signature fails in sigstore, protobuf, json or cryptography
        return " ".join(str(error).split())[:200] or type(error).__name__
    return ""


def fingerprint(key: Path) -> str:
    """SHA-256 of the public side of a private key (of its DER form), which names the key without giving it away.

    Raises:
        ConfigError: The key cannot be used.
    """
    return _fingerprint(_private(key).public_key())


def public_fingerprint(key: Path) -> str:
    """The same of a public key.

    Raises:
        ConfigError: The key cannot be read.
    """
    return _fingerprint(_public(key))


def _fingerprint(public: Any) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return hashlib.sha256(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def _private(key: Path) -> Any:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    password = os.environ.get(PASSWORD)
    try:
        return _elliptic(load_pem_private_key(key.read_bytes(), password.encode() if password else None))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"publish.sign: {key}: {_reason(error)}; expected a private key on an elliptic curve (PEM), "
            f"its password, if any, in {PASSWORD}"
        ) from None


def _public(key: Path) -> Any:
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        return _elliptic(load_pem_public_key(key.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"--key: {key}: {_reason(error)}; expected a public key on an elliptic curve (PEM)") from None


def _elliptic(key: Any) -> Any:
    if not hasattr(key, "curve"):
        raise ValueError("not on an elliptic curve")
    return key


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else " ".join(str(error).split())[:80]


def _library(name: str) -> Any:
    try:
        from model_signing import hashing, signing, verifying
    except ImportError as error:
        raise ConfigError(f"{_INSTALL} ({error})") from None
    return {"hashing": hashing, "signing": signing, "verifying": verifying}[name]
