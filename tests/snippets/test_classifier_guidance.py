"""Classifier guidance: closed forms of the toy mixture, finite differences, diffusers' samplers."""

import re
from functools import partial

import matplotlib.image
import pytest
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, DDPMScheduler
from safetensors.torch import load_file
from torch import nn

from snippets import classifier_guidance as cg
from snippets import ddpm
from snippets.blocks import image_metrics
from snippets.blocks.unet import UNet
from snippets.data.digits import digits
from snippets.data.toy2d import Toy2D, toy2d
from tests.snippets.oracles import diffusers_unet, perturbed
from theme.page.pages import ROOT

T = 40  # levels of the small schedule; no other size below is 40
TOY = toy2d()


@pytest.fixture
def schedule() -> ddpm.NoiseSchedule:
    return ddpm.NoiseSchedule(ddpm.linear_beta(T, 2e-3, 0.3))


class ExactNoise(nn.Module):
    """A perfect diffusion model: the expected noise in points (B, 2, 1, 1) of the toy mixture."""

    def __init__(self, schedule):
        super().__init__()
        self.schedule = schedule

    def levels(self, t):
        return zip(self.schedule.signal[t].tolist(), self.schedule.noise[t].tolist(), strict=True)

    def forward(self, x, t):
        points = x[:, None, :, 0, 0]  # one at a time, since each has its own level
        eps = [TOY.eps(p, *level) for p, level in zip(points, self.levels(t), strict=True)]
        return torch.cat(eps)[:, :, None, None]


class ExactClassifier(ExactNoise):
    """A perfect classifier of noisy points: logits log p(x_t, y), of which the softmax is p(y | x_t)."""

    def forward(self, x, t):
        points = x[:, None, :, 0, 0]
        return torch.cat([TOY.log_joint(p, *level) for p, level in zip(points, self.levels(t), strict=True)])


class OneLevel(ExactNoise):
    """The same for many points at one level, in one go."""

    def __init__(self, schedule, answer):
        super().__init__(schedule)
        self.answer = answer

    def forward(self, x, t):
        out = self.answer(x[:, :, 0, 0], float(self.schedule.signal[t[0]]), float(self.schedule.noise[t[0]]))
        return out[:, :, None, None] if self.answer == TOY.eps else out


@pytest.fixture
def toy_batch(schedule):
    """Points at six levels, the first and last among them, and a class for each: xt, t, y, conditional noise."""
    t = torch.tensor([0, 1, 7, 17, 30, T - 1])
    y = torch.tensor([2, 0, 1, 2, 0, 1])
    points, _ = TOY.sample(6, torch.Generator().manual_seed(0))
    xt = ddpm.q_sample(schedule, points[:, :, None, None], t, torch.randn(6, 2, 1, 1, dtype=torch.float64))
    signal, noise = schedule.signal[t].tolist(), schedule.noise[t].tolist()
    rows = [TOY.component_score(xt[i : i + 1, :, 0, 0], signal[i], noise[i])[:, y[i]] for i in range(6)]
    conditional = -schedule.noise[t][:, None] * torch.cat(rows)  # that of one Gaussian: no mixture, no Bayes
    return xt, t, y, conditional[:, :, None, None]


def classifier_of(size=(4, 6), channels=3, num_classes=7) -> cg.NoisyClassifier:
    """A random classifier, every weight off its first value."""
    model = cg.NoisyClassifier(channels, size, (8, 16), num_classes)
    for p in model.parameters():
        p.data += 0.2 * torch.randn_like(p)
    return model.eval()


# Bayes' rule


@pytest.mark.equation("cgd-score", of=None)
def test_score_is_the_expected_noise_in_other_units(schedule, formula):
    """E[eps | x_t] by summing over clean points of a fine grid, against the gradient of the noisy log-density."""
    axis = torch.linspace(-3.5, 3.5, 281, dtype=torch.float64)
    x0 = torch.cartesian_prod(axis, axis)
    for level in (2, 10, 25):
        signal, noise = float(schedule.signal[level]), float(schedule.noise[level])
        for point in ([0.3, -0.4], [-1.0, 0.8]):
            xt = torch.tensor([point], dtype=torch.float64, requires_grad=True)
            eps = (xt.detach() - signal * x0) / noise  # the noise, if the clean point was x0
            weight = (TOY.log_density(x0, 1.0, 0.0) - eps.square().sum(1) / 2).softmax(0)  # p(x0 | xt)
            score = torch.autograd.grad(TOY.log_density(xt, signal, noise).sum(), xt)[0]
            torch.testing.assert_close(-(weight @ eps) / noise, score[0], rtol=1e-4, atol=1e-4)
            names = {r"\nabla \log p(x_t)": score[0], r"\mathbb{E}[\epsilon \mid x_t]": weight @ eps}
            formula("cgd-score").holds(names | {r"\bar\alpha_t": torch.full((2,), 1 - noise**2)}, tolerance=1e-4)
            assert (-(weight @ eps) - score[0]).abs().max() > 1e-2


@pytest.mark.equation("cgd-bayes", of=cg.guidance)
@pytest.mark.equation("cgd-eps", of=cg.guided_eps)
@pytest.mark.equation("cgd-sharp", of=cg.guided_eps)
def test_guidance_is_its_formulas(schedule, formula):
    """Six points at one level, against gradients of the mixture's densities; s = 1.7."""
    points, _ = TOY.sample(6, torch.Generator().manual_seed(0))
    y, t, s = torch.tensor([2, 0, 1, 2, 0, 1]), torch.full((6,), 17), 1.7
    level = float(schedule.signal[17]), float(schedule.noise[17])
    xt = ddpm.q_sample(schedule, points[:, :, None, None], t, torch.randn(6, 2, 1, 1, dtype=torch.float64))
    x = xt[:, :, 0, 0].clone().requires_grad_()
    joint = TOY.log_joint(x, *level)
    nabla = lambda value: torch.autograd.grad(value.sum(), x, retain_graph=True)[0]  # noqa: E731
    log_class = joint.log_softmax(1)[torch.arange(6), y]  # log p(y | x_t)
    names = {
        r"\nabla \log p(x_t \mid y)": nabla(joint[torch.arange(6), y]),
        r"\nabla \log p(x_t)": nabla(joint.logsumexp(1)),
        r"\nabla \log p(y \mid x_t)": cg.guidance(ExactClassifier(schedule), y, 1.0, xt, t)[:, :, 0, 0],
    }
    formula("cgd-bayes").holds(names)
    guide = partial(cg.guidance, ExactClassifier(schedule), y, s)
    eps = cg.guided_eps(ExactNoise(schedule), guide, schedule, xt, t)[:, :, 0, 0]
    names = {
        r"\hat\epsilon(x_t, t, y)": eps,
        r"\epsilon_\theta(x_t, t)": TOY.eps(x.detach(), *level),
        r"\nabla_{x_t} \log p_\phi(y \mid x_t, t)": nabla(log_class),
        r"\bar\alpha_t": level[0] ** 2,
    }
    formula("cgd-eps").holds(names | {"s": s})
    sharp = {r"\nabla \log p(x_t) + s \nabla \log p(y \mid x_t)": -eps / level[1], r"\nabla": nabla}
    names = {"p(x_t)": joint.logsumexp(1).exp(), r"p(y \mid x_t)": log_class.exp(), "s": s, "Z_t": 3.0}
    formula("cgd-sharp").holds(sharp | names, idle=r"\frac")  # Z_t does not depend on x_t


def test_guided_noise_is_the_exact_conditional_noise(schedule, toy_batch, agrees):
    xt, t, y, conditional = toy_batch
    model, classifier = ExactNoise(schedule), ExactClassifier(schedule)
    ours = cg.guided_eps(model, partial(cg.guidance, classifier, y, 1.0), schedule, xt, t)
    agrees(ours, conditional, "the closed form of one class of a mixture", 1e-10)
    # what the oracle has not seen: finite differences of the class's own density
    noise, h = schedule.noise[t].tolist(), 1e-6
    for i in range(6):
        level = float(schedule.signal[t[i]]), noise[i]
        for axis in range(2):
            step = h * torch.eye(2, dtype=torch.float64)[axis]
            point = xt[i, :, 0, 0]
            up, down = (TOY.log_joint((point + s)[None], *level)[0, y[i]] for s in (step, -step))
            assert abs(-noise[i] * (up - down) / (2 * h) - ours[i, axis, 0, 0]) < 1e-6
    wrong = {
        "sign": model(xt, t) + schedule.noise[t][:, None, None, None] * cg.guidance(classifier, y, 1.0, xt, t),
        "no factor": model(xt, t) - cg.guidance(classifier, y, 1.0, xt, t),
        "level": cg.guided_eps(model, lambda x, t: cg.guidance(classifier, y, 1.0, x, (t - 1).abs()), schedule, xt, t),
        "class": cg.guided_eps(model, partial(cg.guidance, classifier, (y + 1) % 3, 1.0), schedule, xt, t),
    }
    for name, other in wrong.items():
        assert (other - conditional).abs().max() > 1e-2, name


@pytest.mark.parametrize("scale", [0.5, 4.0])
def test_scaled_guidance_is_the_score_of_the_sharpened_density(schedule, toy_batch, scale):
    xt, t, y, _ = toy_batch
    guide = partial(cg.guidance, ExactClassifier(schedule), y, scale)
    eps = cg.guided_eps(ExactNoise(schedule), guide, schedule, xt, t)
    for i in range(6):
        level = float(schedule.signal[t[i]]), float(schedule.noise[t[i]])
        x = xt[i : i + 1, :, 0, 0].clone().requires_grad_()
        joint = TOY.log_joint(x, *level)[0]
        sharp = joint.logsumexp(0) + scale * (joint[y[i]] - joint.logsumexp(0))  # log p(x) p(y | x)^s
        score = torch.autograd.grad(sharp, x)[0]
        torch.testing.assert_close(-eps[i : i + 1, :, 0, 0] / level[1], score, rtol=1e-9, atol=1e-9)
        if scale == 4.0 and i == 3:
            raised = torch.autograd.grad(scale * TOY.log_joint(x, *level)[0, y[i]], x)[0]
            assert (raised - score).abs().max() > 1e-2  # p(x, y)^s is another density


# the gradient


def test_gradient_equals_finite_differences():
    model = classifier_of().double()
    xt, t = torch.randn(5, 3, 4, 6, dtype=torch.float64), torch.tensor([0, 3, 500, 998, 999])
    y, h = torch.tensor([6, 0, 3, 2, 5]), 1e-5
    ours = cg.guidance(model, y, 2.5, xt, t)
    theirs = torch.zeros_like(ours)
    with torch.no_grad():
        for place in range(xt[0].numel()):
            step = torch.zeros(72, dtype=torch.float64).index_fill(0, torch.tensor(place), h).view(1, 3, 4, 6)
            up, down = (model(xt + s, t).log_softmax(1)[torch.arange(5), y] for s in (step, -step))
            theirs.flatten(1)[:, place] = 2.5 * (up - down) / (2 * h)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8)
    logits = xt.clone().requires_grad_()
    unnormalised = torch.autograd.grad(model(logits, t)[torch.arange(5), y].sum(), logits)[0]
    assert (2.5 * unnormalised - theirs).abs().max() > 1e-3  # the logit of a class is not its log-probability


@pytest.mark.equation("cgd-sum", of=cg.guidance)
def test_the_gradient_of_the_sum_is_its_formula(formula):
    model, xt = classifier_of().double(), torch.randn(5, 3, 4, 6, dtype=torch.float64)
    t, y, i = torch.tensor([0, 3, 500, 998, 999]), torch.tensor([6, 0, 3, 2, 5]), 3
    alone = xt[i : i + 1].clone().requires_grad_()
    names = {
        r"\nabla_{x_i} \sum_j \log p(y_j \mid x_j)": cg.guidance(model, y, 1.0, xt, t)[i],
        r"\nabla_{x_i}": lambda value: torch.autograd.grad(value, alone, retain_graph=True)[0][0],
        r"p(y_i \mid x_i)": model(alone, t[i : i + 1]).softmax(1)[0, y[i]],
    }
    formula("cgd-sum").holds(names)


def test_guidance_does_not_depend_on_the_rest_of_the_batch():
    model = classifier_of()
    xt, t = torch.randn(16, 3, 4, 6), torch.randint(1000, (16,))
    y = torch.randint(7, (16,))
    together = cg.guidance(model, y, 3.0, xt, t)
    alone = torch.cat([cg.guidance(model, y[i : i + 1], 3.0, xt[i : i + 1], t[i : i + 1]) for i in range(16)])
    assert together.abs().max() > 0.1
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    x = xt.clone().requires_grad_()  # negative control: the mean, which divides by 16
    mean = torch.autograd.grad(3.0 * model(x, t).log_softmax(1)[torch.arange(16), y].mean(), x)[0]
    assert (mean - alone).abs().max() > 0.05
    torch.testing.assert_close(16 * mean, alone, rtol=0, atol=1e-4)


def test_guided_samples_do_not_depend_on_the_rest_of_the_batch(schedule):
    model, classifier = UNet(3, (8, 16), groups=4).double().eval(), classifier_of().double()
    start, y = torch.randn(16, 3, 4, 6, dtype=torch.float64), torch.randint(7, (16,))

    def drawn(start, y):
        guided = partial(cg.guided_eps, model, partial(cg.guidance, classifier, y, 2.0), schedule)
        return ddpm.sample_ddim(guided, schedule, start, 5, 0.0, torch.Generator())

    together = drawn(start, y)
    alone = torch.cat([drawn(start[i : i + 1], y[i : i + 1]) for i in (0, 7, 15)])
    torch.testing.assert_close(together[[0, 7, 15]], alone, rtol=1e-8, atol=1e-8)
    assert (drawn(start, (y + 1) % 7) - together).abs().max() > 1e-2


def test_gradient_inside_no_grad_and_nothing_else_is_touched():
    model, xt = classifier_of(), torch.randn(5, 3, 4, 6)
    t, y = torch.tensor([0, 3, 500, 998, 999]), torch.tensor([6, 0, 3, 2, 5])
    with torch.no_grad():
        inside = cg.guidance(model, y, 1.0, xt, t)
        assert not torch.is_grad_enabled()
        with pytest.raises(RuntimeError, match="does not require grad"):  # what enable_grad is for
            torch.autograd.grad(model(xt.requires_grad_(), t).sum(), xt)
    xt.requires_grad_(False)
    assert torch.equal(inside, cg.guidance(model, y, 1.0, xt, t))
    assert not inside.requires_grad and not xt.requires_grad
    assert all(p.grad is None for p in model.parameters())


# scale 0


def test_scale_0_is_the_unconditional_sampler_bit_for_bit(schedule):
    model, classifier = UNet(3, (8, 16), groups=4).eval(), classifier_of()
    start, y = torch.randn(5, 3, 4, 6), torch.tensor([6, 0, 3, 2, 5])
    for scale, same in ((0.0, True), (0.5, False)):
        guide = partial(cg.guidance, classifier, y, scale)
        guided = partial(cg.guided_eps, model, guide, schedule)
        for eta in (0.0, 0.7):
            plain, ours = (
                ddpm.sample_ddim(net, schedule, start, 8, eta, torch.Generator().manual_seed(2))
                for net in (model, guided)
            )
            assert torch.equal(plain, ours) is same
        for step in (cg.shifted_step, cg.shifted_step_at_mean):
            plain, ours = (
                list(ddpm.sample_ddpm(model, schedule, start, torch.Generator().manual_seed(2), one))[-1]
                for one in (ddpm.ddpm_step, partial(step, guide))
            )
            assert torch.equal(plain, ours) is same


# Algorithm 1


@pytest.mark.equation("cgd-mean", of=cg.shifted_step)
def test_shifted_gaussian_is_the_product_with_the_linear_classifier(schedule, formula):
    """log N(x; mu, Sigma) + s g.x and log N(x; mu + s Sigma g, Sigma) differ by a constant, whatever x."""
    xt, eps = torch.randn(2, 5, 3, 4, 6, dtype=torch.float64)
    gradient, zero = torch.randn_like(xt), torch.zeros_like(xt)
    t = torch.tensor([1, 2, 17, 30, T - 1])
    mean = ddpm.ddpm_step(schedule, xt, t, eps, zero)
    ours = cg.shifted_step(lambda x, t: 1.7 * gradient, schedule, xt, t, eps, zero)
    variance = schedule.beta_tilde[t]

    def log_normal(x, mean, variance):
        return -(x - mean).square().flatten(1).sum(1) / (2 * variance)

    def constant(new_mean, variance):
        x = mean + torch.randn(9, *mean.shape, dtype=torch.float64)
        product = [log_normal(one, mean, variance) + 1.7 * (gradient * one).flatten(1).sum(1) for one in x]
        return torch.stack([p - log_normal(one, new_mean, variance) for p, one in zip(product, x, strict=True)])

    assert constant(ours, variance).std(0).max() < 1e-7 * constant(ours, variance).abs().max()
    other = mean + variance.sqrt()[:, None, None, None] * 1.7 * gradient  # sigma in place of sigma squared
    assert constant(other, variance).std(0).min() > 1
    noise = torch.randn_like(xt)  # and the noise is that of the plain step
    loud = cg.shifted_step(lambda x, t: 1.7 * gradient, schedule, xt, t, eps, noise)
    torch.testing.assert_close(loud - ours, variance.sqrt()[:, None, None, None] * noise)
    names = {"x_{t-1}": loud, r"\mu": mean, "s": 1.7, r"\Sigma": variance[:, None, None, None], "g": gradient}
    formula("cgd-mean").holds(names | {"z": noise}, apart=r"z \sim \mathcal{N}(0, I)")


def test_where_each_variant_takes_the_gradient(schedule):
    xt, eps, noise = torch.randn(3, 5, 3, 4, 6, dtype=torch.float64)
    t, asked = torch.tensor([0, 1, 17, 30, T - 1]), []

    def guide(x, t):
        asked.append((x, t))
        return torch.ones_like(x)

    mean = ddpm.ddpm_step(schedule, xt, t, eps, 0 * noise)
    here, there = (f(guide, schedule, xt, t, eps, noise) for f in (cg.shifted_step, cg.shifted_step_at_mean))
    assert torch.equal(asked[0][0], xt) and torch.equal(asked[0][1], t)
    assert torch.equal(asked[1][0], mean) and asked[1][1].tolist() == [0, 0, 16, 29, T - 2]  # one level down
    torch.testing.assert_close(here, there)  # a constant gradient is the same everywhere
    plain = ddpm.ddpm_step(schedule, xt, t, eps, noise)
    torch.testing.assert_close(here - plain, schedule.beta_tilde[t][:, None, None, None].expand_as(xt))


@pytest.mark.equation("cgd-ratio", of=(cg.shifted_step, cg.guided_eps))
def test_algorithm_1_shifts_a_little_less_than_algorithm_2_in_the_same_step(schedule, formula):
    xt, gradient, zero = *torch.randn(2, 5, 3, 4, 6, dtype=torch.float64), torch.zeros(5, 3, 4, 6).double()
    t = torch.tensor([0, 1, 17, 30, T - 1])

    def model(x, t):
        return 0.3 * x

    def guide(x, t):
        return 2.0 * gradient

    plain = ddpm.ddpm_step(schedule, xt, t, model(xt, t), zero)
    first = cg.shifted_step(guide, schedule, xt, t, model(xt, t), zero) - plain
    second = ddpm.ddpm_step(schedule, xt, t, cg.guided_eps(model, guide, schedule, xt, t), zero) - plain
    alpha = 1 - schedule.beta[t]
    before = torch.cat([torch.ones(1).double(), schedule.alpha_bar])[t]
    ratio = alpha.sqrt() * (1 - before) / (1 - schedule.alpha_bar[t])
    torch.testing.assert_close(first, ratio[:, None, None, None] * second)
    tables = {r"\alpha_t": alpha, r"\bar\alpha_{t-1}": before, r"\bar\alpha_t": schedule.alpha_bar[t]}
    names = {key: table[:, None, None, None].expand_as(xt) for key, table in tables.items()}
    formula("cgd-ratio").holds(names | {r"\text{Algorithm 1}": first, r"\text{Algorithm 2}": second})
    assert ratio[0] == 0 and 0.1 < ratio[1] < 0.3 and 0.8 < ratio[2] < 1  # alike but at the clean end
    paper = ddpm.NoiseSchedule(ddpm.linear_beta())
    ratio = (1 - paper.beta).sqrt() * (1 - paper.alpha_bar_before) / (1 - paper.alpha_bar)
    assert ratio[100:].min() > 0.98


# whole runs


def exact_pair(schedule, y, scale):
    model = OneLevel(schedule, TOY.eps)
    guide = partial(cg.guidance, OneLevel(schedule, TOY.log_joint), y, scale)
    return model, guide


@pytest.mark.parametrize("algorithm", [1, 2])
def test_exact_guidance_draws_the_exact_class(algorithm):
    """Scale 1, exact networks: the points of each class have its mean and width."""
    schedule = ddpm.NoiseSchedule(ddpm.linear_beta())
    count, generator = 4500, torch.Generator().manual_seed(0)
    start = torch.randn(count, 2, 1, 1, generator=generator, dtype=torch.float64)
    y = torch.arange(count) % 3
    model, guide = exact_pair(schedule, y, 1.0)
    if algorithm == 1:
        *_, x = ddpm.sample_ddpm(model, schedule, start, generator, partial(cg.shifted_step, guide))
    else:
        guided = partial(cg.guided_eps, model, guide, schedule)
        x = ddpm.sample_ddim(guided, schedule, start, 200, 0.0, generator)
    x = x[:, :, 0, 0]
    for k in range(3):
        mine, width = x[y == k], TOY.deviations[k]
        assert (mine.mean(0) - TOY.means[k]).abs().max() < 0.15 * width
        assert (mine.std(0) / width - 1).abs().max() < 0.08
    plain = ddpm.sample_ddim(model, schedule, start, 50, 0.0, generator)[:, :, 0, 0]
    assert (plain[y == 2].mean(0) - TOY.means[2]).norm() > 1  # negative control: unguided, the class is ignored


@pytest.mark.equation("cgd-mismatch", of=None)
def test_the_noised_sharpened_density_is_not_the_sharpened_noisy_one(formula):
    """Sums over a grid of clean and of noisy points, for classes that overlap; where s is 1, the two are equal."""
    toy, signal, noise = Toy2D(TOY.weights, TOY.means, torch.tensor([1.0, 0.8, 0.9])), 0.9, 0.19**0.5
    axis = torch.linspace(-9, 9, 181, dtype=torch.float64)
    grid, cell = torch.cartesian_prod(axis, axis), float(axis[1] - axis[0]) ** 2
    joint, noisy = toy.log_joint(grid, 1.0, 0.0), toy.log_joint(grid, signal, noise)
    places = torch.tensor([[0.3, 0.2], [-0.4, -0.3], [0.5, -0.7]]).double()
    at_places = toy.log_joint(places, signal, noise)
    distance = torch.cdist(places, signal * grid)

    def names(s):
        sharp, sharp_noisy = ((p.logsumexp(1) + s * p.log_softmax(1)[:, 1]).exp() for p in (joint, noisy))
        return {
            r"\int": lambda value: value.sum(1),
            r"q(x_t \mid x_0)": (-(distance**2) / (2 * noise**2)).exp() / (2 * torch.pi * noise**2),
            "p(x_0)": joint.logsumexp(1).exp(),
            r"p(y \mid x_0)": joint.softmax(1)[:, 1],
            "Z_0": sharp.sum() * cell,
            "dx_0": cell,
            "p(x_t)": at_places.logsumexp(1).exp(),
            r"p(y \mid x_t)": at_places.softmax(1)[:, 1],
            "Z_t": sharp_noisy.sum() * cell,
            "s": s,
        }

    unless = r"\text{unless } s = 0 \text{ or } s = 1"
    formula("cgd-mismatch").holds(names(4.0), apart=unless, tolerance=1e-4)
    with pytest.raises(AssertionError, match="neq"):
        formula("cgd-mismatch").holds(names(1.0), apart=unless, tolerance=1e-4)


def test_strong_guidance_does_not_draw_the_sharpened_density():
    """At scale 4 the points of class 1 lie elsewhere than p(x) p(y | x)^4 has its mean; at scale 1 they do not."""
    schedule = ddpm.NoiseSchedule(ddpm.linear_beta())
    start = torch.randn(3000, 2, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    axis = torch.linspace(-4, 4, 161, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    joint = TOY.log_joint(grid, 1.0, 0.0)
    off = {}
    for scale in (1.0, 4.0):
        weight = (joint.logsumexp(1) + scale * joint.log_softmax(1)[:, 1]).softmax(0)  # on a fine grid
        mean = weight @ grid
        guided = partial(cg.guided_eps, *exact_pair(schedule, torch.ones(3000, dtype=torch.long), scale), schedule)
        x = ddpm.sample_ddim(guided, schedule, start, 100, 0.0, torch.Generator())[:, :, 0, 0]
        off[scale] = (x.mean(0) - mean).norm().item()
    assert off[1.0] < 0.03 and off[4.0] > 0.1
    # noising the sharpened density does not give the sharpened noisy density: their scores differ
    level = float(schedule.signal[400]), float(schedule.noise[400])
    point = torch.tensor([[0.3, 0.2]], dtype=torch.float64)
    weight = (joint.logsumexp(1) + 4 * joint.log_softmax(1)[:, 1]).softmax(0)
    near = (weight.log() - (point - level[0] * grid).square().sum(1) / (2 * level[1] ** 2)).softmax(0)
    noised = -(point[0] - level[0] * (near @ grid)) / level[1] ** 2  # score of the noised sharpened density
    t = torch.tensor([400])
    guided = partial(cg.guided_eps, *exact_pair(schedule, torch.tensor([1]), 4.0), schedule)
    followed = -guided(point[:, :, None, None], t)[0, :, 0, 0] / level[1]
    assert (noised - followed).norm() > 0.1


def test_whole_guided_samplers_equal_diffusers(schedule, agrees):
    model, classifier = UNet(3, (8, 16), groups=4).double().eval(), classifier_of().double()
    start = torch.randn(5, 3, 4, 6, dtype=torch.float64)
    y = torch.tensor([6, 0, 3, 2, 5])
    guide = partial(cg.guidance, classifier, y, 3.0)

    def gradient(x, level):
        x = x.detach().requires_grad_()
        loss = F.cross_entropy(classifier(x, torch.full((5,), int(level))), y, reduction="sum")
        return -3.0 * torch.autograd.grad(loss, x)[0]

    theirs = DDPMScheduler(T, 2e-3, 0.3, clip_sample=False)
    theirs.betas, theirs.alphas, theirs.alphas_cumprod = schedule.beta, 1 - schedule.beta, schedule.alpha_bar
    theirs.one = torch.tensor(1.0, dtype=torch.float64)
    x, generator = start, torch.Generator().manual_seed(2)
    for level in reversed(range(T)):
        with torch.no_grad():
            moved = theirs.step(model(x, torch.full((5,), level)), level, x, generator=generator).prev_sample
        x = moved + (theirs._get_variance(level) if level else 0) * gradient(x, level)
    step = partial(cg.shifted_step, guide)
    *_, ours = ddpm.sample_ddpm(model, schedule, start, torch.Generator().manual_seed(2), step)
    agrees(ours, x, "diffusers.DDPMScheduler", 1e-10)
    step = partial(cg.shifted_step_at_mean, guide)
    *_, other = ddpm.sample_ddpm(model, schedule, start, torch.Generator().manual_seed(2), step)
    assert (other - x).abs().max() > 1e-3  # the gradient at the mean: another run

    theirs = DDIMScheduler(T, 2e-3, 0.3, clip_sample=False, timestep_spacing="trailing")
    theirs.alphas_cumprod = schedule.alpha_bar.clone()
    theirs.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    theirs.set_timesteps(10)
    x = start
    for level in theirs.timesteps:
        with torch.no_grad():
            eps = model(x, level.expand(5))
        eps = eps - (1 - theirs.alphas_cumprod[level]).sqrt() * gradient(x, level)
        x = theirs.step(eps, level, x).prev_sample
    guided = partial(cg.guided_eps, model, guide, schedule)
    ours = ddpm.sample_ddim(guided, schedule, start, 10, 0.0, torch.Generator())
    agrees(ours, x, "diffusers.DDIMScheduler", 1e-10)
    assert (ddpm.sample_ddim(model, schedule, start, 10, 0.0, torch.Generator()) - x).abs().max() > 1e-2


# the classifier


def test_classifier_equals_the_way_down_of_diffusers_unet(agrees):
    theirs = perturbed(diffusers_unet(3, (8, 16, 24), (False, False, True), 1, 8), 0.1)
    ours = cg.NoisyClassifier(3, (8, 12), (8, 16, 24), 7).eval()
    weights = {name.replace("down_blocks", "stages"): w for name, w in theirs.state_dict().items()}
    rest = ours.load_state_dict({n: weights[n] for n in ours.state_dict() if n in weights}, strict=False)
    assert {name.split(".")[0] for name in rest.missing_keys} == {"norm_out", "head"}
    perturbed(ours.norm_out, 0.1), perturbed(ours.head, 0.1)
    x, t = torch.randn(5, 3, 8, 12), torch.tensor([0, 1, 500, 998, 999])
    with torch.no_grad():
        hidden, time = theirs.conv_in(x), theirs.time_embedding(theirs.time_proj(t))
        for block in theirs.down_blocks:
            hidden, _ = block(hidden, time)
        hidden = F.group_norm(hidden, 8, ours.norm_out.weight, ours.norm_out.bias, 1e-6)
        logits = F.linear(F.silu(hidden).reshape(5, -1), ours.head.weight, ours.head.bias)
        agrees(ours(x, t), logits, "diffusers.UNet2DModel", 1e-5)
        assert (ours(x, t.flip(0)) - logits).abs().max() > 1e-3  # it knows the level
        assert (ours(x.flip(3), t) - logits).abs().max() > 1e-3  # and the place


class Answer(nn.Module):
    """Always the same logits, and a note of what was asked."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, x, t):
        self.asked = x, t
        return self.logits.expand(len(x), -1)


class Remembers(nn.Module):
    """Logits that depend on all that it is asked, and a note of that."""

    def forward(self, x, t):
        self.asked = x, t
        return x.flatten(1)[:, :7] + 0.1 * t[:, None].double() * torch.arange(7)


@pytest.mark.equation("cgd-loss", of=cg.classifier_loss)
def test_loss_is_its_formula(schedule, formula):
    x0, y, model = torch.rand(5, 3, 4, 6).double() * 2 - 1, torch.tensor([6, 0, 3, 2, 5]), Remembers()
    loss = cg.classifier_loss(model, schedule, x0, y, torch.Generator().manual_seed(3))
    xt, t = model.asked
    bar = torch.stack([torch.prod(1 - schedule.beta[: level + 1]) for level in t])[:, None, None, None]
    names = {
        r"L(\phi)": loss,
        r"\mathbb{E}_{(x_0, y), t, \epsilon}": torch.mean,
        r"p_\phi": lambda y, x, t: model(x, t).softmax(1).gather(1, y.long()[:, None])[:, 0],
        r"\bar\alpha_t": bar,
        r"\epsilon": (xt - bar.sqrt() * x0) / (1 - bar).sqrt(),
    }
    formula("cgd-loss").holds(names | {"y": y, "x_0": x0, "t": t})


def test_loss_is_the_cross_entropy_at_random_levels(schedule):
    logits, y = torch.randn(7), torch.arange(300) % 7
    x0, model = torch.rand(300, 3, 4, 6) * 2 - 1, Answer(logits)
    loss = cg.classifier_loss(model, schedule, x0, y, torch.Generator().manual_seed(3))
    xt, t = model.asked
    torch.testing.assert_close(loss, -(logits - logits.exp().sum().log())[y].mean())
    eps = ddpm.eps_from_x0(schedule, xt, t, x0)  # the noise that was added
    assert t.min() == 0 and t.max() == T - 1  # both ends are drawn
    assert abs(eps.mean()) < 0.03 and abs(eps.std() - 1) < 0.03
    assert torch.stack([eps[t == k].std() for k in range(T)]).min() > 0.5  # noise at every level


def test_the_true_posterior_has_the_least_loss(schedule):
    points, y = TOY.sample(600, torch.Generator().manual_seed(0))
    x0, exact = points[:, :, None, None], ExactClassifier(schedule)

    def loss(answer):
        return cg.classifier_loss(answer, schedule, x0, y, torch.Generator().manual_seed(1))

    least = loss(exact)
    assert least > 0.05  # noisy points are not all told apart
    for other in (
        lambda x, t: 0.5 * exact(x, t),
        lambda x, t: 2 * exact(x, t),
        lambda x, t: exact(x, 0 * t),
        lambda x, t: exact(x, (t + 8).clamp(max=T - 1)),
    ):
        assert loss(other) > least + 0.01


def test_training_learns_and_repeats(schedule):
    x0 = torch.full((7, 1, 4, 6), 0.5) * torch.tensor([1.0, -1.0])[torch.arange(7) % 2, None, None, None]
    y = torch.arange(7) % 2

    def trained(num_steps):
        torch.manual_seed(1)
        return cg.train_classifier(cg.NoisyClassifier(1, (4, 6), (8, 16), 2), schedule, x0, y, num_steps, batch_size=9)

    def loss(model):
        many = x0.repeat(40, 1, 1, 1)
        with torch.no_grad():
            return cg.classifier_loss(model, schedule, many, y.repeat(40), torch.Generator().manual_seed(5)).item()

    short, long = trained(2), trained(40)
    assert loss(long) < 0.6 * loss(short)
    assert loss(short) == loss(trained(2))  # seeded
    assert not long.training


# a weak model as guide


def autoguided(model, weak, scale, x, t):
    """The line that the page has for it."""
    return weak(x, t) + scale * (model(x, t) - weak(x, t))


def three_models():
    """A perfect prediction, and two that err in the same direction, the second 2.6 times as far."""
    exact, error = torch.randn(2, 5, 3, 4, 6, dtype=torch.float64)
    return exact, error, lambda x, t: exact + error, lambda x, t: exact + 2.6 * error


@pytest.mark.equation("cgd-auto", of=None)
@pytest.mark.equation("cgd-auto-error", of=None)
def test_autoguidance_is_its_formulas(formula):
    exact, error, model, weak = three_models()
    x, t = torch.zeros(5, 3, 4, 6).double(), torch.arange(5)
    eps = autoguided(model, weak, 1.4, x, t)
    names = {
        r"\hat\epsilon(x_t, t)": eps,
        r"\epsilon_\theta(x_t, t)": model(x, t),
        r"\epsilon_\psi(x_t, t)": weak(x, t),
    }
    formula("cgd-auto").holds(names | {"s": 1.4})
    names = {r"\hat\epsilon": eps, r"\epsilon^*": exact, "s": 1.4, "k": 2.6, "e": error}
    formula("cgd-auto-error").holds(names)


def test_errors_of_one_direction_cancel_at_one_scale():
    """At s = k / (k - 1) nothing is left of them; 0 is the weak model, 1 the model."""
    exact, error, model, weak = three_models()
    x, t = torch.zeros(5, 3, 4, 6).double(), torch.arange(5)
    torch.testing.assert_close(autoguided(model, weak, 2.6 / 1.6, x, t), exact)
    torch.testing.assert_close(autoguided(model, weak, 1.0, x, t), model(x, t))
    assert torch.equal(autoguided(model, weak, 0.0, x, t), weak(x, t))
    assert (autoguided(model, weak, 3.0, x, t) - exact).abs().max() > error.abs().max()  # too far


@pytest.mark.claim("cgd-auto")
def test_a_weak_guide_takes_away_what_widens_both():
    """Blobs widened by 0.02 and by three times that; draws from three noises, by DDIM with 50 steps."""
    schedule = ddpm.NoiseSchedule(ddpm.linear_beta())

    def widened(extra):
        toy = Toy2D(TOY.weights, TOY.means, (TOY.deviations.square() + extra).sqrt())

        def predict(x, t):
            level = float(schedule.signal[t[0]]), float(schedule.noise[t[0]])
            return toy.eps(x[:, :, 0, 0], *level)[:, :, None, None]

        return predict

    true, _ = TOY.sample(20_000, torch.Generator().manual_seed(7))
    rare = TOY.log_density(true, 1.0, 0.0).quantile(0.01)

    def drawn(predict):
        """Outliers, and the three widths over the blobs' own, for each of three draws: (3, 4)."""
        rows = []
        for seed in range(3):
            generator = torch.Generator().manual_seed(seed)
            start = torch.randn(2000, 2, 1, 1, generator=generator, dtype=torch.float64)
            x = ddpm.sample_ddim(predict, schedule, start, 50, 0.0, generator)[:, :, 0, 0]
            blob = TOY.log_joint(x, 1.0, 0.0).argmax(1)
            widths = [x[blob == k].std(0).mean() / TOY.deviations[k] for k in range(3)]
            rows.append(torch.stack([(TOY.log_density(x, 1.0, 0.0) < rare).double().mean(), *widths]))
        return torch.stack(rows)

    def guided(scale):
        return drawn(partial(autoguided, widened(0.02), widened(0.06), scale))

    exact, weak, model, past, far = drawn(widened(0.0)), guided(0.0), guided(1.0), guided(1.5), guided(3.0)
    outliers = [rows[:, 0].mean().item() for rows in (exact, weak, model, past, far)]
    assert outliers[1] > 3 * outliers[2] and outliers[2] > 1.7 * outliers[0]
    assert (model[:, 0] > 1.4 * past[:, 0]).all() and abs(outliers[3] - outliers[0]) < 0.005
    assert (past[:, 1:].mean(0) - 1).abs().max() < 0.1 < (model[:, 1:].mean(0) - 1).max()
    assert outliers[4] < 0.6 * outliers[0] and (far[:, 1:] < 0.9).all()  # too far


# the program


def test_main_writes_a_picture(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cg, "TRAIN_STEPS", 2)
    monkeypatch.setattr(cg, "CLASSIFIER_STEPS", 2)
    cg.main()
    picture = matplotlib.image.imread(tmp_path / "guided.png")
    assert picture.shape[:2] == (700, 700)  # 10 rows of 10
    assert "guided.png" in capsys.readouterr().out


def test_main_draws_the_digits_asked_for_once_trained(tmp_path, monkeypatch):
    """The page's program with the labs' weights in place of its own short trainings: a judge reads its picture."""

    def with_weights(name):
        def trained(model, *_):
            model.load_state_dict(load_file(ROOT / f"docs/weights/{name}.safetensors"))
            return model.eval()

        return trained

    drawn = []
    monkeypatch.setattr(cg, "train", with_weights("Diffusion"))
    monkeypatch.setattr(cg, "train_classifier", with_weights("Classifier_Guided_Diffusion"))
    monkeypatch.setattr(cg, "save_grid", lambda path, images: drawn.append(images))
    cg.main()
    judge = image_metrics.train_classifier(*digits(), epochs=12)
    with torch.no_grad():
        read = judge(drawn[0].clamp(-1, 1)).argmax(1)
    assert (read == torch.arange(10).repeat_interleave(10)).float().mean() >= 0.9


# wrong input


S = ddpm.NoiseSchedule(ddpm.linear_beta(T))
X, LEVEL, Y = torch.zeros(5, 3, 4, 6), torch.zeros(5, dtype=torch.long), torch.arange(5)
G = torch.Generator()
C = cg.NoisyClassifier(3, (4, 6), (8, 16), 7)


def guide(y=Y, scale=1.0, x=X, t=LEVEL):
    return cg.guidance(C, y, scale, x, t)


@pytest.mark.parametrize(
    "call, given",
    [
        (lambda: cg.NoisyClassifier(1, (8, 7)), "size divisible by 2.*given \\(8, 7\\)"),
        (lambda: cg.NoisyClassifier(1, (0, 8)), "given \\(0, 8\\)"),
        (lambda: cg.NoisyClassifier(1, (8, 8), (16, 30)), "widths divisible by 8.*\\(16, 30\\)"),
        (lambda: cg.NoisyClassifier(1, (8, 8), (16, 32), 1), "2 classes or more.*and 1"),
        (lambda: C(X.int(), LEVEL), "\\(B, 3, 4, 6\\).*given torch.int32"),
        (lambda: C(X[:, :2], LEVEL), "\\(B, 3, 4, 6\\).*given torch.float32 \\(5, 2, 4, 6\\)"),
        (lambda: C(X[:, :, :, :4], LEVEL), "given torch.float32 \\(5, 3, 4, 4\\)"),
        (lambda: C(X, LEVEL[:4]), "one t for each.*t \\(4,\\)"),
        (lambda: guide(scale=-1.0), "scale >= 0.*given -1.0"),
        (lambda: guide(scale=float("nan")), "scale >= 0.*given nan"),
        (lambda: guide(scale=float("inf")), "finite scale.*given inf"),
        (lambda: guide(y=Y[:4]), "class and a level for each image.*given y torch.int64 \\(4,\\)"),
        (lambda: guide(y=Y[:1]), "given y torch.int64 \\(1,\\)"),
        (lambda: guide(y=Y.float()), "integer class.*torch.float32"),
        (lambda: guide(t=LEVEL[:4]), "t \\(4,\\)"),
        (lambda: guide(y=Y + 3), "classes in \\[0, 7\\).*given tensor\\(\\[3"),
        (lambda: guide(y=Y - 1), "classes in \\[0, 7\\).*given tensor\\(\\[-1"),
        (lambda: cg.shifted_step(guide, S, X, LEVEL + T, X, X), f"in \\[0, {T}\\)"),
        (lambda: cg.shifted_step_at_mean(guide, S, X, LEVEL.float(), X, X), "one integer t"),
        (lambda: cg.guided_eps(lambda x, t: x, guide, S, X[0], LEVEL), "given torch.float32 \\(3, 4, 6\\)"),
        (lambda: cg.classifier_loss(C, S, X, Y[:4], G), "one integer class for each of 5 images"),
        (lambda: cg.classifier_loss(C, S, X, Y.float(), G), "torch.float32"),
        (lambda: cg.train_classifier(C, S, X, Y, 0), "num_steps > 0.*given 0"),
        (lambda: cg.train_classifier(C, S, X, Y, 5, batch_size=0), "batch_size > 0.*given.* 0"),
        (lambda: cg.train_classifier(C, S, X, Y[:4], 5), "a class for each.*given 5.*4 classes"),
        (lambda: cg.train_classifier(C, S, X + 255, Y, 5), "\\[-1, 1\\].*up to 255"),
        (lambda: cg.train_classifier(C, S, X.int(), Y, 5), "float images.*torch.int32"),
    ],
)
def test_wrong_input_is_refused(call, given):
    with pytest.raises(ValueError, match=given):
        call()


def test_right_input_passes():
    assert guide().shape == X.shape and C(X, LEVEL).shape == (5, 7)


# what the page says


SECTION = re.compile(r"^## By hand, for one pixel\n(.*?)^## ", re.M | re.S)


@pytest.mark.claim("cgd-by-hand")
def test_the_worked_example_is_what_the_code_computes():
    """Every number of the table, from the page's code; each has to stand there in these digits."""
    table = SECTION.search((ROOT / "docs/posts/Classifier_Guided_Diffusion.md").read_text(encoding="utf-8"))[1]
    three = ddpm.NoiseSchedule(torch.tensor([0.1, 0.2, 0.4], dtype=torch.float64))
    signal, noise = three.signal[1], three.noise[1]
    xt, t, zero = torch.full((1, 1, 1, 1), 0.2, dtype=torch.float64), torch.tensor([1]), torch.zeros(1, 1, 1, 1)
    ink, paper = torch.tensor([0]), torch.tensor([1])

    def classifier(x, t):
        """log p(x_t | y) of two pictures, one pixel of ink (1) and one of paper (-1), up to a constant."""
        x = x.flatten(1)
        return torch.cat([-(x - signal).square(), -(x + signal).square()], dim=1) / (2 * noise**2)

    def model(x, t):
        share = classifier(x, t).softmax(1)[:, :1].view_as(x)
        return ddpm.eps_from_x0(three, x, t, share - (1 - share))

    def guide(y, scale, x=xt, t=t):
        return cg.guidance(classifier, y, scale, x, t)

    def noise_for(y, scale):
        return cg.guided_eps(model, partial(guide, y, scale), three, xt, t)

    def mean(eps):
        return ddpm.ddpm_step(three, xt, t, eps, zero)

    first = cg.shifted_step(lambda x, t: guide(ink, 1.0), three, xt, t, model(xt, t), zero)
    ratio = (first - mean(model(xt, t))) / (mean(noise_for(ink, 1.0)) - mean(model(xt, t)))
    share = classifier(xt, t).softmax(1)
    rows = {
        "the level": [signal, noise],
        "how the classifier": [share[0, 0], share[0, 1]],
        "its gradient": [guide(ink, 1.0), guide(paper, 1.0)],
        "the model": [share[0, 0] - share[0, 1], model(xt, t)],
        "guided to ink": [noise_for(ink, 1.0)],
        "the noise of ink": [ddpm.eps_from_x0(three, xt, t, torch.ones_like(xt))],
        "the picture that it implies": [ddpm.x0_from_eps(three, xt, t, noise_for(ink, 1.0))],
        "guided to paper": [noise_for(paper, 1.0), ddpm.x0_from_eps(three, xt, t, noise_for(paper, 1.0))],
        "at scale 4": [noise_for(ink, 4.0), ddpm.x0_from_eps(three, xt, t, noise_for(ink, 4.0))],
        "a DDPM step without": [mean(model(xt, t))],
        "by Algorithm 2": [mean(noise_for(ink, 1.0))],
        "by Algorithm 1": [three.beta_tilde[1], first],
        "the ratio": [ratio],
    }
    lines = {line.split("|")[1].strip(): line for line in table.splitlines() if line.startswith("| ")}
    assert len(lines) == len(rows) + 2  # the heading and the rule
    for name, numbers in rows.items():
        (line,) = (line for start, line in lines.items() if start.startswith(name))
        for number in numbers:
            text = f"{number.item():.4f}"
            assert text in line.replace("{,}", ""), f"{text} is not in: {line}"


@pytest.mark.claim("cgd-ratio-levels")
def test_the_two_algorithms_shift_alike_but_at_the_cleanest_levels():
    schedule = ddpm.NoiseSchedule(ddpm.linear_beta())
    before = torch.cat([torch.ones(1).double(), schedule.alpha_bar[:-1]])
    ratio = (1 - schedule.beta).sqrt() * (1 - before) / (1 - schedule.alpha_bar)
    assert (ratio[100:] > 0.98).all() and ratio[0] == 0 and ratio.argmin() == 0
    assert (ratio[1:100] < 0.98).any()


@pytest.mark.claim("cgd-no-grad")
def test_library_gradient_inside_no_grad_is_an_error():
    x = torch.randn(3)
    with torch.no_grad(), pytest.raises(RuntimeError, match="does not require grad"):
        torch.autograd.grad(x.requires_grad_().square().sum(), x)


@pytest.mark.claim("cgd-enable-grad")
def test_library_enable_grad_undoes_no_grad_but_not_inference_mode():
    with torch.no_grad(), torch.enable_grad():
        x = torch.ones(3).requires_grad_()
        assert torch.equal(torch.autograd.grad(x.square().sum(), x)[0], 2 * torch.ones(3))
    with torch.inference_mode(), torch.enable_grad(), pytest.raises(RuntimeError, match="does not require grad"):
        x = torch.ones(3).requires_grad_()
        torch.autograd.grad(x.square().sum(), x)


@pytest.mark.claim("cgd-where-it-acts")
def test_guidance_of_points_of_the_class_is_largest_around_level_300():
    """In units of the noise, at points of the class asked for: its mean peaks there and is tiny below 100."""
    schedule, generator = ddpm.NoiseSchedule(ddpm.linear_beta()), torch.Generator().manual_seed(0)
    clean = TOY.means[1] + TOY.deviations[1] * torch.randn(4000, 2, generator=generator, dtype=torch.float64)
    exact, y, sizes = OneLevel(schedule, TOY.log_joint), torch.ones(4000).long(), []
    for level in range(0, 1000, 20):
        t, eps = torch.full((4000,), level), torch.randn(clean.shape, generator=generator, dtype=torch.float64)
        x = ddpm.q_sample(schedule, clean[:, :, None, None], t, eps[:, :, None, None])
        gradient = cg.guidance(exact, y, 1.0, x, t).flatten(1)
        sizes.append(float(schedule.noise[level]) * gradient.norm(dim=1).mean().item())
    assert 250 <= 20 * sizes.index(max(sizes)) <= 400
    assert max(sizes[:5]) < 0.05 * max(sizes)
