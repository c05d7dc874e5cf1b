"""Exercises of the RoBERTa post, solved, with what checks an answer.

Shapes: B texts of a batch, T tokens, N hidden words.
"""

import math
from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor

from snippets.exercises.checking import compare
from snippets.llm.bert import Config
from snippets.llm.roberta import Roberta


# --8<-- [start:exercise-1]
def room_for_a_pair(rows: int, pad: int) -> int:
    """By pencil: how many tokens may the two texts of a pair have together, without the marks?

    Args: rows of the table of positions; pad, the id of padding. The pair is written as for a task, with two
    marks between the texts.

    Hint: Which row of the table does the first real token use, counted from 0? How many tokens of the row are
    marks?
    """
    return rows - pad - 1 - 4


# --8<-- [end:exercise-1]


# --8<-- [start:exercise-2]
def copies_needed(share: float) -> int:
    """By pencil: how many copies of masks it takes, at least, to ask for a share of the places once or more.

    In each copy, 15 % of the places are chosen, independently of the other copies.

    Hint: What is the chance that a place is not chosen in one mask, in two, in k? Take the logarithm.
    """
    return math.ceil(math.log(1 - share) / math.log(0.85))


# --8<-- [end:exercise-2]


# --8<-- [start:exercise-3]
def most_frequent_pair(words: dict[tuple[str, ...], int]) -> tuple[str, str]:
    """The pair of neighbours that BPE joins next.

    Args: words, for each word, as pieces, how often it occurs. Of pairs that are as frequent, the first in
    alphabetical order counts, by the first piece and then by the second.

    Hint: Each occurrence of a word adds one to each of its pairs. min() with a key of two parts decides ties:
    minus the count, then the pair.
    """
    totals = Counter()
    for word, count in words.items():
        for pair in zip(word, word[1:], strict=False):
            totals[pair] += count
    return min(totals, key=lambda pair: (-totals[pair], pair))


# --8<-- [end:exercise-3]


# --8<-- [start:given-4]
def hasty_loss(parts: list[Tensor]) -> Tensor:
    """The loss () of a large batch in parts. parts: costs (N,) of each part's words. It has a fault."""
    return torch.stack([costs.mean() for costs in parts]).mean()


# --8<-- [end:given-4]


# --8<-- [start:exercise-4]
def careful_loss(parts: list[Tensor]) -> Tensor:
    """hasty_loss without its fault: the loss of the one large batch. Parts may be empty, but not all.

    Args: parts, costs (N,) of the hidden words of each part, N differing. Returns ().

    Hint: In a part with few words, how much does one of them count in the mean of means?
    """
    total = torch.stack([costs.sum() for costs in parts]).sum()  # ()
    return total / sum(len(costs) for costs in parts)


# --8<-- [end:exercise-4]


# --8<-- [start:exercise-5]
def same_document(tokens: Tensor, end: int) -> Tensor:
    """Which token may look at which, so that packed documents do not see each other. Returns (B, T, T).

    Args: tokens (B, T), rows of FULL-SENTENCES; end, the id of the mark after each document, which belongs to
    the document before it.

    Hint: Number the documents of a row by torch.cumsum over where the mark stands. Which number does the mark
    itself get? Then compare all numbers with all.
    """
    mark = (tokens == end).long()  # (B, T)
    number = mark.cumsum(dim=1) - mark  # (B, T) marks that stood before
    same = number[:, :, None] == number[:, None, :]  # (B, T, T)
    return same


# --8<-- [end:exercise-5]


def check_1(answer: Callable) -> None:
    """Against a table that is asked."""
    for rows, pad in ((514, 1), (40, 0), (16, 5)):
        longest = Roberta(Config(9, rows, 8, 8, 1, 2), pad).longest
        slips = {
            "the rows up to that of the padding are for no real token": rows - 4,
            "two marks stand between the texts, and the padding's own row is for no token": longest - 3,
            "the marks take places, too": longest,
        }
        compare(f"room_for_a_pair({rows}, {pad})", answer(rows, pad), longest - 4, slips, tolerance=1e-12)


def check_2(answer: Callable) -> None:
    """Copy by copy, until the share is reached."""
    for share in (0.99, 0.8, 0.6):
        never, copies = 1.0, 0
        while 1 - never < share:
            never, copies = never * 0.85, copies + 1
        slips = {
            "that many leave a little less than the share": copies - 1,
            "a whole number of copies is expected": math.log(1 - share) / math.log(0.85),
            "chances of places that may be chosen twice do not add up": math.ceil(share / 0.15),
            "that is for places that are never chosen": math.ceil(math.log(share) / math.log(0.85)),
        }
        compare(f"copies_needed({share})", answer(share), copies, slips, tolerance=1e-12)


def check_3(answer: Callable) -> None:
    """Against a list of all pairs of a text that is written out."""
    cases = [
        {("l", "o", "w"): 5, ("l", "o", "w", "e", "r"): 2, ("n", "e", "w", "e", "s", "t"): 6},
        {("b", "a"): 2, ("a", "b"): 2, ("c",): 9},
        {("a", "b"): 1, ("a", "c"): 1, ("x", "y", "x", "y"): 1, ("z", "q"): 3},
    ]
    for words in cases:
        given = answer(dict(words))
        pairs = [pair for word, n in words.items() for pair in list(zip(word, word[1:], strict=False)) * n]
        kinds = [pair for word in words for pair in zip(word, word[1:], strict=False)]
        right = sorted(set(pairs), key=lambda pair: (-pairs.count(pair), pair))[0]
        how_often, by_kind = Counter(pairs), Counter(kinds)
        tied = given != right and how_often[given] == how_often[right]
        assert not tied, f"of pairs that are as frequent, {right} comes before {given}"
        kind = given != right and by_kind[given] == max(by_kind.values())
        assert not kind, f"a word counts as often as it occurs: {right} occurs {how_often[right]} times"
        assert given == right, f"the next pair of {words} is {right}, not {given!r}"


def check_4(answer: Callable) -> None:
    """Parts of different sizes, one of them empty."""
    generator = torch.Generator().manual_seed(0)
    parts = [torch.rand(n, generator=generator, dtype=torch.float64) * n for n in (3, 11, 1, 0)]
    given = answer(parts[:3])
    slips = {
        "that is still the mean of the parts' means": hasty_loss(parts[:3]),
        "that is the sum; divide by the number of words": torch.cat(parts).sum(),
        "divide by the number of words, not of parts": torch.cat(parts).sum() / 3,
    }
    compare("the loss", given, torch.cat(parts).mean(), slips)
    compare("the loss with an empty part", answer(parts), torch.cat(parts).mean())


def check_5(answer: Callable) -> None:
    """Token by token, in a loop."""
    tokens = torch.tensor([[0, 5, 6, 2, 7, 8, 9, 2], [0, 2, 5, 2, 6, 7, 2, 2], [0, 5, 6, 7, 8, 9, 5, 2]])
    right, late = torch.zeros(3, 8, 8), torch.zeros(3, 8, 8)
    for row in range(3):
        for one in range(8):
            for other in range(8):
                low, high = min(one, other), max(one, other)
                right[row, one, other] = 2 not in tokens[row, low:high].tolist()
                late[row, one, other] = 2 not in tokens[row, low + 1 : high + 1].tolist()
    slips = {
        "the mark belongs to the document before it": late,
        "tokens look ahead too, within their document": right.tril(),
    }
    given = torch.as_tensor(answer(tokens.clone(), 2))
    compare("who sees whom", given.double(), right, slips)
