"""The reader of scenes: right on drawn scenes, also noisy, blurred and tinted ones, and not to be fooled."""

import functools

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from scipy import ndimage

from snippets.blocks.scene_reader import Found, caption_agreement, components, ideals, parse_caption, read_scene
from snippets.data.scenes import COLOURS, KINDS, Scene, Shape, draw_scene, scenes


@functools.cache
def fresh(count: int) -> list[Scene]:
    """Scenes of seen and of held-out pairs."""
    generator = torch.Generator().manual_seed(11)
    return scenes(count // 2, generator) + scenes(count - count // 2, generator, held_out=True)


def blurred(picture: torch.Tensor, sigma: float) -> torch.Tensor:
    return torch.from_numpy(ndimage.gaussian_filter(picture.numpy(), (0, sigma, sigma), mode="nearest"))


def right(read: list[Found], scene: Scene) -> tuple[int, int, int]:
    """How many shapes have colour, kind and place right; and size too; and how many are asked for."""
    found = {shape.place: shape for shape in read}
    here = [(found.get(shape.place), shape) for shape in scene.shapes]
    named = [(f, s) for f, s in here if f and (f.colour, f.kind) == (s.colour, s.kind)]
    return len(named), sum(f.size == s.size for f, s in named), len(scene.shapes)


DAMAGES = {
    "none": (2000, 0.995, lambda picture, generator: picture),
    "noise": (400, 0.98, lambda p, generator: p + 0.1 * torch.randn(p.shape, generator=generator)),
    "blur": (400, 0.98, lambda p, _: blurred(p, 0.7)),
    "both": (200, 0.98, lambda p, generator: blurred(p, 0.6) + 0.1 * torch.randn(p.shape, generator=generator)),
    "tint": (200, 0.98, lambda p, generator: (p + 0.15 * torch.randn(3, 1, 1, generator=generator)).clamp(-1, 1)),
    "fade": (200, 0.98, lambda p, _: 1 - 0.8 * (1 - p)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_scenes_are_read_right(damage):
    count, bar, change = DAMAGES[damage]
    generator = torch.Generator().manual_seed(12)
    read = [read_scene(change(scene.picture, generator)) for scene in fresh(2000)[:: 2000 // count]]
    counts = [right(found, scene) for found, scene in zip(read, fresh(2000)[:: 2000 // count], strict=True)]
    named, sized, asked = (sum(column) for column in zip(*counts, strict=True))
    assert named >= bar * asked and sized >= bar * asked
    assert sum(len(found) for found in read) <= 1.005 * asked  # and nothing else is seen
    wrong = [right(found, scene) for found, scene in zip(read[1:], fresh(2000)[:: 2000 // count], strict=False)]
    assert sum(named for named, _, _ in wrong) < 0.15 * asked  # negative control: another scene's picture


def paint(*shapes: tuple[str, list], size: int = 32) -> torch.Tensor:
    """Polygons, or circles (x, y, r), in colours, drawn by Pillow 8 times as large."""
    canvas = Image.new("RGB", (8 * size, 8 * size), "white")
    draw = ImageDraw.Draw(canvas)
    for colour, points in shapes:
        fill = tuple(round(255 * value) for value in COLOURS.get(colour, (1, 1, 1)))
        if isinstance(points, tuple):
            x, y, r = points
            draw.ellipse([8 * (x - r), 8 * (y - r), 8 * (x + r) - 1, 8 * (y + r) - 1], fill=fill)
        else:
            draw.polygon([(8 * x, 8 * y) for x, y in points], fill=fill)
    pixels = np.asarray(canvas, dtype=np.float32).reshape(size, 8, size, 8, 3).mean((1, 3))
    return torch.from_numpy(pixels / 127.5 - 1).permute(2, 0, 1)


def box(left: float, top: float, right: float, bottom: float) -> list:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def names(picture: torch.Tensor) -> set:
    return {(shape.colour, shape.kind, shape.place) for shape in read_scene(picture)}


def test_shapes_that_others_drew_are_read():
    picture = paint(("red", (8, 8, 5.5)), ("blue", box(19, 3, 29, 13)), ("green", [(8, 18), (13, 28), (3, 28)]))
    expected = {("red", "circle"), ("blue", "square"), ("green", "triangle")}
    assert {(colour, kind) for colour, kind, _ in names(picture)} == expected
    cross = paint(("purple", box(22, 19, 26, 29)), ("purple", box(19, 22, 29, 26)))
    assert names(cross) == {("purple", "cross", "bottom right")}


@pytest.mark.parametrize("left, right", [(a, b) for a in COLOURS for b in COLOURS if a != b])
def test_touching_shapes_of_different_colours_are_two(left, right):
    pair = paint((left, box(6, 3, 16, 13)), (right, (21.5, 8, 5.5)))
    assert names(pair) == {(left, "square", "top left"), (right, "circle", "top right")}
    assert names(blurred(pair, 0.4)) == names(pair)
    below = paint((left, (8, 10.5, 5.5)), (right, [(8, 16), (13, 26), (3, 26)]))
    assert names(below) == {(left, "circle", "top left"), (right, "triangle", "bottom left")}


def test_specks_are_ignored_and_odd_components_are_unreadable():
    square = ("red", box(4, 4, 12, 12))
    assert names(paint(square, ("blue", box(20, 20, 23, 23)))) == {("red", "square", "top left")}
    ring = paint(square, ("blue", (24, 24, 7)), ("white", (24, 24, 4.5)))
    assert names(ring) == {("red", "square", "top left"), ("blue", None, "bottom right")}
    bar = paint(("green", box(3, 20, 14, 23)))
    assert names(bar) == {("green", None, "bottom left")}
    assert [shape.size for shape in read_scene(bar)] == [None]
    merged = paint(("red", box(4, 4, 15, 12)), ("red", box(15, 4, 28, 12)))  # two of one colour have no seam
    assert [shape.kind for shape in read_scene(merged)] == [None]


def test_blank_and_random_pictures_show_nothing_that_was_asked():
    caption = "a small red circle at the top left and a large blue square at the bottom right"
    for value in (1.0, 0.9):
        assert read_scene(torch.full((3, 32, 32), value)) == []
    zero = {"colour": 0, "kind": 0, "size": 0, "place": 0, "extra": 0}
    assert caption_agreement(caption, torch.ones(3, 32, 32)) == zero
    generator = torch.Generator().manual_seed(13)
    for scale in (0.1, 1.0, 5.0):
        noise = scale * torch.randn(3, 32, 32, generator=generator)
        assert caption_agreement(caption, noise)["place"] == 0
    assert caption_agreement(caption, torch.full((3, 32, 32), -1.0))["place"] == 0


def mean(asked: list, pictures: list) -> dict[str, float]:
    every = [caption_agreement(a, p) for a, p in zip(asked, pictures, strict=True)]
    return {name: sum(one[name] for one in every) / len(every) for name in every[0]}


def test_agreement_is_whole_with_the_right_picture_only():
    drawn = fresh(200)
    pictures = [scene.picture for scene in drawn]
    assert mean(drawn, pictures) == {"colour": 1, "kind": 1, "size": 1, "place": 1, "extra": 0}
    assert mean([scene.caption for scene in drawn], pictures)["place"] == 1
    # another scene has something at an asked place half the time, and then one in 5 colours, 4 kinds, 2 sizes
    other = mean(drawn, pictures[7:] + pictures[:7])
    expected = {"colour": 0.5 / 5, "kind": 0.5 / 4, "size": 0.5 / 2, "place": 0.5 / 20}
    assert all(abs(other[name] - share) < 0.05 for name, share in expected.items())
    swapped = mean(drawn, [picture[[2, 0, 1]] for picture in pictures])  # red shapes become green, and so on
    assert swapped["kind"] > 0.9 and swapped["colour"] < 0.1 and swapped["place"] < 0.1


def test_a_mirrored_picture_has_its_shapes_at_wrong_places():
    single = scenes(60, torch.Generator().manual_seed(14), max_shapes=1)
    mirrored = mean(single, [scene.picture.flip(2) for scene in single])
    assert mirrored == {"colour": 0, "kind": 0, "size": 0, "place": 0, "extra": 1}
    assert mean(single, [scene.picture.flip(1) for scene in single])["place"] == 0
    assert mean(single, [scene.picture for scene in single])["place"] == 1


def test_agreement_counts_each_part_by_its_definition():
    asked = "a small red circle at the top left and a large blue square at the bottom right"
    circle = Shape("circle", "red", "small", "top left", (6, 7))
    square = Shape("square", "blue", "large", "bottom right", (24.5, 23))

    def agree(*shapes: Shape) -> list[float]:
        return list(caption_agreement(asked, draw_scene(list(shapes)).picture).values())

    assert agree(circle, square) == [1, 1, 1, 1, 0]
    assert agree(circle) == [0.5, 0.5, 0.5, 0.5, 0]
    assert agree(circle, square, Shape("cross", "red", "small", "top right", (25, 8))) == [1, 1, 1, 1, 1]
    assert agree(circle, Shape("square", "green", "large", "bottom right", (24, 24))) == [0.5, 1, 1, 0.5, 0]
    assert agree(circle, Shape("cross", "blue", "large", "bottom right", (24, 24))) == [1, 0.5, 1, 0.5, 0]
    assert agree(circle, Shape("square", "blue", "small", "bottom right", (24, 24))) == [1, 1, 0.5, 1, 0]
    assert agree(circle, Shape("square", "blue", "large", "top right", (24, 8))) == [0.5, 0.5, 0.5, 0.5, 1]
    # two components at one place: the largest counts, but for "place" any will do
    both = paint(("red", (4, 5, 3.5)), ("green", box(8, 4, 15, 12)), ("blue", box(18, 18, 29, 29)))
    assert list(caption_agreement(asked, both).values()) == [0.5, 0.5, 1, 1, 1]


def test_components_equal_scipys():
    generator = torch.Generator().manual_seed(15)
    masks = torch.rand(3, 32, 32, generator=generator) < 0.4
    ours = {tuple(part.flatten().tolist()) for part in components(masks)}
    theirs = set()
    for mask in masks.numpy():
        labels, count = ndimage.label(mask, np.ones((3, 3)))
        parts = [labels == k for k in range(1, count + 1)]
        theirs |= {tuple(part.ravel().tolist()) for part in parts if part.sum() >= 12}
    assert ours == theirs and len(ours) >= 3


def test_ideal_shapes_have_the_asked_area_and_centre():
    ideal = ideals((15.3, 16.8), 60.0)
    assert ideal.shape == (3, len(KINDS), 32, 32)
    torch.testing.assert_close(ideal.sum((2, 3)), torch.full((3, 4), 60.0), rtol=0.08, atol=0)
    line = torch.arange(32) + 0.5
    torch.testing.assert_close(ideal.sum(2) @ line / ideal.sum((2, 3)), torch.full((3, 4), 15.3), rtol=0, atol=0.2)
    torch.testing.assert_close(ideal.sum(3) @ line / ideal.sum((2, 3)), torch.full((3, 4), 16.8), rtol=0, atol=0.2)


def test_captions_are_parsed():
    for scene in fresh(200)[:50]:
        assert parse_caption(scene.caption) == [(s.kind, s.colour, s.size, s.place) for s in scene.shapes]


GOOD = "a small red circle at the top left"


@pytest.mark.parametrize(
    "call, given",
    [
        (lambda: read_scene(torch.zeros(1, 32, 32)), "picture \\(3, 32, 32\\).*given \\(1, 32, 32\\)"),
        (lambda: read_scene(torch.zeros(2, 3, 32, 32)), "given \\(2, 3, 32, 32\\)"),
        (lambda: read_scene(torch.full((3, 32, 32), float("nan"))), "finite pixels"),
        (lambda: caption_agreement(GOOD, torch.zeros(3, 16, 16)), "given \\(3, 16, 16\\)"),
        (lambda: caption_agreement(GOOD.replace("red", "pink"), torch.ones(3, 32, 32)), "given 'a small pink"),
        (lambda: parse_caption(""), "given ''"),
        (lambda: parse_caption(GOOD.replace("circle", "star")), "given 'a small red star"),
        (lambda: parse_caption(GOOD.replace("small", "huge")), "given 'a huge red"),
        (lambda: parse_caption(GOOD.replace("left", "centre")), "given 'a small red circle at the top centre'"),
        (lambda: parse_caption(GOOD.replace("at", "near")), "given 'a small red circle near"),
        (lambda: parse_caption(GOOD + " and"), "given"),
        (lambda: parse_caption(GOOD + " and a red circle"), "given 'a red circle'"),
    ],
)
def test_wrong_input_is_refused(call, given):
    with pytest.raises(ValueError, match=given):
        call()
