"""The live figure of the GLIP post in Python, for the browser's test, and what its caption says."""

from functools import cache, partial
from itertools import permutations

import pytest
import torch

from snippets.data.scenes import PLACES
from snippets.glip import detect
from snippets.glip_prompts import write_prompt
from snippets.glip_scenes import PIECES, TAUGHT
from tests.live.drawn import drawn
from tools.live import networks

FIRST = {"Top left": "large red circle", "Top right": "small green square", "Bottom right": "large blue triangle"}
FIRST |= {"Phrases, a full stop between": "red circle. blue triangle. yellow cross", "Threshold": "0.2"}
CASES = [
    {"Phrases, a full stop between": " . "},
    {"Top left": "", "Bottom left": "small yellow triangle", "Threshold": "0.02"}
    | {"Phrases, a full stop between": "a wild DOG. Yellow triangle, a. greencircle"},
]
TOLERANCE = (
    3e-5  # of boxes in pixels; a factor on the largest table, of a convolution, is nearly undone by its GroupNorm
)
FAULT = "anchor[k] + side / 2", "anchor[k] - side / 2"


@cache
def glip():
    return next(networks("GLIP")).rounded().glip


def reference(values: dict) -> dict | None:
    """What the figure returns for what its controls say; nothing without a phrase."""
    said = FIRST | values
    phrases = [one.strip() for one in said["Phrases, a full stop between"].split(".") if one.strip()]
    if not phrases:
        return None
    picture = drawn({place: said[place.capitalize()] for place in PLACES if said.get(place.capitalize())})
    (found,) = detect(glip(), PIECES, picture, phrases, float(said["Threshold"]))
    ids = PIECES(write_prompt(phrases).text).ids
    with torch.no_grad():
        logits = glip()(picture, torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.bool))[0]
    heat = logits.sigmoid()[0, :64].T
    names = "boxes", "scores", "labels"
    return {"heat": heat.tolist()} | {name: getattr(found, name).tolist() for name in names}


def said(picture: torch.Tensor, places: tuple, phrases: list[str], threshold: float = 0.2) -> list[tuple[str, int]]:
    """The phrases of all boxes, sorted, each with the number of the place that is nearest."""
    (found,) = detect(glip(), PIECES, picture, phrases, threshold)
    middles, corners = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2, torch.tensor([PLACES[one] for one in places])
    near = torch.cdist(middles, corners.float()).argmin(1).tolist()
    return sorted((phrases[label], place) for label, place in zip(found.labels.tolist(), near, strict=True))


@pytest.mark.claim("glip-live")
def test_try_thresholds_and_phrases():
    shapes = "large red circle", "small green square", "large blue triangle"
    asked = ["red circle", "blue triangle", "yellow cross"]
    kinds, hues = ["circle", "square", "triangle", "cross"], ["red", "green", "blue"]
    for places in permutations(PLACES, 3):
        picture = drawn(dict(zip(places, shapes, strict=True)))
        found = partial(said, picture, places)
        assert found(asked) == [("blue triangle", 2), ("red circle", 0)]
        assert ("yellow cross", 0) in found(asked, 0.02) and len(found(asked, 0.02)) > 3
        assert found(["circle"]) == [("circle", 0), ("circle", 1), ("circle", 2)]
        assert found(kinds) == [("circle", 0), ("square", 1), ("triangle", 2)]
        assert found(hues) == [("blue", 2), ("green", 1), ("red", 0)]
    assert not set(hues) & set(TAUGHT)
