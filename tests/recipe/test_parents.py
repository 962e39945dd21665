"""Everything that can be wrong with parents and settings: one clear line, the right exit code, nothing written."""

import contextlib
import io
import json
import math
import re
import shutil

import pytest
import torch
from family import WORDS, adapted, random_model, tokenizer
from safetensors.torch import load_file, save_file

from foundry.lot import digest, digest_file
from foundry.recipe.fusing import LIBRARIES
from foundry.recipe.weights import entries


def merge(folder, *words):
    """Run `foundry merge` in this process, from `folder`."""
    from foundry.__main__ import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["merge", *words])
    return code, out.getvalue(), err.getvalue()


def refused(folder, family, adapters, *words):
    """The one line that is said; nothing is written."""
    before = set(folder.rglob("*"))
    base = [] if any(word.startswith("model") for word in words) else ["model=local", f"model.name={family['base']}"]
    given = [] if adapters is None else [f"recipe.adapters={adapters}"]
    code, _, err = merge(folder, *base, *given, "examine=none", "publish=none", *words)
    assert err.count("\n") == 1, err
    assert err.startswith("foundry: ")
    assert set(folder.rglob("*")) == before
    return code, err


def copied(source, target, **files):
    shutil.copytree(source, target)
    for name, content in files.items():
        (target / name.replace("__", ".")).write_bytes(content)
    return target


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["recipe.adapters=[]"], "recipe: adapters: found 0, expected 1 or more for dare_ties"),
        (["recipe=slerp", "recipe.adapters=[{path: a}]"], "adapters: found 1, expected 2 for slerp"),
        (["recipe=model_stock", "recipe.adapters=[{path: a}]"], "found 1, expected 2 or more for model_stock"),
        (["recipe=passthrough", "recipe.adapters=[{path: a}, {path: b}]"], "adapters: found 2, expected 1"),
        (["recipe.adapters=[{path: a, wieght: 1}]"], "recipe.adapters.0.wieght: unknown key; did you mean 'weight'?"),
        (["recipe=linear", "recipe.adapters=[{path: a, density: 1}]"], "recipe.adapters.0.density: unknown key"),
        (["recipe.adapters=[{path: a, weight: 11}]"], "recipe.adapters.0.weight: found 11, expected 10 or less"),
        (["recipe.adapters=[{path: a, density: 0}]"], "recipe.adapters.0.density: found 0, expected more than 0"),
        (["recipe.adapters=[{path: a}]", "recipe.density=1.1"], "recipe.density: found 1.1, expected 1 or less"),
        (["recipe.adapters=[{path: a}]", "recipe.lambda=2"], "recipe.lambda: unknown key"),
        (["recipe.adapters=[{path: a}]", "recipe.output=adapter"], "output=adapter and rank go together"),
        (["recipe.adapters=[{path: a}]", "recipe.rank=4"], "output=adapter and rank go together"),
        (
            ["recipe=della", "recipe.adapters=[{path: a}]", "recipe.density=0.9"],
            "epsilon: found 0.15 beside density 0.9",
        ),
        (
            ["recipe=linear", "recipe.adapters=[{path: a, weight: 1}, {path: b, weight: -1}]"],
            "adapters: the weights sum to 0",
        ),
        (
            ["recipe=nuslerp", "recipe.adapters=[{path: a}, {path: b}]", "recipe.row_wise=true"],
            "row_wise: has no effect",
        ),
        (["recipe=dare_tis", "recipe.adapters=[{path: a}]"], "recipe=dare_tis: no such option; did you mean"),
        (["recipe=file"], "recipe.path: required, but not given"),
        (["recipe.adapters=[{path: nowhere}]"], "recipe.adapters.0.path: found nothing at 'nowhere'"),
        (["recipe.adapters=[{path: a}]", "method=lora"], "method: unknown key"),
        (["recipe.adapters=[{path: 'nope://x/y'}]"], "recipe.adapters.0.path: nope://x/y: "),
    ],
)
def test_settings(tmp_path, family, words, says):
    code, err = refused(tmp_path, family, None, *words)
    assert code in {2, 4}
    assert says in err


@pytest.mark.parametrize(
    ("swept", "code", "says"),
    [
        ("recipe.adapters.1.path={lora},nowhere", 2, "recipe.adapters.1.path: found nothing at 'nowhere'"),
        ("recipe.adapters.1.path={lora},empty", 4, "recipe.adapters.1.path: "),
    ],
)
def test_a_path_of_a_sweeps_last_job_is_told_before_the_first_one_runs(tmp_path, family, swept, code, says):
    (tmp_path / "empty").mkdir()
    pair = f"[{{path: {family['lora']}}}, {{path: {family['dora']}}}]"
    words = swept.format(lora=family["lora"]).split()
    found, err = refused(tmp_path, family, pair, "-m", *words)
    assert found == code
    assert says in err


def test_a_folder_without_a_model(tmp_path, family):
    (tmp_path / "empty").mkdir()
    assert "no adapter_config.json or config.json" in refused(tmp_path, family, "[{path: empty}]")[1]
    (tmp_path / "empty" / "manifest.yaml").write_text("job_id: x\n")
    code, err = refused(tmp_path, family, "[{path: empty}]")
    assert (code, "the run has not finished" in err) == (4, True)


def test_only_safetensors_are_opened(tmp_path, family):
    pickled = copied(family["lora"], tmp_path / "pickled")
    torch.save({}, pickled / "adapter_model.bin")
    (pickled / "adapter_model.safetensors").unlink()
    code, err = refused(tmp_path, family, "[{path: pickled}]")
    assert (code, "only pickled weights (adapter_model.bin)" in err) == (4, True)


@pytest.mark.parametrize("cut", [0, 4, 100, 5000])
def test_a_broken_file(tmp_path, family, cut):
    whole = (family["lora"] / "adapter_model.safetensors").read_bytes()
    copied(family["lora"], tmp_path / "cut", adapter_model__safetensors=whole[:cut])
    code, err = refused(tmp_path, family, "[{path: cut}]")
    assert (code, "not a safetensors file that can be read" in err) == (4, True)


def test_another_base(tmp_path, family):
    code, err = refused(
        tmp_path, family, f"[{{path: {family['lora']}}}]", "model=local", f"model.name={family['other']}"
    )
    assert code == 4
    assert re.search(r"lora: was made from \S+/base \(weights \w{12}\), not from \S+/other \(weights \w{12}\)", err)


def test_a_base_that_cannot_be_compared_is_a_warning(tmp_path, family):
    settings = json.loads((family["lora"] / "adapter_config.json").read_text()) | {
        "base_model_name_or_path": "some/hub"
    }
    copied(family["lora"], tmp_path / "hub", adapter_config__json=json.dumps(settings).encode())
    words = ["model=local", f"model.name={family['base']}", "recipe.adapters=[{path: hub}]"]
    code, out, err = merge(tmp_path, *words, "examine=none", "publish=none", "dry_run=true")
    assert (code, err.count("\n")) == (0, 1)
    assert "names some/hub as its base and has no lot" in " ".join(err.split())
    assert "the parents fit" in out


def test_what_learnt_on_4_bits_is_a_warning(tmp_path, family):
    model = copied(family["lora"], tmp_path / "run" / "model")
    (tmp_path / "run" / "manifest.yaml").write_text("job_id: few\nmethod: {adapter: {quantize: nf4}}\n")
    weights = {path.name: digest_file(path) for path in family["base"].glob("*.safetensors")}
    files = {f"model/{path.name}": digest_file(path) for path in model.iterdir()}
    contents = {"base": {"name": "few", "files": weights}, "files": files}
    (tmp_path / "run" / "lot.json").write_text(
        json.dumps({"contents": contents, "lot": digest(contents), "sealed": {}})
    )
    words = ["model=local", f"model.name={family['base']}", "recipe.adapters=[{path: run}]"]
    code, _, err = merge(tmp_path, *words, "examine=none", "publish=none", "dry_run=true")
    assert (code, err.count("\n")) == (0, 1)
    assert "learnt on a base in 4 bits (nf4), and is added to" in " ".join(err.split())


def test_another_shape(tmp_path, family):
    wide = random_model(tmp_path / "wide", 0, hidden=64)
    code, err = refused(tmp_path, family, "[{path: wide}]")
    assert code == 4
    assert "model.embed_tokens.weight is 96 × 64" in err
    tensors = load_file(wide / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, wide / "model.safetensors")
    assert "model.norm.weight is missing" in refused(tmp_path, family, "[{path: wide}]")[1]
    adapted(wide, tmp_path / "for-wide", 0, r=2)
    settings = json.loads((tmp_path / "for-wide" / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = str(family["base"])
    (tmp_path / "for-wide" / "adapter_config.json").write_text(json.dumps(settings))
    assert "_proj.weight is " in refused(tmp_path, family, "[{path: for-wide}]")[1]


def test_another_vocabulary(tmp_path, family):
    copied(family["full"], tmp_path / "A")
    tokenizer(tmp_path / "A", {**WORDS, "aa": 1, "ab": 0})
    code, err = refused(tmp_path, family, "[{path: A}]")
    assert (code, "another vocabulary than the base's" in err, "number 0, 'aa'" in err) == (4, True, True)
    tokenizer(tmp_path / "A", eos_token="ac")
    code, err = refused(tmp_path, family, "[{path: A}]")
    assert (code, "eos_token is 'ac', the base's is 'ab'" in err) == (4, True)


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("peft_type", "LOHA", "peft_type is 'LOHA'"),
        ("init_lora_weights", "pissa", "changed the base"),
        ("fan_in_fan_out", True, "fan_in_fan_out is set"),
        ("bias", "all", "trained biases"),
        ("layer_replication", [[0, 2]], "layer_replication is set"),
    ],
)
def test_adapters_of_another_kind(tmp_path, family, setting, value, says):
    settings = json.loads((family["lora"] / "adapter_config.json").read_text()) | {setting: value}
    copied(family["lora"], tmp_path / "A", adapter_config__json=json.dumps(settings).encode())
    code, err = refused(tmp_path, family, "[{path: A}]")
    assert (code, says in err) == (4, True), err


def test_a_factor_without_the_other(tmp_path, family):
    copied(family["lora"], tmp_path / "A")
    tensors = load_file(tmp_path / "A" / "adapter_model.safetensors")
    gone = next(name for name in tensors if "lora_B" in name)
    del tensors[gone]
    save_file(tensors, tmp_path / "A" / "adapter_model.safetensors")
    assert "has a, expected the two factors A and B" in refused(tmp_path, family, "[{path: A}]")[1]
    save_file(
        {**tensors, gone.replace("lora_B", "lora_C"): torch.ones(1)}, tmp_path / "A" / "adapter_model.safetensors"
    )
    assert "belongs to no LoRA, rsLoRA or DoRA adapter" in refused(tmp_path, family, "[{path: A}]")[1]


def test_what_is_only_copied_needs_no_memory_for_fusing(tmp_path, family, monkeypatch):
    """The embedding, twice as large as any other weight here, is not among an adapter's layers."""
    largest = max(math.prod(entry.shape) for entry in entries(family["base"]).values())
    monkeypatch.setattr("foundry.recipe.fusing.free_memory", lambda _: LIBRARIES + 24 * largest)  # 40 to fuse it
    words = ["model=local", f"model.name={family['base']}", "examine=none", "publish=none"]
    code, _, err = merge(tmp_path, *words, f"recipe.adapters=[{{path: {family['lora']}}}]")
    assert code == 0, err


def test_too_little_memory_or_disk(tmp_path, family, monkeypatch):
    chosen = f"[{{path: {family['lora']}}}]"
    with monkeypatch.context() as patch:
        patch.setattr("foundry.recipe.fusing.free_memory", lambda _: 10**6)
        code, err = refused(tmp_path, family, chosen)
    assert (code, "of memory needed for a weight of" in err) == (3, True)
    usage = shutil.disk_usage(tmp_path)._replace(free=10**6)
    monkeypatch.setattr("foundry.hardware.shutil.disk_usage", lambda _: usage)
    code, err = refused(tmp_path, family, chosen)
    assert (code, "needed on disk" in err) == (3, True)


def test_mergekit_missing_is_said(tmp_path, family, monkeypatch):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *rest: None if name == "mergekit" else real(name, *rest)
    )
    code, err = refused(tmp_path, family, f"[{{path: {family['lora']}}}]")
    assert (code, "pip install 'model-foundry[merge]'" in err) == (2, True)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("nothing", "expected a mapping with a merge_method"),
        ({"merge_method": "tis", "models": [{"model": "LORA"}]}, "no method 'tis'; did you mean 'ties'?"),
        ({"merge_method": "ties", "modles": []}, "names no model beside"),
        (
            {"merge_method": "ties", "models": [{"model": "LORA"}], "dtpye": "x"},
            "dtpye: unknown key; did you mean",
        ),
        (
            {"merge_method": "ties", "models": [{"model": "LORA", "parameters": {"densty": 1}}]},
            "models.0.parameters.densty: unknown key; did you mean 'density'?",
        ),
        ({"merge_method": "ties", "models": [{"model": "LORA", "wieght": 1}]}, "models.0.wieght: unknown key"),
        ({"merge_method": "ties", "models": [{"model": "gone"}]}, "models.0.model: found nothing at 'gone'"),
        ({"merge_method": "ties", "models": [{"model": "LORA"}], "slices": [{"sources": []}]}, "Exactly one of"),
    ],
)
def test_a_file_of_mergekit_s_is_checked_key_by_key(tmp_path, family, content, says):
    text = json.dumps(content).replace("LORA", f"{family['base']}+{family['lora']}")
    (tmp_path / "m.yml").write_text(text)
    code, err = refused(tmp_path, family, None, "recipe=file", "recipe.path=m.yml")
    assert (code, says in err) == (2, True), err
