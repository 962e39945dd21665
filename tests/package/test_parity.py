"""The gate: what counts as a difference, and at which step it is said to have arisen."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundry.deliverables import Agreement, Trial
from foundry.package.deployment import Deployment, Pattern, ToolCall, valid
from foundry.package.log import unmet
from foundry.package.parity import Bounds, Parity, Probe, compare

MESSAGES = [{"role": "user", "content": "Say it"}]


def distribution(*chances):
    import torch

    return torch.tensor(chances).log()


def asked(*rows, answer=(0, 1)):
    """A probe with a distribution at each place of the answer, and after it."""
    import torch

    return Probe(MESSAGES, [5, 6, 7], answer, [3, 4, 5][: len(rows)], torch.stack(rows))


def told(rows, ids=(5, 6, 7), answer=(0, 1)):
    return (lambda _: rows, lambda _: ids, lambda _: answer)


SURE = distribution(0.7, 0.2, 0.1)
OTHER = distribution(0.2, 0.7, 0.1)


def test_a_step_that_says_the_same_agrees():
    found = compare("merged", [asked(SURE, OTHER)], told([SURE, OTHER]), tie=0.1)
    assert (found.kl, found.top1, found.answers, found.places, found.note) == (0.0, 1.0, 1.0, 2, "")


def test_the_divergence_is_kullbacks_and_leiblers():
    found = compare("merged", [asked(SURE)], told([OTHER]), tie=0.1)
    expected = 0.7 * math.log(0.7 / 0.2) + 0.2 * math.log(0.2 / 0.7)
    assert found.kl == pytest.approx(expected, rel=1e-5)
    assert found.top1 == 0


@given(st.lists(st.floats(0.01, 1), min_size=4, max_size=4), st.lists(st.floats(0.01, 1), min_size=4, max_size=4))
def test_of_the_likeliest_tokens_alone_the_divergence_is_a_lower_bound(ours, theirs):
    ours, theirs = ([x / sum(values) for x in values] for values in (ours, theirs))
    whole = sum(p * math.log(p / q) for p, q in zip(ours, theirs, strict=True))
    few = dict(sorted(enumerate(map(math.log, theirs)), key=lambda pair: -pair[1])[:2])
    found = compare("file", [asked(distribution(*ours))], told([few]), tie=0.1)
    assert -1e-6 <= found.kl <= whole + 1e-4
    everything = dict(enumerate(map(math.log, theirs)))
    assert compare("file", [asked(distribution(*ours))], told([everything]), tie=0.1).kl == pytest.approx(
        whole, abs=1e-4
    )


@pytest.mark.parametrize(("tie", "share"), [(0.1, 0.0), (2.0, 1.0)])
def test_the_likeliest_token_may_differ_at_a_tie(tie, share):
    few = {1: math.log(0.5), 0: math.log(0.4)}
    assert compare("file", [asked(SURE)], told([OTHER]), tie).top1 == share
    assert compare("file", [asked(SURE)], told([few]), tie).top1 == share


def test_prompts_of_other_token_ids_are_told_by_their_place():
    found = compare("F16", [asked(SURE)], told([SURE], ids=(5, 5, 6, 7)), tie=0.1)
    assert not found.same_prompts
    assert "token ids differ at 1: [5, 6, 7] in the file, [6, 7] in training (4 and 3 tokens)" in found.note


@pytest.mark.parametrize(
    ("answer", "tie", "alike"),
    [((0, 1), 0.1, True), ((1, 1), 0.1, False), ((1, 1), 2.0, True), ((0,), 9.0, False), ((0, 1, 1), 0.1, False)],
)
def test_answers_may_part_only_at_a_tie(answer, tie, alike):
    probe = asked(SURE, OTHER, distribution(0.8, 0.1, 0.1))
    assert compare("F16", [probe], told([SURE, OTHER, SURE], answer=answer), tie).answers == alike


GOOD = Agreement("Q8_0", after="F16", places=10, size=40, metrics={"score": 0.8})
CHAIN = [Agreement("student", metrics={"score": 0.8}), Agreement("F16", after="merged", places=10, size=100), GOOD]
ASKED = {"Q8_0": Bounds(kl=0.01, top1=0.99, answers=0.9, drop=0.02, smaller=0.65)}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"kl": 0.02}, "divergence 0.02 nats"),
        ({"top1": 0.98}, "98.0 % of the likeliest tokens"),
        ({"answers": 0.8}, "80.0 % of the answers"),
        ({"metrics": {"score": 0.77}}, "score 77.0 %, the student has 80.0 %"),
        ({"same_prompts": False, "note": "the ids differ"}, "the ids differ"),
        (
            {"tests": [Trial("style", "no", "matches yes", passed=False, metric="style", value=0.0)]},
            "style: no, required: matches yes",
        ),
    ],
)
def test_the_first_step_that_differs_is_named_with_the_one_before(changed, said):
    line = unmet([*CHAIN[:2], replace(GOOD, **changed)], ASKED, 100, 10**6)
    assert line.startswith("package: Q8_0: ")
    assert said in line
    assert line.endswith("the difference arose between F16 and Q8_0")


def test_bounds_themselves_are_enough_and_small_models_may_be_embedding_heavy():
    at = replace(GOOD, kl=0.01, top1=0.99, answers=0.9, metrics={"score": 0.78})
    assert unmet([*CHAIN[:2], at], ASKED, 100, 10**6) == ""
    assert "60.0 % smaller, required 65.0 %" in unmet([*CHAIN[:2], at], ASKED, 100, 10**9)
    assert unmet([*CHAIN[:2], replace(at, size=35)], ASKED, 100, 10**9) == ""


def test_of_scores_that_should_be_low_a_higher_one_is_worse():
    steps = [Agreement("student", metrics={"over_refusal": 0.2}), *CHAIN[1:2]]
    bounds = {"Q8_0": Bounds(drop=0.02)}
    for value, fails in ((0.1, False), (0.215, False), (0.25, True)):
        step = replace(GOOD, metrics={"over_refusal": value})
        assert bool(unmet([*steps, step], bounds, 100, 10**6, {"over_refusal"})) is fails


SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@pytest.mark.parametrize(
    ("text", "holds"),
    [('{"city": "Paris"}', True), ('{"city": 1}', False), ("{}", False), ("Paris", False), ("[" * 10**5, False)],
)
def test_a_tool_call_is_json_for_its_schema(text, holds):
    assert valid(text, SCHEMA) is holds


def test_a_schema_from_a_config_is_a_schema_still(train):
    call = '{prompt: "Where?", json_schema: {type: object, properties: {city: {type: string}}, required: [city]}}'
    called = train("package=gguf", f"package.deployment.tool_call={call}")
    assert called.code == 0, called.err
    assert called.jobs[0].package.deployment.tool_call.json_schema == SCHEMA
    wrong = train("package=gguf", f"package.deployment.tool_call={call.replace('object', 'objekt')}")
    assert wrong.code == 2
    assert "package.deployment.tool_call.json_schema: " in wrong.err


def test_refusals_are_known_with_either_apostrophe():
    import re

    for text in ("I can't help with that.", "I can\u2019t do this", "Sorry, no.", "I am unable to answer."):
        assert re.search(Pattern(prompt="x").pattern, text)
    assert not re.search(Pattern(prompt="x").pattern, "Sure, first take a screwdriver.")


@pytest.mark.parametrize(
    "build",
    [
        lambda: Pattern(prompt="x", pattern="("),
        lambda: Deployment(style=Pattern(prompt="x")),
        lambda: ToolCall(prompt="x", json_schema={"city": 1}),
        lambda: ToolCall(prompt="x", json_schema={"type": "objekt"}),
        lambda: Parity(prompts=0),
        lambda: Bounds(top1=1.5),
    ],
)
def test_settings_that_test_nothing_are_refused(build):
    with pytest.raises(ValueError, match=r"."):
        build()
