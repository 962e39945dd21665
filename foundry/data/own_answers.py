"""A model's own answers to other rows' prompts: learning them again keeps a student as it is where it is not to change.

Rehearsal by self-distillation, as in Li and Hoiem 2016, "Learning without Forgetting", arXiv:1606.09282. Answers are
drawn as likely as the model has them: over such answers the gradient of log p is 0 on average, so that the untrained
model is not moved. Greedy ones would make it surer of what it says most.
"""

import json
from functools import partial
from pathlib import Path

from pydantic import Field

from foundry.cache import made_once
from foundry.compute import Compute
from foundry.data import Source
from foundry.errors import DataError
from foundry.hardware import Machine, enough_memory
from foundry.lot import digest, digest_file, digest_rows, libraries
from foundry.records import BaseModel, Dataset, Row
from foundry.run import write_json
from foundry.source import ModelSource

_FILE = "answers.json"
_CODE = Path(__file__).parents[1] / "generate.py"  # what it is asked with: other code, other answers


class OwnAnswers(Source):
    """The training prompts of another source, each with what the model says before it has learnt anything.

    Answers are kept in the cache. Prompts that it says nothing to are left out.

    Attributes:
        prompts: Whose prompts are answered; its held-out ones are not.
        model: The model that is asked, the job's own base as a rule.
        compute: What it is asked on.
        max_new_tokens: Tokens of an answer at most.
        batch_size: Prompts asked at once.
        seed: Draws the answers.
        limit: Keep at most so many rows.
    """

    prompts: Source
    model: ModelSource
    compute: Compute
    max_new_tokens: int = Field(40, ge=1)
    batch_size: int = Field(32, ge=1)
    seed: int = Field(1, ge=0)
    limit: int | None = Field(None, ge=1)

    def load(self) -> Dataset:
        """Ask the model, or take from the cache what it said.

        Raises:
            DataError: The prompts or the model cannot be loaded, the rows are texts, or nothing was answered.
            HardwareError: There is too little memory to ask the model.
        """
        asked = self.prompts.load()
        if asked.shape == "text":
            raise DataError(f"data.prompts: {asked.name} has text rows; expected rows with prompts")
        prompts = [row["prompt"] for row in asked.train][: self.limit]
        rows = [
            {"prompt": prompt, "completion": [{"role": "assistant", "content": said}]}
            for prompt, said in zip(prompts, self._said([{"prompt": prompt} for prompt in prompts]), strict=True)
            if said
        ]
        if not rows:
            raise DataError(
                f"data: {self.model.fetch().name} answered none of the {len(prompts):,} prompts it was asked"
            )
        return Dataset(
            name=f"own answers to {asked.name}",
            shape="instruction",
            train=rows,
            eval=(),
            sha256=digest_rows(rows),
            eval_sha256=digest_rows(()),
            parents=asked.parents,
            notes=(*asked.notes, f"{len(rows):,} of {len(prompts):,} prompts answered by the untrained model"),
        )

    def _said(self, rows: list[Row]) -> list[str]:
        base, machine = self.model.fetch(), self.compute.machine()
        key = {
            "base": base.sha256,
            "rows": rows,
            "asking": [self.max_new_tokens, self.batch_size, self.seed],
            "machine": machine.describe(),
            "libraries": libraries(),
            "code": digest_file(_CODE),
        }
        folder = made_once("answers", digest(key), partial(self._ask, rows, base, machine))
        return [str(text) for text in json.loads((folder / _FILE).read_text(encoding="utf-8"))]

    def _ask(self, rows: list[Row], base: BaseModel, machine: Machine, to: Path) -> None:
        from foundry.generate import answers
        from foundry.loading import cast_once, load_model, load_tokenizer, quiet, weight_bytes

        enough_memory(weight_bytes(base, machine), machine, f"to ask {base.name} for its own answers")
        quiet()
        model = load_model(base.path, machine)
        cast_once(model, machine)
        said = answers(
            model,
            load_tokenizer(base.path),
            rows,
            machine,
            max_new_tokens=self.max_new_tokens,
            batch_size=self.batch_size,
            note="own answers",
            stage="data",
            seed=self.seed,
        )
        write_json(to / _FILE, said)
