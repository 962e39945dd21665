"""MLflow's model registry: a release is a version of a registered model, whose artifacts are the release's files.

The files are sent first. The version then appears in one step, tag and digest in it. Of two versions with one tag the
lower number holds it, which all readers agree on, since MLflow gives numbers in order; the other writer takes its own
away again. The alias `champion` moves to newer versions only, and `previous` to where it was.
"""

import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from foundry import release, remote, store
from foundry.errors import FoundryError, PublishError
from foundry.publish.bundle import Bundle
from foundry.publish.registry import Registry, TransientError
from foundry.release import RELEASE

CHAMPION, PREVIOUS = "champion", "previous"
TAG, DIGEST = "foundry.tag", "foundry.digest"
_FINAL = {"INVALID_PARAMETER_VALUE", "PERMISSION_DENIED", "UNAUTHENTICATED"}


class MlflowRegistry(Registry):
    """A registered model of the release's name.

    Attributes:
        registry: The tracking URI, null for the store that the runs are recorded in.
    """

    registry: str | None = None

    @property
    def _uri(self) -> str:
        return self.registry or store.uri()

    def ready(self) -> None:
        """MLflow comes with foundry; whether the server answers is seen when it is needed."""

    def place(self, tag: str) -> str:
        """The version's model URI, or the tag where there is no version yet."""
        with self._failures():
            version = self._holder(self._client()[0], tag)
        return f"{remote.MODELS}{self.name}/{version.version}" if version else f"{remote.MODELS}{self.name} ({tag})"

    def released(self, tag: str) -> Mapping[str, Any] | None:
        """The `release.json` of the version that holds the tag."""
        with self._failures(), tempfile.TemporaryDirectory(prefix="foundry-") as scratch:
            client, _ = self._client()
            version = self._holder(client, tag)
            if version is None:
                return None
            return release.read(remote.fetch_version(client, self._uri, version, Path(scratch), RELEASE).parent)

    def deliver(self, bundle: Bundle) -> bool:
        """Send the files as a logged model, then make a version of it, and see whether the tag is its."""
        with self._failures():
            client, experiment = self._client()
            self._make_model(client)
            tags = {"lot": str(bundle.manifest["lot"])}
            model = client.create_logged_model(experiment, name=re.sub(r"[.]", "-", self.name), tags=tags)
            client.log_model_artifacts(model.model_id, str(bundle.folder))
            client.finalize_logged_model(model.model_id, "READY")
            source = client.get_logged_model(model.model_id).artifact_location
            told = {TAG: bundle.tag, DIGEST: str(bundle.manifest["digest"]), "verdict": "passed", **tags}
            served = (
                {"model_id": model.model_id} if self._uri.startswith("http") else {}
            )  # servers ask whose files they are
            mine = client.create_model_version(self.name, source=source, tags=told, **served)
            holder = self._holder(client, bundle.tag)
            if holder is not None and holder.version == mine.version:
                return True
            client.delete_model_version(self.name, mine.version)
            client.delete_logged_model(model.model_id)
            return False

    def fetch(self, tag: str, folder: Path) -> Path:
        """Download the version's files."""
        with self._failures():
            client, _ = self._client()
            return remote.fetch_version(client, self._uri, self._holder(client, tag), folder)

    def conclude(self, tag: str) -> None:  # noqa: ARG002
        """Move `champion` to the newest release, `previous` to where it was; another writer may do the same."""
        with self._failures():
            client, _ = self._client()
            newest = max(int(version.version) for version in self._holders(client).values())
            aliases = client.get_registered_model(self.name).aliases
            before = aliases.get(CHAMPION)
            if before is not None and int(before) >= newest:
                return
            if before is not None:
                client.set_registered_model_alias(self.name, PREVIOUS, before)
            client.set_registered_model_alias(self.name, CHAMPION, str(newest))
            latest = max(int(version.version) for version in self._holders(client).values())
            if latest > newest:  # it came meanwhile, and its alias may have been written over
                raise TransientError(f"models:/{self.name}@{CHAMPION}: another writer published version {latest}")

    def _client(self) -> tuple[Any, str]:
        with store.opened(self._uri) as (client, experiment):
            return client, experiment

    def _make_model(self, client: Any) -> None:
        from mlflow.exceptions import MlflowException

        try:
            client.create_registered_model(self.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _holders(self, client: Any) -> dict[str, Any]:
        """The version of each tag: of several with the same tag, the first."""
        versions = client.search_model_versions(f"name='{self.name}'", max_results=10_000)
        tagged = sorted((v for v in versions if TAG in v.tags), key=lambda v: -int(v.version))
        return {version.tags[TAG]: version for version in tagged}

    def _holder(self, client: Any, tag: str) -> Any:
        return self._holders(client).get(tag)

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except FoundryError:
            raise
        except Exception as error:  # noqa: BLE001  # MLflow lets errors of its store, of HTTP and of the disk through
            reason = store.public(" ".join(str(error).split()))[:200]
            kind = PublishError if getattr(error, "error_code", "") in _FINAL else TransientError
            raise kind(f"publish.registry: {store.public(self._uri)}: {reason}") from None
