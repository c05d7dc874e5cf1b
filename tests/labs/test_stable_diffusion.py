"""The lab of latent diffusion: what the post says of its autoencoders."""

import pytest

from tests.labs.spread import greater, p_value, tie

LAB = "StableDiffusion"
ASKED = ("colour", "kind", "place")


def test_the_captions_of_the_test_are_not_in_training(results):
    assert results(LAB)["data.tested_in_training"] == 0


@pytest.mark.claim("ldm-rebuilt")
def test_rebuilt_scenes_can_be_read(results):
    """Of the long training; the short one is worse, and blurred less than the one with a latent of 4x4x4."""
    lab = results(LAB)
    assert all(min(lab[f"coder.{name}"]["seeds"]) >= 0.98 for name in ASKED)
    assert max(lab["coder.place"]["seeds"]) <= 1
    greater(lab["coder.psnr"], lab["size.standard.psnr"], paired=True)
    greater(lab["size.standard.place"], lab["size.factor.8.place"], paired=True)


@pytest.mark.claim("ldm-sizes")
def test_places_count_more_than_channels(results):
    lab = results(LAB)
    tie(lab["size.standard.psnr"], lab["size.channels.1.psnr"], within=1.5)
    tie(lab["size.standard.colour"], lab["size.channels.1.colour"], within=0.1)
    for name in ("psnr", *ASKED):
        greater(lab[f"size.standard.{name}"], lab[f"size.factor.8.{name}"], paired=True)
        greater(lab[f"size.channels.1.{name}"], lab[f"size.factor.8.{name}"], paired=True)
    assert 0.5 < lab["size.standard.colour.mean"] < 1


@pytest.mark.claim("ldm-kl-weight")
def test_a_small_kl_weight_costs_nothing(results):
    lab = results(LAB)
    tie(lab["size.standard.psnr"], lab["size.kl.hundredth.psnr"], within=0.5)
    greater(lab["size.kl.hundredth.nats"], lab["size.standard.nats"], paired=True)
    greater(lab["size.standard.nats"], lab["size.kl.thousandfold.nats"], paired=True)
    greater(lab["size.standard.psnr"], lab["size.kl.thousandfold.psnr"], paired=True)


@pytest.mark.claim("ldm-terms")
def test_further_terms_do_not_help_a_short_training(results):
    size, terms = results(LAB)["size.standard"], results(LAB)["terms"]
    greater(size["psnr"], terms["perceptual"]["psnr"], paired=True)
    assert 1.5 < size["psnr"]["mean"] - terms["perceptual"]["psnr"]["mean"] < 2.5
    greater(size["colour"], terms["perceptual"]["colour"], paired=True)
    pairs = zip(size["perceptual"]["seeds"], terms["perceptual"]["perceptual"]["seeds"], strict=True)
    assert all(with_it < without for without, with_it in pairs)
    assert p_value(size["perceptual"], terms["perceptual"]["perceptual"], paired=True) > 0.05
    greater(size["psnr"], terms["adversarial"]["psnr"], paired=True)
    assert size["psnr"]["mean"] - terms["adversarial"]["psnr"]["mean"] < 0.5
    for name, within in (("colour", 0.1), ("place", 0.1)):
        tie(size[name], terms["adversarial"][name], within=within)


@pytest.mark.claim("ldm-order")
def test_sizes_are_read_sooner_than_colours_and_kinds(results):
    """Of the row with the least training, and of the worst latent."""
    size = results(LAB)["size"]
    for row in (size["factor"]["8"], size["kl"]["thousandfold"]):
        greater(row["size"], row["colour"], paired=True)
        greater(row["size"], row["kind"], paired=True)
    greater(size["standard"]["colour"], size["standard"]["kind"], paired=True)


@pytest.mark.claim("ldm-scaled")
def test_latents_of_test_scenes_have_unit_deviation_after_scaling(results):
    lab = results(LAB)
    assert min(lab["scale.before"]["seeds"]) > 1.5 and max(lab["scale.before"]["seeds"]) < 2.5
    assert all(1.04 < one < 1.12 for one in lab["scale.after"]["seeds"])
    pairs = zip(lab["scale.before"]["seeds"], lab["scale.factor"]["seeds"], strict=True)
    assert all(abs(before * factor - 1) < 1e-6 for before, factor in pairs)
    assert lab["data.shapes"] == 2


@pytest.mark.claim("ldm-walk")
def test_between_two_scenes_latents_are_no_mixture_of_pixels(results):
    ends, middle = results(LAB)["slide.difference"][::7], results(LAB)["slide.difference"][3:5]
    assert 0 < max(ends) < 0.1 < min(middle) < 1
