"""How sure a comparison is: intervals, paired tests, judges and their biases, overlap with training text.

Bootstrap (Efron 1979; for metrics of text, Koehn 2004), randomisation (Noreen 1989), Bradley and Terry
(1952), Elo (1978); biases of judges as in Zheng et al. 2023, arXiv 2306.05685.
"""

# --8<-- [start:imports]
import math
import random
from collections.abc import Callable

# --8<-- [end:imports]


# --8<-- [start:interval]
def mean(values: list[float]) -> float:
    """The mean; ValueError for no values."""
    if not values:
        raise ValueError("one or more values are expected, given none")
    return sum(values) / len(values)


def bootstrap(
    values: list, statistic: Callable = mean, draws: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """The 95 % interval of a statistic: percentiles over samples of the same size, drawn with replacement."""
    source = random.Random(seed)
    found = sorted(statistic(source.choices(values, k=len(values))) for _ in range(draws))
    return found[round(0.025 * (draws - 1))], found[round(0.975 * (draws - 1))]


def sample_size(difference: float, deviation: float) -> int:
    """How many pairs show a mean difference at the 5 % level in 80 % of test sets, given the gaps' spread."""
    return math.ceil(((1.959964 + 0.841621) * deviation / difference) ** 2)


# --8<-- [end:interval]


# --8<-- [start:paired]
def paired_test(first: list[float], second: list[float], draws: int = 1000, seed: int = 0) -> float:
    """p of the difference of means, two-sided, if each pair could as well have been the other way round."""
    if not len(first) == len(second) > 0:
        raise ValueError(f"two scores for each example are expected, given {len(first)} and {len(second)}")
    gaps, source = [a - b for a, b in zip(first, second, strict=True)], random.Random(seed)
    seen, total = abs(sum(gaps)) - 1e-12, 0  # less a rounding error: an equal sum is as large
    for _ in range(draws):
        signs = source.getrandbits(len(gaps))
        total += abs(sum(gap if signs >> at & 1 else -gap for at, gap in enumerate(gaps))) >= seen
    return (total + 1) / (draws + 1)


# --8<-- [end:paired]


# --8<-- [start:elo]
def elo(games: list[tuple[str, str, float]], step: float = 32.0) -> dict[str, float]:
    """Ratings after games in their order: (first, second, 1 for a win of the first, 0.5 for a tie, 0)."""
    ratings = {name: 1000.0 for game in games for name in game[:2]}
    for first, second, result in games:
        expected = 1 / (1 + 10 ** ((ratings[second] - ratings[first]) / 400))
        ratings[first] += step * (result - expected)
        ratings[second] -= step * (result - expected)
    return ratings


# --8<-- [end:elo]


# --8<-- [start:logistic]
def solve(matrix: list[list[float]], right: list[float]) -> list[float]:
    """x of matrix x = right, by elimination."""
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    for at in range(len(rows)):
        pivot = max(range(at, len(rows)), key=lambda row: abs(rows[row][at]))
        if abs(rows[pivot][at]) < 1e-12:
            raise ValueError("columns that differ and results of both kinds are expected, given fewer")
        rows[at], rows[pivot] = rows[pivot], rows[at]
        rows[at] = [value / rows[at][at] for value in rows[at]]
        for row in range(len(rows)):
            if row != at:
                factor = rows[row][at]
                rows[row] = [a - factor * b for a, b in zip(rows[row], rows[at], strict=True)]
    return [row[-1] for row in rows]


def logistic_regression(rows: list[list[float]], results: list[float], steps: int = 25) -> list[float]:
    """Weights under which results from 0 to 1 are most likely, by Newton's method; no constant is added."""
    size = len(rows[0])
    weights = [0.0] * size
    for _ in range(steps):
        slope, curve = [0.0] * size, [[0.0] * size for _ in range(size)]
        for row, result in zip(rows, results, strict=True):
            chance = 1 / (1 + math.exp(-sum(map(float.__mul__, row, weights))))
            for i, x in enumerate(row):
                slope[i] += (result - chance) * x
                for j, y in enumerate(row):
                    curve[i][j] += chance * (1 - chance) * x * y
        weights = [w + change for w, change in zip(weights, solve(curve, slope), strict=True)]
    return weights


# --8<-- [end:logistic]


# --8<-- [start:bradley-terry]
def bradley_terry(games: list[tuple[str, str, float]], biases: list[list[float]] | None = None):
    """Strengths by name, the first name's being 0, and weights of what else differs between first and second.

    biases: for each game, say, [1.0] for being shown first, and the difference of the lengths.
    """
    names = list(dict.fromkeys(name for game in games for name in game[:2]))
    rows = []
    for at, (first, second, _) in enumerate(games):
        sides = [float(name == first) - float(name == second) for name in names[1:]]
        rows.append(sides + (biases[at] if biases else []))
    weights = logistic_regression(rows, [result for *_, result in games])
    strengths = dict(zip(names, [0.0, *weights], strict=False))
    return strengths, weights[len(names) - 1 :]


def both_orders(judge: Callable[[str, str], str], first: str, second: str) -> float:
    """1, 0.5 or 0 for the first answer: where the judge changes its mind with the order, it is a tie.

    judge gives `first` or `second`, whichever of the two that it was shown is better.
    """
    forwards, backwards = judge(first, second), judge(second, first)
    if not {forwards, backwards} <= {"first", "second"}:
        raise ValueError(f"'first' or 'second' is expected of a judge, given {forwards!r} and {backwards!r}")
    return 0.5 if forwards == backwards else float(forwards == "first")


# --8<-- [end:bradley-terry]


# --8<-- [start:contamination]
def word_runs(text: str, length: int) -> set[tuple[str, ...]]:
    """All runs of so many words, in lower case."""
    words = text.lower().split()
    return set(zip(*(words[start:] for start in range(length)), strict=False))


def contamination(test: str, training: set[tuple[str, ...]], length: int = 8) -> float:
    """The share of a test text's runs of words that the training text has too; 0 for a shorter text."""
    runs = word_runs(test, length)
    return len(runs & training) / len(runs) if runs else 0.0


# --8<-- [end:contamination]
