"""How much of its parents' gains a merge keeps, by metric and at least."""

from dataclasses import replace

import pytest

from foundry.records import Measurement
from foundry.retention import best_parent, retention, tracked

LOGIC = Measurement("logic_score", 0.77, 0.5, 300, required={"min_retention": 0.8}, parents={"a": 0.8, "b": 0.45})
REFUSED = Measurement(
    "over_refusal", 0.1, 0.2, 100, required={"min_retention": 0.5}, parents={"a": 0.05, "b": 0.3}, lower_is_better=True
)


def test_the_best_parent_is_the_one_that_gains_most_in_the_direction_that_is_better():
    assert (best_parent(LOGIC), best_parent(REFUSED)) == ("a", "a")
    assert retention(LOGIC) == pytest.approx(0.9)
    assert retention(REFUSED) == pytest.approx(0.1 / 0.15)
    assert retention(replace(REFUSED, parents={"b": 0.3})) is None, "nobody gains"
    assert (best_parent(replace(LOGIC, parents={})), retention(replace(LOGIC, parents={}))) == (None, None)


def test_a_sweep_is_ranked_by_the_least_that_a_gate_asks_for():
    told = {"logic_score_retention": pytest.approx(0.9), "over_refusal_retention": pytest.approx(2 / 3)}
    assert tracked([LOGIC, REFUSED]) == told | {"retention": pytest.approx(2 / 3)}
    assert tracked([LOGIC, replace(REFUSED, required={"max": 0.3})]) == told | {"retention": pytest.approx(0.9)}
    assert tracked([replace(LOGIC, parents={}), Measurement("m", 1, 1, 1)]) == {}
