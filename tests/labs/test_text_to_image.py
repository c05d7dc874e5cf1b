"""The lab of text to image: four generators at equal compute, the Fréchet distance's bias, and a flow in the plane."""

import math

import pytest

from tests.labs.spread import greater, seeds, tie

LAB = "TextToImage"
NAMES = ("codes", "pixels", "latents", "flow")


@pytest.fixture
def lab(results):
    return results(LAB)


def constant(value: float, like: dict) -> dict:
    """What never varies, to compare a spread with."""
    count = len(like["seeds"])
    return {"mean": value, "sd": 0.0, "seeds": [value] * count}


@pytest.mark.claim("tti-equal-compute")
def test_all_trainings_cost_the_same(lab):
    """Within half a step's operations; captions of new pairs never occur in training, the others all do."""
    for name in NAMES:
        spent = lab[f"train.{name}.steps"] * lab[f"train.{name}.giga"]
        assert abs(spent - lab["train.budget"]) <= lab[f"train.{name}.giga"] / 2 + 1e-6, name
    assert lab["data.new_captions"] == 1 and lab["data.captions"] == 16 * 2 * 4
    assert lab["data.scenes"] > 20 * lab["data.captions"]
