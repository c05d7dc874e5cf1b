"""The lab of classifier guidance reaches the bars that its issue set, and bears out what the post says of it."""

from functools import partial

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from snippets.blocks.image_metrics import nearest
from snippets.blocks.image_metrics import train_classifier as train_judge
from snippets.blocks.unet import UNet
from snippets.classifier_guidance import NoisyClassifier, classifier_loss, guidance, guided_eps, train_classifier
from snippets.data.digits import digits
from snippets.data.toy2d import toy2d
from snippets.ddpm import NoiseSchedule, linear_beta, q_sample, sample_ddim
from theme.page.pages import ROOT
from theme.page.results import load

POST = "Classifier_Guided_Diffusion"
UP = ("s0_5", "s1", "s2", "s4", "s8", "s16")  # the scales above 0
DIGITS = 360  # in each draw
FEW = 120  # where the two algorithms stand side by side
CHANCE = (2 / 4000 + 2 / 8000) ** 0.5  # of the error on the mixture: means and widths of 4,000 points in two directions


def more(a: float, b: float, count: int = DIGITS) -> None:
    """Assert that one share of so many digits is above another by more than twice what draws differ."""
    spread = ((a * (1 - a) + b * (1 - b)) / count) ** 0.5
    assert a - b > 2 * spread, f"{a:.3f} is not above {b:.3f} by twice {spread:.3f}"


def falls(shares: list[float], count: int = DIGITS) -> None:
    for high, low in zip(shares, shares[1:], strict=False):
        more(high, low, count)


def test_the_judge_reads_held_out_digits(results):
    assert results(POST)["judge.accuracy"] >= 0.97


def test_unguided_digits_ignore_the_class_and_guided_ones_are_of_it(results):
    lab = results(POST)
    assert 0.05 <= lab["noisy.s0.agreement"] <= 0.16
    assert lab["best.noisy.agreement"] >= 0.95 and lab["noisy.s4.agreement"] >= 0.95  # the scale of the pictures


def test_the_lab_took_less_than_15_minutes_on_the_cpu():
    run = load(ROOT, POST)
    assert run["device"] == "cpu" and run["seconds"] < 900


@pytest.mark.claim("cgd-classifiers")
def test_only_the_noisy_classifier_becomes_unsure_as_it_errs(results):
    right, sure = results(POST)["accuracy"], results(POST)["sure"]
    for level in ("at_200", "at_300"):
        more(right["noisy"][level], right["clean"][level])
    for level in ("at_200", "at_300", "at_500"):
        assert abs(sure["noisy"][level] - right["noisy"][level]) < 0.06, level  # calibrated
        assert sure["clean"][level] > right["clean"][level] + 0.08, level
    for name in ("noisy", "clean"):
        falls([right[name][level] for level in ("at_0", "at_200", "at_300", "at_500")])
        assert right[name]["at_0"] > 0.95 and abs(right[name]["at_999"] - 0.1) < 0.035
    assert sure["noisy"]["at_999"] < 0.2 and sure["clean"]["at_999"] > 0.5


@pytest.mark.claim("cgd-readable")
def test_nothing_can_be_read_at_the_noisiest_level(results):
    right = results(POST)["accuracy.noisy"]
    assert abs(right["at_999"] - 0.1) < 0.032  # twice the deviation of 360 guesses
    falls([right["at_200"], right["at_300"], right["at_500"], 0.1])


@pytest.mark.claim("cgd-toy")
def test_strong_guidance_leaves_the_sharpened_density(results):
    """The mean of 4,000 points has a spread of 0.02 widths, their width one of 1 %."""
    toy = results(POST)["toy"]
    assert toy["s1"]["off_in_widths"] < 0.06 and toy["s4"]["off_in_widths"] > 1.5
    for axis in (0, 1):
        assert abs(toy["s1"]["width_drawn"][axis] / toy["s1"]["width_exact"][axis] - 1) < 0.03
        assert toy["s4"]["width_drawn"][axis] < 0.8 * toy["s4"]["width_exact"][axis]
        assert abs(toy["s4"]["width_exact"][axis] / 0.4 - 1) < 0.01  # next to nothing is changed by the power


@pytest.mark.claim("cgd-agreement")
def test_agreement_rises_to_all_and_the_clean_one_leads_at_one_half_only(results):
    lab = results(POST)
    noisy, clean = ([lab[f"{name}.{key}.agreement"] for key in UP] for name in ("noisy", "clean"))
    assert abs(lab["noisy.s0.agreement"] - 0.1) < 0.032
    falls([noisy[3], noisy[2], noisy[1], noisy[0], lab["noisy.s0.agreement"]])
    assert min(noisy[3:]) == lab["best.noisy.agreement"] == 1.0 > lab["judge.accuracy"] and lab["best.noisy.scale"] == 4
    more(clean[0], noisy[0])
    for ours, theirs in zip(noisy[1:], clean[1:], strict=True):
        more(ours, theirs)
    falls(clean[3:])


@pytest.mark.claim("cgd-trade")
def test_precision_is_bought_with_recall(results):
    lab = results(POST)
    noisy, clean = lab["noisy"], lab["clean"]
    more(noisy["s0"]["precision"], noisy["s0_5"]["precision"])  # the dip
    more(noisy["s8"]["precision"], noisy["s1"]["precision"])
    precisions = [noisy[key]["precision"] for key in UP[:5]]
    assert precisions == sorted(precisions)  # from 0.5 to 8
    falls([noisy[key]["recall"] for key in UP[1:]])
    assert min(clean[key]["recall"] for key in UP) > 0.85 and max(clean[k]["precision"] for k in ("s8", "s16")) < 0.5
    assert lab["real.precision"] > 0.85 and lab["real.recall"] > 0.85  # what real digits get


@pytest.mark.claim("cgd-scales")
def test_the_last_row_of_each_classifier_is_far_from_real_digits(results):
    lab = results(POST)
    assert [lab["images.held_out"], len(lab["scales"])] == [DIGITS, 7]
    for name in ("noisy", "clean"):
        assert lab[f"{name}.s16.frechet"] > 5 * lab["real.frechet"]


@pytest.mark.claim("cgd-best-scale")
def test_up_to_2_precision_comes_cheap_and_from_4_on_variety_goes(results):
    """A distance moves by about two from draw to draw, as the DDPM lab measured."""
    noisy, moves = results(POST)["noisy"], results("Diffusion")["samples.ddim_50.frechet.sd"]
    more(noisy["s4"]["agreement"], noisy["s2"]["agreement"])
    falls([noisy[key]["recall"] for key in ("s0", "s2", "s4", "s8", "s16")])
    assert abs(noisy["s2"]["precision"] - results(POST)["real.precision"]) < 0.03  # "that of real digits"
    for key in ("s8", "s16"):
        assert abs(noisy[key]["agreement"] - noisy["s4"]["agreement"]) < 0.01
        assert abs(noisy[key]["precision"] - noisy["s4"]["precision"]) < 0.03
    more(noisy["s0"]["precision"], noisy["s0_5"]["precision"])
    near = [noisy[key]["frechet"] for key in ("s0", "s1", "s2")]
    assert max(near) - min(near) < moves < 3 < min(noisy[key]["frechet"] for key in ("s4", "s8", "s16")) - max(near)


@pytest.mark.claim("cgd-calibrated")
def test_the_classifier_is_as_sure_as_it_is_right(results):
    lab = results(POST)
    assert abs(lab["sure.noisy.at_300"] - lab["accuracy.noisy.at_300"]) < 0.03
    more(1.0, lab["noisy.s1.agreement"])


@pytest.mark.claim("cgd-clean")
def test_a_clean_classifier_pulls_hard_where_it_cannot_read(results):
    lab = results(POST)
    noisy, clean, size = lab["noisy"], lab["clean"], lab["gradients"]
    more(clean["s0_5"]["agreement"], noisy["s0_5"]["agreement"])
    for key in UP[1:]:
        more(noisy[key]["agreement"], clean[key]["agreement"])
    assert lab["best.clean.scale"] == 4 and lab["best.clean.agreement"] == max(clean[k]["agreement"] for k in UP)
    falls([clean[key]["precision"] for key in ("s4", "s8", "s16")])  # "the digits fall apart"
    assert lab["sure.clean.at_500"] > lab["accuracy.clean.at_500"] + 0.2  # sure, and wrong
    assert 0.8 < size["clean_500"] / size["clean_300"] < 1.25 and size["noisy_500"] < 0.6 * size["noisy_300"]
    assert 0.4 < size["cosine_300"] < 0.7 and lab["accuracy.clean.at_200"] > 0.75


@pytest.mark.claim("cgd-traps")
def test_distance_and_recall_praise_what_is_worse(results):
    noisy, clean = results(POST)["noisy"], results(POST)["clean"]
    distances = [rows[key]["frechet"] for rows in (noisy, clean) for key in UP] + [noisy["s0"]["frechet"]]
    assert clean["s4"]["frechet"] == min(distances) and min(distances) > noisy["s0"]["frechet"] - 2
    more(noisy["s4"]["agreement"], clean["s4"]["agreement"])
    more(noisy["s0"]["precision"], clean["s4"]["precision"])
    assert 0.15 < 1 - clean["s4"]["agreement"] < 0.25  # one in five
    assert clean["s16"]["precision"] < 0.2 and clean["s16"]["recall"] > 0.85 and clean["s16"]["frechet"] > 100


@pytest.mark.claim("cgd-algorithms")
def test_two_ways_of_drawing_keep_different_variety(results):
    """Two draws, which differ in sampler, steps and fresh noise too."""
    one, two = results(POST)["compared.algorithm_1"], results(POST)["compared.algorithm_2"]
    assert min(one["agreement"], two["agreement"]) >= 0.9
    more(one["recall"], two["recall"], FEW)


@pytest.mark.claim("cgd-cost")
def test_the_guided_run_takes_a_fraction_longer(results):
    assert 1.05 < results(POST)["timings.cost.ratio"] < 1.8


@pytest.mark.claim("cgd-fault-sigma")
def test_sigma_for_its_square_is_far_off(results):
    where = results(POST)["where"]
    assert where["sigma"] > 10 * CHANCE > 5 * where["at_xt"][-1]


@pytest.mark.claim("cgd-fault-clean")
def test_training_on_clean_pictures_costs_agreement(results):
    lab = results(POST)
    more(lab["noisy.s4.agreement"], lab["clean.s4.agreement"])


@pytest.mark.claim("cgd-fault-early")
def test_one_level_too_low_is_lost_in_chance(results):
    where = results(POST)["where"]
    assert abs(where["early"][-1] - where["shifted_eps"][-1]) < 0.1 * CHANCE


@pytest.mark.claim("cgd-where")
def test_all_variants_end_where_chance_leaves_them(results):
    where = results(POST)["where"]
    for name in ("at_xt", "at_mean", "shifted_eps"):
        assert where[name] == sorted(where[name], reverse=True), name
        assert 0.5 * CHANCE < where[name][-1] < 1.5 * CHANCE < where[name][0]


@pytest.mark.claim("cgd-where-place")
def test_where_the_gradient_is_taken_matters_with_long_steps(results):
    where = results(POST)["where"]
    assert 2.5 < where["at_xt"][0] / where["at_mean"][0] < 3.5
    for one, other in zip(where["at_xt"][1:], where["at_mean"][1:], strict=True):
        assert abs(one - other) < CHANCE


@pytest.mark.claim("cgd-early")
def test_one_level_too_low_costs_less_than_chance(results):
    where = results(POST)["where"]
    for early, right in zip(where["early"], where["shifted_eps"], strict=True):
        assert abs(early - right) < CHANCE


@pytest.mark.claim("cgd-gradient-size")
def test_the_gradients_size_at_300(results):
    assert 0.1 < results(POST)["gradients.noisy_300"] < 0.5


class Redrawn:
    """Draws once more what the lab drew, from its weights, and has a judge read it."""

    def __init__(self):
        self.model, self.classifier = UNet(1, widths=(24, 48)).eval(), NoisyClassifier().eval()
        for network, name in ((self.model, "Diffusion"), (self.classifier, POST)):
            network.load_state_dict(load_file(ROOT / f"docs/weights/{name}.safetensors"))
        self.judge = train_judge(*digits(), epochs=12)

    def draw(self, y, scale: float, seed: int, classifier=None) -> torch.Tensor:
        """Digits of classes y by DDIM with 50 steps; a negative scale is the wrong sign."""

        def guide(x, t):
            return guidance(classifier or self.classifier, y, abs(scale), x, t) * (1 if scale >= 0 else -1)

        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(len(y), 1, 8, 8, generator=generator)
        schedule = NoiseSchedule(linear_beta())
        guided = partial(guided_eps, self.model, guide, schedule)
        return sample_ddim(guided, schedule, noise, 50, 0.0, generator).clamp(-1, 1)

    @torch.no_grad()
    def as_asked(self, drawn, y) -> int:
        return int((self.judge(drawn).argmax(1) == y).sum())


@pytest.fixture(scope="module")
def redrawn() -> Redrawn:
    return Redrawn()


@pytest.mark.claim("cgd-sheet")
def test_from_scale_4_on_nearly_all_are_as_asked_and_strokes_grow(redrawn):
    """The figure's ten digits."""
    asked = torch.arange(10)
    rows = {scale: redrawn.draw(asked, scale, 5) for scale in (0.0, 4.0, 8.0, 16.0)}
    assert redrawn.as_asked(rows[0.0], asked) <= 3
    assert min(redrawn.as_asked(rows[scale], asked) for scale in (4.0, 8.0, 16.0)) >= 9
    assert rows[4.0].mean() < rows[8.0].mean() < rows[16.0].mean()  # bolder


@pytest.mark.claim("cgd-variety")
def test_sevens_become_alike(redrawn):
    """The figure's twelve sevens: read as such, and how far a pixel differs among them."""
    sevens = torch.full((12,), 7)
    rows = [redrawn.draw(sevens, scale, 6) for scale in (1.0, 4.0, 16.0)]
    read = [redrawn.as_asked(row, sevens) for row in rows]
    assert read[0] < 11 and read[1] == read[2] == 12
    spread = [row.std(0).mean().item() for row in rows]
    assert spread[0] > 1.3 * spread[1] > 1.6 * spread[2]


@pytest.mark.claim("cgd-fault-mean")
@pytest.mark.claim("cgd-fault-sign")
def test_with_the_mean_nothing_is_guided_and_with_the_wrong_sign_the_class_is_avoided(redrawn):
    """Sixty digits: a hundredth of the scale, and its negative, beside no guidance."""
    some = digits(held_out=True)[1][:60]
    none, mean, sign = (redrawn.as_asked(redrawn.draw(some, scale, 0), some) for scale in (0.0, 0.04, -4.0))
    assert abs(mean - none) <= 5 and max(mean, none) < 15
    assert sign == 0 < none


@pytest.fixture(scope="module")
def as_if_clean():
    """The lab's classifier of clean digits, trained once more; it is told level 0 always."""
    torch.manual_seed(1)
    cleanest = NoiseSchedule(linear_beta()[:1])
    network = train_classifier(NoisyClassifier(), cleanest, *digits(), num_steps=1000)
    return lambda x, t: network(x, torch.zeros_like(t))


@pytest.mark.claim("cgd-gradients")
def test_the_noisy_classifier_asks_for_much_the_same_at_every_level(redrawn, as_if_clean):
    """The figure's gradients: cosines with the one at t = 0, at 0, 100, 200, 300, 400 and 500."""
    images, labels = digits(held_out=True)
    digit, t = images[labels == 4][3:4], torch.tensor([0, 100, 200, 300, 400, 500])
    eps = torch.randn(digit.shape, generator=torch.Generator().manual_seed(0)).expand(6, -1, -1, -1)
    x = q_sample(NoiseSchedule(linear_beta()), digit.expand(6, -1, -1, -1), t, eps)
    cosine = []
    for classifier in (redrawn.classifier, as_if_clean):
        gradient = guidance(classifier, torch.full((6,), 9), 1.0, x, t).flatten(1)
        cosine.append(torch.cosine_similarity(gradient, gradient[:1]))
    noisy, clean = cosine
    assert noisy.min() >= 0.45 and noisy[1] > 0.9 and noisy[3] > 0.65
    assert clean[1] > 0.65 and clean[3:].max() < 0.1 and (clean[1:] < noisy[1:]).all()


@pytest.mark.claim("cgd-clean-figure")
def test_the_clean_classifier_misses_classes_and_then_leaves_the_digits(redrawn, as_if_clean):
    """The figure's rows; far: farther from every training digit than any held-out digit is."""
    asked, real = torch.arange(10), digits()[0]
    reach = nearest(digits(held_out=True)[0], real)[0].max()
    noisy = redrawn.draw(asked, 4.0, 5)
    four, sixteen = (redrawn.draw(asked, scale, 5, as_if_clean) for scale in (4.0, 16.0))
    assert redrawn.as_asked(noisy, asked) >= 9 and redrawn.as_asked(four, asked) <= 8
    far = [int((nearest(row, real)[0] > reach).sum()) for row in (noisy, four, sixteen)]
    assert max(far[:2]) <= 1 and far[2] >= 6


class PointReader(nn.Module):
    """Logits (B, 3) of the mixture's points (B, 2, 1, 1) at levels t (B,)."""

    def __init__(self):
        super().__init__()
        middle = [nn.Linear(18, 96), nn.SiLU(), nn.Linear(96, 96), nn.SiLU()]
        self.body = nn.Sequential(*middle, nn.Linear(96, 3))

    def forward(self, x, t):
        waves = t[:, None] / 1000 * torch.pi * 2.0 ** torch.arange(-1, 7)
        return self.body(torch.cat([x[:, :, 0, 0].float(), waves.sin(), waves.cos()], dim=1))


@pytest.mark.claim("cgd-untaught")
def test_a_calibrated_classifier_has_the_wrong_gradient():
    """Three trainings on 2,000 points of the mixture, beside the exact posterior, asked for another class."""
    toy, schedule = toy2d(), NoiseSchedule(linear_beta())
    for seed in range(3):
        torch.manual_seed(seed)
        reader, generator = PointReader(), torch.Generator().manual_seed(seed)
        points, component = toy.sample(2000, generator)
        optimizer = torch.optim.Adam(reader.parameters(), lr=3e-3)
        decline = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 1500)
        for _ in range(1500):
            rows = torch.randint(2000, (256,), generator=generator)
            x0 = points[rows].float()[:, :, None, None]
            loss = classifier_loss(reader, schedule, x0, component[rows], generator)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            decline.step()
        size = {}
        for level in (50, 100, 300):
            points_now, _ = toy.sample(3000, generator)
            t, eps = torch.full((3000,), level), torch.randn(3000, 2, 1, 1, generator=generator, dtype=torch.float64)
            x = q_sample(schedule, points_now[:, :, None, None], t, eps).float()

            def exact(x, t, level=level):
                return toy.log_joint(x[:, :, 0, 0], float(schedule.signal[level]), float(schedule.noise[level]))

            with torch.no_grad():
                ours, theirs = reader(x, t).softmax(1), exact(x, t).softmax(1)
            y = torch.multinomial(theirs, 1, generator=generator)[:, 0]
            right = [(p.argmax(1) == y).double().mean().item() for p in (ours, theirs)]
            assert abs(right[0] - right[1]) < 0.01 and abs(ours.max(1).values.mean().item() - right[0]) < 0.02
            one, two = (guidance(net, (y + 1) % 3, 1.0, x, t).flatten(1).norm(dim=1).mean() for net in (reader, exact))
            size[level] = (one / two).item()
        assert 0.15 < size[50] < 0.27 and size[100] < 0.5 and abs(size[300] - 1) < 0.1, size
