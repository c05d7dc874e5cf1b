"""Drawn scenes: each label is checked against the pixels, or against another way to make it."""

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from scipy import ndimage

from snippets.data import scenes as module
from snippets.data.scenes import COLOURS, HELD_OUT, KINDS, PLACES, RADIUS, SEEN, VOCABULARY, Shape, draw_scene, scenes


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def many() -> list[module.Scene]:
    return scenes(600, seeded(0))


def polygon(shape: Shape) -> np.ndarray:
    """The same shape, drawn by Pillow 32 times as large and averaged."""
    (x, y), r, arm = shape.centre, shape.radius, shape.radius * module.ARM
    canvas = Image.new("L", (1024, 1024))
    draw = ImageDraw.Draw(canvas)
    corners = {
        "square": [(-r, -r), (r, -r), (r, r), (-r, r)],
        "triangle": [(0, -r), (r, r), (-r, r)],
        "cross": [(-arm, -r), (arm, -r), (arm, -arm), (r, -arm), (r, arm), (arm, arm)]
        + [(arm, r), (-arm, r), (-arm, arm), (-r, arm), (-r, -arm), (-arm, -arm)],
        "circle": [(r * np.cos(a), r * np.sin(a)) for a in np.linspace(0, 2 * np.pi, 200)],
    }[shape.kind]
    draw.polygon([(32 * (x + dx) - 0.5, 32 * (y + dy) - 0.5) for dx, dy in corners], fill=255)
    return np.asarray(canvas).reshape(32, 32, 32, 32).mean((1, 3)) / 255


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size, centre", [("small", (10.3, 5.6)), ("large", (7.2, 9.1))])
def test_a_shape_covers_what_pillow_covers(kind, size, centre):
    shape = Shape(kind, "red", size, "top left", centre)
    ours = module.coverage(shape).numpy()
    theirs = polygon(shape)
    assert abs(ours - theirs).max() < 0.3  # corners are cut a little differently
    assert abs(ours - theirs).sum() < 0.05 * theirs.sum()
    assert ours.sum() == pytest.approx(theirs.sum(), rel=0.04)
    others = [Shape(other, "red", size, "top left", centre) for other in KINDS if other != kind]
    assert all(abs(ours - polygon(other)).sum() > 0.15 * theirs.sum() for other in others)


def test_pictures_are_white_but_for_their_shapes(many):
    for scene in many[:100]:
        assert scene.picture.shape == (3, 32, 32) and scene.picture.dtype == torch.float32
        assert scene.picture.abs().max() <= 1
        paper = torch.ones(32, 32, dtype=torch.bool)
        for k, shape in enumerate(scene.shapes):
            full = module.coverage(shape) == 1
            colour = 2 * torch.tensor(COLOURS[shape.colour]) - 1
            torch.testing.assert_close(scene.picture[:, full], colour[:, None].expand(3, int(full.sum())))
            assert (scene.mask[full] == k + 1).all() and full.sum() >= 9
            paper &= module.coverage(shape) == 0
        assert (scene.picture[:, paper] == 1).all() and (scene.mask[paper] == 0).all()


def test_shapes_stay_in_their_quarters(many):
    quarters = {"top left": (0, 0), "top right": (0, 16), "bottom left": (16, 0), "bottom right": (16, 16)}
    for scene in many:
        assert len({shape.place for shape in scene.shapes}) == len(scene.shapes) <= 3
        for k, shape in enumerate(scene.shapes):
            row, column = quarters[shape.place]
            own = scene.mask == k + 1
            assert own.any() and own.sum() == own[row : row + 16, column : column + 16].sum()
        drawn = (scene.picture < 1).any(0)
        assert not drawn[15:17].any() and not drawn[:, 15:17].any()  # so that no two shapes touch
        for row, column in set(quarters.values()) - {quarters[shape.place] for shape in scene.shapes}:
            assert not drawn[row : row + 16, column : column + 16].any()


def test_boxes_fit_the_drawn_pixels(many):
    for scene in many[:100]:
        assert scene.boxes.shape == (len(scene.shapes), 4)
        for k, (left, top, right, bottom) in enumerate(scene.boxes.tolist()):
            rows, columns = (scene.mask == k + 1).nonzero().T
            ours = torch.tensor([left, top, right, bottom])
            drawn = torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            assert (ours - drawn).abs().max() <= 1.5  # a triangle's tip covers less than half of its pixels
            assert [right - left, bottom - top] == pytest.approx([2 * RADIUS[scene.shapes[k].size]] * 2)


def test_edges_are_what_erosion_removes(many):
    for scene in many[:100]:
        shown = scene.mask.numpy() > 0
        outline = shown & ~ndimage.binary_erosion(shown, np.ones((3, 3)))
        assert np.array_equal(scene.edges.numpy(), outline) and outline.any()
        thick = {s.kind for s in scene.shapes} - {"cross"} or "large" in {s.size for s in scene.shapes}
        assert not thick or outline.sum() < shown.sum()  # a small cross is all outline


def test_key_points_are_centre_and_corners(many):
    count = {"circle": 1, "square": 5, "triangle": 4, "cross": 5}
    for scene in many[:100]:
        for shape, box, points in zip(scene.shapes, scene.boxes, scene.key_points, strict=True):
            assert points.shape == (count[shape.kind], 2)
            torch.testing.assert_close(points[0], torch.tensor(shape.centre))
            if shape.kind != "circle":  # the corners span the box
                spanned = torch.cat([points.min(0).values, points.max(0).values])
                torch.testing.assert_close(spanned, box)
            cover = module.coverage(shape)
            inward = points + 0.25 * (points[0] - points)
            column, row = inward.long().T
            assert (cover[row, column] > 0.3).all()  # and lie on the shape, not only on its box


def test_captions_name_the_shapes_in_order(many):
    for scene in many:
        said = [scene.caption[start:end] for start, end in scene.spans]
        assert " and ".join(said) == scene.caption
        for phrase, shape in zip(said, scene.shapes, strict=True):
            assert phrase.split() == f"a {shape.size} {shape.colour} {shape.kind} at the {shape.place}".split()
    example = draw_scene(
        [
            Shape("circle", "red", "small", "top left", (8, 8)),
            Shape("square", "blue", "large", "bottom right", (24, 24)),
        ]
    )
    assert example.caption == "a small red circle at the top left and a large blue square at the bottom right"
    assert example.spans == [(0, 34), (39, 78)]


def test_everything_is_drawn_about_equally_often():
    drawn = scenes(1500, seeded(1))
    number = Counter(len(scene.shapes) for scene in drawn)
    assert all(abs(number[k] / 1500 - 1 / 3) < 0.05 for k in (1, 2, 3))
    shapes = [shape for scene in drawn for shape in scene.shapes]
    for values, share in (
        (Counter(shape.place for shape in shapes), 1 / 4),
        (Counter(scene.shapes[0].place for scene in drawn), 1 / 4),  # also among those named first
        (Counter(shape.size for shape in shapes), 1 / 2),
        (Counter((shape.colour, shape.kind) for shape in shapes), 1 / 16),
    ):
        assert len(values) == round(1 / share)
        error = (share * (1 - share) / values.total()) ** 0.5
        assert all(abs(n / values.total() - share) < 4 * error for n in values.values())
    offsets = torch.tensor([s.centre for s in shapes if s.size == "small"]) % 16 - 8
    assert offsets.min() < -3.3 and offsets.max() > 3.3 and offsets.mean(0).abs().max() < 0.2
    assert {len(scene.shapes) for scene in scenes(50, seeded(2), max_shapes=1)} == {1}
    assert {len(scene.shapes) for scene in scenes(50, seeded(2), max_shapes=2)} == {1, 2}


def test_held_out_pairs_are_never_seen_in_training(many):
    assert len(HELD_OUT) == 4 == len({kind for _, kind in HELD_OUT}) == len({colour for colour, _ in HELD_OUT})
    assert sorted(SEEN + HELD_OUT) == sorted((colour, kind) for colour in COLOURS for kind in KINDS)
    assert not {(s.colour, s.kind) for scene in many for s in scene.shapes} & set(HELD_OUT)
    position = Counter()
    for scene in scenes(400, seeded(3), held_out=True):
        held = [(s.colour, s.kind) in HELD_OUT for s in scene.shapes]
        assert sum(held) == 1
        position[held.index(True), len(held)] += 1
        position[next((s.colour, s.kind) for s, h in zip(scene.shapes, held, strict=True) if h)] += 1
    assert all(position[pair] > 60 for pair in HELD_OUT)
    assert all(position[k, 3] > 25 for k in range(3))  # named first, second or last


def test_the_seed_fixes_the_scenes():
    first, again, other = scenes(9, seeded(4)), scenes(9, seeded(4)), scenes(9, seeded(5))
    assert [scene.shapes for scene in first] == [scene.shapes for scene in again]
    assert all(torch.equal(a.picture, b.picture) for a, b in zip(first, again, strict=True))
    assert [scene.shapes for scene in first] != [scene.shapes for scene in other]
    state = torch.get_rng_state()
    scenes(2, seeded(4))
    assert torch.equal(torch.get_rng_state(), state)  # the global generator is left alone
    assert scenes(0, seeded(4)) == []


def test_colours_differ_also_in_lightness():
    rgb = torch.tensor(list(COLOURS.values()), dtype=torch.float64)
    assert torch.pdist(rgb).min() > 0.35
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)  # sRGB
    luminance = linear @ torch.tensor([0.2126, 0.7152, 0.0722], dtype=torch.float64)
    lightness = 116 * luminance ** (1 / 3) - 16  # CIE L*, 100 is white
    assert (lightness[:-1] - lightness[1:]).min() > 8 and lightness.max() < 90


def test_captions_become_words(many):
    captions = [scene.caption for scene in many]
    tokens = module.encode_captions(captions)
    assert tokens.shape == (600, 26) and tokens.dtype == torch.long
    assert [" ".join(VOCABULARY[i] for i in row if i) for row in tokens.tolist()] == captions
    for row, scene in zip(tokens, many, strict=True):
        words = len(scene.caption.split())
        assert (row[:words] > 0).all() and (row[words:] == 0).all()
    assert (tokens > 0).all(1).any()  # three shapes fill the row
    assert len(set(VOCABULARY)) == len(VOCABULARY) == 20 and set(tokens.flatten().tolist()) == set(range(20))
    assert module.encode_captions(["", "cross"]).count_nonzero(1).tolist() == [0, 1]
    assert module.encode_captions([]).shape == (0, 26)


def shape(**changed) -> Shape:
    fields = {"kind": "circle", "colour": "red", "size": "large", "place": "top left", "centre": (8.0, 8.0)}
    return Shape(**fields | changed)


@pytest.mark.parametrize(
    "call, given",
    [
        (lambda: shape(kind="star"), "kind out of circle, .*given star"),
        (lambda: shape(colour="pink"), "colour out of yellow, .*given pink"),
        (lambda: shape(size="huge"), "size out of small, large .*given huge"),
        (lambda: shape(place="middle"), "place out of top left, .*given middle"),
        (lambda: shape(centre=(8.0, 9.6)), "at most 1.5 from \\(8, 8\\)"),
        (lambda: shape(size="small", centre=(24.0, 8.0)), "at most 3.5 from \\(8, 8\\)"),
        (lambda: shape(centre=(8.0, float("nan"))), "at most 1.5 from \\(8, 8\\)"),
        (lambda: draw_scene([]), "one to three shapes at different places.*given \\[\\]"),
        (lambda: draw_scene([shape(), shape(kind="cross")]), "different places.*'top left', 'top left'"),
        (lambda: draw_scene([shape(place=p, centre=c) for p, c in PLACES.items()]), "one to three shapes"),
        (lambda: scenes(-1, seeded(0)), "count >= 0.*given -1"),
        (lambda: scenes(1, seeded(0), max_shapes=4), "max_shapes from 1 to 3.*4"),
        (lambda: scenes(1, seeded(0), max_shapes=0), "max_shapes from 1 to 3.*0"),
        (lambda: module.encode_captions(["a red circle", "a pink circle"]), "given 'pink' in 'a pink circle'"),
        (lambda: module.encode_captions(["a " * 27]), "at most 26 words .*given 27"),
    ],
)
def test_wrong_input_is_refused(call, given):
    with pytest.raises(ValueError, match=given):
        call()
