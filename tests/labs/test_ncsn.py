"""The NCSN lab reaches the bars that its issue set, and bears out what the post says of it."""

import pytest

from tests.labs.spread import greater, paired, tie
from theme.page.pages import ROOT
from theme.page.results import load

BLOBS = ("left", "right", "upper")


def number(value: float, count: int = 5) -> dict:
    """A number that does not vary, beside spreads."""
    return {"mean": value, "sd": 0.0, "seeds": [value] * count}


def seeds(spread: dict) -> list[float]:
    return spread["seeds"]


def test_the_lab_took_less_than_an_hour_on_the_cpu():
    run = load(ROOT, "NCSN")
    assert run["device"] == "cpu" and run["seconds"] < 3600


# points


@pytest.mark.claim("ncsn-fields")
def test_one_hill_at_much_noise_and_three_at_little(results):
    """Where walks uphill along the learnt arrows end, at noise 6, 1.3, 0.38 and 0.05."""
    tops = results("NCSN")["fields.tops"]
    assert [len(found) for found in tops] == [1, 1, 3, 3]
    assert tops[1][0][0] < tops[0][0][0] - 0.2 and abs(tops[1][0][1] - tops[0][0][1]) < 1  # "farther left"
    means = [[-1.5, -0.6], [1.2, -0.9], [0.4, 1.5]]
    for found in tops[2:]:
        for mean in means:
            assert min(max(abs(a - b) for a, b in zip(place, mean, strict=True)) for place in found) < 0.3


@pytest.mark.claim("ncsn-misses")
def test_arrows_are_right_where_points_are(results):
    lab = results("NCSN")
    misses = lab["misses"]
    for k in range(4):
        assert 0 < misses[f"inside_{k}"]["mean"] < 0.1, k  # "inside the network is right"
    greater(misses["outside_3"], number(0.25))
    assert 0.9 < misses["small_0"]["mean"] <= 1 and 0 < misses["small_3"]["mean"] < 0.5  # "nearly everywhere"
    assert 0 < misses["points_outside"] < 0.05
    greater(lab["error.far"], number(0.5))
    greater(lab["error.far"], lab["error.last"])


@pytest.mark.claim("ncsn-error")
def test_the_learnt_score_is_close_to_the_exact_one(results):
    error = results("NCSN")["error"]
    levels = error["levels"]
    assert len(levels) == 20 and abs(sum(levels) / 20 - error["mean"]["mean"]) < 1e-9
    assert max(levels) == levels[-1] and 0 < error["mean"]["mean"] < 0.05
    assert max(levels[:4]) < 0.02 and min(levels[-4:]) > 0.02  # "about a percent", "several percent"
    greater(error["last"], error["mean"], paired=True)
    greater(error["mean"], error["smallest"], paired=True)


@pytest.mark.claim("ncsn-weights")
@pytest.mark.claim("ncsn-weights-figure")
def test_naive_langevin_gets_the_weights_wrong_and_annealed_right(results):
    """From the same starts, in the same number of steps, with the exact score and with the learnt one."""
    lab = results("NCSN")
    weights, truth = lab["weights"], lab["toy_truth.off"]
    for score in ("exact", "learnt"):
        naive, annealed = weights[f"naive_{score}"], weights[f"annealed_{score}"]
        assert min(seeds(naive["off"])) > 0.1 and 0 < max(seeds(annealed["off"])) < 0.05
        greater(naive["off"], annealed["off"], paired=True)
        greater(annealed["left"], naive["left"], paired=True)  # "the heaviest blob gets too few"
        for name, true in zip(BLOBS, weights["true"], strict=True):
            assert abs(annealed[name]["mean"] - true) < 0.03, name
    assert min(seeds(weights["naive_exact"]["right"])) > 0.4  # "the widest catches the most"
    assert weights["naive_exact"]["right"]["mean"] > weights["naive_exact"]["left"]["mean"]
    assert 0 < truth["mean"] < 0.02
    for score in ("exact", "learnt"):
        assert weights[f"annealed_{score}"]["off"]["mean"] < truth["mean"] + 0.02  # "little more than the chance error"
    stayed = lab["stayed"]
    assert min(seeds(stayed["naive_exact"])) > 0.95  # "and stay"
    greater(stayed["naive_exact"], stayed["annealed_exact"])


@pytest.mark.claim("ncsn-naive")
def test_no_setting_cures_naive_langevin(results):
    lab = results("NCSN")
    for score in ("naive_exact", "naive_learnt"):
        one = lab["weights"][score]
        assert min(seeds(one["off"])) > 0.1
        greater(number(0.5), one["left"])
    assert lab["weights.naive_exact.right"]["mean"] == max(lab["weights.naive_exact"][b]["mean"] for b in BLOBS)
    for name in ("small_step", "large_step", "ten_times", "small_square"):  # no matter of the step size or of patience
        greater(lab["naive"][name]["off"], lab["weights.annealed_exact.off"])
        assert 0.1 < min(seeds(lab["naive"][name]["off"])) < 0.4, name


@pytest.mark.claim("ncsn-widths")
@pytest.mark.claim("ncsn-without-fault")
def test_long_steps_of_the_sde_are_to_blame_for_its_widths(results):
    lab = results("NCSN")
    for blob in BLOBS:
        for score in ("", "_exact"):
            greater(lab[f"toy_reverse{score}"][blob], lab["toy_truth"][blob])  # "too spread with one rule"
            greater(lab["toy_truth"][blob], lab[f"toy_ancestral{score}"][blob])  # "too narrow with the other"
            assert abs(lab[f"toy_ode{score}"][blob]["mean"] - 1) < 0.05
        assert abs(lab["toy_annealed_exact"][blob]["mean"] - 1) < 0.06  # "within a few per cent"
        assert abs(lab["toy_truth"][blob]["mean"] - 1) < 0.02
    expected = 0.15 / (0.15**2 + 0.05**2) ** 0.5
    assert abs(expected - 0.95) < 0.002
    greater(number(1.0), lab["toy_annealed_exact.upper"])


@pytest.mark.claim("ncsn-paths")
def test_paths_of_the_ode_are_smooth_and_those_of_the_sde_jagged(results):
    detour = results("NCSN")["detour"]
    assert 1 < detour["ode"]["mean"] < 1.3
    greater(detour["reverse"], number(1.5))
    greater(detour["reverse"], detour["ode"], paired=True)


@pytest.mark.claim("ncsn-likelihood-figure")
@pytest.mark.claim("ncsn-likelihood-table")
def test_the_start_is_the_error_of_the_likelihood_by_the_exact_score(results):
    likelihood = results("NCSN")["likelihood"]
    few, many, high, learnt = (likelihood[name]["error"] for name in ("few", "many", "high", "learnt"))
    assert abs(paired(few, many).mean) < 0.02 < many["mean"] < 0.1  # "ten times as many levels gain nothing"
    greater(many, high, paired=True)
    assert 0 < high["mean"] < 0.2 * many["mean"]
    greater(learnt, few, paired=True)
    assert learnt["mean"] < 0.3
    assert abs(likelihood["true_integral"] - 1) < 1e-3
    assert abs(likelihood["integral"]["mean"] - 1) < 0.1
    assert 0.3 < likelihood["one_probe"]["sd"]["mean"] < 1
    assert abs(likelihood["one_probe"]["bias"]["mean"]) < 0.1
    assert -2 < likelihood["true"]["mean"] < -0.5


@pytest.mark.claim("ncsn-ladder-errors")
def test_karras_ladder_ends_nearer(results):
    ladder = results("NCSN")["ladder"]
    for count in (10, 20, 40):
        greater(ladder[f"log_{count}"], ladder[f"root_7_{count}"], paired=True)
        ratio = ladder[f"root_7_{count}"]["mean"] / ladder[f"log_{count}"]["mean"]
        assert 0.75 < ratio < 0.92, count  # "a sixth or so"
        assert ladder[f"root_1_{count}"]["mean"] > 4 * ladder[f"log_{count}"]["mean"]  # "by far"


@pytest.mark.claim("ncsn-forms")
def test_two_forms_of_the_network(results):
    forms = results("NCSN")["forms"]
    greater(forms["noise"]["mean"], forms["rest"]["mean"])


# digits


@pytest.mark.claim("ncsn-levels")
def test_fewer_levels_than_the_rule_asks_for_are_too_few(results):
    lab = results("NCSN")
    levels = lab["levels"]
    few, some, half, whole = (levels[f"of_{count}"]["frechet"] for count in (3, 5, 10, 30))
    greater(few, half)
    greater(some, half)
    tie(half, whole, within=1.5)  # "do as well here"
    assert levels["steps"] == 150 and whole["mean"] < 1.2 * lab["frechet.floor"]["mean"]


def test_judge_and_floor_are_those_of_the_ddpm_lab():
    values, other = load(ROOT, "NCSN")["values"], load(ROOT, "Diffusion")["values"]
    assert values["frechet"]["held_out"] == other["frechet"]["held_out"]
    assert values["frechet"]["floor"] == other["frechet"]["floor_of_180"] and values["images"]["drawn"] == 180


@pytest.mark.claim("ncsn-drawing")
def test_the_guess_is_grey_then_a_blur_then_the_digit(results):
    drawing = results("NCSN")["drawing"]
    spread, distance = drawing["spread"], drawing["distance"]
    assert spread[0] < 0.2 < 0.5 < spread[5] and abs(spread[-1] - 1) < 1e-6  # "the average digit while all is open"
    assert distance[-1] == 0 < distance[-2] < distance[5] < distance[0]


@pytest.mark.claim("ncsn-samples")
def test_the_same_noises_draw_the_same_digits_often(results):
    alike = results("NCSN")["samples.alike"]
    for pair in ("reverse_ancestral", "ancestral_ode"):
        assert 0.15 < alike[pair]["mean"] < 1, pair
    greater(alike["reverse_ancestral"], alike["ancestral_ode"])


@pytest.mark.claim("ncsn-digits")
def test_samples_are_digits(results):
    lab = results("NCSN")
    samples, floor = lab["samples"], lab["frechet.floor"]
    for name in ("annealed", "reverse", "ancestral", "ode"):
        assert 1 < samples[name]["times_floor"] <= 3, name
    assert samples["annealed"]["confident"]["mean"] >= 0.8
    greater(samples["annealed"]["frechet"], floor)


@pytest.mark.claim("ncsn-judge")
def test_the_judge_is_sure_of_noise_and_the_distance_is_not_fooled(results):
    start = results("NCSN")["samples.start"]
    assert 0.5 < start["confident"]["mean"] < 1 and start["times_floor"] > 30


@pytest.mark.claim("ncsn-last")
@pytest.mark.claim("ncsn-fault-last")
def test_the_last_denoising_step_helps(results):
    lab = results("NCSN")
    samples = lab["samples"]
    greater(samples["noisy"]["frechet"], samples["annealed"]["frechet"], paired=True)
    assert 0 < min(seeds(samples["denoised_by"])) and len(seeds(samples["denoised_by"])) == 5  # "in each"
    tie(samples["noisy"]["confident"], samples["annealed"]["confident"], within=0.02)
    assert 0.02 < lab["digits.last_change"]["mean"] < 0.03


@pytest.mark.claim("ncsn-fault-tweedie")
def test_the_wrong_last_step_is_33_times_too_long(results):
    change = results("NCSN")["digits.last_change"]["mean"]
    assert 0.75 < change / 0.03 < 0.8 and abs(1 / 0.03 - 33) < 0.5


@pytest.mark.claim("ncsn-copies")
def test_samples_are_no_copies_and_those_of_the_exact_score_are(results):
    lab = results("NCSN")
    copies = lab["copies"]
    assert 0.9 < copies["samples"]["mean"] / copies["held_out"] < 1.2
    assert min(seeds(copies["smallest"])) > 0.5 * copies["held_out_smallest"] > 0
    assert 0 <= max(seeds(lab["levels.nearest_30"])) < 0.05 * copies["samples"]["mean"]
