"""Rows from a dataset on the Hugging Face hub, at one commit."""

from collections.abc import Iterator
from typing import Any

from pydantic import Field

from foundry.data.faults import Entry
from foundry.data.intake import Intake, Sources
from foundry.errors import DataError


class Hub(Intake):
    """A hub dataset; it is downloaded once, later runs find it in the cache of `datasets` and need no network.

    Attributes:
        name: `user/dataset`.
        revision: The commit, all 40 characters: a branch or tag may hold other rows tomorrow.
        subset: The dataset's configuration, null for its default one.
        split: The split to read.
    """

    name: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    revision: str = Field(pattern=r"^[0-9a-f]{40}$")
    subset: str | None = None
    split: str = Field("train", min_length=1)

    def _name(self) -> str:
        return self.name.split("/")[-1]

    def _sources(self) -> Sources:
        harvest = self._harvest()
        harvest.read(f"hub://{self.name}@{self.revision[:12]}#{self.split}", _entries(self._loaded()))
        return Sources([harvest])

    def _loaded(self) -> Any:
        from datasets import disable_progress_bars, load_dataset_builder, logging

        disable_progress_bars()
        logging.set_verbosity_error()
        try:
            # "hf://" keeps a folder here that happens to have this name from being taken for the dataset.
            builder = load_dataset_builder(f"hf://datasets/{self.name}", self.subset, revision=self.revision)
            if builder.hash != self.revision:
                raise DataError(
                    f"{self._place()}: found commit {builder.hash[:12]} in the cache, and no hub to fetch another from"
                )
            builder.download_and_prepare()
            return builder.as_dataset(split=self.split)
        except DataError:
            raise
        except Exception as error:  # noqa: BLE001  # the hub's client, datasets and pyarrow each have their own
            raise DataError(f"{self._place()}: {_why(error)}") from None

    def _place(self) -> str:
        return f"data: {self.name} at {self.revision[:12]}"


def _entries(dataset: Any) -> Iterator[Entry]:
    tables = dataset.with_format("arrow").iter(batch_size=1024)
    return enumerate((row for table in tables for row in table.to_pylist()), 1)


def _why(error: Exception) -> str:
    """What an error comes from, in one line, and what to do when the network is switched off."""
    from datasets import config
    from datasets.exceptions import DatasetGenerationError

    cause = error.__cause__ if isinstance(error, DatasetGenerationError) and error.__cause__ else error
    said = " ".join(str(cause).split()) or type(cause).__name__
    remedy = "; HF_HUB_OFFLINE is set and the cache lacks it" if config.HF_HUB_OFFLINE else ""
    return f"cannot be loaded: {said:.200}{remedy}"
