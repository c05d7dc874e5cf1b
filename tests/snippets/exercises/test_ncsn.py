"""The exercises of the NCSN post: answers that tempt, others that are right too, and what is said of each."""

import math

import pytest
import torch

from snippets import ncsn
from snippets.data.toy2d import toy2d
from snippets.exercises import ncsn as exercises
from tests.snippets.exercises.answers import prove


def of_the_right_step(step, variance):
    return variance / (1 - step / variance / 4)


def of_small_steps(step, variance):
    return variance / 2


def deviation(step, variance):
    return exercises.mixed_variance(step, variance) ** 0.5


def all_alike(sigma):
    return torch.full_like(sigma, 1 / len(sigma))


def not_squared(sigma):
    return 1 / sigma / (1 / sigma).sum()


def upside_down(sigma):
    return exercises.loss_shares(sigma).flip(0)


def no_shares(sigma):
    return sigma**-2


def of_euler(score, sigma, x):
    for level in range(len(sigma) - 1, 0, -1):
        slope = -sigma[level] * score(x, torch.full(x.shape[:1], level))
        x = x + (sigma[level - 1] - sigma[level]) * slope
    return x


def downwards(score, sigma, x):
    *_, end, _ = ncsn.sample_ode(score, sigma, x)
    return end


def noised(score, sigma, x):
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(3), dtype=x.dtype)
    return x + (sigma[0] ** 2 - sigma[-1] ** 2).sqrt() * noise


def one_level_off(score, sigma, x):
    return exercises.to_noise(lambda x, level: score(x, (level - 1).clamp(min=0)), sigma, x)


def flipped(score, sigma, x):
    """Right too: the sampler's own lines, on the ladder upside down."""
    up = sigma.flip(0)
    for level, higher in enumerate(up[1:].tolist()):
        here = torch.full(x.shape[:1], len(up) - 1 - level)
        slope = score(x, here)
        ahead = x + up[level] * (up[level] - higher) * slope
        change = higher / up[level] * score(ahead, here - 1)
        x = x + up[level] * (up[level] - higher) * (slope + change) / 2
    return x


def run(noise_of, pull=0.5, extra=0):
    def dynamics(score, level, x, step, num_steps, generator):
        levels, first = torch.full(x.shape[:1], level), None
        for _ in range(num_steps + extra):
            noise = noise_of(x, generator, first)
            first = noise if first is None else first
            x = x + pull * step * score(x, levels) + math.sqrt(step) * noise
        return x

    return dynamics


def the_page_s_own(score, level, x, step, num_steps, generator):
    """Right too."""
    *_, end = ncsn.langevin(score, level, x, step, num_steps, generator)
    return end


half_fresh = run(lambda x, g, first: (ncsn.noise_like(x, g) + (0 if first is None else first)) / 2**0.5)
too_wide = run(lambda x, g, first: 2**0.5 * ncsn.noise_like(x, g))
too_long = run(lambda x, g, first: ncsn.noise_like(x, g), extra=1)


def at_level_0(score, level, x, step, num_steps, generator):
    return exercises.careful_langevin(score, 0, x, step, num_steps, generator)


def ratios(sigma_max, sigma_min, numbers):
    return exercises.levels_needed(sigma_max, sigma_min, numbers) - 1


def root_of_d(sigma_max, sigma_min, numbers):
    return exercises.levels_needed(sigma_max, sigma_min, numbers / 2)


def of_the_middles(sigma_max, sigma_min, numbers):
    """A half is nearly where the middle of one shell is at the edge of the other; for few numbers there is none."""
    root = math.sqrt(2 * numbers)
    return math.ceil(math.log(sigma_max / sigma_min) / math.log(root / (root - 3))) + 1 if root > 3 else 2


WRONG = {
    1: [
        (of_the_right_step, "goes half as far"),
        (of_small_steps, "limit of small steps"),
        (deviation, "standard deviation"),
    ],
    2: [
        (all_alike, "that is with the weight"),
        (not_squared, "to be squared"),
        (upside_down, "long where sigma is small"),
        (no_shares, "divide by their sum"),
    ],
    3: [
        (of_euler, "Euler's steps"),
        (downwards, "that is the way down"),
        (noised, "noise is added on the way"),
        (one_level_off, "the noise of normal data is off by"),
    ],
    4: [
        (exercises.hasty_langevin, "the same noise is added in each step"),
        (half_fresh, "their correlation is"),
        (too_wide, "2.0"),
        (too_long, "asked 41 times"),
        (at_level_0, "at another level"),
    ],
    5: [
        (ratios, "one level more"),
        (root_of_d, "not of D"),
    ],
}
RIGHT = {3: [flipped], 4: [the_page_s_own], 5: [of_the_middles]}


@pytest.mark.parametrize("number", WRONG)
def test_answers(number):
    prove(exercises, number, WRONG[number], RIGHT.get(number, ()))


def test_what_the_solutions_say():
    assert exercises.mixed_variance(1e-6, 1.0) ** 0.5 == pytest.approx(0.71, abs=0.005)
    shares = exercises.loss_shares(ncsn.geometric_ladder(6.0, 0.05, 20))
    assert [round(100 * x) for x in (shares[-1].item(), shares[-5:].sum().item())] == [40, 92]
    assert round(100 * shares[0].item(), 3) == 0.003
    assert exercises.levels_needed(9.63, 0.03, 64) == 20 and exercises.levels_needed(6.0, 0.05, 2) == 2
    score = lambda x, level: -x / 0.5  # noqa: E731  of variance 0.5
    x = exercises.hasty_langevin(score, 3, torch.zeros(20_000, 2), 0.2, 60, torch.Generator().manual_seed(0))
    assert x.var().item() / 0.5 == pytest.approx(4 * 0.5 / 0.2, rel=0.05)


def test_how_near_the_ode_comes_to_where_it_began():
    """Exercise 3: up and down again on the mixture, by the number of levels."""
    toy, off = toy2d(), []
    x = toy.sample(200, torch.Generator().manual_seed(0))[0]
    for levels in (10, 30, 100):
        sigma = ncsn.geometric_ladder(6.0, 0.05, levels)
        score = lambda x, level, sigma=sigma: toy.score(x, 1.0, float(sigma[level[0]]))  # noqa: E731
        *_, back, _ = ncsn.sample_ode(score, sigma, exercises.to_noise(score, sigma, x))
        off.append((back - x).square().sum(1).sqrt().median().item())
    assert off == pytest.approx([0.009, 3e-4, 7e-6], rel=0.2)  # as its solution says
