"""Average precision of detected boxes, as COCO counts it (Lin et al. 2014, arXiv 1405.0312).

Shapes: D detections, G true boxes, T thresholds, N detections of all pictures, M numbers, R recalls.
"""

# --8<-- [start:precision]
from dataclasses import dataclass

import torch
from torch import Tensor

# --8<-- [end:precision]
from snippets.blocks.boxes import box_iou


# --8<-- [start:found]
@dataclass(frozen=True)
class Found:
    """What is said to be in one picture: D boxes with scores and labels (whole numbers)."""

    boxes: Tensor  # of (D, 4)
    scores: Tensor  # of (D,)
    labels: Tensor  # of (D,)


@dataclass(frozen=True)
class Truth:
    """What is in one picture: G boxes with labels."""

    boxes: Tensor  # of (G, 4)
    labels: Tensor  # of (G,)


# --8<-- [end:found]


# --8<-- [start:matching]
STEPS = torch.arange(10, dtype=torch.float64)
THRESHOLDS = 0.5 + STEPS * ((0.95 - 0.5) / 9)  # a box is found from such an IoU on
RECALLS = 0.01 * torch.arange(101, dtype=torch.float64)


def hits(overlap: Tensor, thresholds: Tensor) -> Tensor:
    """Which detections find a true box, (T, D), for overlap (D, G) sorted by score and thresholds (T,).

    Each takes the free box that it overlaps most, if by enough. A box that is taken is free no more: to find
    it twice is an error. Of two equal overlaps the later box is taken, as by pycocotools.
    """
    num_found, num_true = overlap.shape
    free = torch.ones(len(thresholds), num_true, dtype=torch.bool)  # (T, G)
    right = torch.zeros(len(thresholds), num_found, dtype=torch.bool)  # (T, D)
    if not num_true:
        return right
    row = torch.arange(len(thresholds))  # (T,)
    for d in range(num_found):
        fits = free & (overlap[d] >= thresholds[:, None].clamp(max=1 - 1e-10))  # (T, G)
        best = torch.where(fits, overlap[d], -1.0)  # (T, G)
        place = num_true - 1 - best.flip(1).argmax(dim=1)  # (T,) the last of the largest
        right[:, d] = fits[row, place]
        free[row, place] &= ~right[:, d]
    return right


# --8<-- [end:matching]


# --8<-- [start:average]
def average_precision(right: Tensor, scores: Tensor, num_true: int) -> Tensor:
    """The mean precision (T,) over 101 recalls, of detections right (T, N) with scores (N,).

    The precision at a recall is the best that is reached at this recall or a higher one; 0 where none is.
    """
    if not len(scores):
        return torch.zeros(len(right), dtype=torch.float64)
    order = scores.argsort(descending=True, stable=True)  # (N,)
    found = right[:, order].double().cumsum(dim=1)  # (T, N)
    precision = found / torch.arange(1, len(scores) + 1)  # (T, N)
    best = precision.flip(1).cummax(dim=1).values.flip(1)  # (T, N)
    best = torch.cat([best, torch.zeros_like(best[:, :1])], dim=1)  # (T, N + 1) 0 beyond the last
    recall = found / num_true  # (T, N)
    place = torch.searchsorted(recall, RECALLS.expand(len(right), -1).contiguous())  # (T, 101)
    return best.gather(1, place).mean(dim=1)


def coco_ap(found: list[Found], truth: list[Truth], per_label: int = 100) -> dict[int, Tensor]:
    """For each label that some picture has: its average precision (10,) at the thresholds of IoU.

    At most per_label detections of a label count in a picture, those of the highest scores. A label that is
    in no picture has no average precision: its detections are left out, as by pycocotools. Raises ValueError
    for lists of different lengths.
    """
    if len(found) != len(truth):
        raise ValueError(f"a truth for each picture is expected, given {len(found)} and {len(truth)}")
    result = {}
    for label in torch.cat([true.labels for true in truth]).unique().tolist():
        right, scores, num_true = [], [], 0
        for one, true in zip(found, truth, strict=True):
            chosen = (one.labels == label).nonzero()[:, 0]  # (_,)
            order = one.scores[chosen].argsort(descending=True, stable=True)[:per_label]  # (_,)
            chosen, wanted = chosen[order], true.boxes[true.labels == label]  # (_,), (_, 4)
            overlap = box_iou(one.boxes[chosen].double(), wanted.double())  # (_, _)
            right.append(hits(overlap, THRESHOLDS))
            scores.append(one.scores[chosen])
            num_true += len(wanted)
        result[label] = average_precision(torch.cat(right, dim=1), torch.cat(scores), num_true)
    return result


def mean_ap(precision: dict[int, Tensor]) -> tuple[float, float]:
    """AP50, and AP over all thresholds, each the mean over labels."""
    table = torch.stack(list(precision.values()))  # (_, 10)
    return table[:, 0].mean().item(), table.mean().item()


# --8<-- [end:average]
