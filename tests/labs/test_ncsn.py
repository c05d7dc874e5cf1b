"""The NCSN lab reaches the bars that its issue set, and bears out what the post says of it."""

import pytest

from theme.page.pages import ROOT
from theme.page.results import load


@pytest.mark.claim("ncsn-error")
def test_the_learnt_score_is_close_to_the_exact_one(results):
    error = results("NCSN")["error"]
    levels = error["levels"]
    assert len(levels) == 20 and abs(error["mean"] - sum(levels) / 20) < 1e-9
    assert 0 < error["mean"] < 0.05 and max(levels) == levels[-1] == error["last"]
    assert min(levels) == error["smallest"] and max(levels[:4]) < 0.02 < min(levels[-4:])  # "about", "several percent"


@pytest.mark.claim("ncsn-misses")
def test_arrows_are_wrong_where_no_points_are(results):
    error = results("NCSN")["error"]
    assert error["far"] > 1 > 0.1 > error["last"] > 0  # but not where no data live, as the post says


@pytest.mark.claim("ncsn-weights")
def test_naive_langevin_gets_the_weights_wrong_and_annealed_right(results):
    """From the same starts, in the same number of steps, with the exact score and with the learnt one."""
    lab = results("NCSN")
    weights = lab["weights"]
    for score in ("exact", "learnt"):
        naive, annealed = weights[f"naive_{score}"], weights[f"annealed_{score}"]
        assert naive["off"] > 0.15 and 0 < annealed["off"] < 0.02
        for drawn in (naive, annealed):
            errors = [abs(a - b) for a, b in zip(drawn["share"], weights["true"], strict=True)]
            assert abs(max(errors) - drawn["off"]) < 1e-6
    for blob in range(3):
        assert lab["toy_reverse.widths"][blob] > 1.1 and 0.9 < lab["toy_ancestral.widths"][blob] < 0.95
        assert (
            abs(lab["toy_ode.widths"][blob] - 1) < 0.03 < 0.05 < lab["toy_reverse.widths"][blob] - 1
        )  # "nearly right"
        assert 1 <= lab["toy_truth.widths"][blob] < 1.04
    assert lab["toy_truth.widths"][2] == max(lab["toy_truth.widths"])  # the measure errs most for the narrowest
    for name in ("ode", "reverse", "ancestral"):
        assert 0 < lab[f"toy_{name}"]["off"] < 0.04, name


@pytest.mark.claim("ncsn-naive")
def test_no_setting_cures_naive_langevin(results):
    lab = results("NCSN")
    weights, naive = lab["weights"], lab["naive"]
    exact, learnt = weights["naive_exact"], weights["naive_learnt"]
    assert exact["share"][1] == max(exact["share"]) and exact["off"] > 0.2  # "the widest blob catches the most"
    assert 0.5 - learnt["share"][0] == pytest.approx(learnt["off"], abs=1e-6)  # "the heaviest gets the most too little"
    chance = [naive[name] for name in ("small_step", "large_step", "ten_times")]
    assert max(chance) - min(chance) < 0.032 and min(chance) > 0.15  # "the same but for chance"
    assert 0.1 < naive["small_square"] < min(chance)


@pytest.mark.claim("ncsn-digits")
def test_one_draw_ranks_no_sampler(results):
    """The samplers differ by less than ten draws of one sampler do on the DDPM page."""
    lab, other = results("NCSN"), results("Diffusion")
    samples = lab["samples"]
    distance = [samples[name]["frechet"] for name in ("annealed", "reverse", "ancestral", "ode")]
    draws = other["samples.ddim_50.frechet.seeds"]
    assert 0 < max(distance) - min(distance) < 1.5 * (max(draws) - min(draws))
    assert lab["frechet.floor"] == pytest.approx(other["frechet.held_out"])
    assert samples["annealed"]["frechet"] <= 3 * lab["frechet.floor"] and samples["annealed"]["confident"] >= 0.8
    for name in ("annealed", "reverse", "ancestral", "ode", "start"):
        assert samples[name]["times_floor"] == pytest.approx(samples[name]["frechet"] / lab["frechet.floor"])
    assert samples["start"]["times_floor"] > 30 and 0.5 < samples["start"]["confident"] < 1  # noise is far off


@pytest.mark.claim("ncsn-last")
def test_the_last_denoising_step_hardly_matters(results):
    lab = results("NCSN")
    samples = lab["samples"]
    gain = samples["noisy"]["frechet"] - samples["annealed"]["frechet"]
    assert 0 < gain < results("Diffusion")["samples.ddim_50.frechet.sd"]  # "less than draws differ"
    assert abs(samples["noisy"]["confident"] - samples["annealed"]["confident"]) < 0.01
    assert 0.02 < lab["digits.last_change"] < 0.03


@pytest.mark.claim("ncsn-fault-tweedie")
def test_the_wrong_last_step_is_33_times_too_long(results):
    change = results("NCSN")["digits.last_change"]
    assert 0.75 < change / 0.03 < 0.8 and abs(1 / 0.03 - 33) < 0.5


@pytest.mark.claim("ncsn-copies")
def test_samples_are_no_copies(results):
    copies = results("NCSN")["copies"]
    assert 0.8 < copies["samples"] / copies["held_out"] < 1.2
    assert 0.5 < copies["smallest"] / copies["held_out_smallest"] < 1.5


def test_the_lab_took_less_than_15_minutes_on_the_cpu():
    run = load(ROOT, "NCSN")
    assert run["device"] == "cpu" and run["seconds"] < 900
