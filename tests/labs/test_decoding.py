"""The lab of decoding reaches the bars that its issue set, and bears out what the post says of it."""

import statistics

import pytest

from tests.labs.spread import greater, tie
from theme.page.pages import ROOT
from theme.page.results import load

LAB = "LLM/Decoding"
WAYS = ("greedy", "cool", "plain", "top_k", "top_p", "min_p", "hot", "hot_top_p", "hot_min_p")
RACES = ("middle", "long")
HEATS = ("greedy", "cool", "plain")


def test_every_comparison_has_five_seeds(results):
    assert all(len(results(LAB)[f"ways.{way}"][what]["seeds"]) == 5 for way in WAYS for what in ("known", "bits"))
    assert load(ROOT, LAB)["device"] == "cpu" and load(ROOT, LAB)["seconds"] < 3 * 3600


def test_samples_begin_with_the_prompt_and_differ(results):
    samples = results(LAB)["samples"]
    assert len(set(samples.values())) == 3
    assert all(sample.startswith("Return a new") and len(sample) > 200 for sample in samples.values())


def test_medians_are_those_of_the_rounds(results):
    speed = results(LAB)["timings.speed"]
    for race in RACES:
        for way, values in speed[race]["milliseconds"].items():
            assert len(values) == 5 and speed[race]["median"][way] == statistics.median(values)


# what the post says


@pytest.mark.claim("decoding-left-out")
def test_cutting_leaves_out_what_comes_next(results):
    shares = results(LAB)["left_out"]
    assert all(len(shares[way]["seeds"]) == 8 and 0.005 < shares[way]["mean"] < 0.2 for way in shares)
    assert set(shares) == {"top_k", "top_p", "min_p"}


@pytest.mark.claim("decoding-same-tokens")
def test_all_loops_wrote_the_same(results):
    assert all(results(LAB)[f"speed.{race}.same_tokens"] for race in RACES)


@pytest.mark.claim("decoding-exact")
def test_drafted_text_has_the_distribution_of_the_model(results):
    exact = results(LAB)["exact"]
    assert exact["draws"] >= 1000 and exact["cells"] > 20
    assert min(exact["p_value"]["network"], exact["p_value"]["counts"]) > 1e-3 and exact["p_value"]["alone"] < 1e-6
