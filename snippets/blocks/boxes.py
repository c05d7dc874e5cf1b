"""Boxes, as (left, top, right, bottom): overlap (generalised: Rezatofighi et al. 2019, arXiv 1902.09630), and
the suppression of all but the best of several that overlap.

Shapes: N boxes, M other boxes, K boxes that are kept.
"""

# --8<-- [start:overlap]
import torch
from torch import Tensor

TINY = 1e-9  # in place of an area of 0 below a fraction's line: what is above the line is 0 as well


def areas(boxes: Tensor) -> Tensor:
    """The area (N,) of boxes (N, 4). Raises ValueError for boxes that end before they begin."""
    sides = boxes[:, 2:] - boxes[:, :2]  # (N, 2)
    if not bool((sides >= 0).all()):
        raise ValueError(
            "boxes (left, top, right, bottom) are expected, given one that ends before it begins"
        )
    return sides.prod(dim=1)


def box_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union (N, M) of boxes (N, 4) with others (M, 4); 0 of two empty boxes."""
    corner = torch.maximum(boxes[:, None, :2], others[None, :, :2])  # (N, M, 2) left, top
    end = torch.minimum(boxes[:, None, 2:], others[None, :, 2:])  # (N, M, 2) right, bottom
    shared = (end - corner).clamp(min=0).prod(dim=2)  # (N, M)
    union = areas(boxes)[:, None] + areas(others) - shared  # (N, M)
    return shared / union.clamp(min=TINY)


def generalized_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """For each pair of boxes (N, 4) and others (N, 4): their IoU, less the share (N,) of the box around
    both that neither covers. Where they do not meet, it still says how far apart they are.

    Nothing is checked: a network's boxes may come here before they are any good.
    """
    corner, end = torch.maximum(boxes, others)[:, :2], torch.minimum(boxes, others)[:, 2:]  # (N, 2), (N, 2)
    first, last = torch.minimum(boxes, others)[:, :2], torch.maximum(boxes, others)[:, 2:]  # (N, 2), (N, 2)
    shared = (end - corner).clamp(min=0).prod(dim=1)  # (N,)
    own = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)  # (N,)
    union = own + (others[:, 2:] - others[:, :2]).prod(dim=1) - shared  # (N,)
    hull = (last - first).prod(dim=1)  # (N,) area of the box around both
    return shared / union.clamp(min=TINY) - (hull - union) / hull.clamp(min=TINY)


# --8<-- [end:overlap]


# --8<-- [start:nms]
def survivors(beats: Tensor) -> Tensor:
    """Who is left (N,), where beats (N, N) says whom each one would remove, and only who is left removes.

    beats is only true above the diagonal. Guess that all are left, and correct the guess until it stays the
    same: after n rounds the first n entries are right, and usually all are right after a few.
    """
    alive = torch.ones_like(beats[0])  # (N,)
    while True:
        now = ~(beats & alive[:, None]).any(dim=0)  # (N,)
        if torch.equal(now, alive):
            return alive
        alive = now  # (N,)


def nms(boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float, block: int = 256) -> Tensor:
    """Which of boxes (N, 4) to keep, the highest of scores (N,) first: the places (K,) of those that no kept
    box of the same of labels (N,) and a higher score overlaps by more than threshold.

    Of equal scores the earlier counts as higher. Whole blocks are compared at once; memory grows as K times
    block, and not as the square of N. ValueError unless N finite scores, N labels and a share are given.
    """
    given = len(scores), len(labels), bool(scores.isfinite().all()), 0 <= threshold <= 1
    if given != (len(boxes), len(boxes), True, True):
        raise ValueError(
            f"a finite score and a label for each of {len(boxes)} boxes, and a share, are expected"
        )
    order = scores.argsort(descending=True, stable=True)  # (N,)
    kept = order[:0]  # (0,)

    def clashes(first: Tensor, second: Tensor) -> Tensor:
        same = labels[first][:, None] == labels[second]  # (_, _)
        return same & (box_iou(boxes[first], boxes[second]) > threshold)

    for part in order.split(block):
        part = part[~clashes(kept, part).any(dim=0)]  # (_,) what the kept ones leave
        if len(part):
            part = part[survivors(clashes(part, part).triu(diagonal=1))]  # (_,)
        kept = torch.cat([kept, part])  # (_,)
    return kept


# --8<-- [end:nms]
