"""The live figure of the span corruption post in Python, for the browser's test, and what its caption says."""

import pytest

from tests.live.printed import program

TEXT = (
    "Span corruption hides a few short runs of words, puts a numbered mark in the place of each, and asks the "
    "network for the hidden words alone, each run behind the mark that stands for it."
)
CASES = [{"Hidden": "50 %", "Seed": 3}, {"Text": "two words"}, {"Text": "one"}, {"Mean span": 1, "Seed": 9}]
FAULT = "if hidden else source", "if hidden else target"
TOLERANCE = 0


def reference(values: dict) -> dict:
    """What the figure returns for what its controls say."""
    share = int(values.get("Hidden", "15 %").split()[0]) / 100
    given = {"text": values.get("Text", TEXT), "density": share, "span": values.get("Mean span", 3)}
    return program("LLM/SpanCorruption")["live"](given | {"seed": values.get("Seed", 1)})


@pytest.mark.claim("span-live")
def test_try_density_span_and_seed():
    for seed in range(20):
        usual, half, single = (reference({"Seed": seed} | c) for c in ({}, {"Hidden": "50 %"}, {"Mean span": 1}))
        assert len(half["target"]) == len(half["source"])
        assert sum(usual["mask"]) == sum(single["mask"]) == len(single["target"]) / 2
        assert len(single["source"]) > len(usual["source"]) and len(single["target"]) > len(usual["target"])
        assert not usual["mask"][0] and usual["mask"][-1]
        assert usual["whole"] == TEXT.split()
    assert reference({"Seed": 1})["mask"] != reference({"Seed": 2})["mask"]
