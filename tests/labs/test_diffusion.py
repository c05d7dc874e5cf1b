"""The DDPM lab reaches the bars that its issue set, and bears out what the post says of it."""

import pytest

from snippets.ddpm import NoiseSchedule, cosine_beta, linear_beta
from tests.labs.spread import greater, paired, tie
from theme.page.pages import ROOT
from theme.page.results import load

SAMPLERS = ["ddim_5", "ddim_10", "ddim_20", "ddim_50", "ddim_250"]
EXACT = {"mean": 1.0, "sd": 0.0, "seeds": [1.0] * 5}


def first(spread: dict, count: int = 5) -> dict:
    """The first draws of a sampler, beside one that drew fewer from the same noises."""
    return spread | {"seeds": spread["seeds"][:count]}


def falls(values: list) -> bool:
    return all(more > less for more, less in zip(values, values[1:], strict=False))


def test_the_judge_reads_held_out_digits(results):
    assert results("Diffusion")["judge.accuracy"] >= 0.97


def test_samples_are_digits(results):
    """The post's sampler, Algorithm 2, reaches the bar; the others are printed beside it."""
    samples = results("Diffusion")["samples"]
    assert samples["ddpm"]["confident"]["mean"] >= 0.9
    for sampler in ("ddim_20", "ddim_50", "ddim_250", "ddpm"):
        assert samples[sampler]["times_floor"] <= 3, sampler


def test_the_lab_took_less_than_three_hours_on_the_cpu():
    run = load(ROOT, "Diffusion")
    assert run["device"] == "cpu" and run["seconds"] < 3 * 3600


@pytest.mark.claim("ddpm-denoising")
def test_the_implied_picture_is_noise_then_a_blur_then_the_digit(results):
    """Of the digit in the figure; stops are 999, 800, 600, 500, 400, 300, 200, 100, 50, 0 and done."""
    lab = results("Diffusion")
    contrast, distance = lab["implied.contrast"], lab["implied.distance"]
    assert contrast[0] > 2 * contrast[-1] and distance[0] == max(distance) > 1  # noise
    assert max(contrast[1:4]) < 0.9 * contrast[-1] and distance[4] > 0.8 * distance[1]  # "down to 400 a blur"
    assert falls(distance[4:10]) and distance[-1] == 0  # ever nearer to the finished digit


@pytest.mark.claim("ddpm-noising")
def test_the_cosine_schedule_keeps_the_picture_longer(results):
    left = results("Diffusion")["variance"]
    assert 0 < left["linear_750"] < 0.005 and 0.1 < left["cosine_750"] < 0.2


@pytest.mark.claim("ddpm-schedules")
def test_the_linear_curve_lies_below_and_ends_flat():
    linear, cosine = NoiseSchedule(linear_beta()).alpha_bar, NoiseSchedule(cosine_beta()).alpha_bar
    assert (linear < cosine).double().mean() > 0.99  # "at nearly every level"
    assert linear[800] < 0.002  # the last fifth


@pytest.mark.claim("ddpm-reverse")
def test_a_short_step_back_is_gaussian_and_a_long_one_is_not(results):
    missed = results("Diffusion")["reverse"]
    assert missed["missed_to_499"] < 1e-5 and 0.01 < missed["missed_to_300"] < 0.05 and 0.4 < missed["missed_to_50"] < 1


@pytest.mark.claim("ddpm-bits")
def test_a_table_is_a_better_code_and_rounding_saves_most_of_the_cleanest_steps(results):
    bound = results("Diffusion")["bound"]
    assert bound["prior"]["mean"] < 1e-4 and abs(bound["decoder"]["mean"]) < 1e-4  # "next to nothing"
    greater({"mean": 4.09, "sd": 0, "seeds": [4.09] * 3}, bound["total"])  # less than to write the pixel down
    greater(bound["total"], bound["by_place"], paired=True)  # "fewer than the network"
    greater(bound["total"], bound["rounded"], paired=True)
    assert 0.45 < bound["first_ten"]["mean"] < 0.6
    saved = bound["total"]["mean"] - bound["rounded"]["mean"]
    assert 0.6 < saved / (bound["first_ten"]["mean"] * bound["steps"]["mean"]) < 1
    schedule = NoiseSchedule(linear_beta())
    beta, tilde, bar = (table[1:] for table in (schedule.beta, schedule.beta_tilde, schedule.alpha_bar))
    weight = beta**2 / (2 * tilde * (1 - beta) * (1 - bar))
    assert weight.argmax() == 0 and weight[0] > 10 * weight[99]  # "the weight is largest" there


@pytest.mark.claim("ddpm-loss-by-level")
def test_the_clean_end_is_hardest_and_training_digits_are_a_little_easier(results):
    loss = results("Diffusion")["loss"]
    levels = loss["by_level"]
    assert levels[0] == max(levels) and 0.5 < levels[0] < 1 and loss["last"]["mean"] < 1e-3
    assert levels[0] > 100 * levels[-1]  # "by orders of magnitude"
    assert 0 <= loss["rounded_first"]["mean"] < 0.01 * loss["first"]["mean"]  # "most of that is its own"
    greater(loss["held_out"], loss["train"])


@pytest.mark.claim("ddpm-clipped-pixels")
def test_much_is_clipped_wild_guesses_first_and_background_later(results):
    outside = results("Diffusion")["outside"]
    assert outside["at_999"]["mean"] > 0.5 and min(outside[f"at_{t}"]["mean"] for t in (500, 100)) > 0.1
    assert outside["background_at_100"]["mean"] > 0.5  # "mostly the background"
    greater(outside["background_at_100"], outside["background_at_999"])


@pytest.mark.claim("ddpm-program")
def test_the_programs_digits_are_worse_than_the_labs(results):
    lab = results("Diffusion")
    program, longer = lab["program"], lab["samples.ddim_50"]
    greater(program["frechet"], first(longer["frechet"]), paired=True)
    greater(first(longer["confident"]), program["confident"], paired=True)
    assert lab["train.steps"] == 5 * lab["compared.steps"]


@pytest.mark.claim("ddpm-same-digit")
def test_ddim_keeps_the_digit_of_its_noise_and_ddpm_does_not(results):
    same = results("Diffusion")["same_digit"]
    assert same["ddim_20"]["mean"] > 0.9 and same["ddim_5"]["mean"] > 0.5  # "mostly", down from the first row
    assert same["ddpm"]["mean"] < 0.25
    greater(first(same["ddim_5"]), same["ddpm"])


@pytest.mark.claim("ddpm-floor")
def test_real_digits_differ_by_chance(results):
    """The floor moves by a third of itself from split to split, and the held-out digits are one draw of it."""
    lab = results("Diffusion")
    floor = lab["frechet.floor"]
    assert floor["sd"] > 0.25 * floor["mean"] > 0 and len(floor["seeds"]) == 20
    assert min(floor["seeds"]) < lab["frechet.held_out"] < max(floor["seeds"])


@pytest.mark.claim("ddpm-judge-memory")
def test_unseen_digits_are_no_farther_than_random_ones(results):
    distance = results("Diffusion")["frechet"]
    assert distance["held_out"] < distance["floor"]["mean"]


@pytest.mark.claim("ddpm-sample-size")
def test_fewer_digits_give_a_larger_distance(results):
    distance = results("Diffusion")["frechet"]
    real = [distance[f"floor_of_{n}"]["mean"] for n in (45, 90, 180)] + [distance["floor"]["mean"]]
    drawn = [distance[f"drawn_{n}"]["mean"] for n in (45, 90, 180, 360, 720, 1800)] + [distance["drawn_all"]["value"]]
    assert falls(real) and falls(drawn) and real[0] > 4 * real[-1] and drawn[-1] > 0
    for count, spread in (("45", "floor_of_45"), ("90", "floor_of_90"), ("180", "floor_of_180"), ("360", "floor")):
        one, other = distance[spread], distance[f"drawn_{count}"]
        assert abs(one["mean"] - other["mean"]) < min(one["sd"], other["sd"])  # "less than the bars"


@pytest.mark.claim("ddpm-judge-and-noise")
def test_the_judge_is_sure_of_noise_and_the_distance_is_not_fooled(results):
    noise = results("Diffusion")["samples.noise"]
    assert 0.5 < noise["confident"]["mean"] < 1 and noise["times_floor"] > 30


@pytest.mark.claim("ddpm-copies")
def test_samples_are_no_copies(results):
    """Samples are about as far from the training images as held-out digits are."""
    copies = results("Diffusion")["copies"]
    assert 0.9 < copies["samples"]["mean"] / copies["held_out"] < 1.1
    assert min(copies["smallest"]["seeds"]) > 0.5 * copies["held_out_smallest"] > 0


@pytest.mark.claim("ddpm-samplers")
def test_more_steps_help_until_real_digits_are_no_nearer(results):
    lab = results("Diffusion")
    samples, floor = lab["samples"], lab["frechet.floor"]
    for few, more in zip(SAMPLERS, SAMPLERS[1:], strict=False):
        greater(samples[few]["frechet"], samples[more]["frechet"], paired=True)
        gain = lab[f"gain.from_{few.removeprefix('ddim_')}_to_{more.removeprefix('ddim_')}"]
        assert more == "ddim_250" or min(gain["seeds"]) > 0, (few, more)  # "up to 50 in every one of the ten draws"
    assert lab["gain.from_50_to_250"]["mean"] < 0.5 * samples["ddim_250"]["frechet"]["sd"]  # "far less than a draw"
    for few in SAMPLERS[:3]:
        greater(samples[few]["frechet"], floor)
    long = ["ddim_50", "ddim_250", "ddpm", "clipped", "clipped_large"]
    for sampler in long:
        tie(samples[sampler]["frechet"], floor, within=2.4)  # the floor's own deviation
        greater({"mean": 0, "sd": 0, "seeds": [lab["judge.confident_on_real"]] * 3}, samples[sampler]["confident"])
    tie(samples["ddpm"]["frechet"], samples["ddim_250"]["frechet"], within=2)
    assert len(lab["faults.eta_1.frechet"]["seeds"]) == 5  # of the row with eta = 1
    greater(samples["ddpm"]["confident"], samples["ddim_250"]["confident"])  # "a few more"


@pytest.mark.claim("ddpm-clipping")
def test_clipping_and_the_variance_hardly_matter(results):
    """Paired: the same noises in the three."""
    samples = results("Diffusion")["samples"]
    clipped, plain = samples["clipped"]["frechet"], samples["ddpm"]["frechet"]
    tie(clipped, plain, within=0.2, paired=True)
    greater(samples["clipped_large"]["frechet"], clipped, paired=True)
    differences = [a - b for a, b in zip(samples["clipped_large"]["frechet"]["seeds"], clipped["seeds"], strict=True)]
    assert min(differences) > 0 and paired(samples["clipped_large"]["frechet"], clipped).mean < 0.02 * clipped["mean"]


@pytest.mark.claim("ddpm-steps")
def test_the_curve_falls_to_twenty_and_then_little(results):
    lab = results("Diffusion")
    gain = [lab[f"gain.from_{few}_to_{more}"]["mean"] for few, more in ((5, 10), (10, 20), (20, 50), (50, 250))]
    assert falls(gain) and gain[1] > 2 * gain[2]
    floor = lab["frechet.floor"]
    for sampler in ("ddim_50", "ddim_250"):
        assert floor["mean"] - floor["sd"] < lab["samples"][sampler]["frechet"]["mean"] < floor["mean"] + floor["sd"]


@pytest.mark.claim("ddpm-diffusers")
def test_ours_and_diffusers_network_are_a_tie(results):
    lab = results("Diffusion")
    ours, theirs = lab["compared.ours.frechet"], lab["compared.diffusers.frechet"]
    assert len(ours["seeds"]) == 3
    tie(ours, theirs, within=3, paired=True)
    assert lab["operations.ours"] == lab["operations.diffusers"]
    assert 0.5 < lab["timings.step.ratio"] <= 1.0  # a step of ours is at most as slow


@pytest.mark.claim("ddpm-cosine")
def test_the_cosine_model_explodes_and_two_remedies_hold(results):
    lab = results("Diffusion")
    cosine = lab["cosine"]
    assert lab["signal.cosine_last"] < 0.01 * lab["signal.linear_last"]
    for remedy in ("clipped", "lower"):
        greater(cosine["plain"]["frechet"], cosine[remedy]["frechet"], paired=True)
        assert cosine["plain"]["outside"]["mean"] > 0.9 and cosine[remedy]["outside"]["mean"] < 0.01
    greater(cosine["clipped_alone"]["frechet"], cosine["clipped"]["frechet"], paired=True)  # diffusers' default


@pytest.mark.claim("ddpm-leading")
def test_where_ddim_begins_matters_with_the_cosine_schedule_only(results):
    lab = results("Diffusion")
    few, many = (lab["leading"][n]["difference"] for n in ("5", "50"))
    start, end = (lab["leading"][name]["difference"] for name in ("from_800", "to_0"))
    assert max(few["seeds"]) < 0 and max(end["seeds"]) < 0  # "for the better", both
    tie(end, few, within=0.5, paired=True)  # "it gains as much"
    assert abs(start["mean"]) < 0.02 * lab["samples.ddim_5.frechet.mean"]  # "the start hardly matters"
    assert abs(many["mean"]) < 0.1
    cosine = lab["cosine"]
    pairs = zip(*(cosine[name]["frechet"]["seeds"] for name in ("five_leading_clipped", "five_clipped")), strict=True)
    assert all(leading > noisiest for leading, noisiest in pairs)  # "in each of the five draws"
    greater(cosine["five_leading_clipped"]["frechet"], cosine["five_leading_digits"]["frechet"], paired=True)
    greater(cosine["plain"]["frechet"], cosine["leading"]["frechet"], paired=True)  # it does not explode
    assert lab["signal.cosine_800"] > 5 * lab["signal.linear_800"]


@pytest.mark.claim("ddpm-width")
def test_wrong_variances_bracket_the_right_one(results):
    """What the post says of beta, beta-tilde and DDIM on the toy mixture."""
    width = results("Diffusion")["width"]
    for levels in (50, 100, 200, 500, 1000):
        greater(EXACT, width[f"beta_tilde_{levels}"])
        assert 0.94 < width[f"ddim_{levels}"]["mean"] < 1.01
    for levels in (50, 100, 200):
        greater(width[f"beta_{levels}"], EXACT)
    for name, sign in (("beta", 1), ("beta_tilde", -1)):  # "both errors shrink", down to what chance leaves
        errors = [sign * (width[f"{name}_{levels}"]["mean"] - 1) for levels in (50, 100, 200)]
        assert falls(errors) and errors[-1] > abs(width[f"{name}_1000"]["mean"] - 1)
    assert abs(width["beta_1000"]["mean"] - 1) < 0.02 < 1 - width["beta_tilde_1000"]["mean"] < 0.05
    greater(EXACT, width["ddim_100"])


@pytest.mark.claim("ddpm-no-noise")
def test_without_noise_all_points_end_in_one_spot(results):
    assert 0 < results("Diffusion")["width.spread_without_noise"]["mean"] < 0.005


@pytest.mark.claim("ddpm-faults")
def test_two_faults_are_noise_and_one_cannot_be_told_apart(results):
    faults, sampler = results("Diffusion")["faults"], results("Diffusion")["samples.ddim_50"]
    assert faults["direction"]["times_floor"] > 30 and faults["product"]["times_floor"] > 30
    assert faults["late"]["moved"]["mean"] < 0.125 / 10  # the grey levels of the real digits
    assert abs(faults["late"]["difference"]["mean"]) < sampler["frechet"]["sd"]


@pytest.mark.claim("ddpm-fault-product")
def test_without_the_product_training_seems_to_work_and_the_noise_stays(results):
    product = results("Diffusion")["faults.product"]
    assert 0.2 < product["loss"] < 0.8
    assert min(product["alike"]["seeds"]) > 0.98


@pytest.mark.claim("ddpm-fault-batch")
def test_one_level_for_all_makes_the_loss_noisy_and_the_gradient_while_the_network_learns(results):
    batch = results("Diffusion")["faults.batch"]
    assert min(batch["loss"]["seeds"]) > 3
    assert 0.7 < batch["gradient"]["mean"] < 1.5  # "hardly a difference"
    greater(batch["gradient_early"], batch["gradient_first"])
    greater(batch["gradient_first"], batch["gradient"])


@pytest.mark.claim("ddpm-fault-bar")
def test_without_the_bar_digits_look_perfect_and_are_more_alike(results):
    bar, right = results("Diffusion")["faults.bar"], results("Diffusion")["faults.right"]
    read = results("Diffusion")["faults.read"]
    assert sum(read["bar"]) == sum(read["right"]) == 240 and read["bar"][2] < 0.2 * read["right"][2]
    assert min(bar["confident"]["seeds"]) == 1
    tie(bar["confident"], right["confident"], within=0.15, paired=True)
    greater(right["nearest"], bar["nearest"], paired=True)
    greater(right["spread"], bar["spread"], paired=True)


@pytest.mark.claim("ddpm-fault-root")
def test_without_the_root_most_are_the_same_digit(results):
    root, right = results("Diffusion")["faults.root"], results("Diffusion")["faults.right"]
    assert min(root["confident"]["seeds"]) == 1
    greater(root["commonest"], right["commonest"], paired=True)
    assert min(root["commonest"]["seeds"]) > 0.5


@pytest.mark.claim("ddpm-fault-late")
def test_nobody_would_notice_the_wrong_level(results):
    late, sampler = results("Diffusion")["faults.late"], results("Diffusion")["samples.ddim_50"]
    assert max(late["moved"]["seeds"]) < 0.125 / 10
    assert abs(late["difference"]["mean"]) < sampler["frechet"]["sd"] / 3


@pytest.mark.claim("ddpm-fault-direction")
def test_forgotten_fresh_noise_shows_once_there_is_some(results):
    faults = results("Diffusion")["faults"]
    assert faults["direction"]["at_eta_0"] == 0
    greater(faults["direction"]["frechet"], faults["eta_1"]["frechet"], paired=True)
    assert faults["direction"]["times_floor"] > 30 > 3 > faults["eta_1"]["times_floor"]
