"""package=gguf on a tiny model: what it leaves, what the files answer in llama.cpp, and what goes wrong how."""

import json
import shutil
import struct
from dataclasses import replace
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
from safetensors.numpy import load_file
from students import SMOLLM2, adapter, row, run_of, sums

from foundry import gguf_header
from foundry.errors import ConfigError, DataError, PublishError
from foundry.hardware import detect
from foundry.loading import load_model, load_tokenizer
from foundry.lot import digest_file
from foundry.model.tiny import Tiny
from foundry.package import convert, imatrix
from foundry.package.deployment import Deployment, Pattern, ToolCall
from foundry.package.gguf import Gguf
from foundry.package.llama import Llama
from foundry.package.parity import Bounds, Parity
from foundry.records import Checkpoint

EXACT = Bounds(kl=1e-3, top1=0.99, answers=1.0, drop=0.0)
FEW = Parity(prompts=2, golden=("What now?",), places=2, max_new_tokens=3, merged=EXACT, f16=EXACT, q8_0=EXACT)
QUICK = {"parity": FEW, "deployment": Deployment(rounds=1), "context": 256}
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 9}}, "required": ["n"]}

LAYERS = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")

needs_llama_cpp = pytest.mark.skipif(find_spec("llama_cpp") is None, reason="K-quants need llama-cpp-python")


@pytest.fixture(scope="module")
def packaged(lora, tmp_path_factory):
    """A package with all that is made from prebuilt packages, and its run."""
    run = run_of(lora, tmp_path_factory.mktemp("packaged") / "run")
    tests = Deployment(
        tool_call=ToolCall(prompt="Call it", json_schema=SCHEMA, max_new_tokens=48),
        style=Pattern(prompt="Say it", pattern=r"\A.*\Z"),
        max_memory_gb=8.0,
        rounds=1,
    )
    made = run.package(Gguf(name="small", keep_f16=True, adapter_gguf=True, **QUICK | {"deployment": tests}))
    return run, made


@pytest.mark.slow
def test_everything_is_there_whole_with_its_checksum(packaged):
    run, made = packaged
    folder = run.folder / "package"
    wanted = {
        "model-F16.gguf", "model-Q8_0.gguf", "adapter.gguf", "Modelfile", "eval_log.md", "lifecycle.svg",
        "lifecycle.png",
    }  # fmt: skip
    assert {path.name for path in folder.iterdir()} == wanted | {"SHA256SUMS"}
    assert sums(folder) == {name: digest_file(folder / name) for name in wanted}
    assert made.files == {f"package/{path.name}": digest_file(path) for path in folder.iterdir()}
    assert not list(run.folder.glob(".package*"))


@pytest.mark.slow
def test_every_step_answers_as_the_student(packaged):
    run, made = packaged
    assert made.unmet == ""
    page = (run.folder / "package" / "eval_log.md").read_text()
    for step in ("student", "merged", "F16", "Q8_0", "adapter"):
        assert f"\n| {step} |" in page
    assert "| tool call |" in page
    assert "| peak memory |" in page
    assert "**Passed**" in page


@pytest.mark.slow
def test_the_examination_measured_the_fused_model_and_each_file(packaged):
    run, _ = packaged
    kinds = ["checkpoint" if isinstance(subject, Checkpoint) else "file" for subject in run.judged]
    assert kinds == ["checkpoint", "file", "file", "file"]


@pytest.mark.slow
def test_q8_0_is_what_arithmetic_says_of_f16(packaged):
    """Blocks of 32: scale = largest magnitude / 127 as f16, values rounded away from zero at halves."""
    import numpy as np

    run, _ = packaged
    folder = run.folder / "package"
    header16, header8 = (gguf_header.read(folder / f"model-{kind}.gguf") for kind in ("F16", "Q8_0"))
    content16, content8 = ((folder / f"model-{kind}.gguf").read_bytes() for kind in ("F16", "Q8_0"))
    name = "blk.1.ffn_down.weight"
    one, other = header16.tensors[name], header8.tensors[name]
    assert (one.kind, other.kind) == (1, 8)
    begin = header16.data + one.offset
    blocks = np.frombuffer(content16[begin : begin + one.size], np.float16).astype(np.float32).reshape(-1, 32)
    scale = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
    exact = blocks * np.where(scale == 0, 0, 1 / scale)
    values = np.sign(exact) * np.floor(np.abs(exact) + 0.5)
    begin = header8.data + other.offset
    expected = b"".join(
        struct.pack("<e32b", float(np.float16(s[0])), *map(int, v)) for s, v in zip(scale, values, strict=True)
    )
    assert content8[begin : begin + other.size] == expected


@pytest.mark.slow
def test_the_modelfile_has_the_training_rows_system_prompt(packaged):
    run, _ = packaged
    text = (run.folder / "package" / "Modelfile").read_text()
    for line in ("FROM ./model-Q8_0.gguf", 'SYSTEM """Be brief."""', 'PARAMETER stop "<|im_end|>"'):
        assert line in text.splitlines()
    assert "PARAMETER temperature 0" in text.splitlines()


@pytest.mark.slow
def test_the_picture_says_what_flowed(packaged):
    run, _ = packaged
    svg = (run.folder / "package" / "lifecycle.svg").read_text()
    for words in ("10 rows", "8 rows", "1 repeats removed", "1 overlaps dropped", "score 0.25 → 0.5", "gate passed"):
        assert words in svg
    assert (run.folder / "package" / "lifecycle.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_same_student_gives_the_same_files(packaged, lora, tmp_path):
    run, _ = packaged
    again = run_of(lora, tmp_path / "again")
    again.package(Gguf(name="small", **QUICK))
    before, after = sums(run.folder / "package"), sums(again.folder / "package")
    assert before["model-Q8_0.gguf"] == after["model-Q8_0.gguf"]
    assert before["Modelfile"] == after["Modelfile"]


@pytest.mark.slow
def test_a_step_that_answers_otherwise_is_named(run):
    strict = FEW.model_copy(update={"q8_0": Bounds(kl=0.0)})
    made = run.package(Gguf(**QUICK | {"parity": strict}))
    assert made.unmet.startswith("package: Q8_0: divergence")
    assert made.unmet.endswith("the difference arose between merged and Q8_0")
    assert "**Not met**" in (run.folder / "package" / "eval_log.md").read_text()
    assert "gate not met" in (run.folder / "package" / "lifecycle.svg").read_text()


@needs_llama_cpp
@pytest.mark.slow
def test_k_quants_heed_an_importance_matrix(tmp_path):
    """256 columns at least: blocks of K-quants have so many."""
    wide = Tiny(tokenizer_of=SMOLLM2, hidden_size=256, layers=1).fetch()
    file, matrix = tmp_path / "f16.gguf", tmp_path / "imatrix.safetensors"
    convert.convert(wide.path, file, "F16", "wide")
    machine = detect("cpu", "fp32", 1)
    seen = imatrix.write(load_model(wide.path, machine), load_tokenizer(wide.path), [row(1), row(2)], matrix, 256)
    assert 20 < seen < 200
    found = load_file(matrix)
    assert found.keys() == {*(f"blk.0.{name}.weight" for name in LAYERS), "output.weight"}
    assert found["blk.0.ffn_down.weight"].shape == (512,)
    made = []
    for number, given in enumerate((None, matrix)):
        made.append(tmp_path / f"{number}.gguf")
        convert.quantise(file, made[-1], "Q4_K_M", given, 1)
    assert {tensor.kind for tensor in gguf_header.read(made[1]).tensors.values()} == {0, 12, 14}, "f32, Q4_K and Q6_K"
    assert digest_file(made[0]) != digest_file(made[1])


@pytest.mark.slow
def test_dora_is_fused_but_has_no_adapter_file(base, tmp_path):
    run = run_of(adapter(base, tmp_path / "dora", use_dora=True), tmp_path / "run")
    made = run.package(Gguf(adapter_gguf=True, quantization=(), **QUICK))
    assert made.unmet == ""
    assert not (run.folder / "package" / "adapter.gguf").exists()
    assert "no DoRA" in (run.folder / "package" / "eval_log.md").read_text()


def nothing_left(run):
    return not (run.folder / "package").exists() and not list(run.folder.glob(".package*"))


def changed_base(base, folder, file, change):
    """A copy of the base with one of its JSON files changed."""
    shutil.copytree(base.path, folder)
    content = json.loads((folder / file).read_text())
    change(content)
    (folder / file).write_text(json.dumps(content))
    return replace(base, path=folder)


def test_an_architecture_that_the_converter_does_not_know(base, run, tmp_path):
    other = changed_base(base, tmp_path / "b", "config.json", lambda c: c.update(architectures=["NewForCausalLM"]))
    packager = Gguf(**QUICK)
    with pytest.raises(DataError, match="does not know the architecture NewForCausalLM"):
        packager.check(other)
    with pytest.raises(DataError, match="NewForCausalLM"):
        run.package(packager, checkpoint=replace(run.checkpoint, base=other))
    assert nothing_left(run)


@pytest.mark.slow
def test_a_tokenizer_that_the_converter_rejects(run, tmp_path):
    folder = tmp_path / "adapter"
    shutil.copytree(run.checkpoint.path, folder)
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    content["pre_tokenizer"] = {"type": "Whitespace"}
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"merged → model-F16\.gguf: .*pre-tokenizer was not recognized"):
        run.package(Gguf(**QUICK), checkpoint=replace(run.checkpoint, path=folder))
    assert nothing_left(run)


def test_an_adapter_of_another_base(run):
    other = replace(run.checkpoint, base=replace(run.checkpoint.base, name="another"))
    with pytest.raises(DataError, match="an adapter for tiny, not for another"):
        run.package(Gguf(**QUICK), checkpoint=other)
    assert nothing_left(run)


def test_too_little_disk_is_told_before_anything_is_written(run, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=100, used=90, free=10))
    with pytest.raises(PublishError, match="needed on disk"):
        run.package(Gguf(**QUICK))
    assert nothing_left(run)


def test_a_disk_that_fills_up_on_the_way(run, monkeypatch):
    from foundry.package import chain

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(chain, "fuse", full)
    with pytest.raises(PublishError, match="No space left"):
        run.package(Gguf(**QUICK))
    assert nothing_left(run)


@pytest.mark.parametrize(("hidden", "says"), [("xllamacpp", r"\[gguf\]"), ("llama_cpp", r"\[gguf-quant\]")])
def test_a_missing_package_is_told_before_training(base, monkeypatch, hidden, says):
    monkeypatch.setattr(convert, "find_spec", lambda name: None if name == hidden else find_spec(name))
    with pytest.raises(ConfigError, match=f"needs .*{hidden.replace('_', '.')}.*{says}"):
        Gguf(quantization=("Q4_K_M",)).check(base)


@pytest.mark.slow
def test_a_file_that_llama_cpp_does_not_load_ends_only_the_server(packaged, tmp_path):
    run, _ = packaged
    broken = tmp_path / "broken.gguf"
    broken.write_bytes((run.folder / "package" / "model-Q8_0.gguf").read_bytes()[:-100_000])
    with (
        pytest.raises(DataError, match=r"broken\.gguf: llama\.cpp does not load it"),
        Llama(broken, threads=1, context=64),
    ):
        pass


@pytest.mark.slow
def test_ollama_is_run_where_it_is_installed(packaged, tmp_path, monkeypatch):
    from foundry.package import ollama

    run, _ = packaged
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ollama.create(run.folder / "package", "small") == "not installed"
    program = tmp_path / "ollama"
    program.write_text('#!/bin/sh\necho "$@" > "$OLLAMA_SAID"\n[ "$2" = small ] || { echo "bad name" >&2; exit 1; }\n')
    program.chmod(0o755)
    monkeypatch.setenv("OLLAMA_SAID", str(tmp_path / "said"))
    assert ollama.create(run.folder / "package", "small") == "created small"
    assert (tmp_path / "said").read_text() == "create small -f Modelfile\n"
    with pytest.raises(PublishError, match="ollama create other: bad name"):
        ollama.create(run.folder / "package", "other")


@pytest.mark.slow
def test_rows_without_prompts_leave_the_golden_ones(run):
    made = run.package(Gguf(quantization=(), **QUICK), learnt=[{"text": "Only text."}], held_out=[])
    assert made.unmet == ""
    text = (run.folder / "package" / "Modelfile").read_text()
    assert 'SYSTEM """You are a helpful AI assistant' in text
    assert text.startswith("FROM ./model-F16.gguf\n"), "without quantisations the 16-bit file stays"
