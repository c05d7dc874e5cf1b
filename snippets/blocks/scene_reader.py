"""What a picture of a scene shows, read without a network and without the code that draws scenes.

A pixel is white paper under ink: 1 - pixel = cover * (1 - colour), with pixels from 0 to 1. The direction of
1 - pixel names the colour, however soft the edge; its length tells how much of the pixel is covered.
Connected pixels of one colour are a component. Its area and its centre of mass fix where an ideal circle,
square, triangle or cross would lie and how large it would be; the one that overlaps most gives the kind.

Shapes: C colours, K kinds, M components, S degrees of blur.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from snippets.data.scenes import ARM, COLOURS, KINDS, RADIUS, Scene

SMALLEST = 12  # pixels: a component of less is a speck (the smallest shape covers 24)
LEAST_OVERLAP = 0.7  # of a component and the best ideal shape: less is no shape
AREAS = [torch.pi, 4.0, 2.0, 4 * (2 * ARM - ARM**2)]  # of each kind, where the box around it has sides of 2
PLACES = [["top left", "top right"], ["bottom left", "bottom right"]]


@dataclass(frozen=True)
class Found:
    """A component of a picture: kind is None when no kind overlaps it well, and then size too."""

    kind: str | None
    colour: str
    size: str | None
    place: str
    centre: tuple[float, float]  # of its mass, (x, y) in pixels
    area: float  # in pixels


def read_scene(picture: Tensor) -> list[Found]:
    """The shapes in a picture (3, 32, 32) in [-1, 1], the largest first. ValueError for other input."""
    if picture.shape != (3, 32, 32):
        raise ValueError(f"a picture (3, 32, 32) is expected, given {tuple(picture.shape)}")
    if not picture.isfinite().all():
        raise ValueError("finite pixels are expected, given some that are not")
    picture = picture.detach().float().cpu().clamp(-1, 1)  # (3, 32, 32)
    paper = picture.flatten(1).median(dim=1).values.clamp(min=0.7)[:, None, None]  # (3, 1, 1) about white
    ink = (paper - picture) / 2  # (3, 32, 32)
    palette = 1 - torch.tensor(list(COLOURS.values()))  # (C, 3)
    along = torch.einsum("cd,dhw->chw", palette, ink)  # (C, 32, 32)
    nearest = (along / palette.norm(dim=1)[:, None, None]).argmax(dim=0)  # (32, 32) in direction
    cover = along / palette.square().sum(dim=1)[:, None, None]  # (C, 32, 32)
    solid = (cover > 0.5) & (nearest == torch.arange(len(palette))[:, None, None])  # (C, 32, 32)
    if not solid.any():
        return []
    parts = components(solid[solid.any(dim=(1, 2))])
    found = [describe(ink, part, solid.any(dim=0)) for part in parts]
    return sorted(found, key=lambda shape: -shape.area)


def components(solid: Tensor) -> list[Tensor]:
    """The connected parts, each (32, 32), of masks (C, 32, 32), without specks. Corners connect."""
    names = torch.arange(1, solid.numel() + 1).view_as(solid).float() * solid  # (C, 32, 32) all different
    while True:  # the largest name spreads through each part
        spread = F.max_pool2d(names, 3, stride=1, padding=1) * solid  # (C, 32, 32)
        if torch.equal(spread, names):
            break
        names = spread  # (C, 32, 32)
    values, counts = names[solid].unique(return_counts=True)  # (M,), (M,)
    return [(names == value).any(dim=0) for value in values[counts >= SMALLEST]]


def describe(ink: Tensor, part: Tensor, solid: Tensor) -> Found:
    """Colour, place, kind and size of the component `part` (32, 32) of a picture's ink (3, 32, 32)."""
    outside = F.max_pool2d((~part)[None].float(), 3, stride=1, padding=1)[0]  # (32, 32) 1 also on its edge
    inner = outside == 0  # (32, 32)
    tone = ink[:, inner if inner.sum() >= 3 else part].median(dim=1).values  # (3,)
    colour = int((1 - torch.tensor(list(COLOURS.values())) - tone).norm(dim=1).argmin())
    around = F.max_pool2d(part[None].float(), 5, stride=1, padding=2)[0] > 0  # (32, 32) with its soft edge
    own = around & (part | ~solid)  # (32, 32) without other components
    cover = (torch.einsum("d,dhw->hw", tone, ink) / tone.square().sum()) * own  # (32, 32) may be noisy
    line = torch.arange(32) + 0.5  # (32,)
    area = float(cover.sum())
    x, y = float(cover.sum(dim=0) @ line) / area, float(cover.sum(dim=1) @ line) / area
    ideal = ideals((x, y), area)  # (S, K, 32, 32)
    cover = cover.clamp(0, 1)  # (32, 32) only now: else noise would add to the area
    common = torch.minimum(cover, ideal).sum(dim=(2, 3))  # (S, K)
    overlap = common / torch.maximum(cover, ideal).sum(dim=(2, 3))  # (S, K)
    best = int(overlap.max(dim=0).values.argmax())
    kind, size = KINDS[best], min(RADIUS, key=lambda name: abs(RADIUS[name] - (area / AREAS[best]) ** 0.5))
    if overlap.max() < LEAST_OVERLAP:
        kind, size = None, None
    return Found(kind, list(COLOURS)[colour], size, PLACES[y >= 16][x >= 16], (x, y), area)


def ideals(centre: tuple[float, float], area: float) -> Tensor:
    """How much of each pixel ideal shapes of this centre of mass and area cover.

    Returns (S, K, 32, 32): sharp and blurred more and more, of each kind.
    """
    radius = (area / torch.tensor(AREAS)).sqrt()[:, None]  # (K, 1) half the side of the box around it
    y = ((torch.arange(64) + 0.5) / 2 - centre[1]) / radius  # (K, 64) two lines through each row of pixels
    circle = (1 - y[0].square()).clamp(min=0).sqrt()  # (64,) half the width of the shape on each line
    square = (y[1].abs() < 1).float()  # (64,)
    triangle = (y[2] + 4 / 3).clamp(min=0) / 2 * (y[2] < 2 / 3)  # (64,) the centre of mass is at 0
    cross = torch.where(y[3].abs() < ARM, 1.0, ARM) * (y[3].abs() < 1)  # (64,)
    half = (radius * torch.stack([circle, square, triangle, cross]))[:, :, None]  # (K, 64, 1)
    left = torch.arange(32)  # (32,) ends of pixels
    inside = torch.minimum(left + 1, centre[0] + half) - torch.maximum(left, centre[0] - half)  # (K, 64, 32)
    blurred = [F.avg_pool2d(inside.clamp(min=0), (2, 1))]
    for _ in range(2):
        blurred.append(F.avg_pool2d(blurred[-1], 3, stride=1, padding=1))
    return torch.stack(blurred)


def parse_caption(caption: str) -> list[tuple[str, str, str, str]]:
    """Kind, colour, size and place of each shape that a caption asks for. ValueError for another sentence."""
    asked = []
    for phrase in caption.split(" and "):
        words = phrase.split()
        known = len(words) == 8 and words[1] in RADIUS and words[2] in COLOURS and words[3] in KINDS
        place = " ".join(words[6:])
        if not known or [words[0], *words[4:6]] != ["a", "at", "the"] or place not in PLACES[0] + PLACES[1]:
            raise ValueError(f"'a small red circle at the top left' is expected, or alike, given {phrase!r}")
        asked.append((words[3], words[2], words[1], place))
    return asked


def caption_agreement(asked: Scene | str, picture: Tensor) -> dict[str, float]:
    """How far a picture (3, 32, 32) shows what a caption, or the caption of a scene, asks for.

    For each shape asked for, look at the largest component whose place is the asked one. "colour", "kind"
    and "size" are right when it exists and has the asked colour, kind, size. "place" is right when some
    component at the asked place has both the asked colour and the asked kind: the same shape elsewhere is
    wrong. Each is the mean over the shapes, from 0 to 1. "extra" is the number of components beyond one at
    each asked place. ValueError as for `parse_caption` and `read_scene`.
    """
    shapes = parse_caption(asked.caption if isinstance(asked, Scene) else asked)
    found = read_scene(picture)
    right, matched = {"colour": 0, "kind": 0, "size": 0, "place": 0}, 0
    for kind, colour, size, place in shapes:
        here = [shape for shape in found if shape.place == place]  # the largest first
        if here:
            matched += 1
            right["colour"] += here[0].colour == colour
            right["kind"] += here[0].kind == kind
            right["size"] += here[0].size == size
            right["place"] += any((shape.colour, shape.kind) == (colour, kind) for shape in here)
    return {name: count / len(shapes) for name, count in right.items()} | {"extra": len(found) - matched}
