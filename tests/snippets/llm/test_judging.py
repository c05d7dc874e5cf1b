"""Intervals, paired tests, Bradley-Terry and overlap against SciPy, scikit-learn and counting by hand."""

import math
import random
from itertools import product

import numpy as np
import pytest
from sacrebleu.metrics import BLEU
from sacrebleu.significance import PairedTest
from scipy import stats
from sklearn.linear_model import LogisticRegression

from snippets.llm.judging import (
    bootstrap,
    both_orders,
    bradley_terry,
    contamination,
    elo,
    logistic_regression,
    mean,
    paired_test,
    sample_size,
    word_runs,
)


def test_the_interval_is_that_of_scipy(agrees):
    """Percentiles of other random draws: equal within their noise."""
    values = [random.gauss(3, 2) for _ in range(80)]
    theirs = stats.bootstrap((np.array(values),), np.mean, n_resamples=10_000, method="percentile").confidence_interval
    ours = bootstrap(values, draws=10_000)
    agrees(ours, [theirs.low, theirs.high], "scipy.stats.bootstrap", 0.04)
    wide = 1.96 * np.std(values) / math.sqrt(80)
    assert ours == pytest.approx((mean(values) - wide, mean(values) + wide), abs=0.05)


@pytest.mark.claim("eval-fault-draws")
def test_draws_without_replacement_have_no_spread():
    """Each is the whole set in another order."""
    values = [random.random() for _ in range(9)]
    means = [mean(random.sample(values, k=len(values))) for _ in range(50)]
    assert max(means) - min(means) < 1e-12 < 0.05 < bootstrap(values)[1] - bootstrap(values)[0]


def test_draws_are_with_replacement_and_seeded():
    assert bootstrap([1.0, 2.0, 3.0], seed=1) == bootstrap([1.0, 2.0, 3.0], seed=1)
    assert bootstrap([0.0, 1.0], max, draws=100) == (0, 1)  # some samples hold 0 only: impossible without replacement
    with pytest.raises(ValueError, match="one or more values"):
        bootstrap([])


def test_the_paired_test_is_that_of_all_signs(agrees):
    """Eight pairs have 256 ways of signs: count them all."""
    first, second = [random.random() for _ in range(8)], [random.random() for _ in range(8)]
    gaps = [a - b for a, b in zip(first, second, strict=True)]
    sums = [abs(sum(s * g for s, g in zip(signs, gaps, strict=True))) for signs in product((1, -1), repeat=8)]
    exact = np.mean([one >= abs(sum(gaps)) - 1e-12 for one in sums])
    agrees(paired_test(first, second, draws=10_000), exact, "counting all signs", 0.02)
    theirs = stats.permutation_test((np.array(gaps),), np.sum, permutation_type="samples", n_resamples=np.inf)
    assert exact == pytest.approx(theirs.pvalue, abs=1e-12)


def test_the_paired_test_is_wrong_in_one_case_of_twenty():
    """Scores that take any value: 5 %. Scores of 0 and 1, of which few differ: less, for sums come in whole steps."""
    shares = []
    for draw in (random.gauss, lambda *_: random.choice((-1.0, 1.0, *[0.0] * 18))):
        found = [paired_test([draw(0, 1) for _ in range(40)], [0.0] * 40, draws=99) <= 0.05 for _ in range(500)]
        shares.append(mean(found))
    assert shares[0] == pytest.approx(0.05, abs=0.025) and shares[1] < 0.035


@pytest.mark.claim("eval-itself")
def test_a_system_against_itself_is_a_tie():
    """Ours says p = 1. sacrebleu counts strictly larger differences, and says the smallest p that there is."""
    texts = ["a b c d e", "c d e f g", "x y z x y"]
    assert paired_test([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]) == 1
    found = PairedTest([("one", texts), ("same", texts)], {"BLEU": BLEU(force=True)}, [texts], "ar", 99)()[1]["BLEU"]
    assert found[1].p_value == pytest.approx(1 / 100)
    with pytest.raises(ValueError, match="two scores for each example"):
        paired_test([1.0], [])


def test_sample_size_gives_its_power():
    """2,000 normal test sets of that size: 80 % show the difference."""
    size = sample_size(0.2, 1.0)
    gaps = np.random.default_rng(0).normal(0.2, 1.0, (2000, size))
    shown = np.abs(gaps.mean(1) / (gaps.std(1, ddof=1) / math.sqrt(size))) > 1.959964
    assert size == 197 and shown.mean() == pytest.approx(0.8, abs=0.03)


@pytest.mark.claim("eval-test-sets")
def test_test_sets_show_the_differences_of_the_page():
    """In points, by the formula, for systems that disagree on a tenth of the examples."""
    for examples, points in ((164, 6.9), (1319, 2.4), (10_570, 0.9), (14_042, 0.7)):
        low, high = (sample_size((points + gap) / 100, math.sqrt(0.1)) for gap in (0.051, -0.051))
        assert low <= examples <= high, examples


def games(biased=0.0, size=300, seed=0):
    source, strength = random.Random(seed), {"A": 0.0, "B": 0.7, "C": -0.5}
    found, rows = [], []
    for _ in range(size):
        first, second = source.sample("ABC", 2)
        gap = source.choice((-1.0, -0.5, 0.5, 1.0))
        chance = 1 / (1 + math.exp(-(strength[first] - strength[second] + biased + 0.8 * gap)))
        found.append((first, second, float(source.random() < chance)))
        rows.append([1.0, gap])
    return found, rows


def test_bradley_terry_is_a_logistic_regression(agrees):
    found, rows = games(biased=0.6)
    strengths, weights = bradley_terry(found, rows)
    names = list(strengths)
    sides = [[float(a == n) - float(b == n) for n in names[1:]] for a, b, _ in found]
    design = [side + row for side, row in zip(sides, rows, strict=True)]
    model = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10, max_iter=1000)
    theirs = model.fit(design, [result for *_, result in found]).coef_[0]
    agrees([*list(strengths.values())[1:], *weights], theirs, "sklearn.linear_model.LogisticRegression", 1e-5)


def test_biases_are_found_and_strengths_freed_of_them():
    """Position 0.6 and length 0.8 were put in, and come out, and so do the strengths."""
    found, rows = games(biased=0.6, size=4000)
    strengths, (position, length) = bradley_terry(found, rows)
    truth = {"A": 0.0, "B": 0.7, "C": -0.5}
    assert position == pytest.approx(0.6, abs=0.15) and length == pytest.approx(0.8, abs=0.15)
    assert all(strengths[n] - strengths["A"] == pytest.approx(truth[n], abs=0.2) for n in truth)


def test_columns_that_say_the_same_are_refused():
    with pytest.raises(ValueError, match="columns that differ"):
        logistic_regression([[1.0, 1.0]] * 3, [1.0, 0.0, 1.0])


def test_elo_by_hand_and_its_order():
    assert elo([("A", "B", 1.0)]) == {"A": 1016.0, "B": 984.0} and elo([("A", "B", 0.5)])["A"] == 1000
    played, _ = games()
    assert elo(played) != elo(played[::-1]) and sum(elo(played).values()) == pytest.approx(3000)


def test_both_orders():
    def by_length(a, b):
        return "first" if len(a) > len(b) else "second"

    assert both_orders(lambda a, b: "first", "a", "b") == 0.5
    assert both_orders(by_length, "long", "b") == 1 and both_orders(by_length, "b", "long") == 0
    with pytest.raises(ValueError, match="'first' or 'second'"):
        both_orders(lambda a, b: "A", "a", "b")


def test_overlap_counts_runs_of_words():
    training = word_runs("The cat sat on the mat", 3)
    assert contamination("the cat sat down", training, 3) == 0.5 and contamination("cat sat", training, 3) == 0
    assert contamination("a cat sat on the mat", training, 3) == 0.75


@pytest.mark.equation("eval-size", of=sample_size)
def test_sample_size_is_its_formula(formula):
    for deviation, difference in ((0.7, 0.03), (1.3, 0.2)):
        ours = float(sample_size(difference, deviation))
        formula("eval-size").holds({"n": ours, r"\sigma": deviation, r"\delta": difference})


@pytest.mark.equation("eval-elo", of=elo)
def test_elo_is_its_formula(formula):
    """The change of a rating by 32 times what was not expected; before it, A has 1016 and B 984."""
    before, after = elo([("A", "B", 1.0)]), elo([("A", "B", 1.0), ("A", "B", 1.0)])
    expected = 1 - (after["A"] - before["A"]) / 32
    formula("eval-elo").holds({"w": expected, r"\rho_1": before["A"], r"\rho_2": before["B"]})


def entry(values):
    return lambda j: values[j]


@pytest.mark.equation("eval-bradley-terry", of=bradley_terry)
def test_bradley_terry_is_its_formula(formula):
    """Results that are probabilities give back the strengths and weights that made them."""
    theta, weights = {"A": 0.0, "B": 0.7, "C": -0.5}, [0.6, -0.3]
    played, rows = [], []
    for first, second in (("A", "B"), ("B", "C"), ("B", "A"), ("A", "C"), ("C", "B"), ("C", "A")):
        row = [1.0, random.random()]
        odds = theta[first] - theta[second] + sum(w * z for w, z in zip(weights, row, strict=True))
        played.append((first, second, 1 / (1 + math.exp(-odds))))
        rows.append(row)
    strengths, found = bradley_terry(played, rows)
    for (first, second, won), row in zip(played[1:], rows[1:], strict=True):  # A, the first, has strength 0
        names = {"w": won, r"\theta_1": strengths[first], r"\theta_2": strengths[second], "j": range(2)}
        names |= {r"\gamma_j": entry(found), "z_j": entry(row)}
        formula("eval-bradley-terry").holds(names, tolerance=1e-8)
