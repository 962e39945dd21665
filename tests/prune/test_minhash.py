"""MinHash: banding finds candidates, true Jaccard similarity decides."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foundry.errors import ConfigError
from foundry.lot import digest_rows
from foundry.prune.minhash import MinHash
from foundry.records import Dataset

WORDS = [f"w{number}" for number in range(400)]
TEXTS = st.lists(st.lists(st.sampled_from(WORDS[:4]), max_size=12).map(" ".join), max_size=12)
ordinary = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def dataset(texts):
    rows = [{"text": text} for text in texts]
    return Dataset("d", "text", rows, [], digest_rows(rows), digest_rows([]))


def shingles(text, size):
    words = text.lower().replace(".", "").replace(",", "").split()
    return {tuple(words[start : start + size]) for start in range(max(1, len(words) - size + 1))}


def jaccard(first, second, size=5):
    a, b = shingles(first, size), shingles(second, size)
    return len(a & b) / len(a | b)


def copies(seed, changed):
    """Sixty texts of 200 words, and for each a copy with this many words exchanged."""
    draw = random.Random(seed)
    texts = [draw.choices(WORDS, k=200) for _ in range(60)]
    out = []
    for text in texts:
        copy = text.copy()
        for place in draw.sample(range(200), changed):
            copy[place] = "other"
        out.append(" ".join(copy))
    return [" ".join(text) for text in texts], out


@pytest.mark.parametrize("changed", [0, 1, 3])
def test_near_copies_of_long_texts_are_found_with_their_true_similarity(changed):
    texts, near = copies(changed, changed)
    near = [text.upper() + "." for text in near]
    pruned = MinHash(keep="first").prune(dataset(texts + near))
    assert len(pruned.removed) == 60
    for removed in pruned.removed:
        assert removed.index == removed.representative + 60
        assert removed.similarity == pytest.approx(
            jaccard(texts[removed.representative], near[removed.index - 60]), abs=1e-4
        )


def test_candidates_below_the_threshold_stay():
    texts, near = copies(1, 6)
    similar = [jaccard(a, b) for a, b in zip(texts, near, strict=True)]
    pruned = MinHash(threshold=0.75, keep="first").prune(dataset(texts + near))
    assert {removed.index - 60 for removed in pruned.removed} <= {i for i, value in enumerate(similar) if value > 0.75}
    assert 0 < len(pruned.removed) < 60
    assert min(similar) < 0.75 < max(similar)


@ordinary
@given(TEXTS, st.data())
def test_order_does_not_matter_and_pruning_again_removes_nothing(texts, data):
    pruner = MinHash(threshold=0.5, ngram=2)
    pruned = pruner.prune(dataset(texts))
    assert pruner.prune(dataset(data.draw(st.permutations(texts)))).sha256 == pruned.sha256
    assert not pruner.prune(dataset([row["text"] for row in pruned.rows])).removed
    for removed in pruned.removed:
        assert {"text": texts[removed.representative]} in list(pruned.rows)


def test_the_longest_or_the_first_stays():
    texts = ["one two three four five six seven", "one two three four five six seven!!!"]
    assert [row["text"] for row in MinHash().prune(dataset(texts)).rows] == [texts[1]]
    assert [row["text"] for row in MinHash(keep="first").prune(dataset(texts)).rows] == [texts[0]]


def test_characters_see_what_words_do_not():
    texts = ["the quick brown fox jumps over the lazy dog again", "thequick brown fox jumps over the lazy dog again"]
    assert len(MinHash(threshold=0.7).prune(dataset(texts)).removed) == 0
    assert len(MinHash(threshold=0.7, shingle="char").prune(dataset(texts)).removed) == 1


def test_answers_must_be_near_too():
    text = " ".join(WORDS[:60])
    rows = [{"prompt": text, "completion": "Yes"}, {"prompt": text + " x", "completion": "No"}]
    data = Dataset("d", "instruction", rows, [], "", "")
    assert len(MinHash().prune(data).removed) == 0
    assert len(MinHash(text="prompt").prune(data).removed) == 1


def test_at_one_only_exact_repeats_go():
    pruned = MinHash(threshold=1.0).prune(dataset(["a b c", "A b c", "a b c"]))
    assert [(removed.index, removed.representative) for removed in pruned.removed] == [(2, 0)]


def test_missing_rensa_is_told(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "rensa", None)
    with pytest.raises(ConfigError, match=r"model-foundry\[curate\]"):
        MinHash().prune(dataset(["a", "b"]))
