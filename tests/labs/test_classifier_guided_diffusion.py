"""The lab of classifier guidance reaches the bars that its issue set, and bears out what the post says of it."""

import matplotlib.image
import matplotlib.pyplot as plt
import pytest
import torch

from snippets.blocks.image_metrics import nearest
from snippets.blocks.image_metrics import train_classifier as train_judge
from snippets.data.digits import digits
from tests.labs.spread import greater, paired, tie
from theme.page.pages import ROOT
from theme.page.results import load

POST = "Classifier_Guided_Diffusion"
UP = ("s0_5", "s1", "s2", "s4", "s8", "s16")  # the scales above 0
CHANCE = {"mean": 0.1, "sd": 0.0, "seeds": [0.1] * 5}


def constant(value: float) -> dict:
    return {"mean": value, "sd": 0.0, "seeds": [value] * 5}


def column(rows: dict, what: str, keys=UP) -> list[dict]:
    return [rows[key][what] for key in keys]


def falls(spreads: list[dict]) -> None:
    for more, less in zip(spreads, spreads[1:], strict=False):
        greater(more, less, paired=True)


def test_the_judge_reads_held_out_digits(results):
    assert results(POST)["judge.accuracy"] >= 0.97


def test_unguided_digits_ignore_the_class_and_guided_ones_are_of_it(results):
    noisy = results(POST)["noisy"]
    assert 0.05 <= noisy["s0"]["agreement"]["mean"] <= 0.16
    assert noisy["s4"]["agreement"]["mean"] >= 0.95  # the scale of the pictures


def test_the_lab_took_less_than_an_hour_on_the_cpu():
    run = load(ROOT, POST)
    assert run["device"] == "cpu" and run["seconds"] < 3600


@pytest.mark.claim("cgd-sheet")
def test_from_scale_2_on_all_ten_are_as_asked_and_then_strokes_grow(results):
    """Rows are s = 0, 1, 2, 4, 8, 16."""
    sheet = results(POST)["sheet"]
    assert sheet["as_asked"][0] <= 3 and min(sheet["as_asked"][2:]) == 10
    assert sheet["ink"][3] < sheet["ink"][4] < sheet["ink"][5] < 1.1 * sheet["ink"][3]  # "slightly"


@pytest.mark.claim("cgd-classifiers")
def test_only_the_noisy_classifier_becomes_unsure_as_it_errs(results):
    right, sure = results(POST)["accuracy"], results(POST)["sure"]
    levels = ("at_200", "at_300", "at_500")
    for level in levels:
        greater(right["noisy"][level], right["clean"][level], paired=True)
        greater(sure["clean"][level], sure["noisy"][level], paired=True)
        assert abs(sure["noisy"][level]["mean"] - right["noisy"][level]["mean"]) < 0.06, level  # calibrated
        assert sure["clean"][level]["mean"] > right["clean"][level]["mean"] + 0.08, level
    for name in ("noisy", "clean"):
        falls([right[name][level] for level in ("at_0", *levels)])
        assert right[name]["at_0"]["mean"] > 0.95 and right[name]["at_999"]["mean"] < 0.2
    assert sure["noisy"]["at_800"]["mean"] < 0.25 and sure["clean"]["at_999"]["mean"] > 0.5


@pytest.mark.claim("cgd-readable")
def test_nothing_can_be_read_at_the_noisiest_level(results):
    right = results(POST)["accuracy.noisy"]
    tie(right["at_999"], CHANCE, within=0.03)
    greater(right["at_500"], CHANCE)
    falls([right["at_200"], right["at_300"], right["at_500"]])


@pytest.mark.claim("cgd-too-early")
def test_clean_classifiers_are_confident_often_wrong_and_pull_as_hard(results):
    lab = results(POST)
    assert lab["sure.clean.at_500.mean"] > 0.7 > 0.5 > lab["accuracy.clean.at_500.mean"]
    greater(lab["gradients.at_500.clean"], lab["gradients.at_100.clean"], paired=True)


@pytest.mark.claim("cgd-which-scale")
def test_between_2_and_4_nearly_all_digits_are_as_asked(results):
    for key in ("s2", "s4"):
        greater(results(POST)[f"noisy.{key}.agreement"], constant(0.95))


@pytest.mark.claim("cgd-toy")
def test_strong_guidance_leaves_the_sharpened_density(results):
    toy = results(POST)["toy"]
    assert toy["s1"]["off_in_widths"]["mean"] < 0.06  # as five draws of 4,000 points by a sampler of 200 steps
    greater(toy["s4"]["off_in_widths"], constant(1.5))
    for way in ("across", "up"):
        assert abs(toy["s1"][way]["mean"] - 1) < 0.04
        greater(constant(0.8), toy["s4"][way])


@pytest.mark.claim("cgd-agreement")
def test_agreement_rises_to_all_and_the_clean_ones_fall_behind(results):
    noisy, clean = results(POST)["noisy"], results(POST)["clean"]
    tie(noisy["s0"]["agreement"], CHANCE, within=0.04)
    falls([noisy[key]["agreement"] for key in ("s4", "s2", "s1", "s0_5", "s0")])
    assert min(noisy[key]["agreement"]["mean"] for key in ("s4", "s8", "s16")) > 0.99
    tie(clean["s0_5"]["agreement"], noisy["s0_5"]["agreement"], within=0.12, paired=True)
    for key in UP[1:]:
        greater(noisy[key]["agreement"], clean[key]["agreement"], paired=True)
    falls([clean[key]["agreement"] for key in ("s4", "s8", "s16")])
    falls([clean[key]["agreement"] for key in ("s4", "s2", "s1")])


@pytest.mark.claim("cgd-judge")
def test_drawn_digits_are_read_more_often_than_real_ones(results):
    lab = results(POST)
    greater(lab["noisy.s4.agreement"], constant(lab["judge.accuracy"]))


@pytest.mark.claim("cgd-trade")
def test_precision_is_bought_with_recall(results):
    noisy, clean, real = (results(POST)[name] for name in ("noisy", "clean", "real"))
    falls([noisy[key]["precision"] for key in ("s4", "s2", "s1")])
    falls([noisy[key]["recall"] for key in ("s1", "s2", "s4", "s8", "s16")])
    greater(noisy["s0"]["precision"], noisy["s0_5"]["precision"], paired=True)  # the dip
    greater(noisy["s2"]["precision"], noisy["s0_5"]["precision"], paired=True)
    assert min(clean[key]["recall"]["mean"] for key in UP[:5]) > real["recall"]["mean"] - 0.03  # to scale 8
    greater(clean["s8"]["recall"], clean["s16"]["recall"], paired=True)
    falls([clean[key]["precision"] for key in ("s4", "s8", "s16")])


@pytest.mark.claim("cgd-cost")
def test_the_guided_run_takes_a_fraction_longer(results):
    assert 1.05 < results(POST)["timings.cost.ratio"] < 1.8


@pytest.mark.claim("cgd-untaught")
def test_a_calibrated_classifier_has_the_wrong_gradient(results):
    lab = results(POST)
    untaught = lab["untaught"]
    assert abs(lab["sure.noisy.at_300.mean"] - lab["accuracy.noisy.at_300.mean"]) < 0.03  # "not timid"
    for level in ("at_50", "at_100"):
        rows = untaught[level]
        assert abs(rows["right"]["mean"] - rows["right_exact"]["mean"]) < 0.005
        assert abs(rows["sure"]["mean"] - rows["right"]["mean"]) < 0.01
    greater(untaught["at_100"]["cosine"], constant(0.98))  # "the right way"
    greater(constant(0.6), untaught["at_100"]["size"])
    greater(untaught["at_100"]["size"], untaught["at_50"]["size"], paired=True)
    assert abs(untaught["at_300"]["size"]["mean"] - 1) < 0.1


@pytest.mark.claim("cgd-trainings-disagree")
def test_gradients_of_two_trainings_differ(results):
    lab = results(POST)
    assert lab["accuracy.noisy.at_300.sd"] < 0.03 and lab["accuracy.noisy.at_50.sd"] < 0.03  # they read equally well
    for level in ("at_300", "at_50"):
        greater(constant(0.9), lab[f"gradients.{level}.between_trainings"])


@pytest.mark.claim("cgd-fault-sigma")
def test_sigma_for_its_square_is_far_off(results):
    lab = results(POST)
    greater(lab["where.sigma"], constant(10 * lab["where.at_xt_1000.mean"]))


@pytest.mark.claim("cgd-fault-clean")
def test_training_on_clean_pictures_costs_agreement(results):
    lab = results(POST)
    greater(lab["noisy.s4.agreement"], lab["clean.s4.agreement"], paired=True)
    assert lab["clean.s4.agreement.mean"] < 0.9 < lab["noisy.s4.agreement.mean"]


@pytest.mark.claim("cgd-fault-early")
def test_one_level_too_low_is_lost_in_chance(results):
    where = results(POST)["where"]
    tie(where["early_1000"], where["shifted_eps_1000"], within=where["chance"]["sd"])


@pytest.mark.claim("cgd-where")
def test_all_variants_end_where_chance_leaves_them(results):
    where = results(POST)["where"]
    for name in ("at_xt", "at_mean", "shifted_eps"):
        falls([where[f"{name}_{count}"] for count in (25, 50, 100)])
        assert where[f"{name}_1000"]["mean"] < where[f"{name}_100"]["mean"]
        tie(where[f"{name}_1000"], where["chance"], within=0.02)


@pytest.mark.claim("cgd-fault-mean")
def test_with_the_mean_of_a_hundred_next_to_nothing_is_guided(results):
    faults = results(POST)["faults"]
    greater(faults["right"]["agreement"], constant(0.9))
    greater(constant(0.2), faults["mean"]["agreement"])
    assert abs(paired(faults["mean"]["agreement"], faults["none"]["agreement"]).mean) < 0.06


@pytest.mark.claim("cgd-gradient-size")
def test_the_gradients_size_at_300(results):
    size = results(POST)["gradients.at_300.noisy"]
    assert 0.1 < size["mean"] < 0.5


@pytest.mark.claim("cgd-gradients")
def test_the_noisy_classifier_asks_for_much_the_same_at_every_level(results):
    """Of the digit in the figure: cosines with the gradient at t = 0; stops are 0, 100, 200, 300, 400 and 500."""
    noisy, clean = (results(POST)[f"shown.{name}.cosine"] for name in ("noisy", "clean"))
    assert noisy[0] > 0.999 and min(noisy[1:]) > 0.45 and noisy[1] > 0.9
    assert clean[1] > 0.65 and max(clean[3:]) < 0.1
    assert all(theirs < ours for ours, theirs in zip(noisy[1:], clean[1:], strict=True))


def digits_of_program() -> torch.Tensor:
    """The hundred digits (100, 1, 8, 8) in the picture that the page's program saved: the middle of each pixel."""
    grey = matplotlib.image.imread(ROOT / f"docs/figures/{POST}/program/guided.png")[..., 0]
    figure, axes = plt.subplots(10, 10, figsize=(7, 7))  # as save_grid
    found = []
    for axis in axes.flat:
        axis.imshow([[0]])
        axis.apply_aspect()
        box = axis.get_position()
        middle = (torch.arange(8) + 0.5) / 8
        rows, columns = (1 - box.y1 + middle * box.height) * 700, (box.x0 + middle * box.width) * 700
        found.append(torch.from_numpy(1 - 2 * grey)[rows.long()][:, columns.long()])
    plt.close(figure)
    return torch.stack(found)[:, None]


@pytest.mark.claim("cgd-program")
def test_most_of_the_programs_digits_are_as_asked_and_one_in_six_is_far_from_real_ones():
    drawn, real = digits_of_program(), digits()[0]
    assert drawn.min() < -0.99 and drawn.max() > 0.99
    judge = train_judge(*digits(), epochs=12)
    with torch.no_grad():
        read = judge(drawn).argmax(1)
    reach = nearest(digits(held_out=True)[0], real)[0].max()
    as_asked, far = (read == torch.arange(10).repeat_interleave(10)).sum(), (nearest(drawn, real)[0] > reach).sum()
    assert 80 < as_asked < 95 and 12 <= far <= 22, (as_asked, far)


@pytest.mark.claim("cgd-scales")
def test_the_table_has_five_draws_a_row_and_real_digits_as_reference(results):
    lab = results(POST)
    assert all(len(lab[f"{name}.{key}.recall.seeds"]) == 5 for name in ("noisy", "clean") for key in UP)
    assert len(lab["scales"]) == len(UP) + 1
    assert lab["real.precision.mean"] > 0.85 and lab["real.recall.mean"] > 0.85
    assert lab["real.frechet.mean"] > lab["noisy.s2.frechet.mean"]  # "large even for real ones"
    for name in ("noisy", "clean"):
        greater(lab[f"{name}.s16.frechet"], lab["real.frechet"])


@pytest.mark.claim("cgd-best-scale")
def test_up_to_2_precision_comes_cheap_and_from_4_on_variety_goes(results):
    noisy = results(POST)["noisy"]
    assert noisy["s2"]["agreement"]["mean"] > 0.9
    greater(noisy["s2"]["precision"], noisy["s0"]["precision"], paired=True)
    tie(noisy["s2"]["precision"], results(POST)["real.precision"], within=0.03)
    greater(noisy["s4"]["agreement"], noisy["s2"]["agreement"], paired=True)
    falls(column(noisy, "recall", ("s0", "s2", "s4", "s8", "s16")))
    for key in ("s8", "s16"):
        assert abs(noisy[key]["agreement"]["mean"] - noisy["s4"]["agreement"]["mean"]) < 0.01
        assert noisy[key]["precision"]["mean"] - noisy["s4"]["precision"]["mean"] < 0.01
    greater(noisy["s0"]["precision"], noisy["s0_5"]["precision"], paired=True)
    tie(noisy["s1"]["frechet"], noisy["s2"]["frechet"], within=3, paired=True)
    falls(column(noisy, "frechet", ("s16", "s8", "s4", "s2")))


@pytest.mark.claim("cgd-variety")
def test_sevens_become_alike(results):
    """Twelve sevens at s = 1, 4, 16."""
    variety = results(POST)["variety"]
    assert variety["as_asked"][0] < variety["as_asked"][1] == variety["as_asked"][2] == 12
    assert variety["deviation"][0] > variety["deviation"][1] > variety["deviation"][2]


@pytest.mark.claim("cgd-clean")
def test_clean_classifiers_pull_hard_where_they_cannot_read(results):
    lab = results(POST)
    noisy, clean = lab["noisy"], lab["clean"]
    tie(clean["s0_5"]["agreement"], noisy["s0_5"]["agreement"], within=0.12, paired=True)
    for key in UP[1:]:
        greater(noisy[key]["agreement"], clean[key]["agreement"], paired=True)
    assert max(UP, key=lambda key: clean[key]["agreement"]["mean"]) == "s4"
    at = lab["gradients"]
    for level in ("at_300", "at_500"):
        greater(at[level]["clean"], at[level]["noisy"], paired=True)
    greater(at["at_300"]["noisy"], at["at_500"]["noisy"], paired=True)
    assert 0.8 < at["at_500"]["clean"]["mean"] / at["at_300"]["clean"]["mean"] < 1.25  # "about as large"
    greater(at["at_300"]["between_trainings"], at["at_300"]["cosine"], paired=True)  # "points elsewhere"
    assert lab["sure.clean.at_500.mean"] > lab["accuracy.clean.at_500.mean"] + 0.3
    assert lab["accuracy.clean.at_200.mean"] > 0.6


@pytest.mark.claim("cgd-traps")
def test_distance_and_recall_praise_what_is_worse(results):
    noisy, clean = results(POST)["noisy"], results(POST)["clean"]
    greater(noisy["s4"]["frechet"], clean["s4"]["frechet"], paired=True)
    greater(noisy["s4"]["agreement"], clean["s4"]["agreement"], paired=True)
    greater(noisy["s4"]["precision"], clean["s4"]["precision"], paired=True)
    greater(noisy["s0"]["precision"], clean["s8"]["precision"], paired=True)
    greater(clean["s8"]["recall"], noisy["s0"]["recall"], paired=True)
    greater(clean["s8"]["frechet"], noisy["s0"]["frechet"], paired=True)


@pytest.mark.claim("cgd-clean-figure")
def test_the_clean_classifiers_row_misses_classes_and_then_leaves_the_digits(results):
    """Rows: noisy at 4, clean at 4, clean at 16."""
    failure = results(POST)["failure"]
    assert failure["as_asked"][0] > failure["as_asked"][1] >= failure["as_asked"][2]
    assert failure["far"][0] <= 1 and failure["far"][2] >= 7


@pytest.mark.claim("cgd-algorithms")
def test_both_algorithms_draw_nearly_the_same_and_few_digits_tell_no_sampler_from_another(results):
    rows = results(POST)["compared"]
    one, two = rows["algorithm_1"], rows["algorithm_2"]
    for what in ("agreement", "precision", "recall"):
        tie(one[what], two[what], within=0.02, paired=True)
    tie(one["frechet"], two["frechet"], within=0.02 * one["frechet"]["sd"], paired=True)
    for name in ("ddim_fresh", "ddim"):
        tie(two["recall"], rows[name]["recall"], within=0.02, paired=True)
        tie(two["frechet"], rows[name]["frechet"], within=20, paired=True)
    assert min(rows[name]["recall"]["mean"] for name in rows) > 0.9  # "whatever is drawn"


@pytest.mark.claim("cgd-fault-logit")
def test_guidance_by_logits_looks_like_guidance_and_has_less_variety(results):
    faults = results(POST)["faults"]
    assert abs(faults["logit"]["agreement"]["mean"] - faults["right"]["agreement"]["mean"]) < 0.01
    greater(faults["right"]["recall"], faults["logit"]["recall"], paired=True)
    greater(faults["logit"]["frechet"], faults["right"]["frechet"], paired=True)


@pytest.mark.claim("cgd-fault-sign")
def test_the_wrong_sign_drives_the_class_away(results):
    faults = results(POST)["faults"]
    greater(faults["none"]["agreement"], faults["sign"]["agreement"], paired=True)
    assert faults["sign"]["agreement"]["mean"] < 0.02


@pytest.mark.claim("cgd-where-place")
def test_where_the_gradient_is_taken_matters_with_long_steps(results):
    where = results(POST)["where"]
    ratio = [a / b for a, b in zip(where["at_xt_25"]["seeds"], where["at_mean_25"]["seeds"], strict=True)]
    assert 2 < min(ratio) <= max(ratio) < 3
    for count in (50, 100, 250, 1000):
        assert abs(paired(where[f"at_xt_{count}"], where[f"at_mean_{count}"]).mean) < where["chance"]["sd"]


@pytest.mark.claim("cgd-early")
def test_one_level_too_low_costs_little_and_then_nothing(results):
    where = results(POST)["where"]
    greater(where["early_25"], where["shifted_eps_25"], paired=True)
    assert paired(where["early_25"], where["shifted_eps_25"]).high < 0.1 * where["shifted_eps_25"]["mean"]
    assert abs(paired(where["early_1000"], where["shifted_eps_1000"]).mean) < where["chance"]["sd"]


@pytest.mark.claim("cgd-auto-errors")
def test_errors_cancel_where_they_point_the_same_way(results):
    errors = results(POST)["auto.errors"]
    for level in (100, 50):
        rows = errors[f"third_{level}"]
        greater(rows["cosine"], constant(0.7))
        greater(constant(1.0), rows["left"])
        assert 1.8 < rows["ratio"]["mean"] < 2.3
    for level in (500, 300, 200):
        rows = errors[f"third_{level}"]
        greater(errors["third_100"]["cosine"], rows["cosine"], paired=True)
        greater(rows["left"], constant(1.5))


@pytest.mark.claim("cgd-auto-figure")
def test_a_weak_guide_takes_outliers_away(results):
    auto = results(POST)["auto"]
    falls([auto[name]["outliers"] for name in ("third", "model", "third_s1_5", "tenth_s1_5")])
    for k in range(3):
        greater(auto["third_s1_5"][f"width_{k}"], auto["tenth_s1_5"][f"width_{k}"], paired=True)  # "smaller"


@pytest.mark.claim("cgd-auto-table")
def test_a_little_guidance_helps_much_sharpens_and_an_equal_guide_removes_nothing(results):
    auto = results(POST)["auto"]
    falls([auto[name]["outliers"] for name in ("model", "third_s1_25", "third_s1_5")])
    for k in (1, 2):
        greater(auto["model"][f"width_{k}"], auto["third_s1_5"][f"width_{k}"], paired=True)
        greater(auto["third_s1_5"][f"width_{k}"], constant(1.0))
    tie(auto["third_s3"]["outliers"], auto["third_s1_5"]["outliers"], within=0.01, paired=True)
    for k in range(3):  # "scatter"
        assert auto["third_s3"][f"width_{k}"]["sd"] > 1.5 * auto["third_s1_5"][f"width_{k}"]["sd"]
    for name in ("s1_25", "s1_5"):
        greater(auto[f"third_{name}"]["outliers"], auto[f"tenth_{name}"]["outliers"], paired=True)
    greater(constant(1.0), auto["tenth_s1_25"]["width_0"])
    assert all(0.2 < auto["tenth_s3"][f"width_{k}"]["mean"] < 0.5 for k in range(3))
    for level in (50, 100, 200, 300, 500):
        greater(auto["errors"][f"tenth_{level}"]["left"], constant(1.5))  # "does not correct"
    tie(auto["other_s1_5"]["outliers"], auto["model"]["outliers"], within=0.01, paired=True)
    assert all(abs(auto["errors"][f"other_{level}"]["ratio"]["mean"] - 1) < 0.05 for level in (50, 100, 200, 300, 500))
