"""The DDPM lab reaches the bars that its issue set, and bears out what the post says of it."""

import json

import pytest
import torch

from snippets.ddpm import NoiseSchedule, cosine_beta, linear_beta
from tests.labs.spread import greater, paired, tie
from theme.page.pages import ROOT

RESULTS = json.loads((ROOT / "docs/results/Diffusion.json").read_text())
VALUES, TIMINGS = RESULTS["values"], RESULTS["timings"]
SAMPLES, FRECHET = VALUES["samples"], VALUES["frechet"]


def first(spread: dict, count: int = 5) -> dict:
    """The first draws of a sampler, to be paired with those of one that drew fewer."""
    return {"seeds": spread["seeds"][:count]}


def test_the_judge_reads_held_out_digits():
    assert VALUES["judge"]["accuracy"] >= 0.97


def test_samples_are_digits():
    """The post's sampler, Algorithm 2, reaches the bar; the others are printed beside it."""
    assert SAMPLES["ddpm"]["confident"]["mean"] >= 0.9
    for sampler in ("ddim_20", "ddim_50", "ddim_250", "ddpm"):
        assert SAMPLES[sampler]["times_floor"] <= 3, sampler


def test_the_lab_took_less_than_an_hour_on_the_cpu():
    assert RESULTS["device"] == "cpu" and TIMINGS["cpu_seconds"] < 3600


@pytest.mark.claim("ddpm-noising")
def test_the_cosine_schedule_keeps_the_picture_longer():
    assert VALUES["variance"]["linear_750"] < 0.005 and 0.1 < VALUES["variance"]["cosine_750"] < 0.2


@pytest.mark.claim("ddpm-schedules")
def test_the_linear_curve_lies_below_and_ends_flat():
    linear, cosine = NoiseSchedule(linear_beta()).alpha_bar, NoiseSchedule(cosine_beta()).alpha_bar
    assert (linear < cosine).double().mean() > 0.99  # "at nearly every level"
    assert linear[800] < 0.002  # the last fifth


@pytest.mark.claim("ddpm-denoising")
def test_the_implied_picture_is_noise_then_a_blur_then_the_digit():
    """Of the digit in the figure; stops are 999, 800, 600, 500, 400, 300, 200, 100, 50, 0 and done."""
    contrast, distance = VALUES["implied"]["contrast"], VALUES["implied"]["distance"]
    assert contrast[0] > contrast[-1] and VALUES["outside"]["at_999"]["mean"] > 0.5  # noise
    assert contrast[1] < 0.7 * contrast[-1]  # a blur
    assert distance[0] > distance[2] > distance[5] > distance[8]  # ever nearer to the finished digit
    assert distance[-1] == 0 and distance[5] > 3 * distance[8]  # detail comes last


@pytest.mark.claim("ddpm-reverse")
def test_a_short_step_back_is_gaussian_and_a_long_one_is_not():
    missed = VALUES["reverse"]
    assert missed["missed_to_499"] < 1e-5 and 0.01 < missed["missed_to_300"] < 0.05 and missed["missed_to_50"] > 0.4


@pytest.mark.claim("ddpm-bits")
def test_the_steps_cost_nearly_all_bits_and_the_cleanest_ones_most():
    bound = VALUES["bound"]
    assert bound["prior"]["mean"] < 1e-4 and bound["decoder"]["mean"] < 0.01 * bound["steps"]["mean"]
    beta, bar, tilde = (table[1:] for table in (linear_beta(), *tables("alpha_bar", "beta_tilde")))
    weight = beta**2 / (2 * tilde * (1 - beta) * (1 - bar))
    assert weight.argmax() == 0 and (weight[:-1] > weight[1:])[:200].all()  # "the weight is largest" there
    assert bound["first_ten"]["mean"] > 0.3


def tables(*names: str) -> list[torch.Tensor]:
    """Tables of the post's schedule."""
    schedule = NoiseSchedule(linear_beta())
    return [getattr(schedule, name) for name in names]


@pytest.mark.claim("ddpm-loss-by-level")
def test_the_clean_end_is_hardest_and_training_digits_are_a_little_easier():
    loss = VALUES["loss"]
    levels = loss["by_level"]
    assert levels[0] == max(levels) and 0.5 < levels[0] < 1 and loss["last"]["mean"] < 1e-3
    assert sum(a > b for a, b in zip(levels, levels[1:], strict=False)) >= 0.9 * (len(levels) - 1)  # it falls
    assert greater(loss["held_out"], loss["train"])


@pytest.mark.claim("ddpm-clipped-pixels")
def test_much_is_clipped_wild_guesses_first_and_background_later():
    outside = VALUES["outside"]
    assert outside["at_999"]["mean"] > 0.5 and min(outside[f"at_{t}"]["mean"] for t in (500, 100)) > 0.1
    assert outside["background_at_100"]["mean"] > 0.6 > outside["background_at_999"]["mean"]  # "mostly the background"


@pytest.mark.claim("ddpm-program")
def test_the_programs_digits_are_worse_than_the_labs():
    assert greater(VALUES["program"]["frechet"], first(SAMPLES["ddim_50"]["frechet"]))
    assert greater(first(SAMPLES["ddim_50"]["confident"]), VALUES["program"]["confident"])


@pytest.mark.claim("ddpm-same-digit")
def test_ddim_keeps_the_digit_of_its_noise_and_ddpm_does_not():
    same = VALUES["same_digit"]
    assert greater(same["ddim_20"], same["ddim_5"]) and same["ddim_20"]["mean"] > 0.9
    assert same["ddpm"]["mean"] < 0.5
    assert same["ddim_5"]["mean"] > 0.5  # "mostly the same digit", down to the first row


@pytest.mark.claim("ddpm-floor")
def test_real_digits_differ_by_chance():
    """The floor moves by a third of itself, and the held-out digits are one draw of it."""
    floor = FRECHET["floor"]
    assert floor["sd"] > 0.2 * floor["mean"] and len(floor["seeds"]) == 20
    assert min(floor["seeds"]) < FRECHET["held_out"] < max(floor["seeds"])


@pytest.mark.claim("ddpm-judge-memory")
def test_unseen_digits_are_no_farther_than_random_ones():
    assert FRECHET["held_out"] < FRECHET["floor"]["mean"] + FRECHET["floor"]["sd"]


@pytest.mark.claim("ddpm-sample-size")
def test_fewer_digits_give_a_larger_distance():
    real = [FRECHET[f"floor_of_{n}"]["mean"] for n in (45, 90, 180)] + [FRECHET["floor"]["mean"]]
    drawn = [FRECHET[f"drawn_{n}"]["mean"] for n in (45, 90, 180, 360, 720, 1800)] + [FRECHET["drawn_all"]["value"]]
    for row in (real, drawn):
        assert all(more > less for more, less in zip(row, row[1:], strict=False)), row
    assert real[0] > 4 * real[-1]


@pytest.mark.claim("ddpm-judge-and-noise")
def test_the_judge_is_sure_of_noise_and_the_distance_is_not_fooled():
    assert SAMPLES["noise"]["confident"]["mean"] > 0.5  # "most pure noise"
    assert SAMPLES["noise"]["times_floor"] > 30


@pytest.mark.claim("ddpm-copies")
def test_samples_are_no_copies():
    """Samples are about as far from the training images as held-out digits are."""
    copies = VALUES["copies"]
    assert 0.9 < copies["samples"]["mean"] / copies["held_out"] < 1.1
    assert min(copies["smallest"]["seeds"]) > 0.5 * copies["held_out_smallest"]


@pytest.mark.claim("ddpm-diffusers")
def test_ours_and_diffusers_network_are_a_tie():
    ours, theirs = VALUES["compared"]["ours"]["frechet"], VALUES["compared"]["diffusers"]["frechet"]
    assert len(ours["seeds"]) == 3 and tie(ours, theirs)
    assert VALUES["operations"]["ours"] == VALUES["operations"]["diffusers"]
    assert TIMINGS["step"]["ratio"] <= 1.0  # a step of ours is at most as slow


@pytest.mark.claim("ddpm-cosine")
def test_the_cosine_model_explodes_and_two_remedies_hold():
    cosine = VALUES["cosine"]
    assert VALUES["signal"]["cosine_last"] < 0.01 * VALUES["signal"]["linear_last"]
    for remedy in ("clipped", "lower"):
        assert greater(cosine["plain"]["frechet"], cosine[remedy]["frechet"]), remedy


@pytest.mark.claim("ddpm-leading")
def test_where_ddim_begins_matters_with_few_steps():
    assert paired(VALUES["leading"]["5"]["frechet"], first(SAMPLES["ddim_5"]["frechet"]))


@pytest.mark.claim("ddpm-width")
def test_wrong_variances_bracket_the_right_one():
    """What the post says of beta, beta-tilde and DDIM on the toy mixture."""
    width = VALUES["width"]
    for levels in (50, 100, 200):
        assert greater(width[f"beta_{levels}"], {"mean": 1.0, "sd": 0.0, "seeds": [1.0] * 5}), levels


@pytest.mark.claim("ddpm-no-noise")
def test_without_noise_all_points_end_in_one_spot():
    assert VALUES["width"]["spread_without_noise"]["mean"] < 0.005
