"""What a dry run shows."""

import pytest

from foundry.data.preview import histogram, token_lengths


class Words:
    """A tokenizer with a token a word, and two for each message around it."""

    def __init__(self, chat_template="some"):
        self.chat_template = chat_template

    def __call__(self, text):
        return {"input_ids": text.split()}

    def apply_chat_template(self, messages, tools, return_dict):
        assert return_dict is False
        return [0] * sum(2 + len(message["content"].split()) for message in messages) + [0] * len(tools or ())


def said(role, content):
    return {"role": role, "content": content}


ASKED = [said("user", "a b c")]


@pytest.mark.parametrize(
    ("row", "length"),
    [
        ({"text": "a b c d"}, 4),
        ({"prompt": ASKED, "completion": [said("assistant", "d")]}, 8),
        ({"prompt": ASKED, "completion": [said("assistant", "d")], "tools": [{}, {}]}, 10),
        ({"prompt": ASKED, "chosen": [said("assistant", "d")], "rejected": [said("assistant", "d e f")]}, 10),
    ],
)
def test_a_row_is_as_long_as_its_longer_side(row, length):
    assert token_lengths([row], Words()) == [length]


def test_without_a_chat_template_the_words_count():
    row = {"prompt": ASKED, "completion": [said("assistant", "d")]}
    assert token_lengths([row] * 3, Words(chat_template=None)) == [4, 4, 4]


def test_only_a_sample_is_measured():
    assert len(token_lengths([{"text": "a"}] * 5000, Words())) == 1000


def test_bins_double_and_leave_no_gap():
    assert histogram([1, 2, 3, 4, 5, 64, 65]) == [
        ("1–1", 1), ("2–2", 1), ("3–4", 2), ("5–8", 1), ("9–16", 0), ("17–32", 0), ("33–64", 1), ("65–128", 1),
    ]  # fmt: skip
    assert histogram([]) == []
    assert histogram([0, 1]) == [("1–1", 2)]
