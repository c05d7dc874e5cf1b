"""The lab of BERT reaches the bars that its issue set, and bears out what the post says of it."""

import json
import math

import pytest

from theme.page.pages import ROOT

RESULTS = json.loads((ROOT / "docs/results/LLM/BERT.json").read_text())
VALUES, TIMINGS = RESULTS["values"], RESULTS.get("timings", {})


def test_the_first_loss_is_that_of_guessing():
    assert VALUES["train"]["first_loss"] == pytest.approx(math.log(VALUES["wordpiece"]["size"]) + math.log(2), abs=0.4)


def test_every_comparison_has_three_seeds():
    spreads = [VALUES["words"]["accuracy"]["bert"], VALUES["pairs"]["accuracy"]]
    spreads += [way["accuracy"][kind] for way in VALUES["masking"].values() for kind in ("mask", "itself", "random")]
    spreads += [task[start]["accuracy"] for task in VALUES["tasks"].values() for start in ("pretrained", "scratch")]
    assert all(len(spread["seeds"]) == 3 for spread in spreads)


def test_the_speed_was_measured_at_all_shapes():
    assert set(TIMINGS["speed"]) == {"1x32", "1x128", "8x128", "4x512"}
