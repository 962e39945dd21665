"""Questions with verified answers from any task of reasoning-gym (Stojanovski et al. 2025, arXiv:2505.24760)."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, model_validator

from foundry.config import listed, nearest
from foundry.data import Source
from foundry.errors import ConfigError
from foundry.lot import digest_rows
from foundry.records import Dataset, Row


class ReasoningGym(Source):
    """A seeded generator: item i of a task is drawn from `seed + i`, so two ranges of seeds never share one.

    Attributes:
        task: The task's name in reasoning-gym, such as `syllogism`.
        task_settings: The task's own settings, such as `{invalid_ratio: 0.5}`.
        size: Training questions drawn; those that occur among the held-out ones are dropped.
        eval_size: Held-out questions drawn; repeats are dropped.
        seed: First seed of the training questions.
        eval_seed: First seed of the held-out questions.
        system_prompt: A system message before every question, None for the chat template's own.
        limit: Keep at most so many training questions.
    """

    task: str = Field(min_length=1)
    task_settings: dict[str, Any] = Field(default_factory=dict)
    size: int = Field(3000, ge=1)
    eval_size: int = Field(300, ge=0)
    seed: int = Field(1, ge=0)
    eval_seed: int = Field(1_000_001, ge=0)
    system_prompt: str | None = None
    limit: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _seeds_disjoint(self) -> Self:
        if self.seed < self.eval_seed + self.eval_size and self.eval_seed < self.seed + self.size:
            raise ValueError(
                "the seeds of training and held-out questions overlap; keep eval_seed ≥ seed + size (or the reverse)"
            )
        return self

    def load(self) -> Dataset:
        """Draw the questions.

        Raises:
            ConfigError: reasoning-gym is not installed, or it knows no such task or setting.
        """
        held_out = self._draw(self.eval_size, self.eval_seed)
        drawn = self._draw(self.size, self.seed)
        asked = {row["prompt"][-1]["content"] for row in held_out}
        train = [row for row in drawn if row["prompt"][-1]["content"] not in asked]
        shared = len(drawn) - len(train)
        train = train[: self.limit]
        evaluation = self._examined(held_out)
        return Dataset(
            name=self.task,
            shape="instruction",
            train=train,
            eval=evaluation,
            sha256=digest_rows(train),
            eval_sha256=digest_rows(evaluation),
            notes=(f"{shared} drawn questions are held out and were dropped",) if shared else (),
        )

    def _draw(self, size: int, seed: int) -> list[Row]:
        if size == 0:
            return []
        try:
            import reasoning_gym
            from reasoning_gym.factory import DATASETS
        except ImportError as error:
            raise ConfigError(
                f"data: reasoning-gym cannot be imported ({error}); pip install 'model-foundry[demo]'"
            ) from error
        if self.task not in DATASETS:
            raise ConfigError(
                f"data.task: found {self.task!r}{nearest(self.task, DATASETS)} (allowed: {listed(DATASETS)})"
            )
        try:
            items = reasoning_gym.create_dataset(self.task, size=size, seed=seed, **self.task_settings)
        except (TypeError, ValueError, AssertionError) as error:
            raise ConfigError(f"data.task_settings: found {self.task_settings}: {error}") from None
        return [self._row(item) for item in items]

    def _examined(self, rows: list[Row]) -> list[Row]:
        """Held-out rows with where each is found again, so that the task's own `score_answer` can judge it."""
        task = {"name": self.task, "settings": self.task_settings, "seed": self.eval_seed, "size": self.eval_size}
        return _distinct([{**row, "task": {**task, "index": index}} for index, row in enumerate(rows)])

    def _row(self, item: Mapping[str, Any]) -> Row:
        system = [{"role": "system", "content": self.system_prompt}] if self.system_prompt is not None else []
        return {
            "prompt": [*system, {"role": "user", "content": item["question"]}],
            "completion": [{"role": "assistant", "content": str(item["answer"])}],
        }


def _distinct(rows: list[Row]) -> list[Row]:
    return list({row["prompt"][-1]["content"]: row for row in reversed(rows)}.values())[::-1]
