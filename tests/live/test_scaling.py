"""The live figure of the scaling post in Python, for the browser's test, and what its caption says."""

import pytest

from snippets.llm import scaling_costs
from tests.live.printed import program

CASES = [
    {"Model": "70 B", "GPUs": "1024", "Tokens of a GPU at once": "1,024", "Blocks are": "kept"},
    {"Each GPU holds": "copies", "GPUs": "2", "Rounds of a step": "4"},
    {"Model": "1 M", "GPUs": "16", "Rounds of a step": "32"},
]
FAULT = "return 16 * weights / shards", "return 12 * weights / shards"
TOLERANCE = 0


def reference(values: dict) -> dict:
    """What the figure returns for what its controls say."""
    said = {"Model": "8 B", "Each GPU holds": "shards", "GPUs": "8", "Tokens of a GPU at once": "8,192"}
    said |= {"Rounds of a step": "1", "Blocks are": "again"} | values
    numbers = (int(said[name].replace(",", "")) for name in ("GPUs", "Tokens of a GPU at once", "Rounds of a step"))
    given = dict(zip(("gpus", "tokens", "rounds"), numbers, strict=True))
    given |= {"model": said["Model"], "way": said["Each GPU holds"], "recomputed": said["Blocks are"] == "again"}
    return program("LLM/Scaling")["live"](given)


def test_the_figures_lines_are_those_of_the_lab(results):
    """What the picture above draws: memory as copies and as shards, of each size, on 1 to 1,024 GPUs."""
    lab = results("LLM/Scaling")
    names = ("m1", "m125", "b1", "b8", "b70")
    for model, name in zip(scaling_costs.SIZES, names, strict=True):
        curves = reference({"Model": model})["curves"]
        shards = [curves["shards"][count.bit_length() - 1] / 2**30 for count in lab["gpus"]]
        assert shards == pytest.approx(lab["memory"][name]["shards"], rel=1e-12)
        assert curves["copies"][0] / 2**30 == pytest.approx(lab["memory"][name]["copies"], rel=1e-12)
    assert reference({"GPUs": "64"})["enough"] == lab["enough.between"]
    assert reference({"GPUs": "8"})["enough"] == lab["enough.within"]


@pytest.mark.claim("scaling-live")
def test_try_copies_machines_and_rounds():
    room = 80 * 2**30
    first, copies = reference({}), reference({"Each GPU holds": "copies", "GPUs": "1024"})
    assert sum(first["parts"]) < room < sum(copies["parts"]) == copies["curves"]["copies"][0]
    many = reference({"GPUs": "64"})
    assert sum(many["parts"]) < sum(first["parts"]) / 2
    assert first["seconds"][0] < first["seconds"][1] and many["seconds"][0] > many["seconds"][1]
    twice = reference({"GPUs": "64", "Tokens of a GPU at once": "16,384"})
    assert twice["seconds"][0] < twice["seconds"][1] and 8192 < many["enough"] < 16384
    rounds = reference({"GPUs": "64", "Rounds of a step": "8"})
    assert 4.3 < rounds["sent"] / many["sent"] < 4.45 and rounds["seconds"][1] == 8 * many["seconds"][1]
    assert rounds["seconds"][0] < rounds["seconds"][1]
    by_copies = [reference({"GPUs": "64", "Each GPU holds": "copies", "Rounds of a step": str(n)}) for n in (1, 8)]
    each = 4 * scaling_costs.SIZES["8 B"].weights  # bytes of all gradients
    assert by_copies[0]["sent"] == by_copies[1]["sent"] == pytest.approx(2 * 63 / 64 * each)
