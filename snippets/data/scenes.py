"""Drawn scenes: pictures of one to three shapes, with all that a later post asks of a picture.

A picture is 32x32 pixels, red, green and blue in [-1, 1], on white. Positions are (x, y) in pixels from the
top left corner: the pixel of row i and column j covers x from j to j + 1 and y from i to i + 1.

Shapes: K shapes, N captions or scenes, L words, P points.
"""

# --8<-- [start:scenes]
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

KINDS = ["circle", "square", "triangle", "cross"]
COLOURS = {  # red, green and blue from 0 to 1; from yellow to purple darker and darker
    "yellow": (0.98, 0.80, 0.05),
    "green": (0.15, 0.68, 0.33),
    "red": (0.85, 0.16, 0.14),
    "blue": (0.08, 0.30, 0.80),
    "purple": (0.40, 0.08, 0.48),
}
ARM = 0.36  # half the width of a cross's arms, where the cross is from -1 to 1
RADIUS = {"small": 4.5, "large": 6.0}  # of every kind, the box around it has this half width
PLACES = {"top left": (8, 8), "top right": (24, 8), "bottom left": (8, 24), "bottom right": (24, 24)}
HELD_OUT = [("red", "square"), ("green", "triangle"), ("blue", "circle"), ("yellow", "cross")]
SEEN = [(colour, kind) for colour in COLOURS for kind in KINDS if (colour, kind) not in HELD_OUT]
VOCABULARY = [
    "",
    *"a at the and top bottom left right".split(),
    *RADIUS,
    *COLOURS,
    *KINDS,
]  # 0 is the padding
MAX_WORDS = 26  # three phrases of eight words and two "and"


@dataclass(frozen=True)
class Shape:
    """One shape; ValueError for an unknown word, or when it leaves its quarter of the picture."""

    kind: str
    colour: str
    size: str
    place: str
    centre: tuple[float, float]  # of the box around it, (x, y)

    def __post_init__(self):
        allowed = {"kind": KINDS, "colour": COLOURS, "size": RADIUS, "place": PLACES}
        for name, words in allowed.items():
            if getattr(self, name) not in words:
                raise ValueError(
                    f"a {name} out of {', '.join(words)} is expected, given {getattr(self, name)}"
                )
        reach = 7 - self.radius  # a pixel stays free all around
        if not all(abs(a - b) <= reach for a, b in zip(self.centre, PLACES[self.place], strict=True)):
            raise ValueError(
                f"a centre at most {reach} from {PLACES[self.place]} is expected, given {self.centre}"
            )

    @property
    def radius(self) -> float:
        """Half the side of the box around it."""
        return RADIUS[self.size]

    @property
    def phrase(self) -> str:
        """What a caption says of it."""
        return f"a {self.size} {self.colour} {self.kind} at the {self.place}"


@dataclass(frozen=True)
class Scene:
    """A picture (3, 32, 32) of K shapes, and what is known about it. The caption names them in order."""

    shapes: list[Shape]
    picture: Tensor
    caption: str
    spans: list[tuple[int, int]]  # caption[start:end] is the phrase of a shape
    boxes: Tensor  # of (K, 4): left, top, right, bottom
    mask: Tensor  # of (32, 32): 0 in the background, k + 1 in shape k
    edges: Tensor  # of (32, 32): 1 on the outlines, else 0
    key_points: list[Tensor]  # of each shape (P, 2): the centre, then the corners, in pixels


def coverage(shape: Shape) -> Tensor:
    """How much of each pixel (32, 32) the shape covers, from 0 to 1: one half where its edge passes."""
    line = torch.arange(32) + 0.5  # (32,) middles of pixels
    x = ((line - shape.centre[0]) / shape.radius).abs()  # (32,) the box around the shape is from -1 to 1
    y = ((line - shape.centre[1]) / shape.radius)[:, None]  # (32, 1)
    far, near = torch.maximum(x, y.abs()), torch.minimum(x, y.abs())  # (32, 32), (32, 32)
    distance = {  # to the edge, negative inside
        "circle": lambda: torch.hypot(x, y) - 1,
        "square": lambda: far - 1,
        "triangle": lambda: torch.maximum((2 * x - 1 - y) / 5**0.5, far - 1),
        "cross": lambda: torch.maximum(far - 1, near - ARM),
    }[shape.kind]()  # (32, 32)
    return (0.5 - shape.radius * distance).clamp(0, 1)


def key_points(shape: Shape) -> Tensor:
    """The centre and the corners (P, 2) of a shape; ends of a cross's arms count as its corners."""
    corners = {
        "circle": [],
        "square": [(-1, -1), (1, -1), (1, 1), (-1, 1)],
        "triangle": [(0, -1), (1, 1), (-1, 1)],
        "cross": [(0, -1), (1, 0), (0, 1), (-1, 0)],
    }[shape.kind]
    points = torch.tensor(shape.centre) + shape.radius * torch.tensor([(0, 0), *corners])  # (P, 2)
    return points


def draw_scene(shapes: list[Shape]) -> Scene:
    """Draw one to three shapes at different places. ValueError for none, more, or two at one place."""
    places = [shape.place for shape in shapes]
    if not 1 <= len(shapes) <= 3 or len(set(places)) < len(places):
        raise ValueError(f"one to three shapes at different places are expected, given {places}")
    picture = torch.ones(3, 32, 32)  # (3, 32, 32) white
    mask = torch.zeros(32, 32, dtype=torch.long)  # (32, 32)
    for k, shape in enumerate(shapes):
        cover = coverage(shape)  # (32, 32)
        colour = 2 * torch.tensor(COLOURS[shape.colour])[:, None, None] - 1  # (3, 1, 1) in [-1, 1]
        picture = torch.lerp(picture, colour, cover)  # (3, 32, 32)
        mask[cover > 0.5] = k + 1
    shown = (mask > 0).float()[None]  # (1, 32, 32)
    edges = (shown * F.max_pool2d(1 - shown, 3, stride=1, padding=1))[
        0
    ]  # (32, 32) background is next to them
    centres = torch.tensor([shape.centre for shape in shapes])  # (K, 2)
    radii = torch.tensor([[shape.radius] for shape in shapes])  # (K, 1)
    boxes = torch.cat([centres - radii, centres + radii], dim=1)  # (K, 4)
    phrases = [shape.phrase for shape in shapes]
    starts = [len(" and ".join([*phrases[:k], ""])) for k in range(len(shapes))]
    spans = [(start, start + len(phrase)) for start, phrase in zip(starts, phrases, strict=True)]
    points = [key_points(shape) for shape in shapes]
    return Scene(shapes, picture, " and ".join(phrases), spans, boxes, mask, edges, points)


def random_scene(generator: torch.Generator, held_out: bool, max_shapes: int) -> Scene:
    """One of the scenes that `scenes` draws."""

    def below(end: int) -> int:
        return int(torch.randint(end, (), generator=generator))

    places = torch.randperm(4, generator=generator)[: 1 + below(max_shapes)]  # (K,) in random order
    pairs = [SEEN[below(len(SEEN))] for _ in places]
    if held_out:
        pairs[below(len(pairs))] = HELD_OUT[below(len(HELD_OUT))]
    shapes = []
    for (colour, kind), place in zip(pairs, [list(PLACES)[i] for i in places], strict=True):
        size = list(RADIUS)[below(2)]
        jitter = (7 - RADIUS[size]) * (2 * torch.rand(2, generator=generator) - 1)  # (2,)
        x, y = (torch.tensor(PLACES[place]) + jitter).tolist()
        shapes.append(Shape(kind, colour, size, place, (x, y)))
    return draw_scene(shapes)


def scenes(
    count: int, generator: torch.Generator, held_out: bool = False, max_shapes: int = 3
) -> list[Scene]:
    """Random scenes of 1 to max_shapes shapes: none of a held-out pair or, if held_out, one in each scene."""
    if count < 0 or not 1 <= max_shapes <= 3:
        raise ValueError(f"count >= 0 and max_shapes from 1 to 3 are expected, given {count}, {max_shapes}")
    return [random_scene(generator, held_out, max_shapes) for _ in range(count)]


def encode_captions(captions: list[str]) -> Tensor:
    """The words of captions as places in the vocabulary (N, L), padded with 0; "" is all padding.

    ValueError for a word that is not in the vocabulary, and for more than L = MAX_WORDS words.
    """
    rows = []
    for caption in captions:
        words = caption.split()
        unknown = [word for word in words if word not in VOCABULARY]
        if unknown:
            raise ValueError(f"words of the vocabulary are expected, given {unknown[0]!r} in {caption!r}")
        if len(words) > MAX_WORDS:
            raise ValueError(f"at most {MAX_WORDS} words are expected, given {len(words)} in {caption!r}")
        rows.append([VOCABULARY.index(word) for word in words] + [0] * (MAX_WORDS - len(words)))
    tokens = torch.tensor(rows, dtype=torch.long).view(-1, MAX_WORDS)  # (N, L)
    return tokens


# --8<-- [end:scenes]


# --8<-- [start:ink]
def ink(drawn: list[Scene]) -> Tensor:
    """Pictures (N, 3, 32, 32) as the network reads them: white is 0, the darkest -1."""
    pictures = torch.stack([scene.picture for scene in drawn])  # (N, 3, 32, 32) white is 1
    return (pictures - 1) / 2


# --8<-- [end:ink]
