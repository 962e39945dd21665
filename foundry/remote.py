"""Releases that lie elsewhere: reading them from object storage and from an MLflow registry into a folder."""

import io
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from foundry import git, release, store
from foundry.errors import ConfigError, DataError
from foundry.release import RELEASE, SIGNATURE

S3, MODELS = "s3://", "models:/"
BLOBS = "blobs"
"""Below a name in a bucket: a folder for each release's digest. Tags hold no more than their `release.json`."""

_MISSING = {"NoSuchKey", "NoSuchBucket", "404"}


@contextmanager
def opened(place: str) -> Iterator[Path]:
    """The folder of a release, wherever it is; what lies elsewhere is fetched into a folder that is removed again.

    Args:
        place: A folder, `s3://bucket/prefix/name/tag`, `models:/name@alias` or `models:/name/version`, or the URL of a
            git repository with `@tag` behind it.

    Raises:
        DataError: There is no release.
    """
    repository = git.split(place)
    if not place.startswith((S3, MODELS)) and not repository:
        yield Path(place)
        return
    with tempfile.TemporaryDirectory(prefix="foundry-") as scratch:
        folder = Path(scratch) / "release"
        if repository:
            git.clone(*repository, folder)
            yield folder
        else:
            folder.mkdir()
            yield (fetch_s3 if place.startswith(S3) else fetch_model)(place, folder)


def s3_client() -> Any:
    """A client of the object storage that the environment names: AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and the like.

    Raises:
        ConfigError: boto3 is not installed, or the endpoint is no URL.
    """
    try:
        import boto3
        from botocore.config import Config
    except ImportError:
        missing = "s3:// needs the package boto3, which is not installed; pip install 'model-foundry[s3]'"
        raise ConfigError(missing) from None
    style = "path" if os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") else "auto"
    config = Config(
        connect_timeout=10,
        read_timeout=60,
        retries={"mode": "standard", "total_max_attempts": 4},
        s3={"addressing_style": style},
    )
    try:
        return boto3.client("s3", config=config, region_name=os.environ.get("AWS_DEFAULT_REGION") or "us-east-1")
    except ValueError as error:
        raise ConfigError(f"AWS_ENDPOINT_URL: {store.public(str(error))}; expected a URL") from None


def split_s3(uri: str) -> tuple[str, str]:
    """The bucket of an `s3://` URI, and the key without slashes at its ends."""
    bucket, _, key = uri.removeprefix(S3).partition("/")
    return bucket, key.strip("/")


def s3_failure(error: Exception) -> tuple[str, str]:
    """The code of a failure of boto3, such as NoSuchKey, and its reason in a line."""
    response = getattr(error, "response", None)
    found = response.get("Error", {}) if isinstance(response, Mapping) else {}
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(response, Mapping) else ""
    reason = str(found.get("Message") or error) or type(error).__name__
    return str(found.get("Code") or status or type(error).__name__), store.public(" ".join(reason.split())[:200])


def s3_release(client: Any, uri: str) -> dict[str, Any] | None:
    """The `release.json` of a tag in object storage, None where there is none.

    Raises:
        DataError: It is there, but broken.
    """
    from botocore.exceptions import ClientError

    bucket, key = split_s3(uri)
    body = io.BytesIO()
    try:
        client.download_fileobj(bucket, f"{key}/{RELEASE}", body)
    except ClientError as error:
        if s3_failure(error)[0] not in {"NoSuchKey", "404"}:
            raise
        _need_bucket(client, bucket)
        return None
    return release.parsed(body.getvalue(), f"{uri}/{RELEASE}")


def _need_bucket(client: Any, bucket: str) -> None:
    """See that there is a bucket: without one, every tag would look free."""
    from botocore.exceptions import ClientError

    try:
        client.head_bucket(Bucket=bucket)
    except ClientError as error:
        if s3_failure(error)[0] not in {"403", "AccessDenied"}:  # whoever may write need not be allowed to list
            raise


def fetch_s3(uri: str, folder: Path) -> Path:
    """Read a release from object storage into an empty folder; returns where its files are.

    Raises:
        DataError: There is none, or it cannot be read.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    client = s3_client()
    bucket, key = split_s3(uri)
    try:
        manifest = s3_release(client, uri)
        if manifest is None:
            raise DataError(f"{uri}: no {RELEASE}; expected a release, as s3://bucket/prefix/name/tag")
        blobs = key if key.endswith(manifest["digest"]) else f"{key.rpartition('/')[0]}/{BLOBS}/{manifest['digest']}"
        blobs = blobs.lstrip("/")
        _fetch_blob(client, bucket, f"{key}/{RELEASE}", folder / RELEASE)
        for name in [*manifest["files"], *([SIGNATURE] if manifest.get("signed_by") else [])]:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            _fetch_blob(client, bucket, f"{blobs}/{name}", folder / name)
    except (BotoCoreError, ClientError) as error:
        code, reason = s3_failure(error)
        raise DataError(f"{uri}: cannot be read: {code}: {reason}") from None
    return folder


def _fetch_blob(client: Any, bucket: str, key: str, path: Path) -> None:
    """Read one object; one that is missing leaves no file, for whoever compares the folder with its list."""
    from botocore.exceptions import ClientError

    try:
        client.download_file(bucket, key, str(path))
    except ClientError as error:
        if s3_failure(error)[0] not in _MISSING:
            raise


def fetch_model(uri: str, folder: Path) -> Path:
    """Read the files of a registered model's version into an empty folder; returns where they are.

    Args:
        uri: `models:/name/version` or `models:/name@alias`, in the store that MLFLOW_TRACKING_URI names.
        folder: Where to.

    Raises:
        DataError: There is no such version, or it cannot be read.
    """
    where = store.uri()
    name, _, version = uri.removeprefix(MODELS).strip("/").rpartition("@" if "@" in uri else "/")
    if not name or not version:
        raise DataError(f"{uri}: expected models:/name/version or models:/name@alias")
    try:
        with store.opened(where) as (client, _):
            find = client.get_model_version_by_alias if "@" in uri else client.get_model_version
        return fetch_version(client, where, find(name, version), folder)
    except Exception as error:  # noqa: BLE001  # MLflow lets errors of its store, of HTTP and of the disk through
        reason = store.public(" ".join(str(error).split()))[:200]
        raise DataError(f"{uri}: cannot be read from {store.public(where)}: {reason}") from None


def fetch_version(client: Any, where: str, version: Any, folder: Path, name: str = "") -> Path:
    """Read the files of a model version, or the one of this name, below an empty folder; returns where they are."""
    import mlflow

    source = client.get_model_version_download_uri(version.name, version.version)
    uri = f"{source.rstrip('/')}/{name}" if name else source
    return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(folder), tracking_uri=where))
