"""The general way back, the likelihood, and Karras's ladder and network, against closed forms and diffusers."""

import math

import pytest
import torch
from diffusers import EDMEulerScheduler
from diffusers.schedulers.deprecated import ScoreSdeVpScheduler
from torch import nn

from snippets import ddpm, ncsn, score_sde
from snippets.data.toy2d import toy2d

LADDER = ncsn.geometric_ladder(4.0, 0.05, 12)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gaussian(s: float, sigma):
    """The score of noised data N(0, s^2)."""
    return lambda x, level: -x / (s**2 + sigma[level][:, None] ** 2)


def exact(sigma):
    toy = toy2d()
    return lambda x, level: toy.score(x, 1.0, float(sigma[level[0]])).to(x.dtype)


def axes(x):
    return x.shape[1] ** 0.5 * torch.eye(x.shape[1], dtype=x.dtype)[:, None].expand(-1, *x.shape)


# the way back


@pytest.mark.equation("ncsn-general", of=score_sde.back_step)
def test_back_step_is_its_formula(formula):
    x, drift, score, z = (normal(5, 3, seed=seed) for seed in range(4))
    moved = score_sde.back_step(x, drift, score, 1.3, 0.2, 0.6, z)
    names = {r"x \leftarrow": moved, "x": x, "f(x, t)": drift, "g(t)": 1.3, r"\Delta t": 0.2, "z": z}
    formula("ncsn-general").holds(names | {r"\nabla_x \log p_t(x)": score, r"\lambda": 0.6})


def test_back_step_equals_diffusers_vp_predictor(agrees):
    """DDPM's process in continuous time: f = -beta x / 2, g^2 = beta. Theirs takes a noise and divides it itself."""
    theirs = ScoreSdeVpScheduler(beta_min=0.1, beta_max=20)
    theirs.set_timesteps(50)
    x, eps, time = normal(5, 3), normal(5, 3, seed=1), torch.tensor(0.6, dtype=torch.float64)
    out, mean = theirs.step_pred(eps, x, time, generator=torch.Generator().manual_seed(2))
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=x.dtype)
    beta = 0.1 + 0.6 * 19.9
    deviation = math.sqrt(1 - math.exp(-0.5 * 0.6**2 * 19.9 - 0.6 * 0.1))
    ours = [
        score_sde.back_step(x, -beta * x / 2, -eps / deviation, math.sqrt(beta), 1 / 50, 1.0, z) for z in (noise, 0 * x)
    ]
    agrees(ours[0], out, "diffusers.schedulers.deprecated.ScoreSdeVpScheduler", 1e-10)
    agrees(ours[1], mean, "diffusers.schedulers.deprecated.ScoreSdeVpScheduler", 1e-10)
    half = score_sde.back_step(x, -beta * x / 2, -eps / deviation, math.sqrt(beta), 1 / 50, 0.0, noise)
    assert (half - mean).abs().max() > 1e-2  # the ODE follows the score half as far


@pytest.mark.claim("ncsn-general-cases")
def test_the_steps_of_the_page_are_cases_of_the_general_one():
    x, score, z = (normal(5, 3, seed=seed) for seed in range(3))
    high, low = 1.7, 1.2
    g = math.sqrt(high**2 - low**2)  # over a time of 1
    general = score_sde.back_step(x, 0 * x, score, g, 1.0, 1.0, z)
    torch.testing.assert_close(general, ncsn.reverse_step(x, score, high, low, z))
    quiet, near = score_sde.back_step(x, 0 * x, score, g, 1.0, 0.0, z), ncsn.ode_step(x, score, high, low)
    torch.testing.assert_close(quiet - x, (near - x) * (high + low) / (2 * high))  # the same in the limit
    schedule, t = ddpm.NoiseSchedule(ddpm.linear_beta()), torch.full((5,), 300)
    beta, deviation = schedule.beta[300].item(), schedule.noise[300].item()
    general = score_sde.back_step(x, -beta * x / 2, score, math.sqrt(beta), 1.0, 1.0, z)
    pictures = (one.view(5, 1, 1, 3) for one in (x, -deviation * score, z))
    x4, eps, z4 = pictures
    step = ddpm.ddpm_step(schedule, x4, t, eps, z4).view(5, 3)
    assert (general - step).abs().max() < 3 * beta**1.5 < 1e-2 < (general - x).abs().max()  # to the first order


@pytest.mark.claim("ncsn-general-shares")
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("process", ["exploding", "preserving"])
def test_every_share_of_the_noise_draws_the_mixture(share, process):
    toy, count, steps, generator = toy2d(), 3000, 400, torch.Generator().manual_seed(0)
    x = torch.randn(count, 2, generator=generator, dtype=torch.float64)
    if process == "exploding":
        sigma = score_sde.power_ladder(20.0, 0.02, steps, 7.0).tolist()
        x, signals = 20 * x, [1.0] * steps
        plan = [(math.sqrt(a**2 - b**2), 1.0, a) for a, b in zip(sigma, sigma[1:], strict=False)]
    else:
        times = torch.linspace(1, 1e-3, steps, dtype=torch.float64).tolist()
        bars = [math.exp(-0.5 * t**2 * 19.9 - t * 0.1) for t in times]
        signals = [math.sqrt(bar) for bar in bars]
        pairs = zip(times, times[1:], bars, strict=False)
        plan = [(math.sqrt(0.1 + t * 19.9), t - lower, math.sqrt(1 - bar)) for t, lower, bar in pairs]
    for (g, dt, noise), signal in zip(plan, signals, strict=False):
        drift = -(g**2) * x / 2 if process == "preserving" else 0 * x
        z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        x = score_sde.back_step(x, drift, toy.score(x, signal, noise), g, dt, share, z)
    weights = toy.log_posterior(x, 1.0, 0.0).exp().mean(dim=0)
    assert (weights - toy.weights).abs().max() < 0.03, weights
    near = (x[:, None] - toy.means).square().sum(2).argmin(1)
    widths = torch.stack([x[near == k].std(0).mean() for k in range(3)]) / toy.deviations
    assert (widths - 1).abs().max() < 0.12, widths


# likelihood


@pytest.mark.equation("ncsn-divergence", of=score_sde.divergence)
def test_divergence_by_probes_is_the_trace(formula):
    matrix, x = normal(3, 3), normal(5, 3, seed=1)
    value, exactly = score_sde.divergence(lambda x: (x @ matrix.T).sin(), x, axes(x))
    torch.testing.assert_close(value, (x @ matrix.T).sin())
    jacobians = torch.stack([torch.autograd.functional.jacobian(lambda y: (y @ matrix.T).sin(), one) for one in x])
    trace = jacobians.diagonal(dim1=1, dim2=2).sum(1)
    torch.testing.assert_close(exactly, trace)
    signs = torch.randint(0, 2, (4000, *x.shape), generator=torch.Generator().manual_seed(2)).double() * 2 - 1
    spread = score_sde.divergence(lambda x: (x @ matrix.T).sin(), x, signs)[1]
    assert (spread - trace).abs().max() < 0.15 < (score_sde.divergence(torch.sin, x, signs)[1] - trace).abs().max()
    probe = axes(x)[:, 0]  # of the first example: all three
    mean = lambda value: value.mean()  # noqa: E731
    each = torch.stack([v @ jacobians[0] @ v for v in probe])
    formula("ncsn-divergence").holds(
        {r"\nabla \cdot u": exactly[0], r"\mathbb{E}_\xi": mean, r"\xi^\top J\, \xi": each}
    )


def integrated(s: float, x, high: float, low: float):
    """log p at low of what the ODE carries there from N(0, high^2), for the score of N(0, s^2): closed form."""
    growth = math.sqrt((s**2 + high**2) / (s**2 + low**2))
    wide = torch.distributions.Normal(0.0, high).log_prob(x * growth) + math.log(growth)
    return wide.sum(dim=1)


@pytest.mark.equation("ncsn-likelihood", of=score_sde.log_likelihood)
def test_likelihood_of_gaussian_data(formula):
    s, x, sigma = 0.8, normal(5, 3), ncsn.geometric_ladder(4.0, 0.05, 400)
    found, noise = score_sde.log_likelihood(gaussian(s, sigma), sigma, x, axes(x))
    growth = math.sqrt((s**2 + 16) / (s**2 + 0.05**2))
    torch.testing.assert_close(noise, x * growth, rtol=1e-4, atol=0)
    torch.testing.assert_close(found, integrated(s, x, 4.0, 0.05), rtol=1e-4, atol=1e-4)
    normal_log = torch.distributions.Normal(0.0, 4.0).log_prob(noise).sum(dim=1)
    gained = 3 * math.log(growth)
    names = {
        r"\log p_\theta(x)": found,
        r"\log \mathcal{N}\big(x(\sigma_1);\; 0,\; \sigma_1^2 I\big)": normal_log,
        r"\int_{\sigma_L}^{\sigma_1} \nabla \cdot u\big(x(\sigma), \sigma\big)\, d\sigma": gained,
    }
    formula("ncsn-likelihood").holds(names, tolerance=1e-4)


def test_likelihood_of_the_mixture_and_what_the_start_costs():
    toy, sigma = toy2d(), ncsn.geometric_ladder(50.0, 0.05, 120)
    x = toy.sample(40, torch.Generator().manual_seed(0))[0]
    true = toy.log_density(x, 1.0, 0.05)
    found, _ = score_sde.log_likelihood(exact(sigma), sigma, x, axes(x))
    assert (found - true).abs().max() < 0.05
    signs = torch.randint(0, 2, (3, *x.shape), generator=torch.Generator().manual_seed(1)).double() * 2 - 1
    guessed, _ = score_sde.log_likelihood(exact(sigma), sigma, x, signs)
    assert abs((guessed - true).mean()) < 0.3 and (guessed - true).abs().max() > 0.05  # right on average
    near = ncsn.geometric_ladder(2.0, 0.05, 120)  # from too near, the start is not Gaussian
    assert (score_sde.log_likelihood(exact(near), near, x, axes(x))[0] - true).abs().max() > 0.2


# Karras's ladder and network


@pytest.mark.equation("ncsn-power", of=score_sde.power_ladder)
def test_power_ladder_equals_diffusers(agrees, formula):
    ladder = score_sde.power_ladder(80.0, 0.002, 9, 7.0)
    names = {r"\sigma_i": ladder, r"\sigma_1": 80.0, r"\sigma_L": 0.002, "i": torch.arange(1, 10), "L": 9}
    formula("ncsn-power").holds(names | {r"\rho": 7.0})
    theirs = EDMEulerScheduler()
    theirs.set_timesteps(9)
    agrees(ladder, theirs.sigmas[:-1].double(), "diffusers.EDMEulerScheduler", 1e-5)
    assert (ladder - ncsn.geometric_ladder(80.0, 0.002, 9)).abs().max() > 1


@pytest.mark.claim("ncsn-power-limits")
def test_power_ladder_is_even_or_geometric_in_its_limits():
    torch.testing.assert_close(score_sde.power_ladder(4.0, 0.05, 12, 1.0), torch.linspace(4.0, 0.05, 12).double())
    torch.testing.assert_close(score_sde.power_ladder(4.0, 0.05, 12, 1e6), LADDER, rtol=1e-4, atol=0)
    assert (score_sde.power_ladder(4.0, 0.05, 12, 7.0) - LADDER)[1:-1].min() > 0  # between the two: longer steps below


class Given(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x, level):
        return self.function(x, level)


@pytest.mark.equation("ncsn-karras", of=score_sde.KarrasNetwork)
def test_karras_network_equals_diffusers(agrees, formula):
    x, level, s = normal(5, 3), torch.tensor([0, 3, 5, 9, 11]), 0.6
    inner = lambda x, level: x.sin() + 0.1 * level.double().view(-1, 1)  # noqa: E731
    score = score_sde.KarrasNetwork(Given(inner), LADDER, s)(x, level)
    sigma = LADDER[level][:, None]
    clean = x + sigma**2 * score  # Tweedie's formula
    names = {r"\hat x_\theta(x, \sigma_i)": clean, "x": x, "s": s, r"\sigma_i": sigma, "i": level, r"F_\theta": inner}
    formula("ncsn-karras").holds(names)
    theirs, out = EDMEulerScheduler(sigma_data=s), []
    for row, one in zip(x, level, strict=True):
        noise = LADDER[one]
        answer = inner(theirs.precondition_inputs(row[None], noise), one[None])
        out.append(theirs.precondition_outputs(row[None], answer, noise))
    agrees(clean, torch.cat(out), "diffusers.EDMEulerScheduler", 1e-10)
    ours = ncsn.ScoreNetwork(Given(inner), LADDER, s)(x, level)
    assert (ours - score).abs().max() > 0.1


@pytest.mark.claim("ncsn-karras-unit")
def test_what_the_inner_network_has_to_say_has_variance_one():
    """On Gaussian data; the linear guess alone is right there, with nothing left but what cannot be known."""
    s, x0, eps = 0.8, 0.8 * normal(200_000, 1), normal(200_000, 1, seed=1)
    for sigma in (0.05, 1.0, 20.0):
        x, variance = x0 + sigma * eps, s**2 + sigma**2
        wanted = (x0 - s**2 / variance * x) / (sigma * s / math.sqrt(variance))
        assert abs(wanted.var() - 1) < 0.02 and abs((wanted * x).mean()) < 0.02 * sigma + 0.02
        other = (x0 - x) / sigma  # what a network that predicts the noise has to say, with the sign turned
        assert abs(other.var() - 1) < 0.02
    model = score_sde.KarrasNetwork(Given(lambda x, level: 0 * x), LADDER, s)
    level = torch.tensor([0, 3, 5, 9, 11])
    torch.testing.assert_close(model(x0[:5], level), gaussian(s, LADDER)(x0[:5], level))  # says 0, and is right


def test_karras_network_trains_and_draws():
    toy = toy2d()
    x0 = toy.sample(5000, torch.Generator().manual_seed(0))[0].float()
    torch.manual_seed(1)
    model = score_sde.KarrasNetwork(ncsn.PointNetwork(12, 32), LADDER, float(x0.std()))
    model = ncsn.train(model, x0, 250, batch_size=64, learning_rate=1e-2)
    *_, drawn = ncsn.sample_ode(model, LADDER, 4 * torch.randn(500, 2))
    assert (toy.log_posterior(drawn, 1.0, 0.0).exp().mean(dim=0) - toy.weights).abs().max() < 0.12


# wrong input


X = torch.zeros(5, 3)


@pytest.mark.parametrize(
    "call, given",
    [
        (lambda: score_sde.back_step(X, X, X, 0.0, 0.1, 1.0, X), "g > 0, .* expected, given 0.0, 0.1"),
        (lambda: score_sde.back_step(X, X, X, 1.0, -0.1, 1.0, X), "given 1.0, -0.1"),
        (lambda: score_sde.back_step(X, X, X, 1.0, 0.1, -1.0, X), "share >= 0.*given 1.0, 0.1, -1.0"),
        (lambda: score_sde.back_step(X, X, X[:1], 1.0, 0.1, 1.0, X), "of one shape are expected.*\\(1, 3\\)"),
        (lambda: score_sde.back_step(X, X[:, :1], X, 1.0, 0.1, 1.0, X), "of one shape"),
        (lambda: score_sde.back_step(X, X, X, 1.0, 0.1, 1.0, X[:2]), "of one shape"),
        (lambda: score_sde.divergence(torch.sin, X, X[None, :1]), "\\(P, .*expected, given \\(1, 1, 3\\)"),
        (lambda: score_sde.divergence(torch.sin, X, X[None][:0]), "given \\(0, 5, 3\\)"),
        (lambda: score_sde.log_likelihood(torch.sin, LADDER.flip(0), X, X[None]), "a descending ladder"),
        (lambda: score_sde.power_ladder(0.1, 1.0, 5, 7.0), "sigma_max > sigma_min > 0.*given 0.1, 1.0, 5, 7.0"),
        (lambda: score_sde.power_ladder(1.0, 0.1, 1, 7.0), "num_levels > 1.*1.0, 0.1, 1"),
        (lambda: score_sde.power_ladder(1.0, 0.1, 5, 0.0), "rho > 0.*5, 0.0"),
        (lambda: score_sde.KarrasNetwork(Given(torch.sin), LADDER[None], 1.0), "a row sigma > 0"),
        (lambda: score_sde.KarrasNetwork(Given(torch.sin), LADDER[:0], 1.0), "a row sigma > 0"),
        (lambda: score_sde.KarrasNetwork(Given(torch.sin), LADDER - 0.06, 1.0), "a row sigma > 0"),
        (lambda: score_sde.KarrasNetwork(Given(torch.sin), LADDER, 0.0), "spread > 0 are expected.*0.0"),
    ],
)
def test_wrong_input_is_refused(call, given):
    with pytest.raises(ValueError, match=given):
        call()
