"""The CLIP page's program: captions, what it prints, the picture it saves, on few scenes and steps."""

import re

import pytest
import torch
from PIL import Image

from snippets import clip_scenes as page
from snippets.data.scenes import KINDS, PLACES, RADIUS, SEEN, Shape, draw_scene


def test_captions_name_every_shape_and_nothing_else():
    """Size and place are told half of the time, the order is random, colour and kind are always there."""
    shapes = [
        Shape("circle", "red", "small", "top left", (8, 8)),
        Shape("cross", "blue", "large", "top right", (24, 8)),
    ]
    scene, generator = draw_scene(shapes), torch.Generator().manual_seed(0)
    told = [page.describe(scene, generator) for _ in range(400)]
    red, blue = r"a (small )?red circle( at the top left)?", r"a (large )?blue cross( at the top right)?"
    for caption in told:
        assert re.fullmatch(f"{red} and {blue}|{blue} and {red}", caption), caption
    assert len(set(told)) == 32  # two orders, and four things that are told or not
    for part in ("small", "large", "top left", "top right"):
        assert 150 < sum(part in caption for caption in told) < 250
    assert 150 < sum(caption.find("red") < caption.find("blue") for caption in told) < 250


def test_white_is_0():
    drawn = page.scenes(5, torch.Generator().manual_seed(0))
    pictures = page.ink(drawn)
    assert pictures.shape == (5, 3, 32, 32) and pictures[:, :, 0, 0].unique().tolist() == [0]
    assert -1 <= pictures.min() < -0.4 and (2 * pictures[3] + 1 - drawn[3].picture).abs().max() < 1e-6


def test_classes_are_all_pairs_and_prompts_fit_them():
    assert len(page.CLASSES) == len(set(page.CLASSES)) == 5 * len(KINDS)
    assert {f"{colour} {kind}" for colour, kind in SEEN} < set(page.CLASSES)
    assert page.PROMPTS[0].format("red circle") == "a red circle"
    assert page.PROMPTS[4].format("red circle") == "a red circle at the top right"
    assert len(page.PROMPTS) == 7


@pytest.mark.claim("clip-gap-texts")
def test_few_captions_of_single_shapes_are_different():
    """The lab's 500 pictures of seen pairs, drawn with seed 3: most texts of the second half stand in the first."""
    drawn = page.scenes(500, torch.Generator().manual_seed(3), max_shapes=1)
    told = [scene.caption for scene in drawn]
    assert len(SEEN) * len(RADIUS) * len(PLACES) == 128 >= len(set(told))
    first = set(told[:250])
    assert sum(text in first for text in told[250:]) > 125
    assert not any(
        picture.equal(other) for picture, other in zip(page.ink(drawn[:250]), page.ink(drawn[250:]), strict=False)
    )


@pytest.mark.claim("clip-program-sizes")
def test_the_page_says_how_large_the_programs_vocabulary_is():
    drawn = page.scenes(600, torch.Generator().manual_seed(0), max_shapes=2)
    tokenizer = page.ClipTokenizer(page.learn_merges([scene.caption for scene in drawn], 100))
    assert len(tokenizer.ids) == 574  # each of the 60 merges is used up, long before 100
    assert all(len(tokenizer.pieces(word)) == 1 for word in drawn[0].caption.split())
    assert page.SCENES == 3000 and page.BATCH == 64 and round(page.TRAIN_STEPS * 64 / page.SCENES) == 11


def test_accuracy_counts_names():
    drawn = [draw_scene([Shape(kind, "red", "small", "top left", (8, 8))]) for kind in ("circle", "cross", "square")]
    right = torch.tensor([page.CLASSES.index(f"red {kind}") for kind in ("circle", "cross", "square")])
    assert page.accuracy(right, drawn) == 1
    right[1] = page.CLASSES.index("red circle")
    assert page.accuracy(right, drawn) == pytest.approx(2 / 3)


def test_the_program_runs_and_saves_its_picture(monkeypatch, tmp_path, capsys):
    for name, value in {"SCENES": 60, "TRAIN_STEPS": 2, "BATCH": 5, "TESTED": 12}.items():
        monkeypatch.setattr(page, name, value)
    monkeypatch.chdir(tmp_path)
    page.main()
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("loss ") and "scale" in printed[0]
    shares = [line for line in printed if "classes" in line]
    assert len(shares) == 4 and all(
        re.search(r"20 classes, wordings of each: [17]; right: \d+%$", line) for line in shares
    )
    assert re.search(r"the right one first: \d+%, among five: \d+%", printed[5])
    with Image.open(tmp_path / "similarities.png") as picture:
        width, height = picture.size
        assert 780 < width < 830 and 850 < height < 920
        grey = picture.convert("L")
    rim = [grey.crop(edge) for edge in ((0, 0, width, 2), (0, height - 2, width, height), (0, 0, 2, height))]
    assert all(edge.getextrema() == (255, 255) for edge in rim)  # no caption is cut
