"""DDPM: every equation against a derivation of its own, samplers and schedules against diffusers, exact toy samples."""

import json
import math
import re

import matplotlib.image
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    UNet2DModel,
    UniPCMultistepScheduler,
)
from safetensors.torch import load_file, save_file
from torch import nn

from snippets import ddpm
from snippets.blocks.image_metrics import train_classifier
from snippets.blocks.unet import UNet
from snippets.data.digits import digits
from snippets.data.toy2d import toy2d
from tests.snippets.oracles import diffusers_unet, perturbed
from theme.page.pages import ROOT

T = 40  # levels of the small schedule; no other size below is 40


@pytest.fixture
def schedule() -> ddpm.NoiseSchedule:
    return ddpm.NoiseSchedule(ddpm.linear_beta(T, 2e-3, 0.3))


@pytest.fixture
def batch(schedule):
    """x0, t, eps and xt in float64: B = 5, C = 3, H = 4, W = 6; the first and last level are among the five."""
    x0 = torch.rand(5, 3, 4, 6, dtype=torch.float64) * 2 - 1
    eps = torch.randn_like(x0)
    t = torch.tensor([0, 1, 17, 30, T - 1])
    return x0, t, eps, ddpm.q_sample(schedule, x0, t, eps)


class Exact(nn.Module):
    """A perfect network: the expected noise in points (B, 2, 1, 1) of the toy mixture."""

    def __init__(self, schedule):
        super().__init__()
        self.schedule, self.toy = schedule, toy2d()

    def forward(self, x, t):
        signal, noise = float(self.schedule.signal[t[0]]), float(self.schedule.noise[t[0]])
        return self.toy.eps(x[:, :, 0, 0], signal, noise)[:, :, None, None].to(x.dtype)


# schedules


@pytest.mark.equation("ddpm-linear", of=ddpm.linear_beta)
def test_linear_schedule_equals_diffusers(agrees, formula):
    names = {r"\beta_t": ddpm.linear_beta(T), "t": torch.arange(1, T + 1), "T": T}
    formula("ddpm-linear").holds(names | {r"\beta_{\min}": 1e-4, r"\beta_{\max}": 0.02}, relations=3)
    theirs = DDPMScheduler(num_train_timesteps=T, beta_start=1e-3, beta_end=0.05)
    agrees(ddpm.linear_beta(T, 1e-3, 0.05), theirs.betas.double(), "diffusers.DDPMScheduler", 1e-5)
    ours = ddpm.NoiseSchedule(ddpm.linear_beta(T, 1e-3, 0.05))
    agrees(ours.alpha_bar, theirs.alphas_cumprod.double(), "diffusers.DDPMScheduler", 1e-5)
    assert ddpm.linear_beta()[[0, -1]].tolist() == [1e-4, 0.02]  # the paper's ends
    assert (ddpm.linear_beta(T, 1e-3, 0.051) - theirs.betas).abs().max() > 1e-5  # negative control


@pytest.mark.equation("ddpm-cosine", of=ddpm.cosine_beta)
def test_cosine_schedule_equals_diffusers_and_its_formula(agrees, formula):
    t = torch.arange(1, T + 1, dtype=torch.float64)

    def f(t):
        return torch.cos((t / T + 0.008) / 1.008 * math.pi / 2) ** 2

    clean = f(torch.zeros(1, dtype=torch.float64))
    names = {r"\beta_t": ddpm.cosine_beta(T), r"\bar\alpha_t": f(t) / clean, r"\bar\alpha_{t-1}": f(t - 1) / clean}
    formula("ddpm-cosine").holds(names | {"f": f, "t": t, "T": T, "c": 0.008}, relations=4)
    theirs = DDPMScheduler(num_train_timesteps=T, beta_schedule="squaredcos_cap_v2")
    agrees(ddpm.cosine_beta(T), theirs.betas.double(), "diffusers.DDPMScheduler", 1e-5)
    alpha_bar = ddpm.NoiseSchedule(ddpm.cosine_beta(T)).alpha_bar
    time = torch.arange(1, T, dtype=torch.float64) / T  # all but the last level, which is clipped
    curve = torch.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2 / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    torch.testing.assert_close(alpha_bar[:-1], curve, rtol=0, atol=1e-12)
    assert (ddpm.cosine_beta(T, offset=0.02) - theirs.betas).abs().max() > 1e-5


def test_float32_would_lose_digits_at_the_clean_end():
    beta = ddpm.linear_beta(1000)
    exact = ddpm.NoiseSchedule(beta).noise[0] ** 2
    single = 1 - torch.cumprod(1 - beta.float(), dim=0)[0]
    assert abs(exact - 1e-4) < 1e-15
    assert abs(single.double() - 1e-4) / 1e-4 > 1e-5  # what the comment in NoiseSchedule claims


# forward process


def each(table):
    """One number for each image of a batch."""
    return table[:, None, None, None]


def alpha_bar(t):
    """The product of 1 - beta up to level t, of the small schedule; 1 before the first."""
    beta = torch.linspace(2e-3, 0.3, T, dtype=torch.float64)
    return each(torch.stack([torch.prod(1 - beta[: level + 1]) for level in t]))


@pytest.mark.equation("ddpm-step-forward", of=ddpm.q_step)
def test_one_forward_step_has_the_mean_and_variance_of_equation_2(schedule, batch, formula):
    x0, t, eps, _ = batch
    beta = each(torch.linspace(2e-3, 0.3, T, dtype=torch.float64)[t])
    names = {"x_t": ddpm.q_step(schedule, x0, t, eps), "x_{t-1}": x0, r"\epsilon_t": eps}
    formula("ddpm-step-forward").holds(names | {r"\beta_t": beta})
    torch.testing.assert_close(ddpm.q_step(schedule, x0, t, 0 * eps), (1 - beta) ** 0.5 * x0)
    torch.testing.assert_close(ddpm.q_step(schedule, 0 * x0, t, eps), beta**0.5 * eps)


@pytest.mark.equation("ddpm-forward", of=ddpm.q_sample)
def test_iterated_steps_equal_the_jump(schedule, batch, formula):
    x0, t, eps, xt = batch
    xt = ddpm.q_sample(schedule, x0, t, eps)
    formula("ddpm-forward").holds({"x_t": xt, r"\bar\alpha_t": alpha_bar(t), "x_0": x0, r"\epsilon": eps})
    mean, variance = x0, torch.zeros_like(x0)
    for level in range(T):
        t = torch.full((5,), level)
        mean = ddpm.q_step(schedule, mean, t, torch.zeros_like(x0))
        gain = ddpm.q_step(schedule, torch.ones_like(x0), t, torch.zeros_like(x0))  # factor of what was there
        added = ddpm.q_step(schedule, torch.zeros_like(x0), t, torch.ones_like(x0))  # factor of the new noise
        variance = gain**2 * variance + added**2
        torch.testing.assert_close(ddpm.q_sample(schedule, x0, t, 0 * x0), mean)
        torch.testing.assert_close(ddpm.q_sample(schedule, 0 * x0, t, torch.ones_like(x0)) ** 2, variance)
    assert (ddpm.q_sample(schedule, x0, torch.full((5,), T - 2), 0 * eps) - mean).abs().max() > 1e-3  # one level off


# parameterisations


@pytest.mark.equation("ddpm-x0", of=(ddpm.x0_from_eps, ddpm.eps_from_x0))
def test_x0_and_eps_come_back_from_each_other(schedule, batch, formula):
    x0, t, eps, xt = batch
    implied = ddpm.x0_from_eps(schedule, 2 * xt, t, eps)
    formula("ddpm-x0").holds({"x_0": implied, "x_t": 2 * xt, r"\bar\alpha_t": alpha_bar(t), r"\epsilon": eps})
    torch.testing.assert_close(ddpm.x0_from_eps(schedule, xt, t, eps), x0)
    torch.testing.assert_close(ddpm.eps_from_x0(schedule, xt, t, x0), eps)
    assert (ddpm.x0_from_eps(schedule, xt, t, x0) - x0).abs().max() > 0.1


@pytest.mark.equation("ddpm-velocity", of=(ddpm.velocity, ddpm.x0_from_v, ddpm.eps_from_v))
def test_velocity_is_a_rotation_and_equals_diffusers(schedule, batch, agrees, formula):
    x0, t, eps, xt = batch
    v = ddpm.velocity(schedule, x0, t, eps)
    formula("ddpm-velocity").holds({"v": v, r"\bar\alpha_t": alpha_bar(t), r"\epsilon": eps, "x_0": x0})
    torch.testing.assert_close(xt**2 + v**2, x0**2 + eps**2)  # a rotation keeps the length
    torch.testing.assert_close(ddpm.x0_from_v(schedule, xt, t, v), x0)
    torch.testing.assert_close(ddpm.eps_from_v(schedule, xt, t, v), eps)
    theirs = DDPMScheduler(num_train_timesteps=T, beta_start=2e-3, beta_end=0.3)
    theirs.alphas_cumprod = schedule.alpha_bar.clone()
    agrees(v, theirs.get_velocity(x0, eps, t), "diffusers.DDPMScheduler", 1e-10)
    assert (ddpm.velocity(schedule, eps, t, x0) - v).abs().max() > 0.1  # x0 and eps swapped


# posterior


@pytest.mark.equation("ddpm-posterior-mean", of=ddpm.posterior_mean)
@pytest.mark.equation("ddpm-posterior-variance", of=ddpm.NoiseSchedule.__init__)
def test_posterior_is_the_product_of_the_two_gaussians(batch, formula):
    """q(x_{t-1} | x_t, x_0) is proportional to q(x_t | x_{t-1}) q(x_{t-1} | x_0): precisions add."""
    x0, _, _, _ = batch
    schedule = ddpm.NoiseSchedule(ddpm.linear_beta(T, 2e-3, 0.3))
    t = torch.tensor([1, 2, 17, 30, T - 1])
    xt = torch.randn_like(x0)
    before, b = alpha_bar(t - 1), each(torch.linspace(2e-3, 0.3, T, dtype=torch.float64)[t])
    precision = (1 - b) / b + 1 / (1 - before)
    mean = ((1 - b) ** 0.5 / b * xt + before**0.5 / (1 - before) * x0) / precision
    torch.testing.assert_close(ddpm.posterior_mean(schedule, x0, xt, t), mean)
    torch.testing.assert_close(schedule.beta_tilde[t], 1 / precision.flatten())
    names = {r"\beta_t": b, r"\alpha_t": 1 - b, r"\bar\alpha_t": alpha_bar(t), r"\bar\alpha_{t-1}": before}
    formula("ddpm-posterior-variance").holds(names | {r"\tilde\beta_t": each(schedule.beta_tilde[t])}, relations=2)
    ours = {r"\tilde\mu_t(x_t, x_0)": ddpm.posterior_mean(schedule, x0, xt, t), "x_0": x0, "x_t": xt}
    formula("ddpm-posterior-mean").holds(names | ours)
    assert (schedule.beta[t] - 1 / precision.flatten()).abs().min() > 1e-5  # beta is another variance


def test_posterior_at_the_first_level_is_the_clean_image(schedule, batch):
    x0, t, _, xt = batch
    t = torch.zeros_like(t)
    torch.testing.assert_close(ddpm.posterior_mean(schedule, x0, xt, t), x0)
    assert schedule.beta_tilde[0] == 0


@pytest.mark.equation("ddpm-step", of=ddpm.ddpm_step)
def test_mean_of_algorithm_2_is_the_posterior_mean_through_x0(schedule, batch, formula):
    _, t, eps, xt = batch
    x0 = ddpm.x0_from_eps(schedule, xt, t, eps)
    mean = ddpm.ddpm_step(schedule, xt, t, eps, torch.zeros_like(xt))
    torch.testing.assert_close(mean, ddpm.posterior_mean(schedule, x0, xt, t))
    noise = torch.randn_like(xt)
    step = ddpm.ddpm_step(schedule, xt, t, eps, noise)
    beta = each(torch.linspace(2e-3, 0.3, T, dtype=torch.float64)[t])
    tilde = beta * (1 - alpha_bar(t - 1)) / (1 - alpha_bar(t))
    names = {r"\beta_t": beta, r"\alpha_t": 1 - beta, r"\bar\alpha_t": alpha_bar(t), r"\tilde\beta_t": tilde}
    names |= {"x_{t-1}": step, "x_t": xt, r"\epsilon_\theta(x_t, t)": eps, "z": noise}
    formula("ddpm-step").holds(names, apart=r"z \sim \mathcal{N}(0, I)")
    sigma = (step - mean) / noise
    torch.testing.assert_close(sigma[:, 0, 0, 0] ** 2, schedule.beta_tilde[t])


def test_clipping_changes_the_step_only_where_it_clips(schedule, batch):
    _, t, eps, xt = batch
    noise = torch.randn_like(xt)
    inside = ddpm.q_sample(schedule, torch.rand_like(xt) - 0.5, t, eps)  # implied images well inside [-1, 1]
    plain, clipped = (f(schedule, inside, t, eps, noise) for f in (ddpm.ddpm_step, ddpm.ddpm_step_clipped))
    torch.testing.assert_close(plain, clipped)
    wild = 3 * xt  # implied images far outside
    plain, clipped = (f(schedule, wild, t, eps, noise) for f in (ddpm.ddpm_step, ddpm.ddpm_step_clipped))
    assert (plain - clipped).abs().max() > 0.1


@pytest.mark.equation("ddpm-bound", of=(ddpm.posterior_mean, ddpm.ddpm_step))
def test_the_bound_weighs_the_noise_error_as_derived(schedule, batch, formula):
    """KL between the posterior and the model's step, from torch.distributions, against the weighted error of eps."""
    x0, _, eps, _ = batch
    t = torch.tensor([1, 2, 17, 30, T - 1])
    xt = ddpm.q_sample(schedule, x0, t, eps)
    guess = eps + 0.3 * torch.randn_like(eps)
    sigma = schedule.at(schedule.beta_tilde, t, xt).sqrt()
    q = torch.distributions.Normal(ddpm.posterior_mean(schedule, x0, xt, t), sigma)
    p = torch.distributions.Normal(ddpm.ddpm_step(schedule, xt, t, guess, torch.zeros_like(xt)), sigma)
    kl = torch.distributions.kl_divergence(q, p)
    beta, noise = schedule.at(schedule.beta, t, xt), schedule.at(schedule.noise, t, xt)
    names = {r"\beta_t": beta, r"\sigma_t": sigma, r"\alpha_t": 1 - beta, r"\bar\alpha_t": alpha_bar(t)}
    names = {key: table.flatten(1) for key, table in names.items()} | {r"\epsilon": eps.flatten(1)}
    whole = {r"\mathrm{KL}(q(x_{t-1}\mid x_t, x_0)\Vert p_\theta(x_{t-1} \mid x_t))": kl.flatten(1).sum(1, True)}
    formula("ddpm-bound").holds(names | whole | {r"\epsilon_\theta(x_t, t)": guess.flatten(1)})
    weight = beta**2 / (2 * sigma**2 * (1 - beta) * noise**2)
    torch.testing.assert_close(kl, weight * (eps - guess) ** 2)
    assert (kl - (eps - guess) ** 2).abs().max() > 0.1  # L_simple drops the weight


# loss and training


class Answer(nn.Module):
    """Says the same number everywhere, and remembers what it was asked."""

    def __init__(self, value: float):
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, x, t):
        self.asked = x, t
        return self.value.expand_as(x)


class Remembers(nn.Module):
    """Answers something that depends on all it is asked, and remembers that."""

    def forward(self, x, t):
        self.asked = x, t
        return x.sin() + 0.1 * each(t.double())


@pytest.mark.equation("ddpm-loss", of=ddpm.ddpm_loss)
def test_loss_is_its_formula(schedule, formula):
    """Expectation: the mean over a batch. The code's loss is the mean over the 3 * 4 * 6 numbers, not their sum."""
    x0, model = torch.rand(5, 3, 4, 6, dtype=torch.float64) * 2 - 1, Remembers()
    loss = ddpm.ddpm_loss(model, schedule, x0, torch.Generator().manual_seed(3))
    xt, t = model.asked
    eps = (xt - alpha_bar(t).sqrt() * x0) / (1 - alpha_bar(t)).sqrt()
    names = {"x_0": x0.flatten(1), "t": t, r"\epsilon": eps.flatten(1), r"\bar\alpha_t": alpha_bar(t).flatten(1)}
    answer = {r"\epsilon_\theta": lambda x, t: model(x.view(xt.shape), t).flatten(1)}
    mean = {r"L_{\text{simple}}": loss * 3 * 4 * 6, r"\mathbb{E}_{x_0, t, \epsilon}": torch.mean}
    formula("ddpm-loss").holds(names | answer | mean)


def test_loss_is_the_mean_squared_error_of_the_noise(schedule):
    x0, model = torch.rand(300, 3, 4, 6) * 2 - 1, Answer(0.7)
    loss = ddpm.ddpm_loss(model, schedule, x0, torch.Generator().manual_seed(3))
    xt, t = model.asked
    eps = ddpm.eps_from_x0(schedule, xt, t, x0)  # the noise that was added
    torch.testing.assert_close(loss, (eps - 0.7).square().mean(), rtol=1e-4, atol=1e-5)
    assert t.min() == 0 and t.max() == T - 1  # both ends are drawn
    assert abs(eps.mean()) < 0.03 and abs(eps.std() - 1) < 0.03  # standard normal
    per_level = torch.tensor([eps[t == k].std() for k in range(T)])
    assert per_level.min() > 0.5  # noise at every level, the first one too


@pytest.mark.equation("ddpm-ema", of=ddpm.ema_update)
def test_average_is_exponential(formula):
    fast, slow = nn.Linear(3, 2), nn.Linear(3, 2)
    before = slow.weight.detach().clone()
    ddpm.ema_update(slow, fast, 0.9)
    names = {r"\bar\theta \leftarrow": slow.weight, r"\bar\theta": before, r"\gamma": 0.9, r"\theta": fast.weight}
    formula("ddpm-ema").holds(names, tolerance=1e-6)
    torch.testing.assert_close(slow.weight, 0.9 * before + 0.1 * fast.weight)
    ddpm.ema_update(slow, fast, 0.0)
    assert torch.equal(slow.weight, fast.weight)


def test_training_learns_and_repeats(schedule):
    x0 = torch.full((7, 1, 4, 6), 0.5) * torch.tensor([1.0, -1.0])[torch.arange(7) % 2, None, None, None]

    def trained(num_steps):
        torch.manual_seed(1)
        return ddpm.train(UNet(1, (8, 16), groups=4), schedule, x0, num_steps, batch_size=9)

    def loss(model):
        with torch.no_grad():
            many = x0.repeat(40, 1, 1, 1)
            return ddpm.ddpm_loss(model, schedule, many, torch.Generator().manual_seed(5)).item()

    short, long = trained(4), trained(40)
    assert loss(long) < 0.8 * loss(short)
    assert loss(short) == loss(trained(4))  # seeded
    assert not long.training


# samplers


def diffusers_ddpm(clip: bool) -> DDPMScheduler:
    theirs = DDPMScheduler(num_train_timesteps=T, beta_start=2e-3, beta_end=0.3, clip_sample=clip)
    exact = ddpm.NoiseSchedule(ddpm.linear_beta(T, 2e-3, 0.3))  # theirs are float32
    theirs.betas, theirs.alphas, theirs.alphas_cumprod = exact.beta, 1 - exact.beta, exact.alpha_bar
    theirs.one = torch.tensor(1.0, dtype=torch.float64)
    return theirs


@pytest.mark.parametrize("step, clip", [(ddpm.ddpm_step, False), (ddpm.ddpm_step_clipped, True)])
def test_ddpm_steps_equal_diffusers(schedule, agrees, step, clip):
    theirs = diffusers_ddpm(clip)
    for level in (0, 1, 17, T - 1):
        xt = 2 * torch.randn(5, 3, 4, 6, dtype=torch.float64)
        eps, t = torch.randn_like(xt), torch.full((5,), level)
        noise = torch.randn(xt.shape, generator=torch.Generator().manual_seed(level), dtype=xt.dtype)
        out = theirs.step(eps, level, xt, generator=torch.Generator().manual_seed(level)).prev_sample
        agrees(step(schedule, xt, t, eps, noise), out, "diffusers.DDPMScheduler", 1e-10)
        if level:
            assert (step(schedule, xt, t - 1, eps, noise) - out).abs().max() > 1e-3  # one level off


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_ddim_steps_equal_diffusers(schedule, agrees, eta):
    theirs = DDIMScheduler(T, 2e-3, 0.3, clip_sample=False, timestep_spacing="trailing")
    theirs.alphas_cumprod = schedule.alpha_bar.clone()
    theirs.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    theirs.set_timesteps(8)
    levels = ddpm.ddim_levels(schedule, 8)
    assert levels[:-1] == theirs.timesteps.tolist() and levels[-1] == -1
    for level, lower in zip(levels[:-1], levels[1:], strict=True):
        xt = torch.randn(5, 3, 4, 6, dtype=torch.float64)
        eps, noise = torch.randn_like(xt), torch.randn_like(xt)
        t, target = torch.full((5,), level), torch.full((5,), lower)
        out = theirs.step(eps, level, xt, eta=eta, variance_noise=noise).prev_sample
        ours = ddpm.ddim_step(schedule, xt, t, target, eps, eta, noise)
        agrees(ours, out, "diffusers.DDIMScheduler", 1e-10)
        wrong = ddpm.ddim_step(schedule, xt, t, target, eps, 1 - 0.7 * eta, noise)
        if lower >= 0:  # the last step has no room for noise
            assert (wrong - out).abs().max() > 1e-3


def test_whole_samplers_equal_diffusers(schedule, agrees):
    model = UNet(3, (8, 16), groups=4).double().eval()
    start = torch.randn(5, 3, 4, 6, dtype=torch.float64)
    for clip, step in ((False, ddpm.ddpm_step), (True, ddpm.ddpm_step_clipped)):
        theirs, generator, x = diffusers_ddpm(clip), torch.Generator().manual_seed(2), start
        with torch.no_grad():
            for level in reversed(range(T)):
                eps = model(x, torch.full((5,), level))
                x = theirs.step(eps, level, x, generator=generator).prev_sample
        *_, ours = ddpm.sample_ddpm(model, schedule, start, torch.Generator().manual_seed(2), step)
        agrees(ours, x, "diffusers.DDPMScheduler", 1e-10)
    theirs = DDIMScheduler(T, 2e-3, 0.3, clip_sample=False, timestep_spacing="trailing")
    theirs.alphas_cumprod = schedule.alpha_bar.clone()
    theirs.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    theirs.set_timesteps(10)
    x = start
    with torch.no_grad():
        for level in theirs.timesteps:
            x = theirs.step(model(x, level.expand(5)), level, x).prev_sample
    ours = ddpm.sample_ddim(model, schedule, start, 10, 0.0, torch.Generator())
    agrees(ours, x, "diffusers.DDIMScheduler", 1e-10)
    assert (ddpm.sample_ddim(model, schedule, start, 20, 0.0, torch.Generator()) - x).abs().max() > 1e-3


@pytest.mark.equation("ddim-step", of=ddpm.ddim_step)
@pytest.mark.equation("ddim-sigma", of=ddpm.ddim_step)
def test_ddim_step_is_its_formula(schedule, batch, formula):
    """From each level to one some levels below; sigma is what the step multiplies the fresh noise by."""
    _, t, _, xt = batch
    t, target = torch.tensor([2, 5, 17, 30, T - 1]), torch.tensor([0, 1, 3, 22, 20])
    eps, noise = torch.randn_like(xt), torch.randn_like(xt)
    loud, quiet = (ddpm.ddim_step(schedule, xt, t, target, eps, 0.6, z) for z in (noise, 0 * noise))
    sigma = (loud - quiet) / noise
    bars = {r"\bar\alpha_s": alpha_bar(target).expand_as(xt), r"\bar\alpha_t": alpha_bar(t).expand_as(xt)}
    formula("ddim-sigma").holds(bars | {r"\sigma": sigma, r"\eta": 0.6})
    sigma = 0.6 * ((1 - bars[r"\bar\alpha_s"]) / (1 - bars[r"\bar\alpha_t"])).sqrt()
    sigma = sigma * (1 - bars[r"\bar\alpha_t"] / bars[r"\bar\alpha_s"]).sqrt()
    implied = (xt - (1 - alpha_bar(t)).sqrt() * eps) / alpha_bar(t).sqrt()
    names = {r"\bar\alpha_s": bars[r"\bar\alpha_s"], "x_s": loud, r"\hat x_0": implied, r"\sigma": sigma, "z": noise}
    formula("ddim-step").holds(names | {r"\epsilon_\theta(x_t, t)": eps})


def test_ddim_with_eta_1_has_the_posterior_variance(schedule, batch):
    _, _, _, xt = batch
    t = torch.tensor([0, 1, 17, 30, T - 1])
    eps, noise = torch.randn_like(xt), torch.randn_like(xt)

    def added(eta):
        """The fresh noise that a step adds."""
        loud, quiet = (ddpm.ddim_step(schedule, xt, t, t - 1, eps, eta, n) for n in (noise, 0 * noise))
        return loud - quiet

    sigma = schedule.beta_tilde[t].sqrt()[:, None, None, None]
    torch.testing.assert_close(added(1.0), sigma * noise)
    torch.testing.assert_close(added(0.5), 0.5 * sigma * noise)
    assert added(0.0).abs().max() == 0
    ddim = ddpm.ddim_step(schedule, xt, t, t - 1, eps, 1.0, noise)
    torch.testing.assert_close(ddim, ddpm.ddpm_step(schedule, xt, t, eps, noise))  # the whole step is DDPM's


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_keeps_the_marginal_however_long_the_step(schedule, eta):
    """From x_t = signal x0 + noise eps, with the right eps, to x_s with the signal and variance of level s."""
    x0, eps, fresh = torch.randn(3, 5, 1, 2, 3, dtype=torch.float64)
    t, target = torch.tensor([1, 5, 17, 30, T - 1]), torch.tensor([0, 2, 3, -1, 20])
    before = torch.cat([torch.ones(1, dtype=torch.float64), schedule.alpha_bar])[target + 1][:, None, None, None]
    xt = ddpm.q_sample(schedule, x0, t, eps)

    def step(x0, eps, fresh):
        xt = ddpm.q_sample(schedule, x0, t, eps)
        return ddpm.ddim_step(schedule, xt, t, target, eps, eta, fresh)

    one = torch.ones_like(xt)
    torch.testing.assert_close(step(one, 0 * one, 0 * one), before.sqrt() * one)
    variance = step(0 * one, one, 0 * one) ** 2 + step(0 * one, 0 * one, one) ** 2
    torch.testing.assert_close(variance, (1 - before) * one)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_coefficients_are_cast_last(schedule, dtype):
    """In low precision 1 - alpha_bar would be 0 at the clean end; the tables divide in float64."""
    schedule = ddpm.NoiseSchedule(ddpm.linear_beta())
    x0, xt = (torch.rand(5, 3, 4, 6) - 0.5).to(dtype), torch.randn(5, 3, 4, 6).to(dtype)
    first = torch.zeros(5, dtype=torch.long)
    assert torch.equal(ddpm.posterior_mean(schedule, x0, xt, first), x0)
    for level in (0, 1, 999):
        t = torch.full((5,), level)
        for x in (ddpm.ddpm_step(schedule, xt, t, xt, xt), ddpm.ddim_step(schedule, xt, t, t - 1, xt, 1.0, xt)):
            assert x.isfinite().all() and x.dtype == dtype


def test_no_noise_at_the_last_step(schedule):
    xt, eps = torch.randn(5, 3, 4, 6), torch.randn(5, 3, 4, 6)
    for level, moves in ((0, False), (1, True)):
        t = torch.full((5,), level)
        for step in (ddpm.ddpm_step, ddpm.ddpm_step_clipped):
            quiet, loud = step(schedule, xt, t, eps, 0 * xt), step(schedule, xt, t, eps, xt)
            assert torch.equal(quiet, loud) is not moves


def test_sample_ddpm_yields_every_level(schedule):
    start = torch.randn(5, 3, 4, 6)
    chain = list(ddpm.sample_ddpm(Answer(0.1), schedule, start, torch.Generator(), ddpm.ddpm_step))
    assert len(chain) == T + 1 and torch.equal(chain[0], start)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_exact_noise_gives_exact_samples(sampler):
    """With the true E[eps | x] of the toy mixture, the drawn points have the mixture's moments and weights."""
    schedule = ddpm.NoiseSchedule(ddpm.linear_beta())
    toy, generator, count = toy2d(), torch.Generator().manual_seed(0), 5000
    start = torch.randn(count, 2, 1, 1, generator=generator, dtype=torch.float64)
    if sampler == "ddpm":
        *_, x = ddpm.sample_ddpm(Exact(schedule), schedule, start, generator, ddpm.ddpm_step)
    else:
        x = ddpm.sample_ddim(Exact(schedule), schedule, start, 200, 0.0, generator)
    x = x[:, :, 0, 0]
    mean = toy.weights @ toy.means
    offset = toy.means - mean
    cov = (offset.T * toy.weights) @ offset + (toy.weights * toy.deviations**2).sum() * torch.eye(2)
    spread = cov.diagonal().sqrt()
    assert ((x.mean(0) - mean).abs() < 4 * spread / count**0.5).all()
    assert (torch.cov(x.T) - cov).abs().max() < 0.08 * cov.diagonal().max()
    nearest = (x[:, None] - toy.means).square().sum(2).argmin(1)
    share = torch.bincount(nearest, minlength=3) / count
    assert (share - toy.weights).abs().max() < 4 * 0.5 / count**0.5
    inner = torch.stack([x[nearest == k].std(0).mean() for k in range(3)])
    torch.testing.assert_close(inner, toy.deviations, rtol=0.05, atol=0)  # each blob as wide as it should be


# files


def test_load_pretrained_reads_what_diffusers_writes(tmp_path, agrees):
    theirs = perturbed(diffusers_unet(3, (16, 24, 40), (True, False, False), 2, 8), 0.1)
    theirs.save_pretrained(tmp_path)
    ours = ddpm.load_pretrained(tmp_path)
    x, t = torch.randn(5, 3, 8, 12), torch.tensor([0, 1, 500, 998, 999])
    with torch.no_grad():
        agrees(ours(x, t), theirs(x, t).sample, "diffusers.UNet2DModel", 2e-5)
        assert (ours(x, t.flip(0)) - theirs(x, t).sample).abs().max() > 1e-3
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    weights = load_file(file)
    for new, name in old.items():
        weights = {k.replace(f".{new}.", f".{name}."): w for k, w in weights.items()}
    save_file(weights, file)  # the names of checkpoints from 2022
    with torch.no_grad():
        agrees(ddpm.load_pretrained(tmp_path)(x, t), theirs(x, t).sample, "diffusers.UNet2DModel", 2e-5)


def test_load_pretrained_refuses_other_networks(tmp_path):
    with pytest.raises(ValueError, match="config.json is expected"):
        ddpm.load_pretrained(tmp_path)
    other = UNet2DModel(
        block_out_channels=(32, 32),
        down_block_types=("ResnetDownsampleBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
    )
    other.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="a symmetric U of .* is expected, given"):
        ddpm.load_pretrained(tmp_path)


@torch.no_grad()
def test_load_pretrained_reads_what_differs_from_the_paper(tmp_path, agrees):
    """Heads of 8 features, padding on both sides, cosines first, no shift, another eps: diffusers' own defaults."""
    shape = {"block_out_channels": (16, 24, 40), "layers_per_block": 2, "norm_num_groups": 8, "sample_size": (8, 12)}
    shape |= {"down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D")}
    theirs = perturbed(UNet2DModel(up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"), **shape), 0.1).eval()
    theirs.save_pretrained(tmp_path)
    x, t = torch.randn(5, 3, 8, 12), torch.tensor([0, 1, 500, 998, 999])
    wanted = theirs(x, t).sample
    ours = ddpm.load_pretrained(tmp_path)
    agrees(ours(x, t), wanted, "diffusers.UNet2DModel", 2e-5)
    file = tmp_path / "config.json"
    given = json.loads(file.read_text())
    defaults = ("norm_eps", "downsample_padding", "flip_sin_to_cos", "freq_shift", "attention_head_dim")
    file.write_text(json.dumps({name: value for name, value in given.items() if name not in defaults}))
    agrees(ddpm.load_pretrained(tmp_path)(x, t), wanted, "diffusers.UNet2DModel", 2e-5)
    others = {"norm_eps": 1e-2, "downsample_padding": 0, "flip_sin_to_cos": False, "freq_shift": 1}
    for name, value in (others | {"attention_head_dim": 4}).items():  # each of them counts
        file.write_text(json.dumps(given | {name: value}))
        assert (ddpm.load_pretrained(tmp_path)(x, t) - wanted).abs().max() > 1e-3, name


@pytest.mark.parametrize(
    "name, value",
    [("center_input_sample", True), ("mid_block_scale_factor", 1.4), ("out_channels", 6), ("add_attention", False)]
    + [("attn_norm_num_groups", 4), ("num_class_embeds", 7), ("downsample_padding", 2), ("act_fn", "gelu")]
    + [("time_embedding_type", "fourier"), ("resnet_time_scale_shift", "scale_shift"), ("mid_block_type", None)]
    + [("downsample_type", "resnet"), ("upsample_type", "resnet"), ("up_block_types", ["AttnUpBlock2D"] * 2)],
)
def test_load_pretrained_names_the_setting_that_differs(tmp_path, name, value):
    down = {"down_block_types": ["DownBlock2D"] * 2, "up_block_types": ["UpBlock2D"] * 2}
    config = {"in_channels": 3, "block_out_channels": [16, 16], "layers_per_block": 1, "norm_num_groups": 8} | down
    config |= {"freq_shift": 1, "flip_sin_to_cos": False, "downsample_padding": 0, "norm_eps": 1e-6}
    config |= {"act_fn": "silu", "mid_block_scale_factor": 1, "center_input_sample": False, "out_channels": 3}
    save_file(ddpm.UNet(3, (16, 16), (False, False)).state_dict(), tmp_path / "diffusion_pytorch_model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    ddpm.load_pretrained(tmp_path)  # an old file without the newer settings loads
    (tmp_path / "config.json").write_text(json.dumps(config | {name: value}))
    with pytest.raises(ValueError, match=f"given.*{re.escape(str(value))}"):
        ddpm.load_pretrained(tmp_path)


def test_main_writes_a_picture(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ddpm, "TRAIN_STEPS", 2)
    ddpm.main()
    picture = matplotlib.image.imread(tmp_path / "digits.png")
    assert picture.shape[:2] == (420, 700)  # 6 rows of 10
    assert "digits.png" in capsys.readouterr().out


def test_main_draws_digits_once_trained(tmp_path, monkeypatch):
    """The page's program, with the lab's weights in place of its own short training: a judge reads its picture."""

    def trained(model, schedule, images, num_steps):
        model.load_state_dict(load_file(ROOT / "docs/weights/Diffusion.safetensors"))
        return model.eval()

    drawn = []
    monkeypatch.setattr(ddpm, "train", trained)
    monkeypatch.setattr(ddpm, "save_grid", lambda path, images: drawn.append(images))
    ddpm.main()
    judge = train_classifier(*digits(), epochs=12)
    with torch.no_grad():
        sure = judge(drawn[0]).softmax(1).max(1).values
    assert len(drawn[0]) == 60 and drawn[0].abs().max() < 1.5
    assert (sure > 0.9).float().mean() > 0.75
    assert len(judge(drawn[0]).argmax(1).unique()) >= 8  # not the same digit again and again


def test_save_grid_keeps_colours_and_order(tmp_path):
    images = torch.full((5, 3, 4, 6), -1.0)
    images[1, 0] = 1  # the second is red
    ddpm.save_grid(str(tmp_path / "grid.png"), images, columns=2)
    picture = matplotlib.image.imread(tmp_path / "grid.png")
    assert picture.shape[:2] == (210, 140)  # 3 rows of 2
    assert picture[35, 100, :3].tolist() == [1, 0, 0] and picture[35, 35, :3].tolist() == [0, 0, 0]


# wrong input


S = ddpm.NoiseSchedule(ddpm.linear_beta(T))
X, LEVEL = torch.zeros(5, 3, 4, 6), torch.zeros(5, dtype=torch.long)
G = torch.Generator()
TAKES_LEVELS = [
    lambda x, t: ddpm.q_step(S, x, t, x),
    lambda x, t: ddpm.q_sample(S, x, t, x),
    lambda x, t: ddpm.x0_from_eps(S, x, t, x),
    lambda x, t: ddpm.eps_from_x0(S, x, t, x),
    lambda x, t: ddpm.velocity(S, x, t, x),
    lambda x, t: ddpm.x0_from_v(S, x, t, x),
    lambda x, t: ddpm.eps_from_v(S, x, t, x),
    lambda x, t: ddpm.posterior_mean(S, x, x, t),
    lambda x, t: ddpm.ddpm_step(S, x, t, x, x),
    lambda x, t: ddpm.ddpm_step_clipped(S, x, t, x, x),
    lambda x, t: ddpm.ddim_step(S, x, t, t - 1, x, 0.0, x),
]


@pytest.mark.parametrize("call", TAKES_LEVELS, ids=range(len(TAKES_LEVELS)))
def test_wrong_levels_and_images_are_refused(call):
    call(X, LEVEL)  # right input passes
    for x, t, given in [
        (X, LEVEL + T, f"in \\[0, {T}\\).*given tensor\\(\\[{T}"),
        (X, LEVEL - 1, "given tensor\\(\\[-"),
        (X, LEVEL.float(), "one integer t"),
        (X, LEVEL[:4], "one integer t"),
        (X.int(), LEVEL, "float images.*given torch.int32"),
        (X[0], LEVEL, "given torch.float32 \\(3, 4, 6\\)"),
    ]:
        with pytest.raises(ValueError, match=given):
            call(x, t)


@pytest.mark.parametrize(
    "call, given",
    [
        (lambda: ddpm.linear_beta(0), "num_steps > 0.*given 0"),
        (lambda: ddpm.linear_beta(10, 0.0), "0 < beta_min.*given 10, 0.0"),
        (lambda: ddpm.linear_beta(10, 0.1, 1.0), "beta_max < 1"),
        (lambda: ddpm.cosine_beta(-3), "num_steps > 0.*given -3"),
        (lambda: ddpm.cosine_beta(10, -1), "offset >= 0.*-1"),
        (lambda: ddpm.NoiseSchedule(torch.tensor([0.1, 1.0])), "in \\(0, 1\\), given"),
        (lambda: ddpm.NoiseSchedule(torch.tensor([0.0, 0.1])), "in \\(0, 1\\), given"),
        (lambda: ddpm.NoiseSchedule(torch.tensor([])), "non-empty"),
        (lambda: ddpm.NoiseSchedule(torch.full((2, 3), 0.1)), "row of numbers"),
        (lambda: ddpm.ddpm_loss(Answer(0.0), S, X.int(), G), "float images.*torch.int32"),
        (lambda: ddpm.ddpm_loss(UNet(1), S, X[:, :, :, :4], G), "\\(B, 1, H, W\\).*given \\(5, 3, 4, 4\\)"),
        (lambda: ddpm.train(Answer(0.0), S, X, 0), "num_steps > 0.*given 0"),
        (lambda: ddpm.train(Answer(0.0), S, X.int(), 5), "float images"),
        (lambda: ddpm.train(Answer(0.0), S, X + 255, 5), "\\[-1, 1\\]"),
        (lambda: ddpm.train(Answer(0.0), S, X, 5, batch_size=0), "batch_size > 0.*given.* 0"),
        (lambda: ddpm.ddim_levels(S, 0), f"in \\[1, {T}\\].*given 0"),
        (lambda: ddpm.ddim_levels(S, T + 1), f"given {T + 1}"),
        (lambda: ddpm.sample_ddim(Answer(0.0), S, X, 0, 0.0, G), "given 0"),
        (lambda: ddpm.sample_ddim(Answer(0.0), S, X, 5, -0.1, G), "eta in \\[0, 1\\].*given -0.1"),
        (lambda: ddpm.sample_ddim(Answer(0.0), S, X, 5, 1.1, G), "eta in \\[0, 1\\].*given 1.1"),
        (lambda: ddpm.ddim_step(S, X, LEVEL, LEVEL + 3, X, 0.0, X), "target < t.*given"),
        (lambda: ddpm.sample_ddim(Answer(0.0), S, X.int(), 5, 0.0, G), "float images"),
        (lambda: list(ddpm.sample_ddpm(Answer(0.0), S, X.int(), G, ddpm.ddpm_step)), "float images"),
        (lambda: ddpm.ema_update(nn.Linear(3, 2), nn.Linear(3, 2), 1.5), "decay in \\[0, 1\\].*1.5"),
        (lambda: ddpm.save_grid("x.png", X[:, :2]), "1 or 3.*given .*\\(5, 2, 4, 6\\)"),
        (lambda: ddpm.save_grid("x.png", X[:0]), "N > 0.*given .*\\(0, 3, 4, 6\\)"),
        (lambda: ddpm.save_grid("x.png", X.byte()), "float images.*given torch.uint8"),
        (lambda: ddpm.train(Answer(0.0), S, torch.full_like(X, torch.nan), 5), "in \\[-1, 1\\] are expected.*nan"),
        (lambda: ddpm.q_step(S, X, LEVEL, X[:1]), "one shape.*\\(5, 3, 4, 6\\), \\(1, 3, 4, 6\\)"),
        (lambda: ddpm.q_sample(S, X, LEVEL, X[:, :1]), "one shape.*, \\(5, 1, 4, 6\\)"),
        (lambda: ddpm.q_sample(S, X, LEVEL, X[None]), "one shape.*, \\(1, 5, 3, 4, 6\\)"),
        (lambda: ddpm.velocity(S, X, LEVEL, X[0]), "one shape.*, \\(3, 4, 6\\)"),
        (lambda: ddpm.x0_from_eps(S, X, LEVEL, X[:1]), "one shape"),
        (lambda: ddpm.x0_from_v(S, X, LEVEL, X[:1]), "one shape"),
        (lambda: ddpm.eps_from_v(S, X, LEVEL, X[:1]), "one shape"),
        (lambda: ddpm.ddpm_step(S, X, LEVEL, X, X[:1]), "one shape"),
        (lambda: ddpm.ddpm_step(S, X, LEVEL, X[:1], X), "one shape"),
        (lambda: ddpm.ddpm_step_clipped(S, X, LEVEL, X, X[:1]), "one shape"),
        (lambda: ddpm.ddpm_step_clipped_large(S, X, LEVEL, X, X[:1]), "one shape"),
        (lambda: ddpm.ddim_step(S, X, LEVEL, LEVEL - 1, X, 0.0, X[:1]), "one shape"),
        (lambda: ddpm.save_grid("x.png", X, 0), "columns > 0.*columns = 0"),
    ],
)
def test_wrong_settings_are_refused(call, given):
    with pytest.raises(ValueError, match=given):
        call()


def test_levels_of_few_bits_are_levels_and_no_mask():
    t = torch.arange(5) + 3
    x, eps = torch.randn(2, 5, 3, 4, 6)
    assert torch.equal(ddpm.q_sample(S, x, t.to(torch.uint8), eps), ddpm.q_sample(S, x, t, eps))


def test_the_average_has_what_is_counted_and_not_learnt():
    slow, fast = (nn.BatchNorm2d(3) for _ in range(2))
    for _ in range(3):
        fast(torch.randn(5, 3, 4, 6) * 4 + 1)
    ddpm.ema_update(slow, fast, 0.9)
    assert torch.equal(slow.running_mean, fast.running_mean) and torch.equal(slow.running_var, fast.running_var)
    assert slow.num_batches_tracked == 3


# the clipped step with the larger variance


def test_the_large_clipped_step_equals_diffusers(schedule, agrees):
    theirs = diffusers_ddpm(True)
    theirs.variance_type = "fixed_large"
    theirs.register_to_config(variance_type="fixed_large")
    for level in (0, 1, 17, T - 1):
        xt = 2 * torch.randn(5, 3, 4, 6, dtype=torch.float64)
        eps, t = torch.randn_like(xt), torch.full((5,), level)
        noise = torch.randn(xt.shape, generator=torch.Generator().manual_seed(level), dtype=xt.dtype)
        out = theirs.step(eps, level, xt, generator=torch.Generator().manual_seed(level)).prev_sample
        ours = ddpm.ddpm_step_clipped_large(schedule, xt, t, eps, noise)
        agrees(ours, out, "diffusers.DDPMScheduler", 1e-10)
        if level == 1:  # the last step adds no noise, whatever the variance; at later levels they are near each other
            assert (ddpm.ddpm_step_clipped(schedule, xt, t, eps, noise) - out).abs().max() > 1e-2
    quiet = ddpm.ddpm_step_clipped_large(schedule, xt, torch.zeros(5, dtype=torch.long), eps, 0 * noise)
    assert torch.equal(ddpm.ddpm_step_clipped_large(schedule, xt, torch.zeros(5, dtype=torch.long), eps, noise), quiet)


# the step back without knowing x0, and the bound


def on_a_line(schedule, level: int, means, deviation: float):
    """q(x_level) on a fine grid, for one pixel that is one of the means, blurred; -1 is the clean pixel."""
    line = torch.linspace(-6, 6, 40_001, dtype=torch.float64)
    kept = torch.cat([torch.ones(1, dtype=torch.float64), schedule.alpha_bar])[level + 1]
    spread = (kept * deviation**2 + 1 - kept).sqrt()
    density = torch.distributions.Normal(kept.sqrt() * torch.tensor(means, dtype=torch.float64), spread)
    return line, density.log_prob(line[:, None]).exp().mean(1)


def moments(line, density):
    """Mean and variance of a density on a grid, up to its factor."""
    density = density / torch.trapezoid(density, line)
    mean = torch.trapezoid(density * line, line)
    return mean, torch.trapezoid(density * (line - mean) ** 2, line)


@pytest.mark.equation("ddpm-true-variance", of=ddpm.posterior_mean)
def test_doubt_about_x0_widens_the_step_back(schedule, formula):
    """Var(x_{t-1} | x_t), integrated on a grid, against beta_tilde plus the weighted variance of x_0 given x_t."""
    t, seen, true, doubt = 17, torch.tensor(0.3), [], []
    keep, add = (1 - schedule.beta[t]).sqrt(), schedule.beta[t].sqrt()
    for means, deviation in (((-1.0, 1.0), 0.1), ((0.0,), 1.0), ((0.4,), 1e-2)):
        line, before = on_a_line(schedule, t - 1, means, deviation)
        likely = before * torch.distributions.Normal(keep * line, add).log_prob(seen).exp()
        true.append(moments(line, likely)[1])
        line, clean = on_a_line(schedule, -1, means, deviation)
        jump = torch.distributions.Normal(schedule.signal[t] * line, schedule.noise[t])
        doubt.append(moments(line, clean * jump.log_prob(seen).exp())[1])
    true, doubt = torch.stack(true), torch.stack(doubt)
    names = {r"\tilde\beta_t": schedule.beta_tilde[t], r"\bar\alpha_{t-1}": schedule.alpha_bar[t - 1]}
    names |= {r"\beta_t": schedule.beta[t], r"\bar\alpha_t": schedule.alpha_bar[t]}
    names |= {r"\operatorname{Var}(x_{t-1} \mid x_t)": true, r"\operatorname{Var}(x_0 \mid x_t)": doubt}
    formula("ddpm-true-variance").holds(names, tolerance=1e-6)
    one = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    weight = ddpm.posterior_mean(schedule, one, 0 * one, torch.tensor([t])).squeeze()  # the factor of x_0 in the mean
    torch.testing.assert_close(schedule.beta_tilde[t] + weight**2 * doubt, true, rtol=1e-6, atol=0)
    torch.testing.assert_close(true[1], schedule.beta[t], rtol=1e-6, atol=0)  # Gaussian noise of variance 1
    torch.testing.assert_close(true[2], schedule.beta_tilde[t], rtol=1e-3, atol=0)  # nearly a single point
    assert true[2] < 0.97 * schedule.beta[t]


@pytest.mark.equation("ddpm-terms", of=ddpm.posterior_mean)
def test_the_bound_is_the_sum_of_its_three_kinds_of_terms(formula):
    """For one pixel, three levels and a step linear in x_t, both sides and -log p(x_0) itself can be computed."""
    schedule = ddpm.NoiseSchedule(torch.tensor([0.1, 0.2, 0.4]))
    normal, one = torch.distributions.Normal, torch.ones(1, 1, 1, 1, dtype=torch.float64)
    slope, offset, deviation = [0.9, 0.4, 0.45], [0.1, 0.7, 0.6], [0.6, 0.4, 0.6]  # of the model's steps
    x0 = 1.2 * one

    def model(t, xt):
        return normal(slope[t] * xt + offset[t], deviation[t])

    generator = torch.Generator().manual_seed(0)
    count = 400_000
    path = [x0.expand(count, 1, 1, 1)]
    ratio = torch.zeros(count, dtype=torch.float64)
    for t in range(3):  # left side: walk up from x_0, and weigh each path
        eps = torch.randn(count, 1, 1, 1, generator=generator, dtype=torch.float64)
        level = torch.full((count,), t)
        path.append(ddpm.q_step(schedule, path[-1], level, eps))
        forward = normal(ddpm.q_step(schedule, path[-2], level, 0 * eps), schedule.beta[t].sqrt())
        ratio += (forward.log_prob(path[-1]) - model(t, path[-1]).log_prob(path[-2])).flatten()
    ratio -= normal(0.0, 1.0).log_prob(path[-1]).flatten()
    left = ratio.mean()

    last = normal(schedule.signal[-1] * x0, schedule.noise[-1])
    start, steps = torch.distributions.kl_divergence(last, normal(0 * one, one)).squeeze(), {}
    for t in (1, 2):  # the steps, each from x_t alone
        mean = ddpm.posterior_mean(schedule, x0, path[t + 1], torch.full((count,), t))
        posterior = normal(mean, schedule.beta_tilde[t].sqrt())
        steps[t + 1] = torch.distributions.kl_divergence(posterior, model(t, path[t + 1])).flatten()  # the formula's t
    finish = model(0, path[1]).log_prob(x0).flatten()
    apart = ratio - (start + steps[2] + steps[3] - finish)  # path by path; 0 on average
    error = apart.std() / count**0.5
    whole = {"L": left, r"\mathrm{KL}(q(x_T \mid x_0)\Vert p(x_T))": start, "T": 3, r"\mathbb{E}_q": torch.mean}
    whole |= {r"\mathrm{KL}(q(x_{t-1}\mid x_t, x_0)\Vert p_\theta(x_{t-1} \mid x_t))": lambda t: steps[int(t)]}
    whole |= {r"\log p_\theta(x_0 \mid x_1)": finish}
    formula("ddpm-terms").holds(whole, tolerance=float(6 * error))
    torch.testing.assert_close(apart.mean(), torch.zeros_like(left), rtol=0, atol=float(5 * error))
    mean, variance = 0.0, 1.0  # the model's own x_0 is Gaussian
    for t in (2, 1, 0):
        mean, variance = slope[t] * mean + offset[t], slope[t] ** 2 * variance + deviation[t] ** 2
    surprise = -normal(torch.tensor(mean), torch.tensor(variance).sqrt()).log_prob(x0.float()).squeeze()
    assert left - 6 * error > surprise  # it is a bound, and no tight one


def data_points() -> torch.Tensor:
    """Five clean images (5, 2, 1, 1): what q is made of in the next tests."""
    return torch.tensor([[-1.0, 0.2], [0.6, -0.7], [0.9, 0.8], [-0.3, 0.5], [0.1, -0.1]]).double()[:, :, None, None]


def best_answer(schedule, xt, t):
    """E[eps | x_t] for images x_t (B, 2, 1, 1), where x_0 is one of the five points: each one's eps, weighted."""
    each = torch.stack([ddpm.eps_from_x0(schedule, xt, t, x0.expand_as(xt)) for x0 in data_points()])
    weight = (-each.square().sum((2, 3, 4)) / 2).softmax(0)  # how well each point fits x_t
    return (weight[:, :, None, None, None] * each).sum(0)


@pytest.mark.equation("ddpm-score", of=ddpm.eps_from_x0)
def test_the_expected_noise_is_the_score(schedule, formula):
    """E[eps | x_t] against the gradient of log q(x_t), which autograd takes of the mixture's density."""
    xt = torch.randn(7, 2, 1, 1, dtype=torch.float64, requires_grad=True)
    t = torch.tensor([0, 1, 5, 17, 25, 30, T - 1])
    signal, noise = (schedule.pick(table, t, xt) for table in (schedule.signal, schedule.noise))
    component = torch.distributions.Normal(signal * data_points()[:, None], noise).log_prob(xt).sum((2, 3, 4))  # (5, 7)
    (score,) = torch.autograd.grad(component.logsumexp(0).sum(), xt)
    best = best_answer(schedule, xt.detach(), t)
    names = {r"\mathbb{E}[\epsilon \mid x_t]": best.flatten(1), r"\nabla_{x_t} \log q(x_t)": score.flatten(1)}
    formula("ddpm-score").holds(names | {r"\bar\alpha_t": schedule.pick(schedule.alpha_bar, t, xt).flatten(1)})
    torch.testing.assert_close(best, -noise * score)
    assert (best - noise * score).abs().max() > 0.1  # the sign matters


@pytest.mark.equation("ddpm-optimum", of=ddpm.ddpm_loss)
def test_the_loss_splits_into_what_can_be_learnt_and_what_cannot(schedule, formula):
    class Wrong(nn.Module):
        """The best answer, and something on top."""

        def forward(self, xt, t):
            self.asked = xt, t
            return best_answer(schedule, xt, t) + 0.3 * xt.sin() + 0.1

    model, count = Wrong(), 200_000
    x0 = data_points().repeat(count // 5, 1, 1, 1)
    loss = ddpm.ddpm_loss(model, schedule, x0, torch.Generator().manual_seed(0))
    xt, t = model.asked
    eps, best = ddpm.eps_from_x0(schedule, xt, t, x0), best_answer(schedule, xt, t)
    learnt, left = (model(xt, t) - best).square(), (eps - best).square()
    error = (2 * (eps - best) * (best - model(xt, t))).std() / (2 * count) ** 0.5  # of the part that averages to 0
    names = {r"\epsilon": eps.flatten(1), r"\epsilon_\theta(x_t, t)": model(xt, t).flatten(1)}
    names |= {r"\mathbb{E}": torch.mean, r"\mathbb{E}[\epsilon \mid x_t]": best.flatten(1)}
    formula("ddpm-optimum").holds(names, tolerance=float(10 * error))  # of two numbers each
    torch.testing.assert_close(loss, learnt.mean() + left.mean(), rtol=0, atol=float(5 * error))
    assert left.mean() > 0.1 and learnt.mean() > 10 * error  # both parts are there


# what the page says


SECTION = re.compile(r"^## By hand, for one pixel\n(.*?)^## ", re.M | re.S)


@pytest.mark.claim("ddpm-by-hand")
def test_the_worked_example_is_what_the_code_computes():
    """Every number of the table, from the page's code; each has to stand there in these digits."""
    table = SECTION.search((ROOT / "docs/posts/Diffusion.md").read_text(encoding="utf-8"))[1]
    schedule = ddpm.NoiseSchedule(torch.tensor([0.1, 0.2, 0.4], dtype=torch.float64))
    one = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    t, first, clean = torch.tensor([1]), torch.tensor([0]), torch.tensor([-1])
    eps, answer, zero = -0.5 * one, -0.4 * one, 0 * one
    xt = ddpm.q_sample(schedule, one, t, eps)
    x0 = ddpm.x0_from_eps(schedule, xt, t, answer)
    mean = ddpm.posterior_mean(schedule, x0, xt, t)
    torch.testing.assert_close(mean, ddpm.ddpm_step(schedule, xt, t, answer, zero))
    variance = schedule.beta_tilde[1]
    weight = 0.2**2 / (2 * variance * 0.8 * (1 - 0.72))
    rows = {
        "the tables": [f"{a:.3g}" for a in schedule.alpha_bar],
        "how much signal": [schedule.signal[1], schedule.noise[1]],
        "noise it": [xt],
        "the network answers": [f"{(eps - answer).square().item():.2f}"],
        "the implied picture": [x0],
        "the variance": [variance],
        "DDPM, through": [
            ddpm.posterior_mean(schedule, one, zero, t),
            ddpm.posterior_mean(schedule, zero, one, t),
            mean,
        ],
        "DDPM, as": [mean],
        "and fresh noise": [ddpm.ddpm_step(schedule, xt, t, answer, one)],
        "DDIM to level 1": [ddpm.ddim_step(schedule, xt, t, first, answer, 0.0, zero)],
        "DDIM to the clean": [ddpm.ddim_step(schedule, xt, t, clean, answer, 0.0, zero)],
        "the step's term": [f"{weight:.2f}", weight * (eps - answer).square()],
    }
    lines = {line.split("|")[1].strip(): line for line in table.splitlines() if line.startswith("| ")}
    assert len(lines) == len(rows) + 2  # the heading and the rule
    for name, numbers in rows.items():
        (line,) = (line for start, line in lines.items() if start.startswith(name))
        for number in numbers:
            text = number if isinstance(number, str) else f"{number.item():.4f}"
            assert text in line, f"{text} is not in: {line}"


@pytest.mark.claim("ddpm-precision")
def test_low_precision_loses_the_clean_end():
    """1 - alpha_bar at the first level: float32 keeps three digits less than for a number of its size."""
    exact = ddpm.linear_beta()[0]
    single = 1 - (1 - exact).float()
    lost = abs(single.double() - exact) / exact
    assert 1e-5 < lost < 1e-3  # a float32 is good to 6e-8
    assert 1 - (1 - exact).to(torch.bfloat16) == 0


@pytest.mark.claim("ddpm-variances-near")
def test_the_two_variances_differ_at_the_clean_end_only(results):
    schedule = ddpm.NoiseSchedule(ddpm.linear_beta())
    far = schedule.beta_tilde < 0.9 * schedule.beta
    count = results("Diffusion")["variance.far_levels"]
    assert 0 < count < 20 and far[: int(count)].all() and not far[int(count) :].any()


@pytest.mark.claim("ddpm-fresh-noise")
def test_a_step_adds_more_noise_than_it_takes_off():
    """At all but the last two of the thousand steps; the mean alone narrows noise of variance 1, and both keep it."""
    schedule = ddpm.NoiseSchedule(ddpm.linear_beta())
    one, zero = torch.ones(1000, 1, 1, 1, dtype=torch.float64), torch.zeros(1000, 1, 1, 1, dtype=torch.float64)
    levels = torch.arange(1000)
    taken = -ddpm.ddpm_step(schedule, zero, levels, one, zero).flatten()  # the factor of the predicted noise
    added = ddpm.ddpm_step(schedule, zero, levels, zero, one).flatten()  # the factor of the fresh noise
    assert (added[2:] > taken[2:]).all() and (added[:2] < taken[:2]).all()
    answer = schedule.noise[:, None, None, None] * one  # E[eps | x_t = 1], if x_0 is Gaussian noise of variance 1
    kept = ddpm.ddpm_step(schedule, one, levels, answer, zero).flatten() ** 2
    assert (kept < 1).all()
    torch.testing.assert_close((kept + added**2)[100:], torch.ones(900, dtype=torch.float64), rtol=0, atol=1e-3)


@pytest.mark.claim("ddpm-learned-range")
def test_diffusers_learned_range_lies_between_the_two_logarithms(agrees):
    """The second half of the channels says where; -1 is beta_tilde, 1 is beta."""
    schedule, level = ddpm.NoiseSchedule(ddpm.linear_beta()), 5
    theirs = DDPMScheduler(variance_type="learned_range", clip_sample=False)
    xt, eps = torch.randn(2, 5, 3, 4, 6)
    where = torch.rand(5, 3, 4, 6) * 2 - 1
    out, quiet = (
        theirs.step(torch.cat([eps, where], 1), t, xt, generator=torch.Generator().manual_seed(0)) for t in (level, 0)
    )
    noise = torch.randn(xt.shape, generator=torch.Generator().manual_seed(0))
    t = torch.full((5,), level)
    share = (where + 1) / 2
    log = share * schedule.beta[level].log() + (1 - share) * schedule.beta_tilde[level].log()
    ours = ddpm.ddpm_step(schedule, xt, t, eps, torch.zeros_like(xt)) + (log / 2).exp() * noise
    agrees(ours, out.prev_sample, "diffusers.DDPMScheduler", 2e-3)
    assert (ddpm.ddpm_step(schedule, xt, t, eps, noise) - out.prev_sample).abs().max() > 3e-3


@pytest.mark.claim("ddpm-rescaled")
def test_adam_does_not_notice_a_rescaled_loss():
    schedule, x0 = ddpm.NoiseSchedule(ddpm.linear_beta()), digits()[0][:200]

    def moved(optimizer, factor: float, **settings) -> torch.Tensor:
        """How far each weight comes in 25 steps on the loss times a factor."""
        torch.manual_seed(0)
        model = UNet(1, (8, 16), groups=4)
        start = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
        steps, generator = optimizer(model.parameters(), **settings), torch.Generator().manual_seed(0)
        for _ in range(25):
            loss = factor * ddpm.ddpm_loss(model, schedule, x0, generator)
            steps.zero_grad()
            loss.backward()
            steps.step()
        return nn.utils.parameters_to_vector(model.parameters()).detach() - start

    adam = moved(torch.optim.Adam, 1, lr=2e-3)
    far = adam.norm()
    assert (moved(torch.optim.Adam, 64, lr=2e-3) - adam).norm() < 0.05 * far  # the sum over 64 pixels
    assert (moved(torch.optim.Adam, 1, lr=16e-3) - adam).norm() > far  # another learning rate
    plain = moved(torch.optim.SGD, 1, lr=1e-3)
    rescaled = moved(torch.optim.SGD, 64, lr=1e-3 / 64)
    torch.testing.assert_close(plain, rescaled, rtol=1e-3, atol=1e-6)  # there it is the learning rate
    assert moved(torch.optim.SGD, 64, lr=1e-3).norm() > 10 * plain.norm()


@pytest.mark.claim("ddpm-range")
def test_pixels_from_0_to_1_halve_the_picture():
    x0 = digits()[0]
    there = (x0 + 1) / 2
    torch.testing.assert_close(there.var(), x0.var() / 4)
    assert there.min() == 0 and there.max() == 1


@pytest.mark.claim("ddpm-clip-default")
def test_diffusers_clips_by_default_and_takes_the_smaller_variance(agrees):
    """Its default scheduler is ddpm_step_clipped; two settings turn it into the other two."""
    config = DDPMScheduler().config
    assert config.clip_sample is True and config.variance_type == "fixed_small"
    schedule, generator = ddpm.NoiseSchedule(ddpm.linear_beta()), torch.Generator().manual_seed(0)
    xt = 2 * torch.randn(5, 3, 4, 6, generator=generator)
    eps = torch.randn(xt.shape, generator=generator)
    settings = {"ddpm_step_clipped": {}, "ddpm_step_clipped_large": {"variance_type": "fixed_large"}}
    settings |= {"ddpm_step": {"clip_sample": False}}
    for name, setting in settings.items():
        for level in (0, 1, 300, 999):
            noise = torch.randn(xt.shape, generator=torch.Generator().manual_seed(level))
            theirs = DDPMScheduler(**setting).step(eps, level, xt, generator=torch.Generator().manual_seed(level))
            for other in settings:
                ours = getattr(ddpm, other)(schedule, xt, torch.full((5,), level), eps, noise)
                if other == name:
                    agrees(ours, theirs.prev_sample, "diffusers.DDPMScheduler", 2e-3)  # its tables are float32
                elif level == 1:
                    assert (ours - theirs.prev_sample).abs().max() > 5e-3, (name, other)


@pytest.mark.claim("ddpm-leading")
def test_diffusers_counts_up_by_default():
    """From 980 with 50 steps and 800 with 5; "trailing" is the page's choice."""
    for count, first in ((50, 980), (5, 800)):
        theirs = DDIMScheduler()
        theirs.set_timesteps(count)
        assert theirs.config.timestep_spacing == "leading" and theirs.timesteps[0] == first
        theirs = DDIMScheduler(timestep_spacing="trailing")
        theirs.set_timesteps(count)
        schedule = ddpm.NoiseSchedule(ddpm.linear_beta())
        assert theirs.timesteps.tolist() == ddpm.ddim_levels(schedule, count)[:-1]
    assert DDPMScheduler().config.timestep_spacing == "leading"
    for other in (EulerDiscreteScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler):
        assert other().config.timestep_spacing == "linspace"


@pytest.mark.claim("ddpm-clipped-alone")
def test_diffusers_keeps_the_networks_noise_beside_the_clipped_picture():
    generator = torch.Generator().manual_seed(0)
    xt, eps = (2 * torch.randn(5, 3, 4, 6, generator=generator) for _ in range(2))
    theirs = DDIMScheduler(beta_schedule="squaredcos_cap_v2", timestep_spacing="trailing")
    theirs.set_timesteps(50)
    schedule, t = ddpm.NoiseSchedule(ddpm.cosine_beta()), torch.full((5,), 979)
    x0 = ddpm.x0_from_eps(schedule, xt, t, eps).clamp(-1, 1)
    there = schedule.alpha_bar[959].float()
    for setting, noise in ((False, eps), (True, ddpm.eps_from_x0(schedule, xt, t, x0))):
        step = theirs.step(eps, 979, xt, use_clipped_model_output=setting).prev_sample
        torch.testing.assert_close(step, there.sqrt() * x0 + (1 - there).sqrt() * noise, rtol=1e-4, atol=1e-4)


@pytest.mark.claim("ddpm-half-noise")
def test_half_precision_noise_is_other_noise():
    for dtype in (torch.bfloat16, torch.float16):
        full = torch.randn(1000, generator=torch.Generator().manual_seed(0))
        half = torch.randn(1000, generator=torch.Generator().manual_seed(0), dtype=dtype)
        assert (half.float() - full.to(dtype).float()).abs().max() > 1
