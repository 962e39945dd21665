"""SemDeDup against a reference that compares every pair, on vectors whose cosines are known."""

import json
import math
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from foundry.errors import ConfigError
from foundry.lot import digest, digest_rows
from foundry.prune import neighbours
from foundry.prune.comparison import THRESHOLDS
from foundry.prune.semdedup import SemDeDup
from foundry.records import Dataset, Group

KEEPS = ("central", "longest", "first", "hardest")
POINTS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 90), st.sampled_from(["", " a", " ab"])), max_size=25)
ordinary = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


def dataset(rows, shape="text"):
    return Dataset("d", shape, rows, [], digest_rows(rows), digest_rows([]))


def texts(points):
    return [{"text": f"{plane}/{angle}{words}"} for plane, angle, words in points]


def asked(prompt, answer, system=None):
    head = [{"role": "system", "content": system}] if system else []
    said = [{"role": "assistant", "content": answer}]
    return {"prompt": [*head, {"role": "user", "content": prompt}], "completion": said}


@pytest.fixture
def pruner(service):
    def make(**chosen):
        return SemDeDup(embedder=service.url, service_model="fake", **chosen)

    return make


def cosine(first, second):
    (plane, angle), (other, to) = ((r["text"].split()[0].split("/")) for r in (first, second))
    return math.cos(math.radians(int(angle) - int(to))) if plane == other else 0.0


def reference(rows, near):
    """The connected groups, by walking from row to row over all pairs."""
    groups, todo = [], set(range(len(rows)))
    while todo:
        group, edge = set(), [todo.pop()]
        while edge:
            here = edge.pop()
            group.add(here)
            found = {other for other in todo if near(rows[here], rows[other])}
            todo -= found
            edge += found
        groups.append(group)
    return groups


@ordinary
@given(POINTS, st.sampled_from(KEEPS))
def test_one_row_stays_of_each_connected_group(pruner, points, keep):
    rows = texts(points)
    pruned = pruner(keep=keep).prune(dataset(rows))
    groups = reference(rows, lambda a, b: a == b or cosine(a, b) > 0.95)
    group_of = {index: number for number, group in enumerate(groups) for index in group}
    gone = {removed.index for removed in pruned.removed}
    kept = [index for index in range(len(rows)) if index not in gone]
    assert Counter(group_of[index] for index in kept) == Counter(range(len(groups)))
    assert list(pruned.rows) == [rows[index] for index in kept]
    assert pruned.sha256 == digest_rows(pruned.rows)
    for removed in pruned.removed:
        assert removed.representative in kept
        assert group_of[removed.representative] == group_of[removed.index]
        assert removed.row == rows[removed.index]
        expected = (
            1.0 if removed.row == rows[removed.representative] else cosine(removed.row, rows[removed.representative])
        )
        assert removed.similarity == pytest.approx(expected, abs=1e-3)


@ordinary
@given(POINTS, st.sampled_from(("central", "longest", "hardest")), st.data())
def test_order_does_not_matter_and_pruning_again_removes_nothing(pruner, points, keep, data):
    rows = texts(points)
    pruned = pruner(keep=keep).prune(dataset(rows))
    shuffled = pruner(keep=keep).prune(dataset(data.draw(st.permutations(rows))))
    assert shuffled.sha256 == pruned.sha256
    if pruned.nearness:
        assert shuffled.nearness.histogram == pruned.nearness.histogram
        assert shuffled.nearness.removals == pruned.nearness.removals
    again = pruner(keep=keep).prune(dataset(pruned.rows))
    assert list(again.rows) == list(pruned.rows)
    assert not again.removed


def test_the_properties_hold_where_clusters_are_searched(pruner, monkeypatch):
    monkeypatch.setattr(neighbours, "EXACT", 30)
    rows = texts([(plane, angle / 4, "") for plane in range(3) for angle in range(0, 1400, 7)])
    pruned = pruner().prune(dataset(rows))
    assert pruner().prune(dataset(rows[::-1])).sha256 == pruned.sha256
    assert not pruner().prune(dataset(pruned.rows)).removed
    kept = sorted(pruned.rows, key=lambda row: row["text"])
    assert len(kept) == 3, "each plane is one chain"
    assert {removed.representative for removed in pruned.removed} == {rows.index(row) for row in kept}


@pytest.mark.parametrize(
    ("keep", "expected"), [("central", "0/10"), ("longest", "0/0 longer"), ("first", "0/20 x"), ("hardest", "0/20 x")]
)
def test_who_stands_for_a_group(pruner, keep, expected):
    rows = [{"text": "0/20 x"}, {"text": "0/10"}, {"text": "0/0 longer"}, {"text": "0/4"}]
    assert [row["text"] for row in pruner(keep=keep).prune(dataset(rows)).rows] == [expected]


def test_equals_are_settled_by_digest_in_either_order(pruner):
    rows = [{"text": "0/0"}, {"text": "0/5"}]
    for order in (rows, rows[::-1]):
        for keep in ("central", "hardest"):
            assert list(pruner(keep=keep).prune(dataset(order)).rows) == [min(rows, key=digest)]


def test_at_one_only_exact_repeats_go_and_nothing_is_embedded(pruner, service):
    rows = [{"text": "0/0"}, {"text": "0/0 same direction"}, {"text": "0/0"}]
    pruned = pruner(threshold=1.0).prune(dataset(rows))
    assert [(r.index, r.representative, r.similarity) for r in pruned.removed] == [(2, 0, 1.0)]
    assert service.seen == []


@pytest.mark.parametrize(("text", "left"), [("prompt", [0, 2]), ("both", [0, 1, 2]), ("completion", [0, 1])])
def test_what_is_compared(pruner, text, left):
    yes, no = "3/0", "4/0"
    rows = [asked("1/0", no), asked("1/9", yes), asked("2/0", yes), asked("2/8", "3/5")]
    pruned = pruner(text=text, keep="first").prune(dataset(rows, "instruction"))
    assert [rows.index(row) for row in pruned.rows] == left


def test_preferences_are_near_only_if_both_answers_are(pruner):
    rows = [{"prompt": "0/0", "chosen": "1/0", "rejected": r} for r in ("2/0", "2/10", "3/0")]
    assert [removed.index for removed in pruner(keep="first").prune(dataset(rows, "preference")).removed] == [1]


def test_rows_that_differ_in_system_message_or_tools_are_never_taken_together(pruner):
    rows = [
        asked("1/0", "2/0", "Speak French."),
        asked("1/1", "2/0", "Speak German."),
        asked("1/2", "2/0", "Speak French."),
    ]
    rows.append({**asked("1/3", "2/0", "Speak French."), "tools": [{"name": "search"}]})
    pruned = pruner(keep="first").prune(dataset(rows, "instruction"))
    assert [(removed.index, removed.representative) for removed in pruned.removed] == [(2, 0)]


def test_what_the_report_is_told(pruner):
    angles = [0, 0, 5, 12, 40, 70]
    rows = texts([(0, angle, "") for angle in angles])
    nearness = pruner().prune(dataset(rows)).nearness
    gaps = sorted(set(angles))
    near = [max(math.cos(math.radians(abs(a - b))) for b in gaps if b != a) for a in gaps]
    assert sum(count for *_, count in nearness.histogram) == len(gaps)
    for low, high, count in nearness.histogram:
        assert count == sum(low <= value < high or value == high == 1 for value in near)
    for threshold, count in nearness.removals:
        steps = [math.cos(math.radians(b - a)) for a, b in pairwise(gaps)]
        assert count == 1 + sum(step > threshold for step in steps)
    assert [threshold for threshold, _ in nearness.removals] == list(THRESHOLDS)
    other = pruner(threshold=0.92).prune(dataset(rows))
    assert dict(other.nearness.removals)[0.92] == len(other.removed)
    assert nearness.largest == (Group(2, 4, pytest.approx(math.cos(math.radians(7)), abs=1e-4)),)


def test_a_second_run_asks_for_no_vector_and_decides_the_same(pruner, service):
    rows = texts([(plane, angle, "") for plane in range(3) for angle in range(0, 360, 9)])
    before = pruner().prune(dataset(rows))
    assert len(service.seen) == len(rows)
    service.seen.clear()
    more = [*rows, {"text": "5/1"}]
    after = pruner().prune(dataset(rows))
    assert (after.sha256, after.removed, after.nearness) == (before.sha256, before.removed, before.nearness)
    assert service.seen == []
    pruner().prune(dataset(more))
    assert service.seen == ["5/1"]


@pytest.mark.parametrize("rows", [[], [{"text": "0/0"}]])
def test_too_few_rows_to_compare(pruner, service, rows):
    pruned = pruner().prune(dataset(rows))
    assert (list(pruned.rows), list(pruned.removed)) == (rows, [])
    assert service.seen == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"threshold": 0.0},
        {"threshold": 1.01},
        {"keep": "best"},
        {"embedder": "https://example.org/v1"},
        {"service_model": "m"},
        {"service_key": "sk-123"},
    ],
    ids=json.dumps,
)
def test_settings_out_of_range(wrong):
    with pytest.raises(ValidationError):
        SemDeDup(**wrong)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("package://no_such_package/model", "pip install"),
        ("package://pytest/../x", "inside the package"),
        ("package://pytest//tmp", "inside the package"),
        ("nobody/nothing", "hub"),
    ],
)
def test_an_embedder_that_is_not_there(name, said):
    with pytest.raises(ConfigError, match=said):
        SemDeDup(embedder=name).prune(dataset([{"text": "a"}, {"text": "b"}]))


def test_missing_faiss_is_told_before_anything_is_embedded(pruner, service, monkeypatch):
    monkeypatch.setattr(neighbours, "EXACT", 1)
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(ConfigError, match=r"model-foundry\[curate\]"):
        pruner().prune(dataset([{"text": "0/0"}, {"text": "1/0"}]))
    assert service.seen == []
