"""The interval of a gain: beside the normal approximation and scipy's bootstrap, its coverage, and enough questions."""

import math

import numpy as np
import pytest

from foundry.examine import Score
from foundry.examine.bootstrap import beyond_share, gain, questions_needed

QUICK = 1000


def pair(seed, count, before=0.5, after=0.6):
    """Right and wrong answers of two models, which agree on most questions."""
    draw = np.random.default_rng(seed)
    luck, noise = draw.random(count), draw.normal(0, 0.15, count)
    return Score(list((luck < before).astype(float))), Score(list((luck + noise < after).astype(float)))


def test_it_agrees_with_the_normal_approximation():
    before, after = pair(1, 800)
    found = gain(before, after)
    change = np.array(after.items) - np.array(before.items)
    error = change.std(ddof=1) / math.sqrt(len(change))
    assert found.error == pytest.approx(error, rel=0.03)
    assert found.lower == pytest.approx(change.mean() - 1.96 * error, abs=0.15 * error)
    assert found.upper == pytest.approx(change.mean() + 1.96 * error, abs=0.15 * error)


def test_it_agrees_with_scipys_bootstrap_also_of_weighted_means():
    stats = pytest.importorskip("scipy.stats")
    draw = np.random.default_rng(2)
    weights = draw.integers(1, 30, 200).astype(float)
    before = draw.gamma(2.0, 1.0, 200)
    after = before * draw.uniform(0.6, 1.0, 200)

    def change(first, second, weight, axis=-1):
        total = weight.sum(axis)
        return np.exp((second * weight).sum(axis) / total) - np.exp((first * weight).sum(axis) / total)

    peer = stats.bootstrap(
        (before, after, weights), change, paired=True, method="percentile", n_resamples=10_000, rng=3
    )
    scores = [Score(list(items), list(weights), exponential=True) for items in (before, after)]
    found = gain(*scores)
    width = peer.confidence_interval.high - peer.confidence_interval.low
    assert found.lower == pytest.approx(peer.confidence_interval.low, abs=0.05 * width)
    assert found.upper == pytest.approx(peer.confidence_interval.high, abs=0.05 * width)
    assert found.error == pytest.approx(peer.standard_error, rel=0.05)


def test_classes_are_drawn_apart_and_averaged():
    draw = np.random.default_rng(4)
    names = ["yes"] * 30 + ["no"] * 270
    before, after = (list((draw.random(300) < share).astype(float)) for share in (0.4, 0.7))
    found = gain(Score(before, classes=names), Score(after, classes=names))
    change = np.array(after) - np.array(before)
    parts = [change[:30], change[30:]]
    error = math.sqrt(sum(part.var() / len(part) for part in parts)) / 2
    assert found.error == pytest.approx(error, rel=0.03)
    middle = sum(part.mean() for part in parts) / 2
    assert (found.lower + found.upper) / 2 == pytest.approx(middle, abs=0.2 * error)


def test_the_same_questions_give_the_same_interval_and_no_change_none():
    before, after = pair(5, 50)
    assert gain(before, after) == gain(before, after)
    assert gain(before, before).lower == gain(before, before).upper == 0
    assert gain(Score([1.0]), Score([0.0])) is None


@pytest.mark.parametrize("share", [0.0, 0.8, 1.0])
def test_a_share_of_a_parents_gain_agrees_with_a_bootstrap_written_out(share):
    draw = np.random.default_rng(7)
    scores = [(draw.random(400) < right).astype(float) for right in (0.5, 0.7, 0.75)]
    before, after, parent = (Score(list(items)) for items in scores)
    found = beyond_share(before, after, parent, share)
    change = (scores[1] - scores[0]) - share * (scores[2] - scores[0])
    picked = np.random.default_rng(8).integers(0, 400, (20_000, 400))
    lower, upper = np.percentile(change[picked].mean(1), [2.5, 97.5])
    width = upper - lower
    assert (found.lower, found.upper) == pytest.approx((lower, upper), abs=0.04 * width)
    assert found.error == pytest.approx(change.std() / 20, rel=0.03)
    if share == 0:
        assert found == gain(before, after)
    if share == 1:
        assert found.lower == pytest.approx(gain(parent, after).lower, abs=0.04 * width)


def test_a_merge_that_answers_as_its_parent_does_keeps_all_of_it():
    before, after = pair(9, 60)
    assert beyond_share(before, after, after, 1.0).lower == pytest.approx(0, abs=1e-12)
    assert beyond_share(before, after, after, 0.9).lower == pytest.approx(0.1 * gain(before, after).lower)


def test_the_interval_holds_the_true_gain_about_95_times_in_100():
    """400 examinations of 150 questions each; the true gain is 0.1."""
    held = 0
    for seed in range(400):
        found = gain(*pair(seed, 150), resamples=QUICK, seed=seed)
        held += found.lower <= 0.1 <= found.upper
    assert 0.92 <= held / 400 <= 0.98


def test_so_many_questions_show_a_gain_four_times_in_five():
    """The number of questions is worked out from one examination; 400 others of that size are held."""
    true = 0.1
    first = gain(*pair(6, 2000))
    enough = questions_needed(true, first.error, 2000)
    assert 100 < enough < 400
    shown = sum(gain(*pair(seed, enough), resamples=QUICK, seed=seed).lower > 0 for seed in range(1000, 1400))
    assert 0.73 <= shown / 400 <= 0.87


def test_half_the_distance_takes_four_times_the_questions():
    assert questions_needed(0.1, 0.05, 1000) == pytest.approx(4 * questions_needed(0.2, 0.05, 1000), abs=4)
