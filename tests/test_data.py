"""Sources of rows."""

import json
import random
import re

import pytest
from pydantic import ValidationError

from foundry.data.jsonl import Jsonl
from foundry.data.reasoning_gym import ReasoningGym
from foundry.errors import ConfigError, DataError


def syllogisms(**settings):
    return ReasoningGym(task="syllogism", task_settings={"invalid_ratio": 0.5}, **settings)


def question(row):
    return row["prompt"][-1]["content"]


def test_questions_are_the_librarys_own_and_their_answers_verified():
    import reasoning_gym

    dataset = syllogisms(size=30, eval_size=10, seed=5).load()
    drawn = reasoning_gym.create_dataset("syllogism", size=30, seed=5, invalid_ratio=0.5)
    expected = {item["question"]: item["answer"] for item in drawn}
    assert {question(row): row["completion"][0]["content"] for row in dataset.train} == expected


def test_no_question_is_both_trained_on_and_held_out():
    # Few distinct questions: only universal premises and inversions, so that the two draws collide.
    settings = {"allow_some": False, "allow_some_not": False, "inversion_probability": 1.0}
    dataset = ReasoningGym(task="syllogism", task_settings=settings, size=2000, eval_size=800).load()
    held_out = [question(row) for row in dataset.eval]
    assert not {question(row) for row in dataset.train} & set(held_out)
    assert len(held_out) == len(set(held_out))
    assert "dropped" in dataset.notes[0]


def test_classes_are_balanced():
    answers = [row["completion"][0]["content"] for row in syllogisms(size=2000, eval_size=0).load().train]
    assert 0.45 < answers.count("Yes") / len(answers) < 0.55


def test_system_prompt_and_limit():
    dataset = syllogisms(size=20, eval_size=1, limit=3, system_prompt="Be brief.").load()
    assert len(dataset.train) == 3
    assert dataset.train[0]["prompt"][0] == {"role": "system", "content": "Be brief."}


def test_same_seed_same_digest_other_seed_other_digest():
    assert syllogisms(size=20).load().sha256 == syllogisms(size=20).load().sha256
    assert syllogisms(size=20).load().sha256 != syllogisms(size=20, seed=2).load().sha256


@pytest.mark.parametrize(("seed", "size", "eval_seed", "eval_size"), [(0, 10, 9, 1), (5, 1, 0, 6), (3, 4, 3, 4)])
def test_overlapping_seeds_are_refused(seed, size, eval_seed, eval_size):
    with pytest.raises(ValidationError, match="overlap"):
        syllogisms(seed=seed, size=size, eval_seed=eval_seed, eval_size=eval_size)


def test_unknown_task_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'syllogism'"):
        ReasoningGym(task="sylogism").load()


def test_unknown_task_setting_is_a_config_error():
    with pytest.raises(ConfigError, match="task_settings"):
        ReasoningGym(task="syllogism", task_settings={"invalid_ration": 0.5}).load()


GOOD = [
    {"prompt": "Is 2 even?", "completion": "Yes"},
    {"messages": [{"role": "user", "content": "Is 3 even?"}, {"role": "assistant", "content": "No"}]},
    {"prompt": [{"role": "user", "content": "Hi"}], "completion": [{"role": "assistant", "content": "Hello"}]},
]


def write(path, lines):
    path.write_bytes(b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines))
    return str(path)


def test_three_ways_to_write_an_instruction_row_become_one_shape(tmp_path):
    dataset = Jsonl(path=write(tmp_path / "a.jsonl", GOOD), eval_fraction=0.0).load()
    assert dataset.shape == "instruction"
    assert dataset.train[0] == {
        "prompt": [{"role": "user", "content": "Is 2 even?"}],
        "completion": [{"role": "assistant", "content": "Yes"}],
    }
    assert [question(row) for row in dataset.train] == ["Is 2 even?", "Is 3 even?", "Hi"]


BAD = [
    (b"{broken\n", "not JSON"),
    (b"\xff\xfe\n", "not UTF-8"),
    (b"[1, 2]\n", "expected an object"),
    (b"[" * 10_000 + b"\n", "nested too deep|not JSON"),
    ({"prompt": "a", "completion": ""}, "empty"),
    ({"prompt": "a", "completion": "  \n"}, "empty"),
    ({"prompt": "a", "completion": 3}, "expected a list of messages, found int"),
    ({"prompt": "a\0b", "completion": "c"}, "NUL"),
    (b'{"prompt": "\\ud800", "completion": "c"}\n', "surrogate"),
    ({"messages": [{"role": "user", "content": "a"}]}, "ends with the assistant"),
    ({"messages": [{"role": "robot", "content": "a"}, {"role": "assistant", "content": "b"}]}, "robot"),
    ({"messages": []}, "list of messages"),
    ({"messages": ["a", "b"]}, "role and content"),
    ({"question": "a"}, "found the keys question"),
    ({"text": "a"}, "a text row among instruction rows"),
]


@pytest.mark.parametrize(("line", "reason"), BAD, ids=[reason for _, reason in BAD])
def test_a_bad_line_is_quarantined_with_its_number_and_reason(tmp_path, line, reason):
    path = write(tmp_path / "a.jsonl", [GOOD[0], line, GOOD[1]])
    dataset = Jsonl(path=path, eval_fraction=0.0, max_bad_fraction=0.5).load()
    assert len(dataset.train) == 2
    (bad,) = dataset.quarantined
    assert (bad.source, bad.line) == (path, 2)
    assert re.search(reason, bad.reason)


def test_too_many_bad_lines_stop_the_job_and_name_the_first(tmp_path):
    path = write(tmp_path / "a.jsonl", [*GOOD, b"{\n"])
    with pytest.raises(DataError, match=r"a\.jsonl:4"):
        Jsonl(path=path, max_bad_fraction=0.2).load()


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_an_empty_file_is_a_data_error(tmp_path, content):
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match="no usable row"):
        Jsonl(path=str(path)).load()


def test_a_missing_file_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        Jsonl(path=str(tmp_path / "nothing.jsonl")).load()


def test_what_is_held_out_does_not_depend_on_the_order_of_the_file(tmp_path):
    rows = [{"prompt": f"q{i}", "completion": "a"} for i in range(400)]
    first = Jsonl(path=write(tmp_path / "a.jsonl", rows), eval_fraction=0.25).load()
    random.Random(0).shuffle(rows)
    second = Jsonl(path=write(tmp_path / "b.jsonl", rows), eval_fraction=0.25).load()
    assert (first.sha256, first.eval_sha256) == (second.sha256, second.eval_sha256)
    assert 60 < len(first.eval) < 140
    other = Jsonl(path=write(tmp_path / "b.jsonl", rows), eval_fraction=0.25, seed=2).load()
    assert other.eval_sha256 != first.eval_sha256
