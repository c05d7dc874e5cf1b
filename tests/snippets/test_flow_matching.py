"""Flow matching: paths, velocities in closed form on a mixture; Euler against diffusers; diffusion as a flow."""

import math

import numpy
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import nn

from snippets import flow_matching as page
from snippets.cfg import drop_condition
from snippets.data.toy2d import Toy2D, toy2d
from snippets.ddpm import NoiseSchedule, cosine_beta, ddim_step, linear_beta, q_sample, velocity

TIMES = torch.linspace(0, 1, 101, dtype=torch.float64)


def seeded(seed=3):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=3):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


@pytest.mark.equation("tti-path", of=page.on_path)
def test_the_path_is_its_formula(formula):
    noise, data, t = normal(5, 2, 3, 4, seed=1), normal(5, 2, 3, 4, seed=2), torch.tensor([0.2, 0.9, 0.5, 0.35, 0.7])
    x = page.on_path(noise, data, t.double())
    names = {"x_t": x, "t": t.double().view(-1, 1, 1, 1), r"\epsilon": noise, "x_1": data}
    formula("tti-path").holds(names)
    assert torch.equal(page.on_path(noise, data, torch.zeros(5)), noise)
    assert torch.equal(page.on_path(noise, data, torch.ones(5)), data)


@pytest.mark.equation("tti-ends", of=page.data_ahead)
def test_from_a_place_and_a_velocity_follow_both_ends(formula):
    noise, data, t = normal(5, 3, seed=1), normal(5, 3, seed=2), torch.tensor([0.2, 0.9, 0.5, 0.35, 0.7]).double()
    x, u = page.on_path(noise, data, t), data - noise
    names = {"x_t": x, "u": u, "t": t[:, None]}
    names |= {"x_1": page.data_ahead(x, u, t), r"\epsilon": page.noise_behind(x, u, t)}
    formula("tti-ends").holds(names, relations=2)
    torch.testing.assert_close(page.data_ahead(x, u, t), data)
    torch.testing.assert_close(page.noise_behind(x, u, t), noise)


def test_wrong_times_and_shapes_are_refused():
    x = torch.zeros(3, 2)
    for t in (torch.tensor([0.1, 0.2]), torch.tensor([0.1, 0.2, 1.2]), torch.tensor([0.1, float("nan"), 0.3])):
        with pytest.raises(ValueError, match=r"3 times in \[0, 1\] are expected"):
            page.on_path(x, x, t)
    with pytest.raises(ValueError, match="noise and data of one shape"):
        page.on_path(x, x[:1], torch.zeros(3))
    for times in (torch.tensor([0.5]), torch.tensor([0.0, 0.5, 0.5]), torch.tensor([1.0, 0.0])):
        with pytest.raises(ValueError, match="at least two times that grow"):
            page.flow_paths(lambda x, t: x, x, times)


@pytest.mark.equation("tti-mixture", of=page.exact_velocity)
def test_the_exact_velocity_is_its_formula_and_the_score_s(formula, agrees):
    mixture, x, t = toy2d(), normal(7, 2), 0.6
    u = page.exact_velocity(mixture, x, t)
    posterior = mixture.log_posterior(x, t, 1 - t).exp()
    names = {"u_t(x)": u, "t": t, "x": x, "k": range(3), "w_k": lambda k: posterior[:, k, None]}
    names |= {"m_k": lambda k: mixture.means[k], r"\sigma_k": lambda k: mixture.deviations[k]}
    formula("tti-mixture").holds(names)
    for t in (0.1, 0.5, 0.95):  # the same from the score, by way of the expected noise
        eps = mixture.eps(x, t, 1 - t)
        torch.testing.assert_close(page.exact_velocity(mixture, x, t), (x - eps) / t)
    torch.testing.assert_close(page.exact_velocity(mixture, x, 0.0), (mixture.weights @ mixture.means) - x)
    torch.testing.assert_close(page.exact_velocity(mixture, x, 1.0), x)


@pytest.mark.equation("tti-marginal", of=page.exact_velocity)
def test_the_exact_velocity_is_the_mean_of_the_velocities_of_what_passes_there(formula):
    """Over all data that noise can come from: 1,500 x 1,500 places, weighted by how likely noise leads them here."""
    mixture, t = toy2d(), 0.5
    line = torch.linspace(-6, 6, 1500, dtype=torch.float64)
    data = torch.cartesian_prod(line, line)
    place = torch.tensor([[-1.0, 0.6]]).double()
    noise = (place - t * data) / (1 - t)
    weight = (mixture.log_density(data, 1.0, 0.0) - noise.square().sum(dim=1) / 2).softmax(dim=0)[:, None]
    names = {"u_t(x)": page.exact_velocity(mixture, place, t)[0], "x_1": data, r"\epsilon": noise}
    names |= {r"\mathbb{E}_{x_t = x}": lambda what: (what * weight).sum(dim=0)}
    formula("tti-marginal").holds(names, tolerance=1e-6)
    assert (page.on_path(noise, data, torch.full((len(data),), t)) - place).abs().max() < 1e-9


class Field(nn.Module):
    """A network that is no network, and keeps what it was asked."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Module()
        self.encoder.null = torch.tensor(9)

    def forward(self, x, t, condition):
        self.asked = x, t, condition
        return x.tanh() * t.to(x).view(-1, 1, 1, 1) / 1000 + condition.to(x).view(-1, 1, 1, 1)


@pytest.mark.equation("tti-loss", of=page.flow_loss)
def test_the_loss_is_its_formula(formula):
    model, data, classes = Field(), normal(6, 2, 3, 4), torch.tensor([0, 1, 2, 3, 4, 5])
    loss = page.flow_loss(model, data, classes, 0.3, seeded())
    generator = seeded()
    told = drop_condition(classes, torch.tensor(9), 0.3, generator)
    noise = torch.randn(data.shape, generator=generator, dtype=torch.float64)
    t = torch.rand(6, generator=generator)
    assert torch.equal(model.asked[2], told) and 9 in told
    torch.testing.assert_close(model.asked[1], 1000 * t)
    names = {"L": loss * 24, "x_1": data.flatten(1), r"\epsilon": noise.flatten(1), "t": t[:, None]}
    names["y"] = told

    def field(x, time, y):
        return model(x.view(data.shape), 1000 * time.flatten(), y).flatten(1)

    names |= {r"u_\theta": field, r"\mathbb{E}_{t, \epsilon, x_1, y}": torch.mean}
    formula("tti-loss").holds(names, tolerance=1e-6)
    assert (model.asked[0] - page.on_path(noise, data, t)).abs().max() < 1e-12


def test_the_exact_velocity_has_the_least_loss():
    """Of a mixture: whatever is added to it costs its square."""
    mixture, generator = toy2d(), seeded()
    data = mixture.sample(200_000, generator)[0]
    noise, t = torch.randn(data.shape, generator=generator, dtype=torch.float64), 0.4
    x = page.on_path(noise, data, torch.full((len(data),), t))
    right, wanted = page.exact_velocity(mixture, x, t), data - noise
    best = (right - wanted).square().mean()
    for error in (0.3, -0.3, 0.3 * x.tanh()):
        added = torch.as_tensor(error, dtype=torch.float64).expand_as(right)
        cost = (right + added - wanted).square().mean()
        torch.testing.assert_close(cost - best, added.square().mean(), rtol=0.05, atol=0)


@pytest.mark.equation("tti-euler", of=page.flow_paths)
def test_a_step_is_eulers(formula):
    mixture, x = toy2d(), normal(5, 2)
    paths = page.flow_paths(
        lambda x, t: page.exact_velocity(mixture, x, t), x, torch.tensor([0.3, 0.45], dtype=torch.float64)
    )
    names = {
        r"x_{t + \delta}": paths[1],
        "x_t": x,
        r"\delta": 0.15,
        "u_t": lambda x: page.exact_velocity(mixture, x, 0.3),
    }
    formula("tti-euler").holds(names)


@pytest.mark.claim("tti-library")
def test_runs_equal_diffusers(agrees):
    """Which counts from noise, 1, to data, 0, and wants the velocity that leads to noise."""
    mixture, noise = toy2d(), normal(5, 2).float()
    theirs = FlowMatchEulerDiscreteScheduler()
    for steps in (1, 7, 20):
        theirs.set_timesteps(sigmas=numpy.linspace(1, 1 / steps, steps))
        x = noise
        for level in theirs.timesteps:
            x = theirs.step(-page.exact_velocity(mixture, x, 1 - level.item() / 1000).float(), level, x).prev_sample
        ours = page.draw_flow(lambda x, t: page.exact_velocity(mixture, x, t).float(), noise, steps)
        agrees(ours, x, "diffusers.FlowMatchEulerDiscreteScheduler", 1e-5)
    backwards = page.draw_flow(lambda x, t: page.exact_velocity(mixture, x, 1 - t).float(), noise, 20)
    assert (backwards - x).abs().max() > 0.1


def test_many_steps_end_in_the_mixture():
    mixture = toy2d()
    points = page.draw_flow(lambda x, t: page.exact_velocity(mixture, x, t), normal(4000, 2), 100)
    true = mixture.sample(4000, seeded(7))[0]
    torch.testing.assert_close(points.mean(dim=0), true.mean(dim=0), rtol=0, atol=0.06)
    torch.testing.assert_close(torch.cov(points.T), torch.cov(true.T), rtol=0, atol=0.08)
    near = torch.cdist(points, mixture.means).argmin(dim=1)
    torch.testing.assert_close(torch.bincount(near, minlength=3) / 4000, mixture.weights.float(), rtol=0, atol=0.03)


@pytest.mark.equation("tti-straightness", of=page.straightness)
def test_straightness_is_its_formula_and_known_for_one_gaussian(formula, agrees):
    """For one Gaussian the way is x_t = t m + r(t) z, with r the deviation at t: its bend has a closed form."""
    mean, deviation = torch.tensor([[1.0, -2.0]]), torch.tensor([0.3])
    single, noise = Toy2D(torch.ones(1), mean, deviation), normal(900, 2)

    def field(x, t):
        return page.exact_velocity(single, x, t)

    bend = page.straightness(field, noise, torch.linspace(0, 1, 201, dtype=torch.float64))
    t = torch.linspace(0, 1, 20_001, dtype=torch.float64)
    spread = (t**2 * 0.3**2 + (1 - t) ** 2).sqrt()
    pace = (t * 0.3**2 - (1 - t)) / spread
    closed = (pace - (0.3 - 1)).square().mean() * noise.square().sum(dim=1).mean()
    torch.testing.assert_close(bend, closed, rtol=4e-2, atol=0)
    few = torch.linspace(0, 1, 6, dtype=torch.float64)
    paths = page.flow_paths(field, noise[:4], few)
    names = {"S": page.straightness(field, noise[:4], few), "x_1": paths[-1], r"\epsilon": paths[0]}
    at = torch.stack([field(x, float(t)) for x, t in zip(paths[:-1], few[:-1], strict=True)])
    formula("tti-straightness").holds(names | {"u_t(x_t)": at, r"\mathbb{E}_{t, \epsilon}": torch.mean})


def test_ways_to_a_single_point_are_straight():
    point = Toy2D(torch.ones(1), torch.tensor([[1.0, -2.0]]), torch.tensor([1e-9]))
    bend = page.straightness(lambda x, t: page.exact_velocity(point, x, t), normal(50, 2), TIMES)
    assert bend < 1e-6
    crossing = page.straightness(lambda x, t: page.exact_velocity(toy2d(), x, t), normal(50, 2), TIMES)
    assert crossing > 0.1


# diffusion as a flow


LEVELS = torch.tensor([5, 30, 200, 600, 999])


@pytest.mark.equation("tti-time", of=page.time_of_level)
def test_a_noisy_picture_divided_by_signal_plus_noise_is_on_the_straight_path(formula):
    schedule, data, noise = NoiseSchedule(linear_beta()), normal(5, 2, 3, 4, seed=1), normal(5, 2, 3, 4, seed=2)
    x = q_sample(schedule, data, LEVELS, noise)
    a, s = schedule.signal[LEVELS], schedule.noise[LEVELS]
    t = page.time_of_level(a, s)
    wide = (a + s).view(-1, 1, 1, 1)
    names = {"t": t, "a": a, "b": s}
    formula("tti-time").holds(names)
    torch.testing.assert_close(x / wide, page.on_path(noise, data, t))


@pytest.mark.equation("tti-from-eps", of=page.velocity_from_eps)
def test_a_velocity_from_predicted_noise(formula):
    a, s, data, noise = 0.6, 0.8, normal(4, 3, seed=1), normal(4, 3, seed=2)
    x = a * data + s * noise
    u = page.velocity_from_eps(x, noise, a, s)
    formula("tti-from-eps").holds({"u": u, "x": x, "a": a, "b": s, r"\epsilon": noise})
    torch.testing.assert_close(u, data - noise)


@pytest.mark.equation("tti-from-v", of=page.velocity_from_v)
def test_a_velocity_from_diffusions_v(formula):
    schedule, data, noise = NoiseSchedule(cosine_beta()), normal(5, 2, 3, 4, seed=1), normal(5, 2, 3, 4, seed=2)
    for level in LEVELS:
        t = level.expand(5)
        x, v = q_sample(schedule, data, t, noise), velocity(schedule, data, t, noise)
        a, s = schedule.signal[level].item(), schedule.noise[level].item()
        u = page.velocity_from_v(x, v, a, s)
        torch.testing.assert_close(u, data - noise)
    formula("tti-from-v").holds({"u": u, "x": x, "a": a, "b": s, "v": v})


@pytest.mark.claim("tti-ddim-is-euler")
@pytest.mark.claim("tti-ddim-same")
def test_ddim_is_eulers_method_at_other_times(agrees):
    """The same network, asked for the noise at diffusion's levels: both runs end in the same points."""
    mixture, schedule = toy2d(), NoiseSchedule(cosine_beta())
    levels = [999, 700, 420, 111, 3]
    a, s = schedule.signal[levels], schedule.noise[levels]
    times = page.time_of_level(a, s)

    def field(x, t):
        at = int((times - t).abs().argmin())
        seen = x * (a + s)[at]
        return page.velocity_from_eps(seen, mixture.eps(seen, a[at].item(), s[at].item()), a[at].item(), s[at].item())

    start = normal(6, 2)
    ours = page.flow_paths(field, start / (a + s)[0], torch.cat([times, torch.ones(1).double()]))[-1]
    x = start[:, :, None, None]
    for here, there in zip(levels, [*levels[1:], -1], strict=True):
        t, target = torch.full((6,), here), torch.full((6,), there)
        eps = mixture.eps(x[:, :, 0, 0], schedule.signal[here].item(), schedule.noise[here].item())[:, :, None, None]
        x = ddim_step(schedule, x, t, target, eps, 0.0, torch.zeros_like(x))
    torch.testing.assert_close(ours, x[:, :, 0, 0], rtol=1e-8, atol=1e-8)
    even = page.draw_flow(lambda x, t: page.exact_velocity(mixture, x, t), start, 5)
    assert (even - ours).abs().max() > 0.05


@pytest.mark.claim("tti-by-hand")
def test_the_example_by_hand():
    """Data at 2 or at -2, noise 0.5: half-way the picture is at 1.25 or at -0.75."""
    half, data = torch.tensor([0.5, 0.5]), torch.tensor([2.0, -2.0])
    x = page.on_path(torch.tensor([0.5, 0.5]), data, half)
    assert x.tolist() == [1.25, -0.75] and (data - 0.5).tolist() == [1.5, -2.5]
    two = Toy2D(torch.ones(2), torch.tensor([[2.0, 0.0], [-2.0, 0.0]]), torch.tensor([1e-9, 1e-9]))
    u = page.exact_velocity(two, torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 0.0]]).double(), 0.5)
    assert abs(u[0, 0]) < 1e-9 and abs(u[1, 0].item() - (2 * 2 * math.tanh(4) - 2)) < 1e-6


# guidance


def test_guidance_asks_with_the_condition_and_without():
    model, x = Field(), normal(4, 2, 3, 5)
    classes = torch.tensor([0, 1, 2, 3])
    u = page.guided_flow(model, classes, 3.0)(x, 0.25)
    told, untold = (model(x, torch.full((4,), 250.0), one) for one in (classes, torch.full((4,), 9)))
    torch.testing.assert_close(u, untold + 3 * (told - untold))
    torch.testing.assert_close(page.guided_flow(model, classes, 1.0)(x, 0.25), told)
