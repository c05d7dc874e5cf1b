"""Exercises of the GLIP post, solved, with what checks an answer.

Shapes: N boxes, M other boxes, B pictures of a batch, R regions, T tokens, P phrases.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from snippets.blocks.boxes import box_iou, generalized_iou
from snippets.exercises.checking import compare


# --8<-- [start:exercise-1]
def giou_of_gap(gap: float) -> float:
    """By pencil: the generalised IoU of two squares with sides of 1, side by side, gap >= 0 between them.

    Hint: The box around both is 2 + gap wide and 1 high. How much of it is covered?
    """
    # IoU is 0; of the hull's 2 + gap, the gap is covered by neither. It tends to -1; the slope never vanishes
    return -gap / (2 + gap)


# --8<-- [end:exercise-1]


# --8<-- [start:exercise-2]
def strict_scores(probabilities: Tensor, said: Tensor) -> Tensor:
    """The geometric mean (B, R, P) of a phrase's probabilities, instead of their mean.

    Args: probabilities (B, R, T), above 0; said (P, T), which token says which phrase.

    Hint: A geometric mean is the exponential of the mean of logarithms.
    """
    share = said.to(probabilities) / said.sum(dim=1, keepdim=True)  # (P, T)
    return (probabilities.log() @ share.T).exp()


# --8<-- [end:exercise-2]


# --8<-- [start:given-3]
def hasty_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union (N, M) of boxes (N, 4) with others (M, 4). One line has a fault."""
    corner = torch.maximum(boxes[:, None, :2], others[:, :2])  # (N, M, _) x and y
    end = torch.minimum(boxes[:, None, 2:], others[:, 2:])  # (N, M, _) x and y
    shared = (end - corner).prod(dim=2).clamp(min=0)  # (N, M)
    own, its = ((one[:, 2:] - one[:, :2]).prod(dim=1) for one in (boxes, others))  # (N,), (M,)
    return shared / (own[:, None] + its - shared)


# --8<-- [end:given-3]


# --8<-- [start:exercise-3]
def careful_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """hasty_iou without its fault.

    Hint: Take a box that lies to the upper left of another. What is the product of two negative numbers?
    """
    corner = torch.maximum(boxes[:, None, :2], others[:, :2])  # (N, M, _) x and y
    end = torch.minimum(boxes[:, None, 2:], others[:, 2:])  # (N, M, _) x and y
    shared = (end - corner).clamp(min=0).prod(dim=2)  # (N, M)
    own, its = ((one[:, 2:] - one[:, :2]).prod(dim=1) for one in (boxes, others))  # (N,), (M,)
    return shared / (own[:, None] + its - shared)


# --8<-- [end:exercise-3]


# --8<-- [start:exercise-4]
def soft_scores(boxes: Tensor, scores: Tensor) -> Tensor:
    """Each score times 1 minus the largest IoU with a box before it: (N,).

    Args: boxes (N, 4) and scores (N,), the highest first. Nothing precedes the first box.

    Hint: box_iou gives all of them at once; triu(diagonal=1) keeps those with a box before.
    """
    before = box_iou(boxes, boxes).triu(diagonal=1)  # (N, N)
    return scores * (1 - before.amax(dim=0))


# --8<-- [end:exercise-4]


# --8<-- [start:exercise-5]
def prompts_needed(lengths: list[int], limit: int) -> int:
    """How many prompts phrases of these lengths need, in their order, with one token between two phrases.

    No phrase is longer than limit.

    Hint: Keep the length of the prompt that is being written. Its first phrase needs no separator.
    """
    count, length = 0, limit + 1
    for phrase in lengths:
        if length + 1 + phrase > limit:
            count, length = count + 1, phrase
        else:
            length += 1 + phrase
    return count


# --8<-- [end:exercise-5]


def check_1(answer: Callable) -> None:
    """GIoU of squares with three gaps."""
    for gap in (0.0, 0.5, 3.0):
        pair = torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[1 + gap, 0, 2 + gap, 1]])
        slips = {
            "that is the share of the hull that is empty; it is taken off, so the sign is the other one": gap
            / (2 + gap),
            "the hull is 2 + gap wide: both squares and the gap": -gap / (1 + gap),
        }
        slips = {sentence: value for sentence, value in slips.items() if gap}
        compare(f"giou_of_gap({gap})", answer(gap), generalized_iou(*pair)[0], slips)


def check_2(answer: Callable) -> None:
    """Scores of three phrases."""
    p = torch.tensor([[[0.9, 0.1, 0.4, 0.4], [0.5, 0.5, 0.2, 0.8]]])
    said = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 0], [0, 1, 1, 1]]).bool()
    right = torch.tensor([[[0.3, 0.4, 0.016 ** (1 / 3)], [0.5, 0.2, 0.08 ** (1 / 3)]]])
    slips = {
        "that is the mean of the page": p @ (said.float() / said.sum(dim=1, keepdim=True)).T,
        "that is the product: long phrases lose by being long": (p.log() @ said.float().T).exp(),
    }
    compare("strict_scores of four tokens and three phrases", answer(p, said), right, slips)


def check_3(answer: Callable) -> None:
    """Boxes that meet and boxes that do not."""
    boxes = torch.tensor([[0.0, 0, 2, 3], [4, 4, 6, 7], [1, 1, 5, 5]])
    others = torch.tensor([[1.0, 1, 3, 3], [7, 8, 9, 9]])
    given = answer(boxes, others)
    if torch.is_tensor(given) and given.shape == (3, 2):
        assert given[0, 1] == 0, "the fault is still there: two boxes that do not meet share something"
    compare("careful_iou", given, torch.tensor([[2 / 8, 0], [0, 0], [4 / 16, 0]]))


def check_4(answer: Callable) -> None:
    """Four boxes, one of which overlaps nothing."""
    boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 2], [0, 0, 2, 2], [10, 10, 12, 12]])
    scores = torch.tensor([0.9, 0.8, 0.5, 0.4])
    overlap = box_iou(boxes, boxes)
    slips = {
        "a box has an IoU of 1 with itself: only those before it count": 0 * scores,
        "boxes behind a box count, too; only those before it should": scores
        * (1 - (overlap - torch.eye(4)).amax(dim=0)),
        "the IoUs are summed; the largest is asked for": scores * (1 - overlap.triu(1).sum(dim=0)),
    }
    compare("soft_scores of four boxes", answer(boxes, scores), [0.9, 0.4, 0.25, 0.4], slips)


def check_5(answer: Callable) -> None:
    """Short lists, and LVIS."""
    gap = "the separators need tokens, too"
    last = {"the last phrase needs no separator behind it": 2}
    compare("prompts_needed([4, 3], 8)", answer([4, 3], 8), 1, last)
    compare("prompts_needed([4, 4], 8)", answer([4, 4], 8), 2, {gap: 1})
    compare("prompts_needed([3, 4, 3, 2, 5, 3], 8)", answer([3, 4, 3, 2, 5, 3], 8), 4, {gap: 3})
    compare("prompts_needed([], 8)", answer([], 8), 0, {"no phrases need no prompt": 1})
    compare("prompts_needed of LVIS", answer([3] * 1203, 256), 19)
