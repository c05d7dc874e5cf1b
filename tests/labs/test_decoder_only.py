"""The lab of decoder-only models reaches the bars that its issue set, and bears out what the post says of it."""

import math
import zlib

import pytest
import torch
from scipy.stats import ttest_ind

from snippets.data.text import text
from tests.labs.spread import greater, paired
from theme.page.pages import ROOT
from theme.page.results import load

LAB = "LLM/Decoder-Only"


def test_the_model_has_the_size_that_was_asked_for(results):
    assert load(ROOT, LAB)["device"] == "cpu" and 1e6 <= results(LAB)["train.parameters"] <= 3e6


def test_the_first_loss_is_that_of_guessing(results):
    assert results(LAB)["train.first_loss"] == pytest.approx(math.log(256), abs=0.2)  # a tied model guesses repeats


def test_samples_begin_with_the_prompt_and_differ(results):
    samples = results(LAB)["samples"]
    assert len(set(samples.values())) == 2
    assert all(sample.startswith("Return a new") and len(sample) > 200 for sample in samples.values())


def test_confusions(results):
    assert results(LAB)["causal.equals_value_0"]


# what the post says


@pytest.mark.claim("decoder-surprise")
def test_the_first_letters_of_words_surprise_most(results):
    surprise = results(LAB)["surprise"]
    for earlier, later in (("1", "2"), ("2", "3"), ("3", "6")):
        greater(surprise[earlier], surprise[later], paired=True)
    assert surprise["first"] == surprise["1"] and paired(surprise["first"], surprise["later"]).low > 1.5
    assert 2 < surprise["first"]["mean"] < 6


@pytest.mark.claim("decoder-bits")
def test_the_model_needs_the_fewest_bits_of_the_table(results):
    lab = results(LAB)
    bits = lab["bits"]
    order = ("gzip_primed", "five_gram", "xz_primed", "six_gram", "seven_gram", "ppm_primed", "model")
    assert [bits[name] for name in order] == sorted((bits[name] for name in order), reverse=True)
    assert all(bits[name] > bits[f"{name}_primed"] > bits["model"] for name in ("gzip", "xz", "ppm"))
    assert bits["gzip"] < 3 and bits["gzip_primed"] > bits["five_gram"] + 0.5 and bits["model"] > 1.7
    assert bits["ppm_primed"] < bits["model_short"] < bits["seven_gram"]


@pytest.mark.claim("decoder-bits-parts")
def test_others_come_near_the_model(results):
    lab = results(LAB)
    bits, apart = lab["bits"], paired(lab["parts.seven_gram"], lab["parts.model"])
    assert apart.low > 0 and apart.mean < 0.1
    assert lab["parts.model"]["mean"] == pytest.approx(bits["model"], abs=0.02)
    assert lab["parts.seven_gram"]["mean"] == pytest.approx(bits["seven_gram"], abs=0.02)
    assert bits["model"] < bits["ppm_primed"] < bits["model_short"] and bits["ppm_primed"] < bits["seven_gram"]


@pytest.mark.claim("decoder-overfit")
def test_held_out_text_costs_more_than_training_text(results):
    bits = results(LAB)["bits"]
    assert bits["model_on_training_text"] + 0.1 < bits["model"] < bits["model_on_training_text"] + 0.4
    # passages as long as the lab's, each packed alone, by what has read nothing before
    packed = {}
    for held_out in (False, True):
        codes = text(held_out=held_out)
        at = torch.linspace(0, len(codes) - 2048, 200).long().tolist()
        packed[held_out] = [len(zlib.compress(bytes(codes[i : i + 2048].tolist()), 9)) for i in at]
    assert ttest_ind(packed[True], packed[False], alternative="greater").pvalue < 1e-3


@pytest.mark.claim("decoder-perplexity")
def test_perplexity_is_two_to_the_bits(results):
    lab = results(LAB)
    assert lab["perplexity"] == pytest.approx(2 ** lab["bits.model"])
    assert 2 ** (4 * lab["bits.model"]) == pytest.approx(lab["perplexity"] ** 4)


@pytest.mark.claim("decoder-loops")
def test_greedy_texts_repeat_themselves(results):
    repeated = results(LAB)["repeated"]
    greater(repeated["likeliest"], repeated["drawn"], paired=True)
    assert 0.3 < repeated["likeliest"]["mean"] < 1 and repeated["drawn"]["mean"] < 0.02


@pytest.mark.claim("decoder-cache-cost")
def test_a_cache_makes_the_cost_of_a_token_nearly_level(results):
    lab = results(LAB)
    context = lab["timings.context"]
    assert lab["context.positions"] == [64, 128, 256, 512, 1024, 2048, 4096]
    without, kept = context["milliseconds"]["without"], context["milliseconds"]["with"]
    assert without == sorted(without) and all(a < b for a, b in zip(kept, without, strict=True))
    assert context["growth_without"] == pytest.approx(without[-1] / without[0]) and context["growth_without"] > 64
    assert context["growth_with"] == pytest.approx(kept[-1] / kept[0]) and context["growth_with"] < 6
    assert context["gain_at_4096"] == pytest.approx(without[-1] / kept[-1]) and context["gain_at_4096"] > 50
