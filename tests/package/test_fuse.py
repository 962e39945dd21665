"""The fused model: the student's own logits, for every kind of adapter, against arithmetic written here."""

import json
import shutil
from dataclasses import replace

import pytest
from students import SMOLLM2, adapter

from foundry.errors import DataError
from foundry.hardware import detect
from foundry.loading import load_model
from foundry.model.tiny import Tiny
from foundry.package.adapter import obstacle
from foundry.package.fuse import fuse, student

CPU = detect("cpu", "fp32", 1)
KINDS = {"lora": {}, "rslora": {"use_rslora": True}, "dora": {"use_dora": True}}


def updated(weight, found, module, options):
    """W + s B A, and for DoRA its rows scaled to the learnt magnitudes (arXiv:2402.09353, equation 5)."""
    a, b = (found[f"base_model.model.{module}.lora_{part}.weight"] for part in "AB")
    total = weight + 8 / (2 if options.get("use_rslora") else 4) * b @ a
    if not options.get("use_dora"):
        return total
    magnitude = found[f"base_model.model.{module}.lora_magnitude_vector"]
    return total * (magnitude / total.norm(dim=1))[:, None]


@pytest.mark.parametrize("kind", KINDS)
def test_fused_weights_are_what_the_papers_say(base, tmp_path, kind):
    import torch
    from safetensors.torch import load_file

    checkpoint = adapter(base, tmp_path / "adapter", **KINDS[kind])
    fused = fuse(student(checkpoint, CPU), checkpoint, tmp_path / "merged", "F16")
    before, after = load_file(base.path / "model.safetensors"), load_file(fused.path / "model.safetensors")
    found = load_file(checkpoint.path / "adapter_model.safetensors")
    changed = 0
    for name, weight in before.items():
        module = name.removesuffix(".weight")
        adapted = f"base_model.model.{module}.lora_A.weight" in found
        expected = updated(weight.float(), found, module, KINDS[kind]) if adapted else weight.float()
        torch.testing.assert_close(after[name].float(), expected, rtol=2**-10, atol=1e-6)
        changed += adapted
    assert changed == 14, "seven layers in each of two blocks"
    assert {tensor.dtype for tensor in after.values()} == {torch.float16}


def test_the_tokenizer_comes_along_byte_by_byte(lora, tmp_path):
    fused = fuse(student(lora, CPU), lora, tmp_path / "merged", "BF16")
    for name in ("tokenizer.json", "chat_template.jinja", "tokenizer_config.json"):
        assert (fused.path / name).read_bytes() == (lora.path / name).read_bytes()
    config = json.loads((fused.path / "config.json").read_text())
    assert (config["dtype"], config["eos_token_id"]) == ("bfloat16", 2)


def test_a_full_model_is_only_rounded(base, tmp_path):
    import torch

    whole = replace(adapter(base, tmp_path / "unused"), kind="full", path=base.path)
    fused = fuse(student(whole, CPU), whole, tmp_path / "merged", "BF16")
    ours, theirs = load_model(fused.path, CPU).state_dict(), load_model(base.path, CPU).state_dict()
    assert all(torch.equal(ours[name], theirs[name].bfloat16().float()) for name in theirs)


def test_what_f16_cannot_hold_is_refused(base, tmp_path):
    checkpoint = adapter(base, tmp_path / "adapter")
    model = student(checkpoint, CPU)
    model.base_model.model.model.norm.weight.data[0] = 1e6
    with pytest.raises(DataError, match=r"model\.norm\.weight.*package\.precision=BF16"):
        fuse(model, checkpoint, tmp_path / "merged", "F16")


def test_an_adapter_for_another_base_is_refused_by_name_and_by_shape(base, lora):
    with pytest.raises(DataError, match="an adapter for tiny, not for other"):
        student(replace(lora, base=replace(base, name="other")), CPU)
    wider = Tiny(tokenizer_of=SMOLLM2, hidden_size=32).fetch()
    with pytest.raises(DataError, match=r"does not fit tiny: .*shape"):
        student(replace(lora, base=wider), CPU)


@pytest.mark.parametrize("held", ["nf4", "stored"])
def test_what_learnt_on_4_bits_is_added_to_what_these_stand_for(base, lora, tmp_path, held):
    import torch
    from safetensors.torch import load_file

    functional = pytest.importorskip("bitsandbytes.functional")
    if held == "stored":
        load_model(base.path, CPU, quantize="nf4").save_pretrained(tmp_path / "base")
    place = tmp_path / "base" if held == "stored" else base.path
    checkpoint = replace(lora, base=replace(base, path=place), quantized=held)
    fused = fuse(student(checkpoint, CPU), checkpoint, tmp_path / "merged", "F16")
    assert "quantization_config" not in json.loads((fused.path / "config.json").read_text())
    before, after = load_file(base.path / "model.safetensors"), load_file(fused.path / "model.safetensors")
    found = load_file(lora.path / "adapter_model.safetensors")
    for name, weight in before.items():
        module = name.removesuffix(".weight")
        expected = weight.float()
        if f"base_model.model.{module}.lora_A.weight" in found:
            few = functional.quantize_4bit(expected, quant_type="nf4", compress_statistics=True, blocksize=64)
            expected = functional.dequantize_4bit(*few)
            assert not torch.equal(expected, weight.float())
            expected = updated(expected, found, module, {})
        torch.testing.assert_close(after[name].float(), expected, rtol=2**-10, atol=1e-6)


def test_what_learnt_on_4_bits_is_no_adapter_for_llama_cpp(lora):
    assert obstacle(lora) == ""
    assert "4 bits" in obstacle(replace(lora, quantized="nf4"))


def test_code_beside_a_tokenizer_is_refused(lora, tmp_path):
    folder = tmp_path / "adapter"
    shutil.copytree(lora.path, folder)
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"auto_map": {"AutoTokenizer": ["x.Y", None]}}))
    with pytest.raises(DataError, match="auto_map"):
        fuse(student(lora, CPU), replace(lora, path=folder), tmp_path / "merged", "F16")
