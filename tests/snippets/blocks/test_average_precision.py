"""Average precision: equal to pycocotools on random pictures, and on the cases at the edge."""

import contextlib
import io

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from snippets.blocks import average_precision as page
from snippets.blocks.average_precision import Found, Truth
from tests.snippets.blocks.test_boxes import random_boxes


def by_pycocotools(found, truth, first_id=1, max_detections=(1, 10, 100)):
    """Its precision by threshold, recall and label, and its summary."""
    labels = sorted({int(label) for one in [*found, *truth] for label in one.labels})

    def rows(pictures, scored):
        listed = []
        for i, one in enumerate(pictures):
            for k, (left, top, right, bottom) in enumerate(one.boxes.double().tolist()):
                box = [left, top, right - left, bottom - top]
                row = {"image_id": i, "category_id": int(one.labels[k]), "bbox": box, "area": box[2] * box[3]}
                extra = {"score": float(one.scores[k])} if scored else {"iscrowd": 0}
                listed.append(row | extra | {"id": first_id + len(listed)})
        return listed

    with contextlib.redirect_stdout(io.StringIO()):
        data = COCO()
        data.dataset = {"images": [{"id": i} for i in range(len(truth))], "annotations": rows(truth, False)}
        data.dataset["categories"] = [{"id": label} for label in labels]
        data.createIndex()
        answers = COCO()
        answers.dataset = data.dataset | {"annotations": rows(found, True)}
        answers.createIndex()
        evaluation = COCOeval(data, answers, "bbox")
        evaluation.params.maxDets = list(max_detections)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # thresholds, recalls, labels; all areas, most boxes
    return {label: precision[:, :, k] for k, label in enumerate(labels)}, evaluation.stats


def random_case(seed, pictures=6, num_labels=3):
    """True boxes, and detections that are near them, or anywhere; scores tie."""
    g = torch.Generator().manual_seed(seed)
    found, truth = [], []
    for _ in range(pictures):
        boxes = random_boxes(int(torch.randint(0, 6, (), generator=g)), g, 30)
        labels = torch.randint(num_labels, (len(boxes),), generator=g)
        near = torch.randint(len(boxes), (7,), generator=g) if len(boxes) else torch.zeros(0, dtype=torch.long)
        moved = boxes[near] + torch.randn(len(near), 1, generator=g, dtype=torch.float64).clamp(-1.5, 1.5)
        other = random_boxes(3, g, 30)
        said = torch.cat([labels[near], torch.randint(num_labels, (3,), generator=g)])
        said = torch.where(torch.rand(len(said), generator=g) < 0.2, (said + 1) % num_labels, said)
        scores = torch.randint(1, 9, (len(said),), generator=g) / 9
        found.append(Found(torch.cat([moved, other]), scores, said))
        truth.append(Truth(boxes, labels))
    return found, truth


@pytest.mark.parametrize("seed", range(8))
def test_random_pictures_equal_pycocotools(seed, agrees):
    found, truth = random_case(seed)
    precision, stats = by_pycocotools(found, truth)
    ours = page.coco_ap(found, truth)
    assert sorted(ours) == [label for label, table in precision.items() if table.max() > -1]
    for label, ap in ours.items():
        agrees(ap, torch.tensor(precision[label].mean(axis=1)), "pycocotools.cocoeval.COCOeval", 1e-10)
    ap50, ap = page.mean_ap(ours)
    agrees([ap, ap50], [float(stats[0]), float(stats[1])], "pycocotools.cocoeval.COCOeval", 1e-10)
    assert 0.02 < ap < ap50 < 0.98
    other = page.coco_ap(found, [Truth(one.boxes + 1, one.labels) for one in truth])
    assert abs(page.mean_ap(other)[1] - ap) > 1e-3  # negative control


def test_a_label_that_no_picture_has_is_left_out():
    """pycocotools says -1 and skips it in its mean."""
    found, truth = random_case(3)
    found[0] = Found(found[0].boxes, found[0].scores, torch.full_like(found[0].labels, 7))
    precision, stats = by_pycocotools(found, truth)
    assert (precision[7] == -1).all() and 7 not in page.coco_ap(found, truth)
    assert page.mean_ap(page.coco_ap(found, truth))[1] == pytest.approx(stats[0], abs=1e-10)


def test_nothing_found_is_0_and_a_picture_without_boxes_counts_its_errors():
    box = torch.tensor([[2.0, 2, 9, 8]], dtype=torch.float64)
    empty = Found(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long))
    one, nothing = Truth(box, torch.tensor([4])), Truth(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))
    precision, _ = by_pycocotools([empty], [one])
    assert precision[4].mean() == 0 and page.coco_ap([empty], [one])[4].tolist() == [0] * 10
    right = Found(box, torch.tensor([0.5]), torch.tensor([4]))
    wrong = Found(box, torch.tensor([0.9]), torch.tensor([4]))
    precision, _ = by_pycocotools([right, wrong], [one, nothing])
    ours = page.coco_ap([right, wrong], [one, nothing])[4]
    assert ours.tolist() == pytest.approx(precision[4].mean(axis=1)) and ours[0] == pytest.approx(0.5)
    with pytest.raises(ValueError, match="a truth for each picture"):
        page.coco_ap([right], [one, nothing])


def test_a_box_is_found_once_and_takes_the_best():
    box = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9]], dtype=torch.float64)
    found = Found(box.flip(0), torch.tensor([0.9, 0.8]), torch.zeros(2, dtype=torch.long))
    overlap = page.box_iou(found.boxes, box)
    assert page.hits(overlap, page.THRESHOLDS).all()  # the first takes the second box, though both are near enough
    twice = torch.cat([overlap[:1], overlap[:1], overlap[:1]])
    assert page.hits(twice, page.THRESHOLDS)[0].tolist() == [True, True, False]
    assert page.hits(twice, page.THRESHOLDS)[9].tolist() == [True, False, False]


@pytest.mark.claim("glip-ap-ids")
def test_an_id_of_0_is_lost_in_pycocotools():
    found, truth = random_case(1)
    _, right = by_pycocotools(found, truth, first_id=1)
    _, wrong = by_pycocotools(found, truth, first_id=0)
    assert wrong[0] < right[0] - 1e-3
    assert page.mean_ap(page.coco_ap(found, truth))[1] == pytest.approx(right[0], abs=1e-10)


@pytest.mark.claim("glip-ap-most")
def test_at_most_100_boxes_of_a_label_count_and_other_limits_are_minus_1():
    g = torch.Generator().manual_seed(5)
    boxes = random_boxes(130, g, 300)
    truth = [Truth(boxes, torch.zeros(130, dtype=torch.long))]
    found = [Found(boxes, torch.linspace(1, 0.1, 130), torch.zeros(130, dtype=torch.long))]
    precision, stats = by_pycocotools(found, truth)
    assert page.coco_ap(found, truth)[0].tolist() == pytest.approx(precision[0].mean(axis=1))
    assert page.coco_ap(found, truth)[0][0] == pytest.approx(77 / 101)  # recalls up to 100 of 130
    assert page.coco_ap(found, truth, per_label=40)[0][0] == pytest.approx(31 / 101)
    assert stats[0] > 0.5 and by_pycocotools(found, truth, max_detections=(1, 10, 40))[1][0] == -1


def test_thresholds_are_pycocotools_own():
    assert page.THRESHOLDS.tolist() == pytest.approx(np.linspace(0.5, 0.95, 10).tolist(), abs=0)
    assert page.RECALLS.tolist() == pytest.approx(np.linspace(0, 1, 101).tolist(), abs=0)


@pytest.mark.equation("glip-ap", of=page.average_precision)
def test_average_precision_is_the_best_precision_from_each_recall_on(formula):
    """The formula on a ranking: right, wrong, right, right, wrong, of five true boxes."""
    right = torch.tensor([[True, False, True, True, False]])
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5])
    found = page.average_precision(right, scores, 5)
    precision = [1, 1 / 2, 2 / 3, 3 / 4, 3 / 5]
    recall = [0.2, 0.2, 0.4, 0.6, 0.6]

    def best(r):
        return max([p for p, have in zip(precision, recall, strict=True) if have >= r - 1e-12], default=0.0)

    formula("glip-ap").holds({r"\operatorname{AP}": found[0], "g": lambda r: best(float(r))})
    assert found.item() == pytest.approx((21 * 1 + 40 * 0.75) / 101)


def test_of_two_equal_overlaps_the_later_box_is_taken():
    """The first detection fits both boxes alike; the second only the first of them. So both find one."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [4, 0, 14, 10]], dtype=torch.float64)
    said = torch.tensor([[2.0, 0, 12, 10], [0, 0, 9, 10]], dtype=torch.float64)
    labels = torch.zeros(2, dtype=torch.long)
    found, truth = [Found(said, torch.tensor([0.9, 0.8]), labels)], [Truth(boxes, labels)]
    precision, _ = by_pycocotools(found, truth)
    assert page.coco_ap(found, truth)[0].tolist() == pytest.approx(precision[0].mean(axis=1))
    assert page.coco_ap(found, truth)[0][0] == 1
