"""Exercises of the encoder-decoder post, solved, with what checks an answer.

Shapes: B texts of a batch, S tokens of a source, T tokens of a target, V vocabulary.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from snippets.exercises.checking import compare
from snippets.llm.t5 import IGNORED, T5, Config, bucket, shift_right


# --8<-- [start:exercise-1]
def nearest(which: int) -> int:
    """By pencil: the smallest distance in a bucket of the decoder, with 32 buckets and 128 as the furthest.

    Args: which bucket, from 0 to 31.

    Hint: Up to 15 it is easy. From 16 on, the logarithm has to have reached (which - 16) / 16 of its way from
    16 to 128. Solve for the distance, and round up.
    """
    if which < 16:
        return which
    # 16 * ln(d / 16) / ln(8) >= which - 16, so d >= 16 * 8 ** ((which - 16) / 16). Without the tiny term,
    # an error of rounding could lift a whole number to the next one
    return math.ceil(16 * 8 ** ((which - 16) / 16) - 1e-9)


# --8<-- [end:exercise-1]


# --8<-- [start:exercise-2]
def balance(short: float, short_length: int, long: float, long_length: int) -> float:
    """By pencil: the length penalty at which two finished beams have the same score.

    Args: short and long, the log-probabilities of the two, both below 0; their lengths, short_length below
    long_length. Above this penalty, the longer one wins.

    Hint: Set short / short_length ** p equal to long / long_length ** p, bring the lengths to one side, and
    take logarithms.
    """
    return math.log(long / short) / math.log(long_length / short_length)


# --8<-- [end:exercise-2]


# --8<-- [start:exercise-3]
def no_repeat(logits: Tensor, written: Tensor) -> Tensor:
    """Logits (B, V), minus infinity for each token with which a pair of tokens would occur a second time.

    Args: logits of the next token; written (B, T), all tokens so far, T at least 1. A pair is two tokens, one
    right after the other.

    Hint: The next pair begins with the last token. At which earlier places does that token stand, and what
    came after it there?
    """
    logits = logits.clone()  # (B, V)
    for row, tokens in enumerate(written.tolist()):
        for first, second in zip(tokens[:-1], tokens[1:], strict=True):
            if first == tokens[-1]:
                logits[row, second] = -math.inf
    return logits


# --8<-- [end:exercise-3]


# --8<-- [start:given-4]
def hasty_loss(model: T5, source: Tensor, real: Tensor, target: Tensor) -> Tensor:
    """Mean cost of a batch whose targets are filled up with the padding token. It has a fault."""
    logits = model(source, shift_right(target, model.config), real)  # (B, T, V)
    cost = F.cross_entropy(logits.transpose(1, 2), target, reduction="none")  # (B, T)
    return cost.mean()


# --8<-- [end:given-4]


# --8<-- [start:exercise-4]
def careful_loss(model: T5, source: Tensor, real: Tensor, target: Tensor) -> Tensor:
    """hasty_loss without its fault. Its loss falls quickly, and says little about the texts.

    Args: source and real (B, S); target (B, T), whose rows end in model.config.end and are filled up with
    model.config.pad. Returns the mean () over tokens.

    Hint: How many of the tokens in a batch of unequal lengths are padding, and how hard are they to guess?
    """
    logits = model(source, shift_right(target, model.config), real)  # (B, T, V)
    cost = F.cross_entropy(logits.transpose(1, 2), target, reduction="none")  # (B, T)
    counts = target != model.config.pad  # (B, T) the padding is no part of any text
    return cost[counts].mean()


# --8<-- [end:exercise-4]


# --8<-- [start:exercise-5]
def log_probability(model: T5, source: Tensor, real: Tensor, target: Tensor) -> Tensor:
    """The log-probability (B,) of each whole target (B, T) after its source (B, S). Change the printed loss.

    Args: target, filled up with IGNORED; real (B, S), false for padding.

    Hint: cross_entropy with reduction="none" gives 0 for a label that is ignored.
    """
    logits = model(source, shift_right(target, model.config), real)  # (B, T, V)
    cost = F.cross_entropy(logits.transpose(1, 2), target, ignore_index=IGNORED, reduction="none")  # (B, T)
    return -cost.sum(dim=1)


# --8<-- [end:exercise-5]


def check_1(answer: Callable) -> None:
    """First distances of buckets, searched in the printed `bucket`."""
    distance = -torch.arange(400)[None]
    buckets = bucket(distance, 32, 128, causal=True)[0].tolist()
    for which in (0, 7, 15, 16, 17, 20, 24, 30, 31):
        right = buckets.index(which)
        below = 16 * 8 ** ((which - 16) / 16)
        slips = {"a distance is whole: round up, not down": math.floor(below)} if right > below > 16 else {}
        if which < 16:
            slips = {}
        compare(f"nearest({which})", answer(which), right, slips)


def check_2(answer: Callable) -> None:
    """Penalties for three pairs of beams."""
    for short, m, long, n in ((-2.0, 4, -3.0, 8), (-1.3, 3, -1.9, 7), (-0.4, 2, -4.0, 5)):
        right = math.log(long / short) / math.log(n / m)
        slips = {
            "that is minus the penalty: which of the two is divided by more?": -right,
            "that is one over the penalty": 1 / right,
        }
        compare(f"balance({short}, {m}, {long}, {n})", answer(short, m, long, n), right, slips)


def check_3(answer: Callable) -> None:
    """Four texts, one of which has no pair that could come again."""
    torch.manual_seed(0)
    logits, written = torch.randn(4, 9), torch.tensor([[3, 5, 3], [5, 3, 3], [1, 2, 4], [2, 2, 2]])
    right, last = logits.clone(), logits.clone()
    for row, token in ((0, 5), (1, 3), (3, 2)):
        right[row, token] = -math.inf
    for row, tokens in enumerate(written.tolist()):
        last[row, tokens] = -math.inf
    given = answer(logits.clone(), written)
    assert isinstance(given, Tensor) and given.shape == logits.shape, "logits of the same shape are expected"
    banned, expected = given.isinf(), right.isinf()
    if not banned.equal(expected):
        assert not banned.equal(last.isinf()), "a token may come again; a pair of tokens may not"
        for row, tokens in enumerate(written.tolist()):
            if not banned[row].equal(expected[row]):
                few = sorted(expected[row].nonzero().flatten().tolist())
                raise AssertionError(f"after {tokens}, the tokens that may not follow are {few}")
    compare("the other logits", given[~banned], logits[~expected])


def small() -> tuple[T5, dict[str, Tensor]]:
    """A model and a batch, targets filled up with the padding."""
    torch.manual_seed(1)
    model = T5(Config(17, 16, 4, 12, 1, 1, 2, gated=True, tied=False, scaled=False)).double().eval()
    source, target = torch.randint(2, 17, (3, 6)), torch.randint(2, 17, (3, 7))
    for row, length in enumerate((7, 3, 5)):
        target[row, length - 1 :] = 0
        target[row, length - 1] = 1
    real = torch.arange(6) < torch.tensor([6, 4, 5])[:, None]
    return model, {"source": source, "real": real, "target": target}


def costs(model: T5, batch: dict[str, Tensor]) -> list[list[float]]:
    """Of each token of each target, one text at a time, without padding."""
    found = []
    for row, target in enumerate(batch["target"]):
        length = target.tolist().index(1) + 1
        written = torch.cat([torch.zeros(1, dtype=torch.long), target[: length - 1]])
        source = batch["source"][row, batch["real"][row]]
        p = model(source[None], written[None])[0].log_softmax(dim=-1)
        found.append((-p[torch.arange(length), target[:length]]).tolist())
    return found


def check_4(answer: Callable) -> None:
    """A batch of unequal lengths, each text costed alone."""
    model, batch = small()
    each = costs(model, batch)
    flat = [cost for row in each for cost in row]
    slips = {
        "the padding still counts": hasty_loss(model, **batch).item(),
        "short targets should not count more for each token than long ones": sum(
            sum(row) / len(row) for row in each
        )
        / len(each),
        "the end of a target is no padding: without it no text would stop": sum(sum(row[:-1]) for row in each)
        / (len(flat) - len(each)),
    }
    compare("the loss", answer(model, **batch), sum(flat) / len(flat), slips)


def check_5(answer: Callable) -> None:
    """The same batch, each text's probability by itself."""
    model, batch = small()
    each = costs(model, batch)
    batch["target"] = batch["target"].masked_fill(batch["target"] == model.config.pad, IGNORED)
    right = torch.tensor([-sum(row) for row in each])
    slips = {
        "that is the cost: the log-probability is minus that": -right,
        "that is the mean over tokens: the probability of a text is a product": torch.tensor(
            [-sum(row) / len(row) for row in each]
        ),
    }
    compare("log_probability", answer(model, **batch), right, slips)
