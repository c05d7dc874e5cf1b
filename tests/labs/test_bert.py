"""The lab of BERT reaches the bars that its issue set, and bears out what the post says of it."""

import math

import pytest

from snippets.data.help_questions import QUESTIONS
from tests.labs.spread import greater, paired, seeds
from theme.page.pages import ROOT
from theme.page.results import load

LAB = "LLM/BERT"
SHAPES = ("1x32", "1x128", "8x128", "4x512")


def exactly(value: float) -> dict:
    """A number without spread, beside one of three seeds."""
    return {"mean": value, "sd": 0.0, "seeds": [value] * 3}


def test_the_first_loss_is_that_of_guessing(results):
    lab = results(LAB)
    assert lab["train.first_loss"] == pytest.approx(math.log(lab["wordpiece.size"]) + math.log(2), abs=0.4)
    assert lab["train.uniform"] == pytest.approx(math.log(lab["wordpiece.size"]) + math.log(2))


def test_every_comparison_has_three_seeds(results):
    lab = results(LAB)
    spreads = [lab["words.accuracy.bert"], lab["words.nats.bert"], lab["pairs.accuracy"]]
    spreads += [lab[f"masking.{way}.accuracy.{kind}"] for way in WAYS for kind in ("mask", "itself", "random")]
    spreads += [lab[f"tasks.{task}.{start}.accuracy"] for task in TASKS for start in ("pretrained", "scratch")]
    spreads += [lab[f"size.{name}.words.accuracy"] for name in ("small", "eighth", "base")]
    assert all(len(seeds(spread)) == 3 for spread in spreads)


WAYS, TASKS = ("mixed", "mask", "random"), ("kind", "quote")


def test_no_word_of_the_held_out_text_is_unknown_to_the_page_s_pieces(results):
    lab = results(LAB)
    assert lab["wordpiece.unknown"] < 0.01 and lab["real.unknown"] < 0.01


def test_the_lab_ran_on_one_cpu_thread():
    run = load(ROOT, LAB)
    assert run["device"] == "cpu" and run["seconds"] < 3 * 3600


def test_the_speed_reaches_its_bars(results):
    """At least as fast as transformers everywhere, 1.15 times at 1 x 32."""
    speed = results(LAB)["timings.speed"]
    assert all(speed[shape]["reordered"]["ratio"] >= 1 for shape in SHAPES)
    assert speed["1x32"]["reordered"]["ratio"] >= 1.15


def test_the_thirty_questions_are_the_ones_of_the_lab(results):
    assert results(LAB)["search.questions"] == len(QUESTIONS) == 30
