"""A base model by name: a local folder, a GGUF file, one inside an installed package, or a hub id."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from foundry.errors import DataError
from foundry.loading import PACKAGE, packaged, read_config
from foundry.lot import hub_blobs
from foundry.model import ModelSource
from foundry.model.folder import base_from_folder
from foundry.records import BaseModel

_WANTED = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "tokenizer.model", "*.txt"]


class Pretrained(ModelSource):
    """A model that someone trained.

    Attributes:
        name: A local folder, a `.gguf` file, `package://<import name>/<file>.gguf`, or a hub id.
        revision: Commit, tag or branch of a hub id.
    """

    name: str = Field(min_length=1)
    revision: str | None = None

    def config(self) -> Mapping[str, Any]:
        """Read the config of a folder or a GGUF file, or fetch that one file from the hub.

        Raises:
            DataError: There is no such model.
        """
        if self.name.startswith(PACKAGE) or self.name.endswith(".gguf"):
            from foundry.model.gguf_file import described

            return described(gguf_path(self.name))
        if Path(self.name).is_dir():
            return read_config(Path(self.name))
        return read_config(self._download(["config.json"]))

    def fetch(self) -> BaseModel:
        """Find the model, converting a GGUF file once and downloading a hub model once.

        Raises:
            DataError: There is no such model, or its files cannot be used safely.
        """
        if self.name.startswith(PACKAGE) or self.name.endswith(".gguf"):
            from foundry.model.gguf_file import converted

            return base_from_folder(converted(gguf_path(self.name)), self.name)
        if Path(self.name).is_dir():
            return base_from_folder(Path(self.name).resolve(), self.name)
        folder = self._download()
        return base_from_folder(folder, self.name, hub_blobs(folder))

    def _download(self, wanted: Sequence[str] = _WANTED) -> Path:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

        try:
            return Path(snapshot_download(self.name, revision=self.revision, allow_patterns=list(wanted)))
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DataError(
                f"model.name: {self.name!r} is no folder and no .gguf file here, and the hub did not give it ({reason})"
            ) from None


def gguf_path(name: str) -> Path:
    """The file that a `.gguf` path or a `package://` name stands for.

    Raises:
        DataError: The package is not installed, or there is no such file.
    """
    try:
        path = packaged(name) if name.startswith(PACKAGE) else Path(name)
    except LookupError as error:
        raise DataError(f"model.name: {error}") from None
    if not path.is_file():
        raise DataError(f"model.name: {name!r}: there is no such file")
    return path
