"""The helpers of claims' tests: they pass for what the numbers show, and say what those are where they do not."""

import re

import numpy
import pytest
from scipy import stats

from tests.labs.spread import greater, p_value, paired, tie
from tools.lab import spread


def noisy(mean: float, seed: int, count: int = 5) -> dict:
    return spread((mean + numpy.random.default_rng(seed).normal(size=count)).tolist())


LOW, HIGH, NEAR = noisy(0, 0), noisy(5, 1), noisy(0, 2)
SHIFTED = spread(
    [value + 0.1 + noise for value, noise in zip(LOW["seeds"], (0.01, -0.01, 0, 0.02, -0.02), strict=True)]
)


def test_greater_means_beyond_the_spread():
    greater(HIGH, LOW)
    for a, b in ((LOW, HIGH), (NEAR, LOW), (LOW, NEAR), (LOW, LOW)):
        with pytest.raises(AssertionError, match="is not greater than .* beyond the spread: p = "):
            greater(a, b)


def test_pairs_tell_what_spreads_hide():
    greater(SHIFTED, LOW, paired=True)
    with pytest.raises(AssertionError, match="Welch"):
        greater(SHIFTED, LOW)
    with pytest.raises(AssertionError, match="paired t test"):
        greater(LOW, SHIFTED, paired=True)


def test_the_message_has_the_numbers():
    a, b = spread([1, 2, 3]), spread([4, 5, 6.5])
    with pytest.raises(AssertionError, match=re.escape("2 ± 1 (n = 3) is not greater than 5.167 ± 1.3 (n = 3)")):
        greater(a, b)


def test_a_tie_is_near_and_not_beyond_the_spread():
    tie(LOW, NEAR, within=1)
    tie(LOW, LOW, within=0.01)
    tie(SHIFTED, LOW, within=0.2)
    with pytest.raises(AssertionError, match="differ by .* not within 0.1"):
        tie(LOW, HIGH, within=0.1)
    with pytest.raises(AssertionError, match="beyond the spread"):
        tie(LOW, HIGH, within=100)
    with pytest.raises(AssertionError, match="beyond the spread.*paired"):
        tie(SHIFTED, LOW, within=0.2, paired=True)
    with pytest.raises(AssertionError, match="not within 1"):
        tie(spread([-90, 0, 90]), spread([-60, 10, 95]), within=1)  # so wide that nothing can be said


def test_paired_differences_have_an_interval():
    found = paired(SHIFTED, LOW)
    wanted = stats.ttest_rel(SHIFTED["seeds"], LOW["seeds"]).confidence_interval(0.95)
    assert found.mean == pytest.approx(0.1) and (found.low, found.high) == pytest.approx(wanted)
    assert found.low > 0.07


def test_p_values_are_those_of_scipy():
    assert p_value(LOW, NEAR) == pytest.approx(
        stats.ttest_ind(LOW["seeds"], NEAR["seeds"], equal_var=False, alternative="greater").pvalue
    )
    assert p_value(LOW, NEAR) + p_value(NEAR, LOW) == pytest.approx(1)
    constant = spread([1, 1, 1])
    assert p_value(spread([2, 2, 2]), constant) == 0 and p_value(constant, constant) == 0.5
    assert p_value(constant, spread([2, 2, 2])) == 1 == p_value(constant, spread([2, 2, 2]), paired=True)


@pytest.mark.parametrize("wrong", [3.0, {"mean": 1}, {"mean": 1, "sd": 0, "seeds": [1, 1]}])
def test_only_spreads_are_compared(wrong):
    for compare in (greater, paired):
        with pytest.raises(ValueError, match="is expected, given"):
            compare(LOW, wrong)
    with pytest.raises(ValueError, match="as many seeds"):
        greater(LOW, spread([1, 2, 3]), paired=True)
