"""The DDPM lab reaches the bars that its issue set."""

import json

from theme.page.pages import ROOT

RESULTS = json.loads((ROOT / "docs/results/Diffusion.json").read_text())
VALUES = RESULTS["values"]


def test_the_judge_reads_held_out_digits():
    assert VALUES["judge"]["accuracy"] >= 0.97


def test_samples_are_digits():
    """The post's sampler, Algorithm 2, reaches the bar; the others are printed beside it."""
    assert VALUES["samples"]["ddpm"]["confident"] >= 0.9
    for sampler in ("ddim_20", "ddim_50", "ddim_250", "ddpm"):
        assert VALUES["samples"][sampler]["frechet"] <= 3 * VALUES["frechet"]["floor"], sampler
    assert VALUES["samples"]["noise"]["times_floor"] > 30  # and noise is far off


def test_samples_are_no_copies():
    """Samples are about as far from the training images as held-out digits are."""
    copies = VALUES["copies"]
    assert copies["samples"] > 0.8 * copies["held_out"]
    assert copies["smallest"] > 0.5 * copies["held_out_smallest"]


def test_a_training_step_is_at_most_as_slow_as_diffusers():
    assert VALUES["operations"]["ours"] == VALUES["operations"]["diffusers"]
    assert VALUES["step"]["ratio"] <= 1.0


def test_the_lab_took_less_than_15_minutes_on_the_cpu():
    assert RESULTS["device"] == "cpu" and RESULTS["seconds"] < 900


def test_wrong_variances_bracket_the_right_one():
    """What the post says of beta, beta-tilde and DDIM on the toy mixture."""
    width = VALUES["width"]
    assert width["beta_tilde"][0] < 0.9 and width["beta"][0] > 1.1
    assert abs(width["beta_tilde"][-1] - 1) < 0.05 and abs(width["beta"][-1] - 1) < 0.05
