"""Object storage that speaks S3: blobs by the release's digest, tags that only one writer can make.

`<registry>/<name>/blobs/<digest>/…` holds a whole release. `<registry>/<name>/<tag>/release.json` is the tag; it is
written last, with `If-None-Match: *`, so of several writers one gets it and nobody ever writes over it.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import Field

from foundry import release, remote
from foundry.errors import PublishError
from foundry.lot import digest_file
from foundry.publish.bundle import Bundle
from foundry.publish.registry import Registry, TransientError
from foundry.release import RELEASE

PART = 16 * 2**20
"""Bytes of a part; a larger file is sent in several at once."""

_TAKEN, _RACED = {"PreconditionFailed", "412"}, {"ConditionalRequestConflict", "409"}
_FINAL = {
    *("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "NoCredentialsError", "403"),
    *("NoSuchBucket", "404"),
}


class S3Registry(Registry):
    """A prefix in a bucket; endpoint, region and keys come from the environment, as for every S3 client.

    Attributes:
        registry: `s3://bucket/prefix`.
    """

    registry: str = Field(pattern=r"^s3://[A-Za-z0-9][A-Za-z0-9.-]{1,62}(/[A-Za-z0-9._/=-]*)?$")

    @property
    def _base(self) -> str:
        return f"{self.registry.rstrip('/')}/{self.name}"

    def ready(self) -> None:
        """See that boto3 is here.

        Raises:
            ConfigError: It is not, or the endpoint is no URL.
        """
        remote.s3_client()

    def place(self, tag: str) -> str:
        """The tag's URI."""
        return f"{self._base}/{tag}"

    def released(self, tag: str) -> Mapping[str, Any] | None:
        """The tag's `release.json`."""
        with self._failures():
            return remote.s3_release(remote.s3_client(), self.place(tag))

    def deliver(self, bundle: Bundle) -> bool:
        """Send what is not there yet, then `release.json` beside it, then the tag."""
        with self._failures():
            client = remote.s3_client()
            bucket, blobs = remote.split_s3(f"{self._base}/{remote.BLOBS}/{bundle.manifest['digest']}")
            for name in bundle.names()[:-1]:
                self._send(client, bucket, f"{blobs}/{name}", bundle.folder / name)
            body = release.text(bundle.manifest)
            self._create(client, bucket, f"{blobs}/{RELEASE}", body)
            if self._create(client, bucket, f"{blobs}/{RELEASE}", body):
                raise PublishError(
                    f"publish.registry: {self.registry}: the endpoint does not keep to If-None-Match, so tags could be "
                    "written over; nothing was published; use another storage"
                )
            return self._create(client, bucket, f"{remote.split_s3(self.place(bundle.tag))[1]}/{RELEASE}", body)

    def _send(self, client: Any, bucket: str, key: str, path: Path) -> None:
        """Send a file in parts, with checksums that the storage compares; one that is there already stays."""
        from boto3.s3.transfer import TransferConfig
        from botocore.exceptions import ClientError

        sha = digest_file(path)
        try:
            if client.head_object(Bucket=bucket, Key=key).get("Metadata", {}).get("sha256") == sha:
                return
        except ClientError as error:
            if remote.s3_failure(error)[0] not in {"404", "NoSuchKey", "NotFound"}:
                raise
        parts = TransferConfig(multipart_threshold=PART, multipart_chunksize=PART, max_concurrency=4)
        extra = {"ChecksumAlgorithm": "SHA256", "Metadata": {"sha256": sha}}
        client.upload_file(str(path), bucket, key, ExtraArgs=extra, Config=parts)

    def _create(self, client: Any, bucket: str, key: str, body: bytes) -> bool:
        """Make an object unless there is one; say whether it was made."""
        from botocore.exceptions import ClientError

        kind = "application/json"
        try:
            client.put_object(
                Bucket=bucket, Key=key, Body=body, IfNoneMatch="*", ChecksumAlgorithm="SHA256", ContentType=kind
            )
        except ClientError as error:
            code = remote.s3_failure(error)[0]
            if code in _TAKEN:
                return False
            if code in _RACED:
                raise TransientError(f"publish.registry: {self.registry}: another writer was at {key}") from None
            raise
        return True

    def fetch(self, tag: str, folder: Path) -> Path:
        """Read every object."""
        return remote.fetch_s3(self.place(tag), folder)

    def conclude(self, tag: str) -> None:
        """A tag is all there is."""

    @contextmanager
    def _failures(self) -> Iterator[None]:
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (BotoCoreError, ClientError, Boto3Error) as error:
            code, reason = remote.s3_failure(error)
            kind = PublishError if code in _FINAL else TransientError
            raise kind(f"publish.registry: {self.registry}: {code}: {reason}") from None
