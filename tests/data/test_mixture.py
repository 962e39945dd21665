"""Sources mixed by weight, and a mixture composed on the command line."""

import json

import pytest
from pydantic import ValidationError

from foundry.data.files import Files
from foundry.data.mixture import Mixture
from foundry.data.reasoning_gym import ReasoningGym
from foundry.errors import DataError


@pytest.fixture
def part(tmp_path):
    def make(name, count, eval_fraction=0.0, shift=1, **settings):
        rows = [{"question": f"{name} {i * shift % count}", "answer": "a"} for i in range(count)]
        path = tmp_path / f"{name}{shift}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return Files(path=str(path), eval_fraction=eval_fraction, **settings)

    return make


def asked(rows):
    return [row["prompt"][0]["content"] for row in rows]


def counts(rows):
    names = [question.split()[0] for question in asked(rows)]
    return {name: names.count(name) for name in sorted(set(names))}


def test_weights_are_shares_and_no_row_comes_twice(part):
    parts = {"a": part("a", 100), "b": part("b", 300)}
    mixed = Mixture(parts=parts, weights={"a": 1.0, "b": 2.0}).load()
    assert counts(mixed.train) == {"a": 100, "b": 200}
    assert len(set(asked(mixed.train))) == 300
    assert counts(Mixture(parts=parts).load().train) == {"a": 100, "b": 100}
    assert counts(Mixture(parts=parts, weights={"b": 0.5}, limit=30).load().train) == {"a": 20, "b": 10}
    assert tuple(mixed.notes[:2]) == ("a: 100 of 100 rows", "a: a1.jsonl: 100 question_answer")


def test_parts_are_mixed_through_and_the_order_of_files_and_parts_does_not_matter(part):
    first = Mixture(parts={"a": part("a", 100), "b": part("b", 300)}, limit=50).load()
    second = Mixture(parts={"b": part("b", 300, shift=7), "a": part("a", 100, shift=3)}, limit=50).load()
    assert list(first.train) == list(second.train)
    assert first.sha256 == second.sha256
    assert set(counts(first.train[:20])) == {"a", "b"}
    assert Mixture(parts={"a": part("a", 100), "b": part("b", 300)}, limit=50, seed=2).load().sha256 != first.sha256


def test_what_one_part_holds_out_no_other_part_trains_on(part):
    parts = {"held": part("a", 100, eval_fraction=0.3), "all": part("a", 100, shift=3)}
    mixed = Mixture(parts=parts).load()
    assert mixed.eval
    assert not set(asked(mixed.eval)) & set(asked(mixed.train))
    assert f"{len(mixed.eval)} held out elsewhere" in "".join(mixed.notes)


def test_any_source_can_be_a_part(part):
    gym = ReasoningGym(task="syllogism", size=20, eval_size=5)
    mixed = Mixture(parts={"gym": gym, "own": part("own", 10)}).load()
    assert (len(mixed.train), len(mixed.eval), mixed.name) == (20, 5, "gym+own")


def test_shapes_that_differ_are_a_data_error(part, tmp_path):
    (tmp_path / "t.jsonl").write_text('{"text": "t"}\n')
    text = Files(path=str(tmp_path / "t.jsonl"), eval_fraction=0.0)
    with pytest.raises(DataError, match="a has instruction rows, t has text rows"):
        Mixture(parts={"a": part("a", 5), "t": text}).load()


def test_a_part_without_rows_to_give_is_a_data_error(part, tmp_path):
    source = part("a", 100, eval_fraction=0.3)
    held = [{"question": question, "answer": "a"} for question in asked(source.load().eval)]
    (tmp_path / "held.jsonl").write_text("".join(json.dumps(row) + "\n" for row in held))
    other = Files(path=str(tmp_path / "held.jsonl"), eval_fraction=0.0)
    with pytest.raises(DataError, match=rf"no training row is left.*a {100 - len(held)}, b 0"):
        Mixture(parts={"a": source, "b": other}).load()


def test_weights_name_parts_and_are_positive(part):
    with pytest.raises(ValidationError, match="did you mean 'logic'"):
        Mixture(parts={"logic": part("a", 1)}, weights={"lojic": 1.0})
    with pytest.raises(ValidationError, match="more than 0"):
        Mixture(parts={"a": part("a", 1)}, weights={"a": 0.0})


def test_a_mixture_is_composed_from_options_on_the_command_line(tmp_path):
    from foundry.train import compose

    (tmp_path / "rows.jsonl").write_text('{"question": "q", "answer": "a"}\n')
    words = [
        "data=mixture",
        "+data@data.parts.logic=syllogism",
        "+data@data.parts.own=jsonl",
        f"data.parts.own.path={tmp_path / 'rows.jsonl'}",
        "+data.weights={logic: 3.0, own: 1.0}",
    ]
    mixture = compose(words).data
    assert (type(mixture.parts["logic"]), mixture.parts["own"].format) == (ReasoningGym, "auto")
    assert mixture.weights == {"logic": 3.0, "own": 1.0}
