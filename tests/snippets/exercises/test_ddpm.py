"""The exercises of the DDPM post: answers that tempt, others that are right too, and what is said of each."""

import pytest
import torch
import torch.nn.functional as F

from snippets import ddpm
from snippets.exercises import ddpm as exercises
from tests.snippets.exercises.answers import prove


def explained(alpha_bar, variance):
    return (1 - alpha_bar) / (alpha_bar * variance + 1 - alpha_bar)


def of_unit_variance(alpha_bar, variance):
    return alpha_bar


def of_the_noisy_picture_itself(alpha_bar, variance):
    return alpha_bar * variance + (1 - (1 - alpha_bar) ** 0.5) ** 2


def straight(a, b, share):
    return (1 - share) * a + share * b


def exchanged(a, b, share):
    return exercises.between(b, a, share)


def fresh(a, b, share):
    return a if share == 0 else b if share == 1 else torch.randn_like(a)


def on_the_sphere(a, b, share):
    """Right too: spherical interpolation, for the angle between independent noises of many pixels, 90 degrees."""
    angle = torch.tensor(share * torch.pi / 2)
    return angle.cos() * a + angle.sin() * b


def noised(schedule, x0, generator):
    eps = torch.randn(x0.shape, generator=generator, dtype=x0.dtype)
    t = torch.randint(schedule.num_steps, x0.shape[:1], generator=generator)
    return eps, t, ddpm.q_sample(schedule, x0, t, eps)


def loss_of(target):
    def loss(model, schedule, x0, generator):
        eps, t, xt = noised(schedule, x0, generator)
        return F.mse_loss(model(xt, t), target(schedule, x0, xt, t, eps))

    return loss


def asked_about_the_clean_one(model, schedule, x0, generator):
    eps, t, xt = noised(schedule, x0, generator)
    return F.mse_loss(model(x0, t), ddpm.velocity(schedule, x0, t, eps))


def one_level_for_all(model, schedule, x0, generator):
    eps, t = torch.randn_like(x0), torch.zeros(len(x0), dtype=torch.long) + 20
    return F.mse_loss(model(ddpm.q_sample(schedule, x0, t, eps), t), ddpm.velocity(schedule, x0, t, eps))


def ends_at_level_0(schedule, xt, t, target, eps):
    return exercises.hasty_step(schedule, xt, t, target.clamp(min=0), eps)


def one_level_late(schedule, xt, t, target, eps):
    there = schedule.alpha_bar_before[target.clamp(min=0)].view(-1, 1, 1, 1)
    x0 = ddpm.x0_from_eps(schedule, xt, t, eps)
    return there.sqrt() * x0 + (1 - there).sqrt() * eps


def steps(stops):
    for level, lower in zip(stops[:-1], stops[1:], strict=True):
        yield torch.full((5,), level), torch.full((5,), lower)


def plain(model, schedule, xt, num_steps):
    return ddpm.sample_ddim(model, schedule, xt, num_steps, 0.0, torch.Generator())


def clipped_at_the_end(model, schedule, xt, num_steps):
    return plain(model, schedule, xt, num_steps).clamp(-1, 1)


def noise_clipped_too(model, schedule, xt, num_steps):
    for t, target in steps(ddpm.ddim_levels(schedule, num_steps)):
        xt = ddpm.ddim_step(schedule, xt, t, target, model(xt, t), 0.0, xt).clamp(-1, 1)
    return xt


def all_levels(model, schedule, xt, num_steps):
    return exercises.steady_ddim(model, schedule, xt, schedule.num_steps)


def begun_lower(model, schedule, xt, num_steps):
    """Right too: from the noisiest level that still has some signal."""
    top = int((schedule.signal > 0.03).sum())
    stops = (torch.linspace(top, 0, num_steps + 1).round().long() - 1).tolist()
    for t, target in steps(stops):
        xt = ddpm.ddim_step(schedule, xt, t, target, model(xt, t), 0.0, xt)
    return xt


def of_beta(schedule):
    beta, after = schedule.beta[1:], schedule.alpha_bar[1:]
    return beta / (2 * (1 - beta) * (1 - after))


def without_half(schedule):
    return 2 * exercises.bound_weights(schedule)


def of_every_level(schedule):
    beta = schedule.beta
    return beta**2 / (2 * schedule.beta_tilde * (1 - beta) * (1 - schedule.alpha_bar))


WRONG = {
    1: [
        (explained, "how much of the noise the guess explains"),
        (of_unit_variance, "variance 1"),
        (of_the_noisy_picture_itself, "not of its best multiple"),
    ],
    2: [
        (straight, "standard deviation of 0.71; samplers start at 1"),
        (exchanged, "share 0 should give a"),
        (fresh, "no mixture of a and b"),
    ],
    3: [
        (ddpm.ddpm_loss, "error of the noise; the network is to predict v"),
        (loss_of(lambda schedule, x0, xt, t, eps: x0), "error of the clean image"),
        (loss_of(lambda schedule, x0, xt, t, eps: ddpm.velocity(schedule, xt, t, eps)), "given the noisy image"),
        (loss_of(lambda schedule, x0, xt, t, eps: -ddpm.velocity(schedule, x0, t, eps)), "check the sign"),
        (asked_about_the_clean_one, "not asked about x0 with standard normal noise"),
        (one_level_for_all, "a random level of its own"),
    ],
    4: [
        (exercises.hasty_step, "the last step, to -1, still ends in noise"),
        (ends_at_level_0, "ends at level 0, which is noisy"),
        (one_level_late, "from level 39 to 30 is off by"),
    ],
    5: [
        (plain, "under the cosine schedule, with a network that is 5 % off, a pixel"),
        (clipped_at_the_end, "under the cosine schedule, with a network that is 5 % off, a pixel"),
        (noise_clipped_too, "the noisy image is clipped too"),
        (all_levels, "asked 1000 times"),
    ],
    6: [
        (of_beta, "take beta_tilde"),
        (without_half, "1/2 is missing"),
        (of_every_level, "the first has none"),
    ],
}
RIGHT = {2: [on_the_sphere], 5: [begun_lower]}


@pytest.mark.parametrize("number", WRONG)
def test_answers(number):
    prove(exercises, number, WRONG[number], RIGHT.get(number, ()))


def test_the_factors_of_the_papers_schedule():
    """Exercise 6, what the comment in the solution says."""
    factors = exercises.bound_weights(ddpm.NoiseSchedule(ddpm.linear_beta()))
    assert factors.argmax() == 0 and round(factors[0].item(), 2) == 0.60
    assert round((factors.max() / factors.min()).item()) == 120


def test_the_fault_ends_in_noise():
    """Exercise 4: the step to the clean image goes to the noisiest level."""
    schedule, (x0, eps) = ddpm.NoiseSchedule(ddpm.linear_beta()), torch.randn(2, 5, 3, 4, 6, dtype=torch.float64)
    t = torch.zeros(5, dtype=torch.long)
    xt = ddpm.q_sample(schedule, x0, t, eps)
    noise = ddpm.q_sample(schedule, x0, t + 999, eps)
    torch.testing.assert_close(exercises.hasty_step(schedule, xt, t, t - 1, eps), noise)


def test_the_smallest_loss_is_reached_and_never_beaten():
    """Exercise 1, by least squares on a million pixels."""
    x0, eps = torch.randn(2, 1_000_000, dtype=torch.float64)
    for alpha_bar, variance in ((0.3, 0.5), (0.9, 2.0), (0.01, 0.2)):
        xt = alpha_bar**0.5 * variance**0.5 * x0 + (1 - alpha_bar) ** 0.5 * eps
        best = (eps * xt).mean() / (xt * xt).mean()
        reached = (eps - best * xt).square().mean().item()
        assert exercises.smallest_loss(alpha_bar, variance) == pytest.approx(reached, rel=5e-3)
