"""The CFG lab reaches the bars that its issue set, and bears out what the post says of it.

The lab draws once for each row. Shares of independent pictures are compared by their binomial errors, distances by the
spread of draws that the lab of the DDPM post found.
"""

import pytest
import torch

from snippets.cfg import ClassEncoder, ConditionalUNet, guided
from snippets.ddpm import NoiseSchedule, linear_beta
from theme.page.pages import ROOT
from theme.page.results import load

LAB = "CFG"
SCALES = [0, 0.5, 1, 1.5, 2, 3, 4, 6, 8]
DRAWN, FILLED, TESTED = 360, 100, 128  # pictures behind a share
DRAW = 2 * 2**0.5 * 2.25  # by which two distances of 360 digits differ by chance: two deviations of a difference


def more(one: float, other: float, count: int) -> None:
    """Assert that a share of so many pictures is above another one beyond chance, at 5 %."""
    error = (one * (1 - one) / count + other * (1 - other) / count) ** 0.5
    assert one - other > 1.96 * error, f"{one:.3f} is not above {other:.3f} by more than 1.96 * {error:.3f}"


def tied(one: float, other: float, count: int) -> None:
    """Assert that neither share is above the other one beyond chance."""
    error = (one * (1 - one) / count + other * (1 - other) / count) ** 0.5
    assert abs(one - other) <= 1.96 * error + 1e-9, f"{one:.3f} and {other:.3f} differ"


def at(results, scale: float) -> dict:
    """All that the sweep measured at a scale."""
    lab = results(LAB)
    assert lab["scales"] == SCALES
    return {name: values[SCALES.index(scale)] for name, values in lab["sweep"].items()}


@pytest.mark.claim("cfg-guided")
def test_scales_of_the_first_figure(results):
    """Any digits at 0, the right ones at 1, plainer ones at 3, stained ones at 8."""
    assert at(results, 0)["agreement"] < 0.15 and at(results, 1)["agreement"] > 0.9
    assert at(results, 3)["agreement"] >= 0.98
    more(at(results, 1)["recall"], at(results, 3)["recall"], DRAWN)
    assert at(results, 8)["grey"] > 1.3 > 1.1 > at(results, 3)["grey"]


@pytest.mark.claim("cfg-price")
def test_plainer_digits_cost_variety_and_a_second_evaluation(results):
    more(at(results, 3)["precision"], at(results, 1)["precision"], DRAWN)
    more(at(results, 2)["agreement"], at(results, 1)["agreement"], DRAWN)
    more(at(results, 1)["recall"], at(results, 3)["recall"], DRAWN)
    model, evaluated = ConditionalUNet(ClassEncoder(10, dim=32), widths=(8, 16)), []
    model.register_forward_pre_hook(lambda module, args: evaluated.append(len(args[0])))
    predict = guided(model, NoiseSchedule(linear_beta()), torch.arange(3), 3.0)
    with torch.no_grad():
        predict(torch.randn(3, 1, 8, 8), torch.full((3,), 500))
    assert evaluated == [6]


@pytest.mark.claim("cfg-honest")
def test_guidance_makes_digits_what_they_should_be(results):
    more(at(results, 2)["agreement"], at(results, 1)["agreement"], DRAWN)
    more(results(LAB)["judge.accuracy"], at(results, 1)["agreement"], DRAWN)


@pytest.mark.claim("cfg-one-pass")
def test_one_pass_for_scenes_is_faster_than_two(results):
    """The network for digits is so small that PyTorch takes another convolution at batch 1."""
    passes = results(LAB)["timings.passes"]
    assert passes["scenes"] >= 1.2 and 0.9 < passes["digits"] < 1.1


@pytest.mark.claim("cfg-toy")
@pytest.mark.claim("cfg-toy-table")
def test_the_guided_sampler_does_not_draw_the_tilted_density(results):
    toy = [results(LAB)["toy"][scale] for scale in ("s1", "s2", "s4", "s8")]
    assert toy[0]["distance"] < 1.1 * toy[0]["floor"]  # without guidance, it does
    assert toy[0]["shift"] < 0.01 and abs(toy[0]["spread"] - toy[0]["spread_tilted"]) < 0.005
    for less, more_ in zip(toy, toy[1:], strict=False):
        assert more_["distance"] > max(4 * more_["floor"], less["distance"] + 0.1)
        assert more_["shift"] > less["shift"] + 0.3 and more_["spread"] < less["spread"] - 0.02
    stays = [one["spread_tilted"] for one in toy]
    assert max(stays) - min(stays) < 0.001  # "the lines stay"


@pytest.mark.claim("cfg-sweep")
@pytest.mark.claim("cfg-sweep-table")
def test_guidance_trades_variety_for_agreement(results):
    lab = results(LAB)
    assert at(results, 0)["agreement"] < 0.15
    more(at(results, 1.5)["agreement"], at(results, 1)["agreement"], DRAWN)
    assert all(at(results, scale)["agreement"] >= 0.99 for scale in SCALES[3:])
    assert at(results, 0.5)["recall"] >= at(results, 0)["recall"]
    for less, further in zip(SCALES[1:-1], SCALES[2:], strict=True):
        more(at(results, less)["recall"], at(results, further)["recall"], DRAWN)
    at_one = at(results, 1)["frechet"]
    assert at_one == min(lab["sweep"]["frechet"])  # the figure's curve
    assert at(results, 2)["frechet"] > at_one + DRAW > at(results, 1.5)["frechet"]
    for less, further in zip(SCALES[4:-1], SCALES[5:], strict=True):
        assert at(results, further)["frechet"] > at(results, less)["frechet"] + DRAW
    assert abs(at_one - lab["frechet.floor"]) < DRAW and at(results, 0)["frechet"] > at_one + 3 * DRAW


@pytest.mark.claim("cfg-saturation")
def test_saturation_grows_and_contrast_stays(results):
    outside = results(LAB)["sweep.outside"]
    assert all(one < other for one, other in zip(outside[2:-1], outside[3:], strict=True))
    assert outside[-1] > 10 * outside[2] and outside[2] < 0.01
    assert abs(results(LAB)["remedies.none.contrast"] - 1) < 0.05


@pytest.mark.claim("cfg-remedies")
def test_thresholding_makes_the_background_greyer(results):
    grey = {name: one["grey"] for name, one in results(LAB)["remedies"].items()}
    assert grey.pop("threshold") > 1.25 * max(grey.values())


@pytest.mark.claim("cfg-remedies-table")
def test_remedies_against_saturation(results):
    remedies, four = results(LAB)["remedies"], at(results, 4)
    none = remedies["none"]
    for name in ("clip", "threshold", "rescale"):
        more(remedies[name]["recall"], none["recall"], DRAWN)
        more(at(results, 1)["recall"], remedies[name]["recall"], DRAWN)
        assert (
            remedies[name]["recall"] <= remedies["clip"]["recall"] and remedies[name]["precision"] < none["precision"]
        )
    assert remedies["clip"]["outside"] == 0 == remedies["threshold"]["outside"]
    assert 0.15 < 1 - remedies["rescale"]["outside"] / none["outside"] < 0.25  # "about a fifth"
    more(none["precision"], remedies["threshold"]["precision"], DRAWN)
    assert remedies["threshold"]["contrast"] < none["contrast"] - 0.04
    assert remedies["threshold"]["frechet"] > none["frechet"] + 2 * DRAW
    for name, one in remedies.items():
        assert four["frechet"] < one["frechet"] - 3 * DRAW, name
        more(four["precision"], one["precision"], DRAWN)
    tied(four["recall"], remedies["clip"]["recall"], DRAWN)


@pytest.mark.claim("cfg-fault-quantile")
def test_clipping_is_better_than_thresholding_for_digits(results):
    clip, threshold = results(LAB)["remedies.clip"], results(LAB)["remedies.threshold"]
    assert threshold["frechet"] > clip["frechet"] + 3 * DRAW
    more(clip["precision"], threshold["precision"], DRAWN)
    assert clip["outside"] == 0 == threshold["outside"]


@pytest.mark.claim("cfg-fault-halves")
def test_exchanged_halves_draw_any_digit(results):
    """Scale 1 becomes scale 0."""
    assert at(results, 0)["agreement"] < 0.15 and at(results, 1)["agreement"] > 0.9


@pytest.mark.claim("cfg-fault-scale")
def test_one_more_costs_recall(results):
    more(at(results, 2)["agreement"], at(results, 1)["agreement"], DRAWN)
    more(at(results, 1)["recall"] - 0.2, at(results, 2)["recall"], DRAWN)


@pytest.mark.claim("cfg-fill")
@pytest.mark.claim("cfg-fill-table")
def test_completions_keep_the_known_pixels_and_follow_the_class(results):
    fill = results(LAB)["fill"]
    assert fill["spread"] > 0.1 and fill["digits"] == FILLED
    for mask in ("lower", "right", "centre", "scattered"):
        untold, told = fill[mask]["s0"], fill[mask]["s2"]
        assert untold["changed"] == 0 == told["changed"]
        assert told["agreement"] >= 0.95 and 0.45 < untold["agreement"] < 0.6
        more(told["agreement"], untold["agreement"], FILLED)
        if mask != "centre":
            more(untold["agreement"], max(fill[mask]["grey"], fill[mask]["white"]), FILLED)


@pytest.mark.claim("cfg-ten")
def test_a_half_becomes_some_other_digits_and_not_all(results):
    assert 5 <= results(LAB)["fill.as_asked"] < 10


def enlarged(found: dict) -> None:
    """Closer than bicubic, in agreement with the input; single ones are nearest to the real sharpness."""
    for other in ("bicubic", "corrected"):
        assert found["mean"]["psnr"] > found[other]["psnr"] + 1
        for measure in ("gradient", "detail"):
            assert abs(found["single"][measure] - 1) < abs(found[other][measure] - 1), (other, measure)
    assert found["off"] <= 1e-2
    assert all(0.85 < found["single"][measure] < 1.15 for measure in ("gradient", "detail"))


@pytest.mark.claim("cfg-x2")
@pytest.mark.claim("cfg-x2-table")
def test_enlarged_digits(results):
    lab = results(LAB)
    found, untold = lab["digits_x2"], lab["digits_x2_untold"]
    enlarged(found)
    for other in (found["single"], found["linear"], untold["mean"], untold["single"]):
        assert found["mean"]["psnr"] > other["psnr"] + 1
    for measure in ("gradient", "detail"):
        assert found["mean"][measure] < found["single"][measure] - 0.05
        assert 0.85 < untold["single"][measure] < 1.15
    assert abs(untold["mean"]["psnr"] - found["linear"]["psnr"]) < 0.5  # "about as close"


@pytest.mark.claim("cfg-bias")
def test_restore_does_not_draw_the_conditional_density(results):
    bias = results(LAB)["bias"]
    more(bias["steps_50"], bias["exact"], 10_000)
    more(bias["steps_1000"], bias["steps_50"], 10_000)


@pytest.mark.claim("cfg-scenes")
@pytest.mark.claim("cfg-scenes-table")
def test_scenes_show_what_their_captions_say(results):
    scenes = results(LAB)["scenes"]
    for measure in ("colour", "kind", "place"):
        assert scenes["reader"][measure] > 0.99
        assert scenes["seen"]["s1"][measure] == 1 and scenes["seen"]["s3"][measure] >= 0.9  # "all is right"
        assert scenes["seen"]["s0"][measure] < 0.5  # deaf to the caption
        assert scenes["new_pair"]["s1"][measure] > 0.9
        for one, other in (("s1", "s3"), ("s3", "s5"), ("s1", "s5")):  # "no difference"
            tied(scenes["new_pair"][one][measure], scenes["new_pair"][other][measure], TESTED)
    assert scenes["seen"]["s1"]["extra"] == 0 == scenes["held_out"]["s5"]["extra"]


@pytest.mark.claim("cfg-scenes-x2")
@pytest.mark.claim("cfg-scenes-x2-table")
def test_enlarged_scenes(results):
    lab = results(LAB)
    enlarged(lab["scenes_x2"])
    gain = {name: lab[name]["mean"]["psnr"] - lab[name]["single"]["psnr"] for name in ("scenes_x2", "digits_x2")}
    assert 0 < gain["scenes_x2"] < 0.5 and gain["digits_x2"] > 1.5
    assert lab["scenes_x2"]["mean"]["psnr"] > lab["scenes_x2"]["corrected"]["psnr"] + 5


@pytest.mark.claim("cfg-fill-scenes")
def test_an_erased_shape_is_drawn_again(results):
    fill = results(LAB)["fill"]
    assert fill["scenes"]["place"] >= 0.9 and fill["scenes_changed"] == 0


def test_the_lab_took_less_than_45_minutes_on_the_cpu():
    run = load(ROOT, LAB)
    assert run["device"] == "cpu" and run["seconds"] < 45 * 60
