"""What a region is trained to say: which box is whose, and how boxes, centre-ness and tokens are told (GLIP,
Li et al. 2021, arXiv 2112.03857, 3.1; ATSS, Zhang et al. 2019, 1912.02424; centre-ness: FCOS, 1904.01355).

Shapes: R regions, K true boxes, P phrases, T tokens, N boxes.
"""

# --8<-- [start:imports]
import math

import torch
from torch import Tensor

# --8<-- [end:imports]
from snippets.blocks.boxes import box_iou


# --8<-- [start:anchors]
def make_anchors(side: int, strides: tuple[int, ...], size: float) -> tuple[Tensor, list[int]]:
    """A square (R, 4) around the middle of each cell of each level, and how many cells each level has.

    side is the picture's, in pixels; a level's cells are stride wide, and its squares size times as wide.
    """
    boxes = []
    for stride in strides:
        middle = stride * (torch.arange(side // stride) + 0.5)  # (_,)
        y, x = torch.meshgrid(middle, middle, indexing="ij")  # (_, _), (_, _)
        centre = torch.stack([x, y], dim=-1).flatten(0, 1)  # (_, 2) row by row
        boxes.append(torch.cat([centre - size * stride / 2, centre + size * stride / 2], dim=1))
    return torch.cat(boxes), [len(level) for level in boxes]


# --8<-- [end:anchors]


# --8<-- [start:coder]
WEIGHTS = torch.tensor([10.0, 10.0, 5.0, 5.0])  # the authors' units, in which a usual change is about 1


def split(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """The middle (N, 2) and the sides (N, 2) of boxes (N, 4)."""
    sides = boxes[:, 2:] - boxes[:, :2]  # (N, 2)
    return boxes[:, :2] + sides / 2, sides


def encode(anchors: Tensor, boxes: Tensor) -> Tensor:
    """How to get from anchors (N, 4) to boxes (N, 4): shifts in anchors, logs of ratios. Returns (N, 4)."""
    (middle, sides), (target, wanted) = split(anchors), split(boxes)
    change = torch.cat([(target - middle) / sides, (wanted / sides).log()], dim=1)  # (N, 4)
    return change * WEIGHTS.to(change)


def decode(anchors: Tensor, change: Tensor) -> Tensor:
    """The boxes (N, 4) that a change (N, 4) makes of anchors (N, 4). No side grows more than 62.5-fold."""
    middle, sides = split(anchors)  # (N, 2), (N, 2)
    shift, log = (change / WEIGHTS.to(change)).split(2, dim=1)  # (N, 2), (N, 2)
    middle = middle + shift * sides  # (N, 2)
    sides = sides * log.clamp(max=math.log(1000 / 16)).exp()  # (N, 2)
    return torch.cat([middle - sides / 2, middle + sides / 2], dim=1)


# --8<-- [end:coder]


# --8<-- [start:centre]
def centre_ness(anchors: Tensor, boxes: Tensor) -> Tensor:
    """How near the middle of anchors (N, 4) is to that of boxes (N, 4): (N,), from 0 at the edge to 1."""
    middle = split(anchors)[0]  # (N, 2)
    before, behind = middle - boxes[:, :2], boxes[:, 2:] - middle  # (N, 2), (N, 2)
    ratio = torch.minimum(before, behind) / torch.maximum(before, behind)  # (N, 2)
    return ratio.prod(dim=1).clamp(min=0).sqrt()


# --8<-- [end:centre]


# --8<-- [start:assign]
def assign(anchors: Tensor, levels: list[int], boxes: Tensor, nearest: int = 9) -> Tensor:
    """ATSS: for each of anchors (R, 4) its place (R,) in boxes (K, 4), or -1 if it is to find none.

    For each box, the nearest anchors of each level are candidates. Those are taken whose overlap is at least
    mean plus deviation of all candidates', and whose middle is in the box. Of two boxes, the larger overlap
    counts.
    """
    if not len(boxes):
        return torch.full((len(anchors),), -1)
    overlap = box_iou(anchors, boxes)  # (R, K)
    distance = torch.cdist(split(anchors)[0], split(boxes)[0])  # (R, K)
    candidate = torch.zeros_like(overlap, dtype=torch.bool)  # (R, K)
    first = 0
    for count in levels:
        part = distance[first : first + count]  # (_, K)
        near = part.topk(min(nearest, count), dim=0, largest=False).indices  # (_, K)
        candidate.scatter_(0, first + near, True)
        first += count
    chosen = overlap.T[candidate.T].view(len(boxes), -1)  # (K, _) as many for each box
    threshold = chosen.mean(dim=1) + chosen.std(dim=1)  # (K,)
    middle = split(anchors)[0][:, None]  # (R, 1, 2)
    inside = torch.cat([middle - boxes[:, :2], boxes[:, 2:] - middle], dim=2).amin(dim=2) > 0.01  # (R, K)
    taken = candidate & inside & (overlap >= threshold)  # (R, K)
    most, place = torch.where(taken, overlap, -1.0).max(dim=1)  # (R,), (R,)
    return torch.where(most >= 0, place, -1)


# --8<-- [end:assign]


# --8<-- [start:targets]
def region_targets(owner: Tensor, boxes: Tensor, names: Tensor, said: Tensor) -> tuple[Tensor, Tensor]:
    """What each region is to say: 1 for all tokens of all phrases of its box; and the box. (R, T), (R, 4).

    Args: owner (R,), of `assign`; boxes (K, 4); names (K, P), which phrase names which box; said (P, T),
    which token says which phrase. A phrase may name several boxes or none, and a box may have several phrases
    or none. Regions without a box have zeros.
    """
    tokens = (names.float() @ said.float() > 0).float()  # (K, T)
    nothing = torch.zeros(1, tokens.shape[1])  # (1, T) owner -1 takes the last row
    return torch.cat([tokens, nothing])[owner], torch.cat([boxes, torch.zeros(1, 4)])[owner]


# --8<-- [end:targets]
