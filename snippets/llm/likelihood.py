"""Metrics of probabilities, classes and vectors, in pure Python.

Perplexity, bits a byte, multiple choice; F1 and MCC (Matthews 1975, Gorodkin 2004); calibration error
(Guo et al. 2017, arXiv 1706.04599); the matching of BERTScore (Zhang et al. 2020, arXiv 1904.09675).
"""

# --8<-- [start:imports]
import math
from collections import Counter
from collections.abc import Callable

# --8<-- [end:imports]
from snippets.llm.evaluation import f_beta


# --8<-- [start:perplexity]
def strided_nats(score: Callable, tokens: list[int], context: int, stride: int) -> list[float]:
    """-ln p of each token but the first, once each, in windows that move by a stride.

    score(window, first) gives -ln p of window[first:], each token given all before it in the window. A window
    has context + 1 tokens at most: the last is predicted and not read. ValueError for stride > context.
    """
    if not 1 <= stride <= context or len(tokens) < 2:
        given = f"stride {stride}, context {context} and {len(tokens)} tokens"
        raise ValueError(f"1 <= stride <= context and two tokens are expected, given {given}")
    nats: list[float] = []
    for start in range(1, len(tokens), stride):  # predicted in this window: start to end - 1
        end = min(start + stride, len(tokens))
        first = max(0, end - 1 - context)
        found = score(tokens[first:end], start - first)
        if len(found) != end - start:
            raise ValueError(f"a score for each of {end - start} tokens is expected, given {len(found)}")
        nats += found
    return nats


def perplexity(nats: float, count: int) -> float:
    """e to the mean of `count` negative log-likelihoods whose sum is given: tokens, words or bytes."""
    return math.exp(nats / count)


def bits_each(nats: float, count: int) -> float:
    """The mean of `count` negative log-likelihoods whose sum is given, in bits."""
    return nats / count / math.log(2)


# --8<-- [end:perplexity]


# --8<-- [start:choice]
def choose(log_likelihoods: list[float], lengths: list[int] | None = None) -> int:
    """The most likely choice: by the sum over its tokens, or by the sum for each unit of length."""
    scores = log_likelihoods
    if lengths:
        scores = [total / length for total, length in zip(log_likelihoods, lengths, strict=True)]
    return max(range(len(scores)), key=scores.__getitem__)


# --8<-- [end:choice]


# --8<-- [start:classes]
def check_labels(truth: list, guesses: list) -> None:
    """ValueError unless there are as many guesses as labels, and at least one."""
    if not len(truth) == len(guesses) > 0:
        raise ValueError(f"as many guesses as labels are expected, given {len(guesses)} and {len(truth)}")


def accuracy(truth: list, guesses: list) -> float:
    """The share of right guesses. It is also the micro mean of precision, of recall and of F1."""
    check_labels(truth, guesses)
    return sum(a == b for a, b in zip(truth, guesses, strict=True)) / len(truth)


def by_class(truth: list, guesses: list) -> dict:
    """Precision, recall and F1 of each label that occurs among the true ones or among the guesses."""
    check_labels(truth, guesses)
    right = Counter(a for a, b in zip(truth, guesses, strict=True) if a == b)
    there, said = Counter(truth), Counter(guesses)
    scores = {}
    for label in there | said:
        precision, recall = right[label] / max(said[label], 1), right[label] / max(there[label], 1)
        scores[label] = precision, recall, f_beta(precision, recall)
    return scores


def macro_f1(truth: list, guesses: list) -> float:
    """The mean of the F1 of all labels, rare ones as much as frequent ones."""
    scores = by_class(truth, guesses)
    return sum(f1 for _, _, f1 in scores.values()) / len(scores)


def mcc(truth: list, guesses: list) -> float:
    """Matthews' correlation of truth and guesses, from -1 to 1, for any labels; 0 if one side is constant."""
    check_labels(truth, guesses)
    n, there, said = len(truth), Counter(truth), Counter(guesses)
    right = sum(a == b for a, b in zip(truth, guesses, strict=True))
    shared = sum(there[label] * said[label] for label in there)
    spread = (n * n - sum(c * c for c in there.values())) * (n * n - sum(c * c for c in said.values()))
    return (n * right - shared) / math.sqrt(spread) if spread else 0.0


# --8<-- [end:classes]


# --8<-- [start:calibration]
def reliability(
    confidences: list[float], right: list[bool], bins: int = 15
) -> list[tuple[int, float, float]]:
    """For each bin of equal width its count, mean confidence and accuracy; 0 lies in the first bin."""
    if not len(confidences) == len(right) > 0 or not all(0 <= p <= 1 for p in confidences):
        given = f"{len(confidences)} and {len(right)}"
        raise ValueError(f"confidences from 0 to 1, as many as answers, are expected, given {given}")
    found: list[list[tuple[float, bool]]] = [[] for _ in range(bins)]
    for p, hit in zip(confidences, right, strict=True):
        found[max(0, math.ceil(p * bins) - 1)].append((p, hit))
    sums = [(len(one), sum(p for p, _ in one), sum(hit for _, hit in one)) for one in found]
    return [(n, p / max(n, 1), hits / max(n, 1)) for n, p, hits in sums]


def calibration_error(confidences: list[float], right: list[bool], bins: int = 15) -> float:
    """The expected calibration error: the distance of confidence and accuracy, averaged over bins."""
    table = reliability(confidences, right, bins)
    return sum(n * abs(p - hits) for n, p, hits in table) / len(right)


# --8<-- [end:calibration]


# --8<-- [start:bertscore]
Vectors = list[list[float]]


def cosines(ours: Vectors, theirs: Vectors) -> list[list[float]]:
    """The cosine of each vector of ours, a row, with each of theirs."""
    rows, columns = ([[x / math.hypot(*one) for x in one] for one in side] for side in (ours, theirs))
    return [[sum(map(float.__mul__, row, column)) for column in columns] for row in rows]


def bert_score(candidate: Vectors, reference: Vectors, ours: list[float], theirs: list[float]):
    """Precision, recall and F1 of the best cosines, weighted: by 0 what may match but does not count."""
    if len(candidate) != len(ours) or len(reference) != len(theirs):
        given = f"{len(ours)} and {len(theirs)}"
        raise ValueError(f"{len(candidate)} and {len(reference)} weights are expected, given {given}")
    if not sum(ours) or not sum(theirs):
        return 0.0, 0.0, 0.0
    table = cosines(candidate, reference)
    best = [max(row) for row in table], [max(column) for column in zip(*table, strict=True)]
    precision, recall = (
        sum(map(float.__mul__, found, weights)) / sum(weights)
        for found, weights in zip(best, (ours, theirs), strict=True)
    )
    return precision, recall, f_beta(precision, recall)


def inverse_frequencies(references: list[list[str]]) -> Callable[[str], float]:
    """ln((N + 1) / (1 + in how many of N references a token is)). In a single reference all are 0."""
    count = Counter(token for tokens in references for token in set(tokens))
    return lambda token: math.log((len(references) + 1) / (1 + count[token]))


# --8<-- [end:bertscore]
