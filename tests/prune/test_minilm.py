"""SemDeDup with the model it comes with, on sentences that people would write."""

import pytest

from foundry.lot import digest_rows
from foundry.prune.semdedup import SemDeDup
from foundry.records import Dataset

pytestmark = pytest.mark.slow
EGG = "Put the egg into boiling water for eight minutes, then cool it under cold running water."
ROWS = {
    "plain": ("How long do I boil an egg?", EGG),
    "case": ("HOW LONG DO I BOIL AN EGG?", EGG.upper()),
    "punctuation": ("How long do I boil an egg", EGG.replace(",", "").replace(".", "")),
    "one word": ("How long do I boil an egg?", EGG.replace("running", "tap")),
    "other answer": ("How long do I boil an egg?", "Eggs should never be boiled at all."),
    "paraphrase": ("What is the cooking time of a hard-boiled egg?", "Eight minutes in hot water, and chill it after."),
    "unrelated": ("What is the capital of France?", "The capital of France is Paris."),
}


def dataset(names):
    rows = [
        {"prompt": [{"role": "user", "content": q}], "completion": [{"role": "assistant", "content": a}]}
        for q, a in (ROWS[name] for name in names)
    ]
    return Dataset("d", "instruction", rows, [], digest_rows(rows), digest_rows([]))


def test_near_copies_go_and_everything_else_stays():
    names = list(ROWS)
    pruned = SemDeDup(keep="first").prune(dataset(names))
    assert {names[r.index]: names[r.representative] for r in pruned.removed} == dict.fromkeys(
        ("case", "punctuation", "one word"), "plain"
    )
    asked = SemDeDup(keep="first", text="prompt").prune(dataset(names))
    assert "other answer" in {names[r.index] for r in asked.removed}, "prompts alone are the same"


@pytest.mark.parametrize("tokens", [1, 64])
def test_neither_batch_size_nor_order_changes_what_stays(monkeypatch, tmp_path, tokens):
    wanted = SemDeDup().prune(dataset(ROWS))
    monkeypatch.setenv("FOUNDRY_CACHE", str(tmp_path / "other"))
    monkeypatch.setattr("foundry.prune.sentence_model._TOKENS", tokens)
    found = SemDeDup().prune(dataset(list(ROWS)[::-1]))
    assert found.sha256 == wanted.sha256
    assert sorted(r.similarity for r in found.removed) == pytest.approx(
        sorted(r.similarity for r in wanted.removed), abs=5e-3
    )
