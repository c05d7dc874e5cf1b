"""The exercises of the CLIP post: answers that tempt, and what is said of each."""

import math

import pytest
import torch
import torch.nn.functional as F
from transformers import CLIPVisionConfig, CLIPVisionModel

from snippets.clip import clip_loss
from snippets.exercises import clip as exercises
from snippets.exercises.checking import verdict
from tests.snippets.exercises.answers import prove


def by_captions(counts):
    return sum(math.log(count) for count in counts) / len(counts)


def by_rows_alone(counts):
    return exercises.floor_of_repeats(counts) / 2


def as_if_different(logits, meaning):
    return clip_loss(logits)


def not_shared(logits, meaning):
    same = (meaning[:, None] == meaning[None, :]).to(logits)
    return (F.cross_entropy(logits, same) + F.cross_entropy(logits.T, same)) / 2


def rows_alone(logits, meaning):
    same = (meaning[:, None] == meaning[None, :]).to(logits)
    return F.cross_entropy(logits, same / same.sum(dim=1, keepdim=True))


def any_length(pictures, texts, scale):
    return clip_loss(scale.exp() * pictures @ texts.T)


def pictures_alone(pictures, texts, scale):
    return clip_loss(scale.exp() * F.normalize(pictures, dim=-1) @ texts.T)


def from_0(logits):
    return exercises.median_rank(logits) - 1


def lower(logits):
    return (1 + (logits > logits.diagonal()[:, None]).sum(dim=1)).median().item()


def of_columns(logits):
    return exercises.median_rank(logits.T)


def interpolated(position, grid, **how):
    side = math.isqrt(len(position) - 1)
    square = position[1:].T.unflatten(1, (side, side))[None]
    larger = F.interpolate(square, size=(grid, grid), **how)
    return torch.cat([position[:1], larger[0].flatten(1).T])


def bilinear(position, grid):
    return interpolated(position, grid, mode="bilinear", align_corners=False)


def with_corners(position, grid):
    return interpolated(position, grid, mode="bicubic", align_corners=True)


def without_the_class_token(position, grid):
    return exercises.for_larger_pictures(position, grid)[1:]


def turned(position, grid):
    new = exercises.for_larger_pictures(position, grid)
    square = new[1:].unflatten(0, (grid, grid)).transpose(0, 1).flatten(0, 1)
    return torch.cat([new[:1], square]) if grid > 3 else new


WRONG = {
    1: [(by_captions, "counts for c rows"), (by_rows_alone, "the columns cannot tell the pictures apart")],
    2: [
        (as_if_different, "captions with the same meaning still count as wrong"),
        (not_shared, "do not add up to 1"),
        (rows_alone, "the columns are missing"),
    ],
    3: [
        (exercises.hasty_loss, "the fault is still there"),
        (any_length, "embeddings have any length now"),
        (pictures_alone, "the loss of seven pairs is too"),
    ],
    4: [(from_0, "is 1, not 0"), (lower, "the middle of the two"), (of_columns, "the rows are the queries")],
    5: [
        (bilinear, "that is bilinear"),
        (with_corners, "align_corners=True"),
        (without_the_class_token, "the table has the shape"),
        (turned, "grows from top to bottom now"),
    ],
}


@pytest.mark.parametrize("number", WRONG)
def test_answers(number):
    prove(exercises, number, WRONG[number])


def test_another_right_answer_is_right():
    """Exercise 4, by sorting."""

    def sorted_rows(logits):
        places = logits.argsort(dim=1, descending=True, stable=True)
        ranks = [1 + row.tolist().index(i) for i, row in enumerate(places)]
        return torch.tensor(ranks).double().quantile(0.5).item()

    assert verdict(sorted_rows, exercises.check_4) == "right"


def test_larger_tables_equal_transformers(agrees):
    """Exercise 5, what the page says of it."""
    config = CLIPVisionConfig(hidden_size=8, num_attention_heads=2, num_hidden_layers=1, image_size=12, patch_size=4)
    embeddings = CLIPVisionModel(config).embeddings
    theirs = embeddings.interpolate_pos_encoding(torch.zeros(1, 26, 8), 20, 20)[0]
    ours = exercises.for_larger_pictures(torch.tensor(embeddings.position_embedding.weight.tolist()), 5)
    agrees(ours, theirs, "transformers.CLIPVisionModel")
    assert (bilinear(embeddings.position_embedding.weight, 5) - theirs).abs().max() > 1e-4
