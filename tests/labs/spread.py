"""What may be said of two measured numbers: one is greater, or they tie. For tests of claims, on values as recorded.

    greater(values["ddpm"]["frechet"], values["ddim"]["frechet"])          # beyond the spread
    greater(values["long"]["loss"], values["short"]["loss"], paired=True)  # the same seeds on both sides
    tie(values["clipped"]["frechet"], values["plain"]["frechet"], within=1.0)
    paired(values["long"]["loss"], values["short"]["loss"]).low > 0.1      # by how much, at least

Each side is what `lab.record(path, seeds=[…])` wrote: {"mean", "sd", "seeds"}.
"""

from typing import NamedTuple

import numpy
from scipy import stats

LEVEL = 0.05


class Difference(NamedTuple):
    """Mean of a - b, seed by seed, and the interval that holds the true mean with 95 %."""

    mean: float
    low: float
    high: float


def seeds(spread: dict) -> numpy.ndarray:
    """The numbers of a spread; ValueError for anything else."""
    if not isinstance(spread, dict) or not {"mean", "sd", "seeds"} <= spread.keys() or len(spread["seeds"]) < 3:
        raise ValueError(
            f"what lab.record(path, seeds=[…]) wrote for three seeds or more is expected, given {spread!r}"
        )
    return numpy.array(spread["seeds"], dtype=float)


def written(spread: dict) -> str:
    return f"{spread['mean']:.4g} ± {spread['sd']:.2g} (n = {len(spread['seeds'])})"


def pairs(a: dict, b: dict) -> numpy.ndarray:
    """a - b, seed by seed."""
    one, other = seeds(a), seeds(b)
    if len(one) != len(other):
        raise ValueError(f"pairs need as many seeds on both sides, given {len(one)} and {len(other)}")
    return one - other


def p_value(a: dict, b: dict, paired: bool = False) -> float:
    """How probable it is that a comes out as far above b as it did, or farther, if a is not greater. One-sided.

    A paired t test, or Welch's, which asks neither for pairs nor for equal variances.
    """
    difference = pairs(a, b) if paired else None
    if difference is None and (seeds(a).std() or seeds(b).std()):
        return float(stats.ttest_ind(seeds(a), seeds(b), equal_var=False, alternative="greater").pvalue)
    if difference is not None and difference.std():
        return float(stats.ttest_1samp(difference, 0, alternative="greater").pvalue)
    apart = seeds(a).mean() - seeds(b).mean()  # of numbers that do not vary
    return 0.0 if apart > 0 else 0.5 if apart == 0 else 1.0


def greater(a: dict, b: dict, paired: bool = False) -> None:
    """Assert that a is greater than b beyond the spread: p < 0.05, one-sided."""
    p = p_value(a, b, paired)
    how = "paired t test" if paired else "Welch's t test"
    assert p < LEVEL, f"{written(a)} is not greater than {written(b)} beyond the spread: p = {p:.2g} by {how}"


def paired(a: dict, b: dict) -> Difference:
    """Mean of a - b over pairs of equal seeds, with its 95 % interval."""
    difference = pairs(a, b)
    mean, error = float(difference.mean()), float(difference.std(ddof=1)) / len(difference) ** 0.5
    reach = error * float(stats.t.ppf(1 - LEVEL / 2, len(difference) - 1))
    return Difference(mean, mean - reach, mean + reach)


def tie(a: dict, b: dict, within: float, paired: bool = False) -> None:
    """Assert that neither is greater beyond the spread, and that the means differ by less than `within`.

    The bound is needed because numbers that scatter widely are never beyond their spread.
    """
    apart = abs(float(seeds(a).mean() - seeds(b).mean()))
    assert apart < within, f"{written(a)} and {written(b)} differ by {apart:.4g}, which is not within {within:g}"
    p = 2 * min(p_value(a, b, paired), p_value(b, a, paired))
    how = "paired t test" if paired else "Welch's t test"
    assert p >= LEVEL, f"{written(a)} and {written(b)} differ beyond the spread: p = {p:.2g}, two-sided, by {how}"
