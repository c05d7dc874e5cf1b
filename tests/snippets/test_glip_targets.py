"""Anchors, box changes, centre-ness, ATSS against a plain reference, and what regions are trained to say."""

import math
import statistics

import pytest
import torch

from snippets import glip_targets as page
from tests.snippets.blocks.test_boxes import plain_iou, random_boxes


def test_anchors_stand_around_the_middles_of_cells():
    anchors, levels = page.make_anchors(24, (4, 8), 2.5)
    assert levels == [36, 9] and anchors.shape == (45, 4)
    assert anchors[0].tolist() == [-3, -3, 7, 7] and anchors[1].tolist() == [1, -3, 11, 7]  # to the right first
    assert anchors[6].tolist() == [-3, 1, 7, 11] and anchors[36].tolist() == [-6, -6, 14, 14]


@pytest.mark.equation("glip-change", of=(page.encode, page.decode))
def test_changes_of_boxes(formula):
    g = torch.Generator().manual_seed(0)
    anchors, boxes = random_boxes(6, g), random_boxes(6, g)
    change = page.encode(anchors, boxes)
    (x, y), (u, v) = (page.split(one)[0].T for one in (boxes, anchors))
    (w, h), (m, n) = (page.split(one)[1].T for one in (boxes, anchors))
    names = {r"\delta_x": change[:, 0], r"\delta_w": change[:, 2], "x": x, "x_a": u, "w": w, "w_a": m}
    formula("glip-change").holds(names, relations=2)
    torch.testing.assert_close(change[:, 1], 10 * (y - v) / n)
    torch.testing.assert_close(change[:, 3], 5 * (h / n).log())
    torch.testing.assert_close(page.decode(anchors, change), boxes)
    torch.testing.assert_close(page.decode(anchors, torch.zeros(6, 4).double()), anchors)
    far = page.decode(anchors, torch.full((6, 4), 1000.0).double())
    torch.testing.assert_close(page.split(far)[1], 62.5 * page.split(anchors)[1])  # no infinite boxes
    assert torch.autograd.gradcheck(lambda c: page.decode(anchors, c), change.requires_grad_())


@pytest.mark.equation("glip-centre", of=page.centre_ness)
def test_centre_ness(formula):
    anchors = torch.tensor([[3.0, 4, 9, 8], [0, 0, 4, 4], [6, 6, 8, 8], [7, 4, 11, 6]]).double()
    boxes = torch.tensor([[1.0, 2, 11, 12], [1, 1, 7, 9], [7, 3, 12, 9], [2, 1, 12, 8]]).double()
    found = page.centre_ness(anchors, boxes)
    middle = page.split(anchors)[0]
    names = {r"\kappa": found, "d_l": middle[:, 0] - boxes[:, 0], "d_r": boxes[:, 2] - middle[:, 0]}
    formula("glip-centre").holds(names | {"d_t": middle[:, 1] - boxes[:, 1], "d_b": boxes[:, 3] - middle[:, 1]})
    torch.testing.assert_close(
        found, torch.tensor([math.sqrt(4 / 6), math.sqrt(1 / 5 * 1 / 7), 0.0, math.sqrt(3 / 7 * 3 / 4)]).double()
    )
    same = page.centre_ness(boxes, boxes)
    torch.testing.assert_close(same, torch.ones(4).double())


def plain_assign(anchors, levels, boxes, nearest):
    """ATSS, box by box and anchor by anchor."""
    middle = [((a[0] + a[2]) / 2, (a[1] + a[3]) / 2) for a in anchors]
    owner, best = [-1] * len(anchors), [0.0] * len(anchors)
    for k, box in enumerate(boxes):
        centre = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        chosen, first = [], 0
        for count in levels:
            level = sorted(range(first, first + count), key=lambda i: math.dist(middle[i], centre))
            chosen += level[:nearest]
            first += count
        overlaps = [plain_iou(anchors[i], box) for i in chosen]
        threshold = statistics.mean(overlaps) + statistics.stdev(overlaps)
        for i, overlap in zip(chosen, overlaps, strict=True):
            x, y = middle[i]
            inside = min(x - box[0], y - box[1], box[2] - x, box[3] - y) > 0.01
            if overlap >= threshold and inside and (owner[i] == -1 or overlap > best[i]):
                owner[i], best[i] = k, overlap
    return owner


@pytest.mark.parametrize("seed", range(5))
def test_assignment_equals_a_plain_loop(seed):
    g = torch.Generator().manual_seed(seed)
    anchors, levels = page.make_anchors(32, (4, 8), 3)
    anchors = anchors.double()
    boxes = torch.cat([random_boxes(5, g, 20), random_boxes(1, g, 20) * 1.2])
    for nearest in (3, 9, 40):  # 40: more than the coarse level has
        owner = page.assign(anchors, levels, boxes, nearest)
        assert owner.tolist() == plain_assign(anchors.tolist(), levels, boxes.tolist(), nearest)
        assert (owner >= 0).sum() >= 2
    assert page.assign(anchors, levels, boxes, 3).tolist() != page.assign(anchors, levels, boxes, 40).tolist()


@pytest.mark.claim("glip-atss")
def test_the_threshold_adapts_to_the_box():
    """A box that fits the fine level is found there, one that fits the coarse level there, a tiny one anywhere."""
    anchors, levels = page.make_anchors(32, (4, 8), 3)
    small, large = torch.tensor([[8.0, 8, 20, 20]]), torch.tensor([[4.0, 4, 28, 28]])
    for box, fine in ((small, True), (large, False)):
        found = (page.assign(anchors, levels, box) >= 0).nonzero()[:, 0]
        assert len(found) and bool((found < 64).all()) == fine and bool((found >= 64).any()) != fine
    tiny = torch.tensor([[8.0, 8, 13, 13]])
    assert page.box_iou(anchors, small).max() >= 0.5 > page.box_iou(anchors, tiny).max()  # 0.5 leaves it to nobody
    assert (page.assign(anchors, levels, tiny) >= 0).any()


def test_no_box_no_owner():
    anchors, levels = page.make_anchors(32, (4, 8), 3)
    assert page.assign(anchors, levels, torch.zeros(0, 4)).tolist() == [-1] * 80


def test_of_two_boxes_the_larger_overlap_counts():
    anchors, levels = page.make_anchors(32, (4, 8), 3)
    boxes = torch.tensor([[8.0, 8, 20, 20], [9, 9, 21, 21]])
    owner = page.assign(anchors, levels, boxes)
    both = page.box_iou(anchors, boxes)
    for i in (owner >= 0).nonzero()[:, 0].tolist():
        alone = [page.assign(anchors, levels, boxes[k : k + 1])[i] == 0 for k in (0, 1)]
        assert owner[i] == both[i].argmax() or not all(alone)


SAID = torch.tensor([[1, 1, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 1]]).bool()  # three phrases, six tokens


@pytest.mark.parametrize(
    "names, wanted",
    [
        ([[1, 0, 0], [1, 0, 0]], [[1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0]]),  # one phrase for two boxes
        ([[1, 1, 0], [0, 0, 1]], [[1, 1, 0, 1, 0, 0], [0, 0, 0, 0, 0, 1]]),  # two phrases for one box
        ([[0, 0, 0], [0, 1, 0]], [[0, 0, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0]]),  # no phrase for a box
        ([[0, 0, 0], [0, 0, 0]], [[0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]]),  # the prompt is about other things
    ],
)
def test_what_regions_are_to_say(names, wanted):
    boxes = torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]])
    owner = torch.tensor([-1, 1, 0, -1, 1])
    tokens, box = page.region_targets(owner, boxes, torch.tensor(names).bool(), SAID)
    nothing = [0.0] * 6
    assert tokens.tolist() == [nothing, wanted[1], wanted[0], nothing, wanted[1]]
    assert box.tolist() == [[0] * 4, [5, 6, 7, 8], [1, 2, 3, 4], [0] * 4, [5, 6, 7, 8]]


def test_a_picture_without_boxes():
    tokens, box = page.region_targets(torch.full((5,), -1), torch.zeros(0, 4), torch.zeros(0, 3).bool(), SAID)
    assert tokens.shape == (5, 6) and box.shape == (5, 4) and not tokens.any() and not box.any()
