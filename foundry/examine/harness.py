"""Any task of lm-evaluation-harness, in a process of its own, for its pins may clash with ours.

The Python that has `lm_eval` is named by the environment, not by the config: a config must not name programs to run.
Source: https://github.com/EleutherAI/lm-evaluation-harness.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from foundry import console
from foundry.errors import ConfigError, DataError
from foundry.examine import Metric, Score, Subject
from foundry.examine.answered import mean
from foundry.loading import STORED, load_model, quiet
from foundry.records import Row

PYTHON = "FOUNDRY_LM_EVAL"
"""The variable with the Python that has lm_eval, this one by default."""
TASKS = "FOUNDRY_LM_EVAL_TASKS"
"""The variable with a folder of tasks of one's own."""
_SAID = 400
"""Characters of a failure that are shown."""
_LOOKING = 300
"""Seconds that looking for a task may take: lm_eval reads the names of its thousands of tasks."""
_LOOK = """
import sys
from lm_eval.tasks import TaskManager
tasks = TaskManager(include_path=sys.argv[2] or None)
print("task" if sys.argv[1] in tasks.all_subtasks else "several" if sys.argv[1] in tasks.all_tasks else "unknown")
"""
_REMEDIES = {
    "several": "{0} is a group of tasks; expected one of its tasks",
    "unknown": "{0} is no task that lm_eval of {1} knows; `lm_eval ls tasks` lists them, {2} names a folder of others",
}


class Harness(Metric):
    """One task of lm-evaluation-harness by its name, and one of its measures; higher is better.

    The questions are the task's own: they are not compared with the training rows, unless a file of them is named in
    `examine.decontaminate_against`.

    Attributes:
        task: The task, such as `arc_easy`; not a group of tasks.
        measure: What each question is measured by, such as `acc`, `acc_norm` or `exact_match`.
        num_fewshot: Examples before each question, None for the task's own number.
        limit: Ask only so many questions.
        batch_size: Questions asked at a time.
        apply_chat_template: Whether questions go through the model's chat template.
        minutes: How long it may take.
    """

    asks_rows: ClassVar[bool] = False

    data: None = None
    task: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    measure: str = Field("acc", pattern=r"^[a-z][a-z0-9_]*$")
    num_fewshot: int | None = Field(None, ge=0)
    limit: int | None = Field(None, ge=1)
    batch_size: int = Field(8, ge=1)
    apply_chat_template: bool = False
    minutes: float = Field(60, gt=0)

    def check(self, rows: Sequence[Row], name: str) -> None:  # noqa: ARG002
        """See, before anything is trained, that lm_eval can be run and knows the task.

        Raises:
            ConfigError: It cannot, or does not; or the task is a group of tasks.
        """
        command = [_python(), "-c", _LOOK, self.task, os.environ.get(TASKS, "")]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_LOOKING, check=False)  # noqa: S603
            found, said = (done.stdout.split() or [""])[-1], _last_line(done)
        except (OSError, subprocess.SubprocessError) as error:
            found, said = "", _line(str(error))
        if found == "task":
            return
        if found not in _REMEDIES:
            raise ConfigError(
                f"examine.metrics.{name}: {_python()} cannot run lm_eval ({said}); pip install 'lm_eval[hf]' into an "
                f"environment of its own and set {PYTHON} to its Python"
            )
        raise ConfigError(f"examine.metrics.{name}.task: {_REMEDIES[found].format(self.task, _python(), TASKS)}")

    def asking(self) -> Mapping[str, Any]:
        """Every setting, and which program and tasks are meant."""
        settings = self.model_dump(exclude={"data", "minutes", "measure"})
        return {"kind": "harness", **settings, "python": _python(), "tasks": os.environ.get(TASKS)}

    def ask(self, subject: Subject, rows: Sequence[Row], note: str) -> list[dict[str, Any]]:  # noqa: ARG002
        """Run the task and read what it logged of each question.

        Raises:
            DataError: It failed, was killed, or took too long.
        """
        console.stage("examine", f"{note}: lm_eval {self.task}")
        with tempfile.TemporaryDirectory() as folder:
            settings = Path(folder) / "job.yaml"
            settings.write_text(json.dumps(self._job(subject, Path(folder))), encoding="utf-8")
            command = [_python(), "-m", "lm_eval", "run", "--config", str(settings)]
            try:
                done = subprocess.run(  # noqa: S603
                    command, cwd=folder, capture_output=True, text=True, timeout=60 * self.minutes, check=False
                )
            except subprocess.TimeoutExpired:
                raise DataError(f"lm_eval {self.task}: not done after {self.minutes:g} minutes") from None
            logged = sorted(Path(folder).rglob("samples_*.jsonl"))
            if done.returncode or len(logged) != 1:
                raise DataError(f"lm_eval {self.task}: {_ended(done, len(logged))}")
            lines = logged[0].read_text(encoding="utf-8").splitlines()
        samples = [json.loads(line) for line in lines]
        first = [sample for sample in samples if sample.get("filter") == samples[0].get("filter")]
        return sorted(map(_short, first), key=lambda one: int(one["doc_id"]))

    def _job(self, subject: Subject, folder: Path) -> dict[str, Any]:
        model: dict[str, Any] = {
            "pretrained": str(_base(subject, folder)),
            "tokenizer": str(subject.folder),
            "dtype": "float32",
        }
        if subject.machine.device != "cpu" and subject.machine.precision == "bf16":
            model["dtype"] = "bfloat16"
        if subject.adapter:
            model["peft"] = str(subject.adapter)
        settings = {
            "model": "hf",
            "model_args": model,
            "tasks": [self.task],
            "device": subject.machine.device,
            "batch_size": self.batch_size,
            "num_fewshot": self.num_fewshot,
            "limit": self.limit,
            "apply_chat_template": self.apply_chat_template,
            "output_path": str(folder / "out"),
            "log_samples": True,
            "include_path": os.environ.get(TASKS),
        }
        return {name: value for name, value in settings.items() if value is not None}

    def score(self, rows: Sequence[Row], evidence: Sequence[Mapping[str, Any]]) -> Score:  # noqa: ARG002
        """The measure's mean.

        Raises:
            ConfigError: The task has no such measure.
        """
        if not evidence or self.measure not in evidence[0]["measures"]:
            found = ", ".join(evidence[0]["measures"]) if evidence else "none"
            raise ConfigError(f"{self.task} has no measure {self.measure!r} (it has: {found})")
        items = [float(one["measures"][self.measure]) for one in evidence]
        return Score(items, details={"wholly_right": mean([item >= 1 for item in items])})

    def told(
        self,
        rows: Sequence[Row],  # noqa: ARG002
        evidence: Sequence[Mapping[str, Any]],
        index: int,
    ) -> tuple[str, str, str]:
        """The question, its target, and what was answered or what each choice was given."""
        one = evidence[index]
        return str(one["question"]), str(one["target"]), str(one["answer"])


def _base(subject: Subject, folder: Path) -> Path:
    """The base as the subject holds it: lm_eval opens files, so that 4 bits made on loading are written for it."""
    if subject.held in {"", STORED}:
        return subject.folder
    quiet()
    load_model(subject.folder, subject.machine, quantize=subject.held).save_pretrained(folder / "base")
    return folder / "base"


def _python() -> str:
    return os.environ.get(PYTHON) or sys.executable


def _ended(done: subprocess.CompletedProcess[str], logs: int) -> str:
    """How a run that gave no answers came to its end."""
    killed = f"was killed by signal {-done.returncode}, for want of memory perhaps"
    code = killed if done.returncode < 0 else f"exit code {done.returncode}"
    wrote = "" if done.returncode else f", {logs} logs of questions, expected 1"
    return f"{code}{wrote}; the last it said: {_last_line(done) or 'nothing'}"


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return _line(lines[-1]) if lines else ""


def _line(text: str) -> str:
    return " ".join(text.split())[-_SAID:]


def _short(sample: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a logged question."""
    arguments = sample.get("arguments") or {}
    asked: Mapping[str, Any] = next(iter(arguments.values()), {}) if isinstance(arguments, Mapping) else {}
    names = [name for name in sample.get("metrics", ()) if isinstance(sample.get(name), int | float)]
    return {
        "doc_id": sample["doc_id"],
        "hash": sample.get("doc_hash", ""),
        "question": str(asked.get("arg_0", sample.get("doc", "")))[-2000:],
        "target": sample.get("target", ""),
        "answer": str(sample.get("filtered_resps", ""))[:2000],
        "measures": {name: float(sample[name]) for name in names},
    }
