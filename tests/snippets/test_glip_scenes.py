"""The GLIP page's program: phrases, batches, training, what it prints and saves, on few scenes and steps."""

import re

import pytest
import torch
from PIL import Image

from snippets import glip_scenes as page
from snippets.blocks.average_precision import Found
from snippets.data.scenes import COLOURS, HELD_OUT, KINDS, Shape, draw_scene
from snippets.glip import Glip, GlipConfig

NEVER = [f"{colour} {kind}" for colour, kind in HELD_OUT]


@pytest.fixture
def scene():
    """Two red circles and a blue cross."""
    shapes = [
        Shape("circle", "red", "small", "top left", (8, 8)),
        Shape("cross", "blue", "large", "top right", (24, 8)),
        Shape("circle", "red", "large", "bottom left", (8, 24)),
    ]
    return draw_scene(shapes)


def test_words_are_cut_into_pieces_that_others_share():
    names = {i: piece for piece, i in page.PIECES.ids.items()}
    for word in [*COLOURS, *KINDS]:
        assert 1 not in page.PIECES(word).ids
    cut = {word: [names[i] for i in page.PIECES(word).ids] for word in ("circle", "triangle", "red")}
    assert cut == {"circle": ["circ", "##le"], "triangle": ["tri", "##ang", "##le"], "red": ["red"]}
    assert len(page.PIECES(page.write_prompt(page.PAIRS).text).ids) > GlipConfig(1).context  # several prompts


def test_a_phrase_names_several_shapes_and_a_shape_has_several_phrases(scene):
    names = page.named(scene, ["circle", "red circle", "blue cross", "red cross", "cross"])
    assert names.int().tolist() == [[1, 1, 0, 0, 0], [0, 0, 1, 0, 1], [1, 1, 0, 0, 0]]
    truth = page.truth_of(scene, ["red circle", "cross", "green circle"])
    assert truth.labels.tolist() == [0, 1, 0] and torch.equal(truth.boxes, scene.boxes)


def test_no_held_out_pair_is_asked_for_in_training(scene):
    generator = torch.Generator().manual_seed(0)
    drawn = page.scenes(60, torch.Generator().manual_seed(1), held_out=True)
    asked = [page.draw_phrases(one, generator) for one in drawn for _ in range(5)]
    assert not {phrase for phrases in asked for phrase in phrases} & set(NEVER)
    assert {phrase for phrases in asked for phrase in phrases} == set(page.TAUGHT)
    assert all(len(set(phrases)) == len(phrases) for phrases in asked)
    tokens = [len(page.PIECES(page.write_prompt(phrases).text).ids) for phrases in asked]
    assert 40 < max(tokens) <= 48 and min(tokens) < 12
    short = [page.draw_phrases(one, generator, limit=34) for one in drawn for _ in range(5)]
    assert 30 < max(len(page.PIECES(page.write_prompt(phrases).text).ids) for phrases in short) <= 34
    own = [page.draw_phrases(scene, generator, most=2) for _ in range(200)]
    assert all({"red circle", "blue cross"} <= set(phrases) for phrases in own)
    assert max(len(phrases) for phrases in own) == 6 and min(len(phrases) for phrases in own) == 2
    assert 40 < sum(phrases.index("red circle") < phrases.index("blue cross") for phrases in own) < 160


def test_a_batch_says_for_each_region_which_tokens_fit(scene):
    empty = [torch.full((80,), -1)]
    model = Glip(GlipConfig(len(page.PIECES.ids)))
    drawn = [scene, draw_scene([Shape("square", "green", "large", "top left", (8, 8))])]
    owners = [page.assign(model.anchors, model.levels, one.boxes) for one in drawn]
    ids, real, (wanted, boxes) = page.write_batch(drawn, owners, torch.Generator().manual_seed(2))
    assert ids.shape == real.shape and wanted.shape == (2, 80, ids.shape[1]) and boxes.shape == (2, 80, 4)
    names = {i: piece for piece, i in page.PIECES.ids.items()}
    for b in range(2):
        said = [names[i] for i in ids[b].tolist()]
        for region, owner in enumerate(owners[b].tolist()):
            words = {said[t] for t in wanted[b, region].nonzero()[:, 0].tolist()}
            if owner < 0:
                assert not words
            else:
                shape = drawn[b].shapes[owner]
                parts = {"red circle": {"red", "circ", "##le"}, "blue cross": {"blue", "cross"}}
                parts |= {"green square": {"gr", "##een", "squ", "##are"}}
                assert words == parts[f"{shape.colour} {shape.kind}"]
                assert torch.equal(boxes[b, region], drawn[b].boxes[owner])
    assert not wanted[~real[:, None].expand_as(wanted)].any()
    assert not page.write_batch(drawn[:1], empty, torch.Generator())[2][0].any()
    longest = max(len(one) for one in ids)
    assert longest <= model.config.context


def test_training_lowers_the_loss_and_repeats_itself():
    drawn = page.scenes(16, torch.Generator().manual_seed(0))
    found = []
    for batch in (6, 6, 5):
        torch.manual_seed(3)
        model = Glip(GlipConfig(len(page.PIECES.ids), width=16, token_width=16, num_heads=2, num_layers=1))
        found.append(page.train(model, drawn, 12, batch=batch, rate=5e-3, seed=4))
    assert found[0] == found[1] != found[2]
    assert sum(found[0][-3:]) < 0.8 * sum(found[0][:3])


def test_pictures_of_boxes(scene, tmp_path):
    twice = torch.cat([scene.boxes, scene.boxes[:1] + 0.5])  # the first shape is found as a cross, too
    found = Found(twice, torch.tensor([0.9, 0.5, 0.2, 0.8]), torch.tensor([0, 1, 0, 1]))
    figure, axes = page.plt.subplots()
    page.draw_boxes(axes, scene, found, ["red circle", "blue cross"])
    assert [text.get_text() for text in axes.texts] == ["red circle 0.90", "blue cross 0.50"]
    page.draw_boxes(axes, scene, found, ["red circle", "blue cross"], least=0.1)
    assert len(axes.patches) == 5
    page.plt.close(figure)
    page.save_boxes(str(tmp_path / "b.png"), [scene] * 8, [found] * 8, ["red circle", "blue cross"])
    with Image.open(tmp_path / "b.png") as picture:
        assert picture.size == (900, 486)


def test_the_program_runs_and_saves_its_picture(monkeypatch, tmp_path, capsys):
    for name, value in {"SCENES": 30, "TRAIN_STEPS": 2, "TESTED": 8}.items():
        monkeypatch.setattr(page, name, value)
    monkeypatch.chdir(tmp_path)
    page.main()
    printed = capsys.readouterr().out.splitlines()
    assert re.match(r"loss \d+\.\d\d, at the end", printed[0])
    assert re.match(r"pairs of training: AP50 \d+\.\d%, AP \d+\.\d%", printed[1])
    assert printed[2].startswith("pairs never seen together: AP50")
    assert (tmp_path / "boxes.png").exists()
