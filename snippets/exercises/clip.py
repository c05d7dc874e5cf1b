"""Exercises of the CLIP post, solved, with what checks an answer.

Shapes: B pictures of a batch, E features of the embedding, P patches, W width.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from snippets.clip import clip_loss, similarities
from snippets.exercises.checking import compare


# --8<-- [start:exercise-1]
def floor_of_repeats(counts: list[int]) -> float:
    """By pencil: the smallest loss that any two encoders can reach on a batch with repeated captions.

    counts says how often each caption occurs: [2, 1] is a batch of three, two of which share a caption. All
    pictures differ.

    Hint: A caption that occurs c times has one embedding. How sure can a picture be of its own copy? And how
    large can the shares of c pictures be, each in the column of its own copy, if those columns are the same?
    """
    # in a row, c texts have the same logit, and the right one gets a share of at most 1/c: it costs log c.
    # c columns are the same; their right entries are c different shares of one softmax, best 1/c each: log c
    return sum(count * math.log(count) for count in counts) / sum(counts)


# --8<-- [end:exercise-1]


# --8<-- [start:exercise-2]
def shared_loss(logits: Tensor, meaning: Tensor) -> Tensor:
    """The loss () where every pair whose captions mean the same is right too.

    Args: logits (B, B); meaning (B,), whole numbers, equal where captions say the same. The right answers of
    a row share the target equally, those of a column too; where all meanings differ the loss is clip_loss.

    Hint: F.cross_entropy takes probabilities as target. Divide a matrix of 0 and 1 by the sums of its rows.
    """
    same = (meaning[:, None] == meaning[None, :]).to(logits)  # (B, B) symmetric
    target = same / same.sum(dim=1, keepdim=True)  # (B, B)
    # where a caption stands there twice, word for word, two columns are equal: what the target takes from one
    # it gives to the other, and nothing changes
    loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2  # ()
    return loss


# --8<-- [end:exercise-2]


# --8<-- [start:given-3]
def hasty_loss(pictures: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """CLIP's loss () of embeddings (B, E), in four lines. One of them has a fault."""
    pictures, texts = F.normalize(pictures, dim=-1), F.normalize(texts, dim=0)  # (B, E), (B, E)
    logits = scale.exp() * pictures @ texts.T  # (B, B)
    right = torch.arange(len(logits), device=logits.device)  # (B,)
    return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2


# --8<-- [end:given-3]


# --8<-- [start:exercise-3]
def careful_loss(pictures: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """hasty_loss without its fault.

    Hint: Compute the lengths of what should have length 1.
    """
    pictures, texts = F.normalize(pictures, dim=-1), F.normalize(texts, dim=-1)  # (B, E), (B, E)
    logits = scale.exp() * pictures @ texts.T  # (B, B)
    right = torch.arange(len(logits), device=logits.device)  # (B,)
    return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2


# --8<-- [end:exercise-3]


# --8<-- [start:exercise-4]
def median_rank(logits: Tensor) -> float:
    """Of logits (B, B): at which place of its sorted row the right column stands, in the median; 1 is best.

    Hint: The place is 1 and as many more as there are larger logits in the row.
    """
    larger = logits > logits.diagonal()[:, None]  # (B, B)
    ranks = 1 + larger.sum(dim=1)  # (B,)
    return ranks.double().quantile(0.5).item()  # for an even number, the middle between two


# --8<-- [end:exercise-4]


# --8<-- [start:exercise-5]
def for_larger_pictures(position: Tensor, grid: int) -> Tensor:
    """Positions of a picture encoder for more patches than it was trained with, by bicubic interpolation.

    position (P + 1, W): first the class token's, then the patches', row by row, of a square of patches.
    Returns (grid * grid + 1, W).

    Hint: Take the first row off. F.interpolate wants (1, W, height, width), and align_corners=False.
    """
    first, patches = position[:1], position[1:]  # (1, W), (P, W)
    side = math.isqrt(len(patches))
    square = patches.T.unflatten(1, (side, side))[None]  # (1, W, _, _)
    larger = F.interpolate(square, size=(grid, grid), mode="bicubic", align_corners=False)  # (1, W, _, _)
    new = torch.cat([first, larger[0].flatten(1).T])  # (_, W)
    return new


# --8<-- [end:exercise-5]


def check_1(answer: Callable) -> None:
    """By embeddings that could not be better."""
    compare("floor_of_repeats([1, 1, 1])", answer([1, 1, 1]), 0.0)
    slips = {
        "a caption that occurs c times counts for c rows, not for one": (math.log(2) + math.log(3)) / 2,
        "the columns cannot tell the pictures apart either": (2 * math.log(2) + 3 * math.log(3)) / 10,
    }
    right = (math.log(4) + math.log(27)) / 5
    compare("floor_of_repeats([2, 3])", answer([2, 3]), right, slips)
    pictures = F.one_hot(torch.tensor([0, 0, 1, 2, 2])).double()
    reached = clip_loss(1000 * pictures @ pictures.T).item()  # by embeddings that could not be better
    compare("floor_of_repeats([2, 1, 2])", answer([2, 1, 2]), reached)


def check_2(answer: Callable) -> None:
    """By sums over the pairs that share a meaning."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(5, 5, generator=generator).double()
    alone, repeated = torch.tensor([4, 2, 0, 1, 3]), torch.tensor([7, 2, 7, 7, 5])
    slips = {
        "the columns are missing: take the rows of logits.T, too": F.cross_entropy(logits, torch.arange(5))
    }
    compare("where all meanings differ the loss", answer(logits, alone), clip_loss(logits), slips)
    rows, columns = logits.log_softmax(1), logits.log_softmax(0)
    groups = [[0, 2, 3], [1], [0, 2, 3], [0, 2, 3], [4]]
    right = -sum((rows[i, j] + columns[j, i]) / len(g) for i, g in enumerate(groups) for j in g) / 10
    total = -sum(rows[i, j] + columns[j, i] for i, g in enumerate(groups) for j in g) / 10
    slips = {
        "captions with the same meaning still count as wrong": clip_loss(logits),
        "the targets of a row do not add up to 1": total,
    }
    compare("with shared meanings the loss", answer(logits, repeated), right, slips)


def check_3(answer: Callable) -> None:
    """By the page's own loss, and with longer embeddings."""
    generator = torch.Generator().manual_seed(0)
    pictures, texts = torch.randn(2, 7, 4, generator=generator).double()
    scale = torch.tensor(1.2).double()
    slips = {
        "the fault is still there": hasty_loss(pictures, texts, scale),
        "embeddings have any length now": clip_loss(scale.exp() * pictures @ texts.T),
    }
    right = clip_loss(similarities(pictures, texts, scale))
    compare("the loss of seven pairs", answer(pictures, texts, scale), right, slips)
    longer = answer(2 * pictures, 5 * texts, scale)
    compare("the loss of the same directions, longer,", longer, right)


def check_4(answer: Callable) -> None:
    """By places counted on paper."""
    logits = torch.tensor([[3.0, 2, 1, 0], [9, 8, 7, 6], [6, 5, 4, 3], [9, 8, 7, 0]])
    slips = {
        "the best place is 1, not 0": 1.5,
        "of an even number of places, the middle of the two": 2.0,
        "the rows are the queries: sort those, not the columns": 3.0,
    }
    compare("the median of the places 1, 2, 3 and 4", answer(logits), 2.5, slips)
    compare(
        "the median of the places 2, 1 and 1", answer(torch.tensor([[1.0, 2, 0], [0, 2, 1], [0, 1, 2]])), 1.0
    )


def check_5(answer: Callable) -> None:
    """By a table that grows from left to right."""
    generator = torch.Generator().manual_seed(0)
    position = torch.randn(10, 4, generator=generator).double()
    compare("for as many patches as before, the table", answer(position, 3), position)
    given = answer(position, 5)
    assert given.shape == (26, 4), (
        f"for 5 x 5 patches, the table has the shape {tuple(given.shape)}, not (26, 4)"
    )
    compare("the class token's row", given[0], position[0])
    across = torch.arange(3.0).double()  # grows from left to right
    ramp = torch.cat([torch.zeros(1).double(), across.repeat(3)])[:, None]
    rows = answer(ramp, 6)[1:].view(6, 6)
    assert (rows[0] - rows[5]).abs().max() < 1e-9, (
        "what grows from left to right grows from top to bottom now"
    )
    assert (rows[:, 1:] > rows[:, :-1]).all(), "what grows from left to right no longer does"
    slips = {
        "that is bilinear": torch.tensor([0.0, 0.25, 0.75]),
        "align_corners=True moves the patches": torch.tensor([0.0, 0.316, 0.728]),
    }
    right = [-0.10546875, 0.19140625, 0.66796875]  # by the cubic kernel, worked out by hand
    compare("of a ramp from 0 to 2, the first half of a row", rows[0, :3], right, slips, tolerance=1e-3)
