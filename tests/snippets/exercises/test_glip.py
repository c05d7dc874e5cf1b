"""The exercises of the GLIP post: answers that tempt, and what is said of each."""

import math

import pytest
import torch

from snippets.exercises import glip as exercises
from snippets.exercises.checking import verdict
from tests.snippets.exercises.answers import prove


def with_its_sign(gap):
    return gap / (2 + gap)


def narrow_hull(gap):
    return -gap / (1 + gap)


def plain_mean(p, said):
    return p @ (said.float() / said.sum(dim=1, keepdim=True)).T


def product(p, said):
    return (p.log() @ said.float().T).exp()


def itself_too(boxes, scores):
    return scores * (1 - exercises.box_iou(boxes, boxes).amax(dim=0))


def both_sides(boxes, scores):
    return scores * (1 - (exercises.box_iou(boxes, boxes) - torch.eye(len(boxes))).amax(dim=0))


def summed(boxes, scores):
    return scores * (1 - exercises.box_iou(boxes, boxes).triu(1).sum(dim=0))


def without_separators(lengths, limit):
    count, length = 0, limit
    for phrase in lengths:
        count, length = (count + 1, phrase) if length + phrase > limit else (count, length + phrase)
    return count


def separator_behind(lengths, limit):
    count, length = 0, limit
    for phrase in lengths:
        count, length = (count + 1, phrase + 1) if length + phrase + 1 > limit else (count, length + phrase + 1)
    return count


def by_division(lengths, limit):
    return math.ceil((sum(lengths) + len(lengths)) / limit)


WRONG = {
    1: [(with_its_sign, "the sign is the other one"), (narrow_hull, "the hull is 2 + gap wide")],
    2: [(plain_mean, "the mean of the page"), (product, "long phrases lose")],
    3: [(exercises.hasty_iou, "the fault is still there")],
    4: [(itself_too, "with itself"), (both_sides, "boxes behind a box"), (summed, "the IoUs are summed")],
    5: [
        (without_separators, "the separators need tokens"),
        (separator_behind, "needs no separator behind it"),
        (by_division, "needs no separator behind it"),
    ],
}


@pytest.mark.parametrize("number", WRONG)
def test_answers(number):
    prove(exercises, number, WRONG[number])


def test_another_right_answer_is_right():
    """Exercise 4, box by box."""

    def one_by_one(boxes, scores):
        result = scores.clone()
        for i in range(1, len(boxes)):
            result[i] = scores[i] * (1 - exercises.box_iou(boxes[i : i + 1], boxes[:i]).max())
        return result

    assert verdict(one_by_one, exercises.check_4) == "right"
