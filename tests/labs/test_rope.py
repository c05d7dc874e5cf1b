"""The RoPE lab reaches the bars that its issue set, and bears out what the post says of it."""

import math

import pytest
import torch

from snippets.llm.rope import Alibi, inverse_frequencies, yarn
from tests.labs.spread import greater, paired, seeds, tie
from theme.page.pages import ROOT
from theme.page.results import load

LENGTHS = ["64", "128", "256", "512", "1024"]
UNTRAINED = ["rope", "linear", "ntk", "ntk_16", "ntk_dynamic", "yarn", "yarn_cool", "llama3", "longrope"]
EXACT = {"mean": 0.0, "sd": 0.0, "seeds": [0.0] * 3}


def above(spread: dict, number: float) -> bool:
    """Whether every training's number is above another one."""
    return bool((seeds(spread) > number).all())


def changed(losses: dict, first: str, last: str) -> float:
    """The mean rise from one length to another."""
    return losses[last]["mean"] - losses[first]["mean"]


def test_every_way_is_measured_up_to_eight_times_the_trained_length(results):
    loss = results("LLM/ROPE")["loss"]
    wanted = {*UNTRAINED, "alibi", "half_nope", "base_500k", "learnt_repeated", "learnt_stretched", "learnt_random"}
    assert wanted | {"tuned_rope", "tuned_linear", "tuned_yarn", "tuned_larger_base"} == set(loss)
    for losses in loss.values():
        assert list(losses) == LENGTHS and all(len(seeds(spread)) == 3 for spread in losses.values())
        assert all(map(math.isfinite, (spread["mean"] for spread in losses.values())))


def test_the_models_have_learnt_something(results):
    """Bytes of English have an entropy of about 3.1 nats without context."""
    loss = results("LLM/ROPE")["loss"]
    for name in ("rope", "base_500k", "half_nope", "alibi", "learnt_repeated"):
        assert not above(loss[name]["128"], 2.2), name
    greater(loss["rope"]["64"], loss["rope"]["128"], paired=True)  # 128 bytes of past are better than 64


def test_precision(results):
    """1e-7 up to a million in float64; float32 and bfloat16 are far from it."""
    precision = results("LLM/ROPE")["precision"]
    assert precision["float64"]["4095"] < 1e-10 and precision["float64"]["1000001"] < 1e-7


@pytest.mark.claim("rope-clocks")
def test_the_first_hand_turns_fast_and_the_last_hardly(results):
    lab = results("LLM/ROPE")
    turn = lab["turn"]
    assert 360 / 7 < turn["pair_0"] < 360 / 6  # "nearly a sixth of a turn"
    assert turn["pair_0"] > turn["pair_2"] > turn["pair_4"] > turn["pair_8"] and 12 * turn["pair_8"] < 8
    assert lab["pairs"] == 16


@pytest.mark.claim("rope-decay-figure")
def test_both_curves_fall_and_those_of_the_larger_base_stay_higher(results):
    decay = results("LLM/ROPE")["decay"]
    for kind, places in (("score", ("1", "10", "100", "1000")), ("bound", ("10", "100", "1000"))):
        small, large = decay[f"{kind}_10_000"], decay[f"{kind}_500_000"]
        assert all(0 < small[m] < large[m] < 1 for m in places)
        for curve in (small, large):
            assert all(curve[m] > curve[n] for m, n in zip(places, places[1:], strict=False))
    assert 0.4 < decay["rises_10_000"] < 0.6  # "a trend, not a law"


@pytest.mark.claim("rope-precision-figure")
@pytest.mark.claim("rope-precision")
def test_float32_loses_digits_and_bfloat16_all_of_them(results):
    precision = results("LLM/ROPE")["precision"]
    spread, places = precision["spread"], list(precision["float64"])
    assert places[0] == "65" and places[-1] == "1000001"
    assert max(precision["float64"].values()) < 1e-10
    assert 1e-3 < precision["float32"]["1000001"] < 4e-3 and precision["float32"]["4095"] < 1e-4
    assert 0.8 < precision["bfloat16"]["257"] / spread < 1.3  # "about as large as the spread"
    assert all(precision["bfloat16"][m] > 1.5 * spread for m in places[places.index("1301") :])


@pytest.mark.claim("rope-precision-library")
def test_cosines_of_transformers_are_of_float32(results):
    precision = results("LLM/ROPE")["precision"]
    assert 1e-5 < precision["transformers_4095"] < 1e-3 < precision["transformers_131071"] < 1e-2


def test_the_lab_took_less_than_an_hour_on_the_cpu():
    run = load(ROOT, "LLM/ROPE")
    assert run["device"] == "cpu" and run["seconds"] < 3600
