"""Decontamination: planted overlaps are found, nothing else is, and hashes only propose."""

import json
import random
import unicodedata
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundry.errors import DataError
from foundry.examine import decontaminate as deeds
from foundry.examine import ngrams, overlap
from foundry.examine.decontaminate import decontaminate
from foundry.examine.overlap import Reference, find
from foundry.lot import digest_rows
from foundry.records import Pruned, Removed

QUESTION = (
    "The quick brown fox doesn't jump over a lazy dog, because Zoë's café serves it 12 well-done crêpes every day."
)
LINES = [
    "Nobody examines this line.",
    "Rain fell on seven hills all night.",
    "Bring bread!",
    "The bus is late again today.",
]


def chat(prompt, completion="Yes", system="Be brief."):
    return {
        "prompt": [{"role": "system", "content": system}, {"role": "user", "content": prompt}],
        "completion": [{"role": "assistant", "content": completion}],
    }


def text(*words):
    return {"text": " ".join(words)}


def against(*rows, name="held out"):
    return [Reference(name, rows)]


def reference_words(said):
    """Words as the docs define them, one character at a time."""
    words = [""]
    for char in unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", said).casefold()):
        kind = unicodedata.category(char)
        if char in "'\u2018\u2019\u02bc" or kind == "Cf":
            continue
        alone = 0x0E00 <= ord(char) < 0x0F00 or 0x3040 <= ord(char) < 0x3100 or 0x4E00 <= ord(char) < 0xA000
        if kind[0] in "LMN" and not alone:
            words[-1] += char
        else:
            words += [char, ""] if kind[0] in "LMN" else [""]
    return [word for word in words if word]


def reference_find(train, evaluation, n):
    """The definition in the module's docstring, pair by pair; returns coverage and n-grams by training row."""
    sides = [[[reference_words(p) for p in ngrams.passages(row)] for row in rows] for rows in (train, evaluation)]
    wholes = [[[word for part in row for word in part] for row in side] for side in sides]
    having = Counter(t for row in set(map(tuple, wholes[1])) for t in {row[i : i + 3] for i in range(len(row) - 2)})
    common = Counter(g for row in wholes[1] for g in {tuple(row[i : i + n]) for i in range(len(row) - n + 1)})
    prompts = Counter(tuple(row[0]) for row in sides[1])

    def template(count, size):
        return count >= 3 and count > 0.1 * size

    found = {}
    for number, (parts, whole) in enumerate(zip(sides[0], wholes[0], strict=True)):
        grams = {tuple(whole[i : i + n]) for i in range(len(whole) - n + 1)}
        for row, words in zip(sides[1], wholes[1], strict=True):
            own = [True] * len(words)
            for i in range(len(words) - 2):
                if template(having[tuple(words[i : i + 3])], len(set(map(tuple, wholes[1])))):
                    own[i : i + 3] = [False] * 3
            asked = sum(own[: len(row[0])])
            shared = [i for i in range(len(words) - n + 1) if tuple(words[i : i + n]) in grams]
            strong = {i for i in shared if sum(own[i : i + n]) >= 8 and common[tuple(words[i : i + n])] <= 10}
            shared = [i for i in shared if i in strong or any(own[i : min(i + n, len(row[0]))])]
            covered = sum(own[p] for p in {p for i in shared for p in range(i, i + n)} if p < len(row[0]))
            match = (covered / max(asked, 1), len(shared)) if strong or 2 * covered > asked else None
            if len(row[0]) < n or not asked:
                usual = template(prompts[tuple(row[0])], len(evaluation))
                if (words and words in (whole, parts[0])) or (row[0] and row[0] in (whole, parts[0]) and not usual):
                    match = max(match or (0, 0), (1.0, 0))
            if match:
                found[number] = max(found.get(number, (0, 0)), match)
    return found


def measured(findings):
    return {found.train: (pytest.approx(found.coverage), found.ngrams) for found in findings}


VARIANTS = {
    "exact": QUESTION,
    "case": QUESTION.upper(),
    "punctuation": QUESTION.replace(" ", ", ").replace(".", "?!"),
    "no apostrophes": QUESTION.replace("'", ""),
    "curly apostrophes": QUESTION.replace("'", "\u2019"),
    "whitespace": QUESTION.replace(" ", "\n\t\u00a0 "),
    "decomposed": unicodedata.normalize("NFD", QUESTION),
    "full width": "".join(chr(ord(c) + 0xFEE0) if c.isascii() and c.isalnum() else c for c in QUESTION),
    "zero width": QUESTION.replace("o", "o\u200b"),
    "dashes": QUESTION.replace("-", "\N{EM DASH}"),
}


@pytest.mark.parametrize("n", [8, 13])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_planted_question_is_found_in_the_midst_of_long_text_however_it_is_written(variant, n):
    long = " ".join(LINES * 50)
    train = [text(LINES[0]), text(long, VARIANTS[variant], long), chat(LINES[1]), chat(VARIANTS[variant], "Never")]
    found = find(train, against(chat(LINES[2]), chat(QUESTION)), n)
    assert [(f.train, f.evaluation, f.coverage) for f in found] == [(1, 1, 1.0), (3, 1, 1.0)]
    assert all(" ".join(reference_words(QUESTION)) in f.text for f in found)


def test_words_follow_each_other_from_prompt_to_completion_and_from_turn_to_turn_but_not_from_row_to_row():
    words = [f"w{i}" for i in range(13)]
    ask, answer = " ".join(words[:6]), " ".join(words[6:])
    turns = {"prompt": [{"role": "user", "content": ask}, {"role": "assistant", "content": answer}]}
    rows = [chat(ask, answer), turns | {"completion": "x"}, {"prompt": ask, "chosen": answer, "rejected": "n"}]
    for row in rows:
        assert len(find([row], against(text(*words)))) == len(find([text(*words)], against(row))) == 1
    assert not find([text(ask), text(answer)], against(text(*words)))
    assert not find([chat("x", system=" ".join(words))], against(text(*words)))


def test_each_character_is_a_word_where_a_script_has_no_spaces():
    question = "日本の首都はどこですか教えてください"
    (found,) = find([text("まず", question, "と聞く")], against(text(question)))
    assert found.ngrams == len(question) - 12
    assert not find([text(question[:10])], against(text(question)))


def test_twelve_words_in_common_are_no_overlap_and_thirteen_are():
    words = [f"w{i}" for i in range(40)]
    for shared, expected in ((12, 0), (13, 1)):
        found = find([text("a", *words[10 : 10 + shared], "b")], against(text(*words)))
        assert len(found) == expected
    assert (found[0].ngrams, found[0].coverage, found[0].text) == (1, 13 / 40, " ".join(words[10:23]))


def test_short_rows_are_compared_whole():
    held_out = against(chat("What is 2 + 2?", "4"), text("Hello, world"))
    assert [f.train for f in find([chat("WHAT IS 2 2", "5")], held_out)] == [0]
    assert [f.text for f in find([text("hello world!")], held_out)] == ["hello world"]
    assert not find([text("hello world again"), chat("What is 2 + 3?", "4"), text("!"), chat("4")], held_out)


def test_a_prompt_that_most_rows_have_counts_with_its_answer_only():
    held_out = against(*(chat("Tell a joke", f"joke {i}") for i in range(20)))
    assert [f.train for f in find([chat("Tell a joke", "joke 7"), chat("Tell a joke", "other")], held_out)] == [0]


NOUNS = [a + b for a in ("ka", "lo", "mi", "nu", "pe", "ro") for b in ("dans", "fers", "gels", "hums", "jins")]
FORM = (
    "Read the two statements below with care and decide whether the last one follows from them: all {} are {} and "
    "some {} are {}, then {} are {}. Does it follow from both of them? Answer yes or no with one word and no more."
)


def templated(count, seed):
    draw = random.Random(seed)
    return [chat(FORM.format(*draw.choices(NOUNS, k=6))) for _ in range(count)]


@pytest.mark.parametrize("n", [8, 13])
def test_what_a_template_says_is_no_evidence_but_a_copy_of_a_templated_row_is(n):
    held_out, train = templated(60, 1), templated(300, 2)
    said = [[reference_words(row["prompt"][1]["content"]) for row in rows] for rows in (held_out, train)]
    grams = [[{tuple(words[i : i + n]) for i in range(len(words) - n + 1)} for words in side] for side in said]
    naive = [row for row in grams[1] if row & set.union(*grams[0])]
    found = find(train + held_out, against(*held_out), n)
    assert {f.train: f.evaluation for f in found if f.train >= 300} == {300 + i: i for i in range(60)}
    assert len(naive) == 300
    assert len(found) - 60 < 20


def test_two_rows_or_a_tenth_are_no_template():
    shared = [f"s{i}" for i in range(20)]

    def flagged(having, others):
        rows = [text(*shared, *(f"r{i}x{j}" for j in range(40))) for i in range(having)]
        rows += [text(*(f"o{i}x{j}" for j in range(40))) for i in range(others)]
        return bool(find([text(*shared)], against(*rows)))

    assert flagged(2, 0)
    assert not flagged(3, 0)
    assert flagged(3, 27)
    assert not flagged(3, 26)
    assert flagged(10, 100)
    assert not flagged(11, 200), "more than ten evaluation rows have it"


def test_sets_have_templates_of_their_own():
    shared = [f"s{i}" for i in range(20)]
    rows = [text(*shared, *(f"r{i}x{j}" for j in range(40))) for i in range(4)]
    others = [text(*(f"o{i}x{j}" for j in range(40))) for i in range(90)]
    apart = [Reference("a", rows), Reference("b", [*others, text(*shared)])]
    assert [(f.reference, f.evaluation) for f in find([text(*shared)], apart)] == [("b", 90)]


WORDS = st.sampled_from(["a", "B", "c,", "'d", "É", "\n", "語x", "ﬁ", "\0"])
TEXTS = st.lists(WORDS, max_size=24).map(" ".join)
ROWS = st.lists(st.one_of(st.builds(text, TEXTS), st.builds(chat, TEXTS, TEXTS)), max_size=7)


@settings(deadline=None, max_examples=60)
@given(ROWS, ROWS, st.sampled_from([2, 8, 13]), st.sampled_from([64, 2]))
def test_findings_are_those_of_the_definition_even_if_hashes_collide(train, evaluation, n, bits):
    real = ngrams.mix
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ngrams, "mix", lambda values: real(values) >> ngrams.np.uint64(64 - bits))
        found = find(train, against(*evaluation), n)
    assert measured(found) == reference_find(train, evaluation, n)


@pytest.mark.parametrize("bits", [3, 8, 64])
@pytest.mark.parametrize("n", [8, 13])
def test_findings_among_templated_rows_are_those_of_the_definition(n, bits, monkeypatch):
    real = ngrams.mix
    monkeypatch.setattr(ngrams, "mix", lambda values: real(values) >> ngrams.np.uint64(64 - bits))
    train, evaluation = templated(50, 3), templated(30, 4)
    train += [chat(FORM.format(*"abcdef")), evaluation[3], text(*(r["prompt"][1]["content"] for r in evaluation[:3]))]
    found = find(train, against(*evaluation), n)
    assert measured(found) == reference_find(train, evaluation, n)
    assert len(found) < 60


@given(st.permutations(range(40)), st.permutations(range(30)))
@settings(deadline=None, max_examples=10)
def test_neither_order_nor_block_nor_slice_changes_what_is_found(order, held):
    evaluation = templated(30, 5)
    train = [*templated(30, 6), *evaluation[:8], chat("Größe " + QUESTION), text(QUESTION)]
    evaluation[9] = chat(QUESTION)
    want = {f.train: (f.coverage, f.ngrams) for f in find(train, against(*evaluation), 8)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlap, "_BLOCK", 700)
        patch.setattr(overlap, "_PAIRS", 3)
        patch.setattr(ngrams, "_SLICE", 7)
        found = find([train[i] for i in order], against(*(evaluation[i] for i in held)), 8)
    assert {order[f.train]: (f.coverage, f.ngrams) for f in found} == want
    assert len(want) > 9


def test_nothing_to_compare_is_nothing_found():
    assert find([], against(text("a"))) == find([text("a")], []) == find([text("a")], against()) == []
    assert find([text(""), chat("", "")], against(text(""), chat("!", "?"))) == []


def test_a_long_overlap_is_cut_short_in_the_finding():
    words = [f"w{i}" for i in range(200)]
    (found,) = find([text(*words)], against(text(*words)))
    assert found.text == " ".join(words[: overlap.EXCERPT]) + " …"
    assert found.ngrams == 188


def pruned():
    rows = [text("kept", *LINES[:1]), text(QUESTION), text(LINES[1])]
    return Pruned(rows, [Removed(0, 1, 1.0, rows[0])], digest_rows(rows), "d" * 64)


def test_drop_leaves_the_rows_out_and_counts_rows_as_before_pruning():
    before = pruned()
    after, outcome = decontaminate(before, against(text("other"), chat(QUESTION)))
    assert list(after.rows) == [before.rows[0], before.rows[2]]
    assert after.removed == [*before.removed, Removed(2, 1, 1.0, before.rows[1], "held out")]
    assert (after.sha256, after.dataset_sha256) == (digest_rows(after.rows), "d" * 64)
    assert [f.train for f in outcome.findings] == [2]
    assert (outcome.action, outcome.n, outcome.references, outcome.rows) == ("drop", 13, {"held out": 2}, 3)


def test_report_changes_nothing_and_fail_names_the_first_finding():
    before = pruned()
    after, outcome = decontaminate(before, against(chat(QUESTION)), "report")
    assert after is before
    assert len(outcome.findings) == 1
    with pytest.raises(DataError, match=r'=fail: training row 2 shares "the quick .* with row 0 of held out') as error:
        decontaminate(before, against(chat(QUESTION)), "fail")
    assert "\n" not in str(error.value)
    assert decontaminate(before, against(text("other")), "fail")[0] is before


def test_dropping_every_row_is_an_error():
    rows = [text(QUESTION)]
    with pytest.raises(DataError, match="would leave no training row"):
        decontaminate(Pruned(rows, [], "", ""), against(*rows))


FILE_ROWS = [
    {"text": QUESTION},
    {"prompt": QUESTION, "completion": "x"},
    {"messages": [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": "x"}]},
    {"messages": [{"role": "user", "content": QUESTION}]},
    {"question": QUESTION, "answer": 5},
    {"instruction": "Say whether", "input": QUESTION, "output": "x"},
    {"prompt": [{"role": "user", "content": QUESTION}], "chosen": "x", "rejected": "y"},
]


def test_evaluation_rows_are_read_from_jsonl_and_text(tmp_path):
    path = tmp_path / "benchmark.jsonl"
    path.write_text("\n\n".join(map(json.dumps, FILE_ROWS)))
    for row in deeds.read(path).rows:
        assert len(find([text(QUESTION)], against(row))) == 1
    (tmp_path / "prompts.txt").write_text(f"one\n\n{QUESTION}\n")
    reference = deeds.read(tmp_path / "prompts.txt")
    assert (reference.name, list(reference.rows)) == (str(tmp_path / "prompts.txt"), [text("one"), text(QUESTION)])


@pytest.mark.parametrize("line", ['{"id": 3}', "{", "[]", '{"text": 5}', '{"messages": []}', '{"prompt": null}'])
def test_a_line_that_holds_no_row_is_named(tmp_path, line):
    path = tmp_path / "benchmark.jsonl"
    path.write_text('{"text": "fine"}\n' + line)
    with pytest.raises(DataError, match=r"benchmark.jsonl:2: expected a JSON object with prompt"):
        deeds.read(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none.txt.*expected a JSONL or text file"):
        deeds.read(tmp_path / "none.txt")
