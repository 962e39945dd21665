"""What must not change the outcome: the order of rows, the files they are cut into, the size of batches."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foundry.data.files import Files
from foundry.prune import embedder, service
from foundry.prune.exact import Exact
from foundry.prune.minhash import MinHash
from foundry.prune.semdedup import SemDeDup

POINTS = st.tuples(st.integers(0, 2), st.integers(0, 60), st.sampled_from(["", " some more words"]))
TEXTS = st.lists(POINTS.map(lambda p: f"{p[0]}/{p[1]}{p[2]}"), min_size=1, max_size=20)
ordinary = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def pruners(service):
    kept = [SemDeDup(embedder=service.url, service_model="fake", keep=keep) for keep in ("central", "hardest")]
    return [*kept, MinHash(threshold=0.5, ngram=1), Exact()]


def load(folder, parts):
    """The rows of these texts, read from as many files."""
    for old in folder.glob("*.jsonl"):
        old.unlink()
    for number, part in enumerate(parts):
        (folder / f"{number}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in part))
    return Files(path=str(folder / "*.jsonl"), eval_fraction=0.0).load()


@ordinary
@given(TEXTS, st.data())
def test_order_and_files_change_neither_hash_nor_what_is_removed(pruners, tmp_path, texts, data):
    shuffled = data.draw(st.permutations(texts))
    cuts = sorted(data.draw(st.lists(st.integers(1, len(texts)), max_size=3, unique=True)))
    parts = [shuffled[a:b] for a, b in zip([0, *cuts], [*cuts, len(texts)], strict=True) if a < b]
    one, several = load(tmp_path, [texts]), load(tmp_path, parts)
    assert one.sha256 == several.sha256
    for pruner in pruners:
        first, second = pruner.prune(one), pruner.prune(several)
        assert first.sha256 == second.sha256
        assert list(first.rows) == list(second.rows)
        assert first.removed == second.removed


@ordinary
@given(TEXTS, st.integers(1, 7))
def test_the_size_of_batches_changes_nothing(pruners, tmp_path, texts, size):
    rows = load(tmp_path, [texts])
    whole = pruners[0].prune(rows)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("FOUNDRY_CACHE", str(tmp_path / f"other-{size}"))
        patched.setattr(embedder, "_CHUNK", size)
        patched.setattr(service, "_TEXTS", max(size // 2, 1))
        parts = pruners[0].prune(rows)
    assert (whole.sha256, whole.removed, whole.nearness) == (parts.sha256, parts.removed, parts.nearness)


@ordinary
@given(TEXTS, st.integers(1, 3))
def test_at_threshold_one_every_pruner_does_what_exact_does(service, tmp_path, texts, copies):
    rows = load(tmp_path, [texts * copies])
    exact = Exact().prune(rows)
    for pruner in (SemDeDup(embedder=service.url, service_model="fake", threshold=1.0), MinHash(threshold=1.0)):
        pruned = pruner.prune(rows)
        assert (pruned.sha256, pruned.removed) == (exact.sha256, exact.removed)
