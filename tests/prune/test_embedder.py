"""Vectors: cached once, whole, the same on the second run; and sentence models run by transformers."""

import json
import threading

import numpy as np
import pytest

from foundry.errors import ConfigError, DataError
from foundry.hardware import Machine
from foundry.prune import embedder as module
from foundry.prune.embedder import Embedder, embedded
from foundry.prune.sentence_model import SentenceModel, find
from foundry.prune.vectors import VectorCache, key

CPU = Machine("cpu", "fp32", 2, "test", 2**33, 2**33)
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefgh"]


class Counting(Embedder):
    """A vector drawn from the text, far from length one; remembers what it was asked."""

    name, digest = "counting", "d" * 64

    def __init__(self):
        self.asked = []

    def embed(self, texts):
        self.asked += texts
        draws = [np.random.default_rng(list(text.encode())).normal(size=8) * 50 for text in texts]
        return np.array(draws, np.float32)


def test_texts_are_embedded_once_and_come_back_in_order(monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", 3)
    monkeypatch.setattr(module, "_SHARD", 6)
    first, second = Counting(), Counting()
    texts = [f"text {number}" for number in range(20)]
    before = embedded(first, texts[:13])
    np.testing.assert_allclose(np.linalg.norm(before, axis=1), 1, atol=1e-6)
    wanted = first.embed(texts[:13])
    np.testing.assert_allclose(before, wanted / np.linalg.norm(wanted, axis=1, keepdims=True), atol=3e-4)
    after = embedded(second, texts[::-1])
    assert sorted(second.asked) == sorted(texts[13:])
    assert (after[::-1][:13] == before).all()


def test_a_killed_run_keeps_the_shards_it_had_written(monkeypatch, cache):
    monkeypatch.setattr(module, "_CHUNK", 2)
    monkeypatch.setattr(module, "_SHARD", 4)
    broken, again = Counting(), Counting()

    def fail(texts, embed=broken.embed):
        if len(broken.asked) >= 6:
            raise KeyboardInterrupt
        return embed(texts)

    broken.embed = fail
    texts = [f"text {number}" for number in range(10)]
    with pytest.raises(KeyboardInterrupt):
        embedded(broken, texts)
    embedded(again, texts)
    assert sorted(again.asked) == texts[4:]
    assert not list(cache.rglob(".*"))


def test_writers_do_not_disturb_each_other():
    def write(start):
        for number in range(start, start + 20):
            store.add([key(str(number))], np.full((1, 4), number, np.float16))

    store = VectorCache("x")
    threads = [threading.Thread(target=write, args=(start,)) for start in (0, 10, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    places, vectors = store.find([key(str(number)) for number in range(45)])
    assert vectors[places[:40], 0].tolist() == list(range(40))
    assert (places[40:] == -1).all()


@pytest.mark.parametrize("damage", ["keys.npy", "vectors.npy"])
def test_a_damaged_shard_is_made_again(cache, damage):
    embedded(Counting(), ["a", "b"])
    path = next(cache.rglob(damage))
    path.write_bytes(path.read_bytes()[:40])
    again = Counting()
    embedded(again, ["a", "b"])
    assert again.asked == ["a", "b"]


def test_a_cache_that_cannot_be_written_costs_only_a_warning(cache, capsys):
    cache.parent.mkdir()
    cache.write_text("a file where the folder should be")
    assert embedded(Counting(), ["a"]).shape == (1, 8)
    assert "not kept" in capsys.readouterr().err


def model_folder(folder, pooling="mean", window=8, **changed):
    """A BERT of two layers and size 32 with random weights, laid out as sentence-transformers does."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(WORDS), max_position_embeddings=16, **sizes)).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.save(str(folder / "tokenizer.json"))
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    parts = [
        {"idx": i, "path": path, "type": f"sentence_transformers.models.{kind}"} for i, (path, kind) in enumerate(kinds)
    ]
    ways = {f"pooling_mode_{way}": way.startswith(pooling) for way in ("cls_token", "mean_tokens", "max_tokens")}
    (folder / "1_Pooling").mkdir()
    written = {
        "modules.json": parts,
        "1_Pooling/config.json": ways,
        "sentence_bert_config.json": {"max_seq_length": window, "do_lower_case": True},
    }
    for name, content in (written | changed).items():
        (folder / name).write_text(json.dumps(content))
    return folder


def states(folder, ids):
    """Last hidden states of one text alone, straight from transformers."""
    import torch
    from transformers import BertModel

    with torch.inference_mode():
        return BertModel.from_pretrained(folder).eval()(torch.tensor([ids])).last_hidden_state[0].numpy()


def direction(vector):
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_sentence_model_gives_what_transformers_gives_for_each_text_alone(tmp_path, pooling):
    folder = model_folder(tmp_path, pooling)
    vectors = SentenceModel(folder, CPU, "tiny").embed(["a B c", "d", "", "a a a a a a"])
    for vector, ids in zip(vectors, ([4, 5, 6], [7], [], [4] * 6), strict=True):
        alone = states(folder, [2, *ids, 3])
        wanted = alone.mean(0) if pooling == "mean" else alone[0]
        np.testing.assert_allclose(direction(vector), direction(wanted), atol=1e-5)


def test_a_text_longer_than_the_window_is_embedded_whole(tmp_path):
    folder = model_folder(tmp_path, window=8)
    long = SentenceModel(folder, CPU, "tiny").embed(["a b c d e f g h a"])[0]
    parts = [states(folder, [2, *range(4, 10), 3]), states(folder, [2, 10, 11, 4, 3])]
    wanted = sum(len(part) * direction(part.mean(0)) for part in parts)
    np.testing.assert_allclose(direction(long), direction(wanted), atol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_vector_does_not_depend_on_the_batch(tmp_path, monkeypatch, precision):
    draw = np.random.default_rng(0)
    texts = [" ".join(draw.choice(list("abcdefgh"), draw.integers(1, 12))) for _ in range(60)]
    machine = Machine("cpu", precision, 2, "test", 2**33, 2**33)
    model = SentenceModel(model_folder(tmp_path), machine, "tiny")
    together = model.embed(texts)
    monkeypatch.setattr("foundry.prune.sentence_model._TOKENS", 1)
    alone = model.embed(texts)
    np.testing.assert_allclose(together, alone, atol=1e-6 if precision == "fp32" else 2e-2, rtol=0)
    assert (model.embed(texts[::-1])[::-1] == alone).all()


def test_the_digest_names_all_that_vectors_depend_on(tmp_path):
    folders = {}
    for name, chosen in {"a": {}, "b": {}, "cls": {"pooling": "cls"}, "window": {"window": 6}}.items():
        folders[name] = model_folder(tmp_path / name, **chosen) if (tmp_path / name).mkdir() is None else None
    digests = {name: SentenceModel(folder, CPU, "x").digest for name, folder in folders.items()}
    assert digests["a"] == digests["b"]
    half = SentenceModel(folders["a"], Machine("cpu", "bf16", 2, "test", 1, 1), "x")
    assert len({*digests.values(), half.digest}) == 4
    assert half.exact().digest == digests["a"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"1_Pooling/config.json": {"pooling_mode_max_tokens": True}}, "pools by"),
        ({"modules.json": [{"path": "", "type": "x.Transformer"}, {"path": "2", "type": "x.Dense"}]}, "Dense"),
        ({"config.json": {"auto_map": {"AutoModel": "code.Model"}}}, "auto_map"),
    ],
)
def test_models_that_are_refused(tmp_path, changed, said):
    with pytest.raises(DataError, match=said):
        SentenceModel(model_folder(tmp_path, **changed), CPU, "tiny")


def test_pickled_weights_are_refused(tmp_path):
    folder = model_folder(tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(DataError, match="safetensors"):
        SentenceModel(folder, CPU, "tiny")


def test_names_are_found_here_before_the_hub(tmp_path):
    assert find(str(tmp_path), None) == tmp_path
    assert find("package://foundry/prune", None).name == "prune"
    with pytest.raises(ConfigError, match="hub"):
        find("sentence-transformers/nothing-like-this", None)
