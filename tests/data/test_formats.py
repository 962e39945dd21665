"""Formats: each is recognised by its fields and becomes the row that the docs promise."""

import json

import pytest

from foundry.data.faults import RecordError, SetAsideError
from foundry.data.formats import Converter


def converted(record, form="auto", columns=None):
    found, row = Converter(form, columns or {}, 1000)(record)
    return found.name, row


def user(content):
    return {"role": "user", "content": content}


def assistant(content):
    return {"role": "assistant", "content": content}


def system(content):
    return {"role": "system", "content": content}


def instruction(asked, answer, *before):
    return {"prompt": [*before, user(asked)], "completion": [assistant(answer)]}


def pair(*prompt, chosen="b", rejected="c"):
    return {"prompt": list(prompt), "chosen": [assistant(chosen)], "rejected": [assistant(rejected)]}


TURNS = [user("a"), assistant("x"), user("y")]
KNOWN = [
    ("alpaca", {"instruction": "Add.", "input": "1 2", "output": "3"}, instruction("Add.\n\n1 2", "3")),
    ("alpaca", {"instruction": "Hi", "input": " ", "output": "Ho", "text": "all"}, instruction("Hi", "Ho")),
    ("alpaca", {"instruction": "Hi", "input": None, "output": "Ho"}, instruction("Hi", "Ho")),
    ("question_answer", {"question": "q", "answer": "a"}, instruction("q", "a")),
    ("question_answer", {"question": "q", "answer": "a", "system": "s"}, instruction("q", "a", system("s"))),
    ("prompt_completion", {"prompt": "q", "completion": "a"}, instruction("q", "a")),
    ("prompt_completion", {"prompt": [user("q")], "completion": [assistant("a")]}, instruction("q", "a")),
    ("messages", {"messages": [system(""), user("q"), assistant("a")]}, instruction("q", "a", system(""))),
    ("messages", {"messages": json.dumps([user("q"), assistant("a")])}, instruction("q", "a")),
    (
        "messages",
        {"prompt": "q", "messages": [{"role": "developer", "content": "s"}, user("q"), assistant("a")], "system": "t"},
        instruction("q", "a", system("s")),
    ),
    (
        "messages",
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, assistant("a")]},
        instruction("q", "a"),
    ),
    (
        "sharegpt",
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "system": "s"},
        instruction("q", "a", system("s")),
    ),
    ("kto", {"prompt": "q", "completion": "a", "label": True}, instruction("q", "a")),
    ("kto", {"prompt": "q", "completion": "a", "label": "1"}, instruction("q", "a")),
    ("text", {"text": "t", "id": 3}, {"text": "t"}),
    ("preference", {"prompt": "a", "chosen": "b", "rejected": "c"}, pair(user("a"))),
    ("preference", {"chosen": "Say it: b", "rejected": "Say it: c"}, pair(user("Say it:"))),
    ("preference", {"chosen": "It is 42", "rejected": "It is 43"}, pair(user("It is"), chosen="42", rejected="43")),
    (
        "preference",
        {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"},
        pair(user("a")),
    ),
    (
        "preference",
        {"prompt": [user("a")], "chosen": [assistant("b")], "rejected": [assistant("c")], "system": "s"},
        pair(system("s"), user("a")),
    ),
    (
        "preference",
        {"prompt": "a", "messages": [], "chosen": [user("a"), assistant("b")], "rejected": [user("a"), assistant("c")]},
        pair(user("a")),
    ),
    (
        "preference",
        {"chosen": [*TURNS, assistant("b")], "rejected": [*TURNS, assistant("c")]},
        pair(*TURNS),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "record", "row"), KNOWN)
def test_a_record_is_recognised_and_converted(name, record, row):
    assert converted(record) == (name, row)
    assert converted(record, name) == (name, row)


def test_tool_calls_come_out_with_their_arguments_as_objects():
    tools = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1.5}'}}
    messages = [
        user("1.5 and 1?"),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "2.5", "tool_call_id": "c1", "name": "add"},
        assistant("2.5"),
    ]
    _, row = converted({"messages": messages, "tools": tools})
    made = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": {"a": 1.5}}}
    assert row["prompt"][1] == {"role": "assistant", "content": "", "tool_calls": [made]}
    assert row["prompt"][2] == {"role": "tool", "content": "2.5", "tool_call_id": "c1", "name": "add"}
    assert (row["completion"], row["tools"]) == ([assistant("2.5")], tools)
    _, last = converted({"messages": messages[:2], "tools": tools})
    assert last["completion"][0]["tool_calls"] == [made]


def test_sharegpt_spells_tool_calls_its_own_way():
    turns = [
        {"from": "human", "value": "1+2?"},
        {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 1, "b": 2}}'},
        {"from": "observation", "value": "3"},
        {"from": "gpt", "value": "3"},
    ]
    _, row = converted({"conversations": turns, "tools": '[{"name": "add"}]'})
    assert row["prompt"][1]["tool_calls"][0]["function"] == {"name": "add", "arguments": {"a": 1, "b": 2}}
    assert row["prompt"][2] == {"role": "tool", "content": "3"}
    assert row["tools"] == [{"name": "add"}]


BAD = [
    ({}, "found the fields none"),
    ([1], "expected an object, found a list"),
    ({"query": "a"}, "found the fields query"),
    ({"prompt": "a", "completion": ""}, "completion: is empty"),
    ({"prompt": "a", "completion": " \n"}, "completion: is empty"),
    ({"prompt": "a", "completion": 3}, "expected a list of messages, found a number"),
    ({"prompt": "a", "completion": None}, "found the fields prompt"),
    ({"question": "a", "answer": float("nan")}, "answer: expected text, found a number"),
    ({"messages": []}, "an empty list"),
    ({"messages": "no"}, "not JSON"),
    ({"messages": ["a"]}, r"messages\[0\]: expected role and content, found text"),
    ({"messages": [user("a")]}, "no assistant turn"),
    ({"messages": [user("a"), assistant("b"), user("c")]}, "ends with the user's turn"),
    ({"messages": [assistant("b")]}, "nothing comes before"),
    ({"messages": [{"role": "robot", "content": "a"}, assistant("b")]}, r"messages\[0\]: the role is 'robot'"),
    ({"messages": [{"role": ["user"], "content": "a"}, assistant("b")]}, "the role is a list"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}, assistant("b")]}, "parts of type text"),
    ({"messages": [user("a"), {"role": "assistant", "content": ""}]}, "is empty"),
    ({"messages": [user("a"), {"role": "assistant", "tool_calls": [{"name": 3}]}]}, "function's name"),
    ({"messages": [user("a"), {"role": "assistant", "tool_calls": [{"name": "f", "arguments": "["}]}]}, "arguments"),
    ({"messages": [user("a"), assistant("b")], "tools": [3]}, "tools: expected a list of objects"),
    ({"instruction": "a", "input": 3, "output": "b"}, "input: expected text"),
    ({"prompt": "a", "completion": "b", "label": 0.5}, "label: expected true or false"),
    ({"prompt": "a", "chosen": "b", "rejected": "b"}, "the same"),
    ({"chosen": "b", "rejected": "c"}, "no prompt"),
    ({"chosen": [assistant("b")], "rejected": [assistant("c")]}, "no prompt"),
    ({"chosen": "b", "rejected": [user("a"), assistant("c")]}, "both as text or both as messages"),
    ({"chosen": [user("a"), assistant("b")], "rejected": [user("z"), assistant("c")]}, "no prompt"),
    ({"chosen": "\n\nHuman: a\n\nAssistant: ", "rejected": "\n\nHuman: a\n\nAssistant: c"}, "is empty"),
]  # fmt: skip


@pytest.mark.parametrize(("record", "reason"), BAD)
def test_a_record_that_is_no_row_says_why(record, reason):
    with pytest.raises(RecordError, match=reason):
        converted(record)


def test_an_unwanted_answer_of_kto_is_set_aside():
    with pytest.raises(SetAsideError, match="label is false"):
        converted({"prompt": "a", "completion": "b", "label": False})


def test_a_named_format_takes_no_other():
    record = {"question": "a", "answer": "b", "text": "c"}
    assert converted(record, "text") == ("text", {"text": "c"})
    with pytest.raises(RecordError, match="fields of alpaca, found the fields answer, question, text"):
        converted(record, "alpaca")


def test_columns_give_fields_the_names_that_a_format_knows():
    record = {"query": "q", "response": "a", "prompt": "not this one"}
    columns = {"query": "prompt", "response": "completion"}
    assert converted(record, columns=columns) == ("prompt_completion", instruction("q", "a"))


def test_a_field_of_just_the_allowed_length_passes_and_a_longer_one_does_not():
    converter = Converter("auto", {}, 10)
    for length, passes in ((10, True), (11, False)):
        _, row = converter({"question": "q", "answer": "ä" * length})
        text = str(row).encode()
        if passes:
            converter.check(row, text)
        else:
            with pytest.raises(RecordError, match=r"11 characters; data\.max_field_chars=10"):
                converter.check(row, text)
