"""Boxes: overlap against transformers' and plain loops, suppression against a plain reference, ties and empty boxes."""

import time

import pytest
import torch
from transformers.loss import loss_for_object_detection as theirs

from snippets.blocks import boxes as page


def random_boxes(count, generator, side=40.0, dtype=torch.float64):
    corner = side * torch.rand(count, 2, generator=generator, dtype=dtype)
    return torch.cat([corner, corner + 12 * torch.rand(count, 2, generator=generator, dtype=dtype)], dim=1)


def plain_iou(a, b):
    """Of two boxes, number by number."""
    shared = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / union if union else 0.0


def plain_nms(boxes, scores, labels, threshold):
    """One box after the other, the highest score first."""
    order = sorted(range(len(boxes)), key=lambda i: -scores[i])  # sorted is stable
    kept = []
    for i in order:
        if not any(labels[i] == labels[j] and plain_iou(boxes[i], boxes[j]) > threshold for j in kept):
            kept.append(i)
    return kept


@pytest.mark.equation("glip-iou", of=page.box_iou)
def test_overlap_equals_transformers_and_its_formula(agrees, formula):
    g = torch.Generator().manual_seed(0)
    boxes, others = random_boxes(7, g, 10), random_boxes(5, g, 10)
    ours = page.box_iou(boxes, others)
    agrees(ours, theirs.box_iou(boxes, others)[0], "transformers.loss.loss_for_object_detection.box_iou", 1e-10)
    shared = ours * 0
    for i, a in enumerate(boxes.tolist()):
        for j, b in enumerate(others.tolist()):
            shared[i, j] = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    assert (shared > 0).sum() > 5 and (shared == 0).sum() > 2
    areas = {r"\lvert A \rvert": page.areas(boxes)[:, None], r"\lvert B \rvert": page.areas(others)}
    formula("glip-iou").holds({r"\operatorname{IoU}(A, B)": page.box_iou(boxes, others), "I": shared, **areas})
    assert (page.box_iou(boxes + 0.5, others) - ours).abs().max() > 0.01  # negative control


@pytest.mark.equation("glip-giou", of=page.generalized_iou)
def test_generalized_overlap_equals_transformers_and_its_formula(agrees, formula):
    g = torch.Generator().manual_seed(1)
    boxes, others = random_boxes(6, g, 14), random_boxes(6, g, 14)
    full = theirs.generalized_box_iou(boxes, others)
    name = "transformers.loss.loss_for_object_detection.generalized_box_iou"
    agrees(page.generalized_iou(boxes, others), full.diagonal(), name, 1e-10)
    iou = page.box_iou(boxes, others).diagonal()
    hull = (torch.maximum(boxes, others)[:, 2:] - torch.minimum(boxes, others)[:, :2]).prod(dim=1)
    union = theirs.box_iou(boxes, others)[1].diagonal()
    names = {r"\operatorname{GIoU}(A, B)": page.generalized_iou(boxes, others), r"\operatorname{IoU}(A, B)": iou}
    formula("glip-giou").holds(names | {r"\lvert C \rvert": hull, "U": union})
    assert (iou == 0).any() and (iou > 0).any() and (page.generalized_iou(boxes, others) < 0).any()


def test_gradients_are_right():
    g = torch.Generator().manual_seed(2)
    boxes = random_boxes(6, g, 14).requires_grad_()
    others = random_boxes(6, g, 14)
    assert torch.autograd.gradcheck(lambda b: page.generalized_iou(b, others), boxes)
    far = torch.tensor([[100.0, 100, 110, 110]], dtype=torch.float64, requires_grad=True)
    page.generalized_iou(far, others[:1]).sum().backward()
    assert far.grad.abs().min() > 0  # far apart, it still says which way
    assert torch.autograd.grad(page.box_iou(far, others[:1]).sum(), far)[0].abs().max() == 0  # IoU does not


@pytest.mark.claim("glip-empty-boxes")
def test_empty_boxes_are_no_numbers_in_transformers_and_zeros_here():
    empty = torch.tensor([[3.0, 3, 3, 3], [0, 0, 2, 2]])
    assert theirs.generalized_box_iou(empty, empty).isnan().any()
    assert page.box_iou(empty, empty).tolist() == [[0, 0], [0, 1]]
    assert page.generalized_iou(empty, empty).tolist() == [0, 1]
    boxes = empty.clone().requires_grad_()
    page.generalized_iou(boxes, empty.flip(0) * 0 + 3).sum().backward()
    assert boxes.grad.isfinite().all()


def test_boxes_that_end_before_they_begin_are_refused():
    good = torch.tensor([[0.0, 0, 2, 2]])
    for bad in ([2.0, 0, 1, 1], [0.0, 2, 1, 1], [0.0, 0, float("nan"), 1]):
        with pytest.raises(ValueError, match="ends before it begins"):
            page.box_iou(good, torch.tensor([bad]))


# suppression


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("block", [1, 7, 256])
def test_suppression_equals_a_plain_loop(seed, block):
    """Random boxes on a grid, so that many are equal, some empty; scores of few values, so that many tie."""
    g = torch.Generator().manual_seed(seed)
    count = 120
    boxes = random_boxes(count, g, 20).round()
    boxes[::11, 2:] = boxes[::11, :2]
    scores = torch.randint(6, (count,), generator=g) / 6
    labels = torch.randint(3, (count,), generator=g)
    for threshold in (0.0, 0.3, 0.6, 1.0):
        wanted = plain_nms(boxes.tolist(), scores.tolist(), labels.tolist(), threshold)
        assert page.nms(boxes, scores, labels, threshold, block).tolist() == wanted
        assert (
            wanted != plain_nms(boxes.tolist(), scores.tolist(), [0] * count, threshold) or threshold == 1
        )  # labels count
    assert len(plain_nms(boxes.tolist(), scores.tolist(), labels.tolist(), 0.3)) < count - 10


def test_who_is_removed_removes_nobody():
    """A chain: 0 beats 1, 1 beats 2, and so on. Every other one is left."""
    beats = torch.zeros(9, 9, dtype=torch.bool)
    beats[range(8), range(1, 9)] = True
    assert page.survivors(beats).tolist() == [i % 2 == 0 for i in range(9)]
    boxes = torch.tensor([[0.0, i, 4, i + 4] for i in range(8)])  # neighbours overlap by 3/5
    kept = page.nms(boxes, torch.linspace(1, 0.3, 8), torch.zeros(8), 0.5)
    assert kept.tolist() == [0, 2, 4, 6]


def test_nothing_and_one():
    none = page.nms(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0), 0.5)
    assert none.shape == (0,) and none.dtype == torch.long
    assert page.nms(torch.tensor([[0.0, 0, 1, 1]]), torch.ones(1), torch.zeros(1), 0.5).tolist() == [0]


@pytest.mark.claim("glip-nms-cost")
def test_ten_thousand_boxes():
    """Against a loop that compares one kept box at a time with all others, in tensors: faster, the same boxes."""
    g = torch.Generator().manual_seed(3)
    boxes, scores = random_boxes(10_000, g, 30, torch.float32), torch.rand(10_000, generator=g)
    labels = torch.zeros(10_000)
    start = time.process_time()
    kept = page.nms(boxes, scores, labels, 0.5)
    ours = time.process_time() - start

    def by_one():
        left, found = scores.argsort(descending=True, stable=True), []
        while len(left):
            found.append(left[0].item())
            left = left[1:][page.box_iou(boxes[left[:1]], boxes[left[1:]])[0] <= 0.5]
        return found

    start = time.process_time()
    assert by_one() == kept.tolist() and 300 < len(kept) < 5000
    assert ours < 0.8 * (time.process_time() - start)
