"""Metrics on answers: what counts as right, by every way of matching, by reasoning-gym itself, and by a JSON schema."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from foundry.data.reasoning_gym import ReasoningGym
from foundry.errors import DataError
from foundry.examine.logic_score import LogicScore
from foundry.examine.matching import read_number
from foundry.examine.tool_json import ToolJson


def asked(answer, **more):
    row = {"prompt": [{"role": "user", "content": "?"}], "completion": [{"role": "assistant", "content": answer}]}
    return {**row, **more}


def right(metric, wanted, said, **more):
    return metric.score([asked(wanted, **more)], [said]).right == [True]


@pytest.mark.parametrize(
    ("metric", "wanted", "said", "is_right"),
    [
        (LogicScore(match="exact"), "Paris", " paris. ", True),
        (LogicScore(match="exact"), "Paris", "It is Paris", False),
        (LogicScore(match="exact"), "two  words", "Two words!", True),
        (LogicScore(match="numeric"), "so 41 + 1 = 42", "The answer is 42.", True),
        (LogicScore(match="numeric"), "1,234.5", "about $1234.50", True),
        (LogicScore(match="numeric"), "-3", "it is \N{MINUS SIGN}3", True),
        (LogicScore(match="numeric"), "42", "between 42 and 43", False),
        (LogicScore(match="numeric"), "42", "forty-two", False),
        (LogicScore(match="numeric"), "0.5", ".5", True),
        (LogicScore(match="regex", pattern=r"answer: (\w)"), "Answer: B", "I think so. ANSWER: b, surely", True),
        (LogicScore(match="regex", pattern=r"answer: (\w)"), "Answer: B", "B", False),
        (LogicScore(match="regex", pattern=r"[A-D]\b"), "C", "(c) is it", True),
    ],
)
def test_ways_of_matching(metric, wanted, said, is_right):
    assert right(metric, wanted, said) is is_right


@given(st.integers(-(10**12), 10**12), st.text("abc $€.,!?", max_size=8))
def test_a_number_is_read_out_of_any_words(number, words):
    assert read_number(f"{words} it is {number:,}") == number
    assert read_number(f"{words} = {number}") == number


@pytest.mark.parametrize("settings", [{"match": "regex"}, {"pattern": "x"}, {"match": "regex", "pattern": "("}])
def test_a_pattern_belongs_to_regex(settings):
    with pytest.raises(ValidationError, match="pattern"):
        LogicScore(**settings)


@pytest.mark.parametrize(
    ("metric", "row", "says"),
    [
        (LogicScore(match="numeric"), asked("none"), "whose answer has a number; row 1 is answered 'none'"),
        (LogicScore(match="regex", pattern="x"), asked("y"), "whose answer has the pattern"),
        (LogicScore(match="task"), asked("y"), "of reasoning-gym"),
        (LogicScore(match="exact"), {"text": "t"}, "row 1 has no prompt, only text"),
        (ToolJson(), asked("y"), "row 1 has no schema"),
        (ToolJson(), asked("y", schema={"type": "no such type"}), "not a sound JSON schema"),
    ],
)
def test_rows_that_cannot_be_asked_are_told_with_the_metrics_name(metric, row, says):
    good = {"schema": {}, "task": {}}
    with pytest.raises(DataError, match=rf"examine\.metrics\.mine: .*{says}"):
        metric.check([asked("x 1", **good), row], "mine")


@pytest.mark.parametrize("task", ["chain_sum", "family_relationships", "letter_jumble"])
def test_reasoning_gym_judges_its_own_questions(task):
    import reasoning_gym

    rows = ReasoningGym(task=task, size=4, eval_size=6).load().eval
    metric = LogicScore(match="task")
    metric.check(rows, "m")
    answers = [row["completion"][0]["content"] for row in rows]
    assert metric.score(rows, answers).value == 1
    said = [f"It is {answer}, I think" for answer in answers]
    peer = reasoning_gym.create_dataset(task, size=6, seed=1_000_001)
    entries = {entry["question"]: entry for entry in peer}
    expected = [
        peer.score_answer(text, entries[row["prompt"][-1]["content"]]) for row, text in zip(rows, said, strict=True)
    ]
    assert list(metric.score(rows, said).items) == pytest.approx(expected)
    assert metric.score(rows, ["wrong"] * len(rows)).value < 0.5


def test_rows_of_another_reasoning_gym_are_refused():
    (row,) = ReasoningGym(task="chain_sum", size=4, eval_size=1).load().eval
    changed = {**row, "prompt": [{"role": "user", "content": "another question"}]}
    with pytest.raises(DataError, match="chain_sum otherwise"):
        LogicScore(match="task").score([changed], ["1"])


SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}},
    {"name": "time", "parameters": {"type": "object", "required": ["zone"]}},
]


@pytest.mark.parametrize(
    ("said", "fits"),
    [
        ('{"city": "Oslo", "days": 2}', True),
        ('```json\n{"city": "Oslo"}\n```', True),
        ('  {"city": "Oslo"}  ', True),
        ('Sure: {"city": "Oslo"}', False),
        ('{"city": "Oslo", "days": 0}', False),
        ('{"city": "Oslo", "more": 1}', False),
        ('{"city": NaN}', False),
        ('["Oslo"]', False),
        ("[" * 100_000, False),
        ("", False),
    ],
)
def test_answers_must_parse_and_fit(said, fits):
    assert right(ToolJson(), "", said, schema=SCHEMA) is fits


@pytest.mark.parametrize(
    ("said", "fits"),
    [
        ({"name": "weather", "arguments": {"city": "Oslo"}}, True),
        ({"name": "time", "arguments": {"zone": "UTC"}}, True),
        ({"name": "weather", "arguments": {"zone": "UTC"}}, False),
        ({"name": "shutdown", "arguments": {}}, False),
        ({"name": "weather"}, False),
    ],
)
def test_a_call_must_name_a_tool_and_fit_its_parameters(said, fits):
    assert right(ToolJson(), "", json.dumps(said), tools=TOOLS) is fits


def test_a_schema_elsewhere_is_never_fetched():
    far = {"$ref": "http://localhost:9/schema.json"}
    assert not right(ToolJson(), "", "{}", schema=far)


def test_what_answers_are_judged_by_travels_with_rows_from_files_and_through_shards(tmp_path):
    from foundry import shards
    from foundry.data.files import Files
    from foundry.lot import digest_rows

    (tmp_path / "rows.jsonl").write_text(
        json.dumps({"question": "q", "answer": "{}", "schema": SCHEMA})
        + "\n"
        + json.dumps({"question": "p", "answer": "{}", "schema": "CREATE TABLE t (a INT)"})
    )
    rows = sorted(Files(path=str(tmp_path / "rows.jsonl"), eval_fraction=0.0).load().train, key=str)
    assert [row.get("schema") for row in rows] == [None, SCHEMA]
    task = ReasoningGym(task="chain_sum", size=4, eval_size=2).load()
    shards.write(tmp_path, "eval", [*rows, *task.eval], 10**6)
    again = Files(path=str(tmp_path / "eval"), eval_fraction=0.0).load()
    assert digest_rows(again.train) == digest_rows([*rows, *task.eval])
