"""Exercises of the NCSN post, solved, with what checks an answer.

Shapes: B batch, D numbers of one example, L noise levels.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from snippets.data.toy2d import toy2d
from snippets.exercises.checking import compare
from snippets.ncsn import geometric_ladder, langevin, noise_like, sample_ode


# --8<-- [start:exercise-1]
def mixed_variance(step: float, variance: float) -> float:
    """By pencil: where the variance of the points rests if the two ways to write the step are mixed.

    A step goes all of `step` along the score, not half of it, and adds noise of variance `step`. The data are
    normal, with mean 0 and this variance, and nothing is learnt: the score is -x / variance.

    Hint: One step takes x to (1 - step / variance) * x plus noise. Write the variance after the step in terms
    of the one before, and let the two be equal.
    """
    kept = 1 - step / variance  # of x, in one step
    # V = kept^2 V + step. For small steps V is half of what it should be, so that widths are 0.71 times the
    # right ones
    return step / (1 - kept**2)


# --8<-- [end:exercise-1]


# --8<-- [start:exercise-2]
def loss_shares(sigma: Tensor) -> Tensor:
    """The share (L,) of each level of a ladder sigma (L,) in the loss, if the weight sigma^2 is left out.

    Take a network that has learnt nothing and says 0 everywhere. The shares add up to 1.

    Hint: What is the mean of |0 + eps / sigma|^2 over the noise, for one number?
    """
    loss = sigma**-2  # (L,) the mean square of eps / sigma: the length of the arrow to be learnt
    shares = loss / loss.sum()  # (L,)
    # on the points' ladder the last level has 40 % of the loss, the last five 92 %, the first 0.003 %
    return shares


# --8<-- [end:exercise-2]


# --8<-- [start:exercise-3]
@torch.no_grad()
def to_noise(score: Callable, sigma: Tensor, x: Tensor) -> Tensor:
    """The noise (B, D) at sigma[0] that the ODE turns into examples x (B, D) of the last level.

    Args: score(x, level) as in sample_ode; sigma (L,), descending. Returns the end of the path only.

    Hint: Begin with a copy of sample_ode, and go through the ladder from its end. ode_step refuses to go up,
    but its one line works in both directions. At the end of a step the level is one less, not one more.
    """
    for level in range(len(sigma) - 1, 0, -1):
        here = torch.full(x.shape[:1], level, device=x.device)  # (B,)
        low, high = float(sigma[level]), float(sigma[level - 1])
        slope = -low * score(x, here)  # (B, D) dx / dsigma at the beginning of the step
        ahead = x + (high - low) * slope  # (B, D) Euler's guess
        change = -high * score(ahead, here - 1)  # (B, D) dx / dsigma at its end
        x = x + (high - low) * (slope + change) / 2  # (B, D) along the mean of the two
    # from points of the mixture up and down again, half of them come back to within 0.009 with a ladder of 10
    # levels, 0.0003 with 30 and 0.000007 with 100
    return x


# --8<-- [end:exercise-3]


# --8<-- [start:given-4]
def hasty_langevin(
    score: Callable, level: int, x: Tensor, step: float, num_steps: int, generator: torch.Generator
) -> Tensor:
    """Langevin dynamics at one level, from x (B, D). One line stands in the wrong place."""
    levels = torch.full(x.shape[:1], level, device=x.device)  # (B,)
    noise = noise_like(x, generator)  # (B, D)
    for _ in range(num_steps):
        x = x + step / 2 * score(x, levels)  # (B, D)
        x = x + math.sqrt(step) * noise  # (B, D)
    return x


# --8<-- [end:given-4]


# --8<-- [start:exercise-4]
def careful_langevin(
    score: Callable, level: int, x: Tensor, step: float, num_steps: int, generator: torch.Generator
) -> Tensor:
    """hasty_langevin without its fault, which spreads the points far too wide.

    Hint: Each line is right by itself, and every point gets a noise of its own. How many noises does it get
    in all its steps?
    """
    levels = torch.full(x.shape[:1], level, device=x.device)  # (B,)
    for _ in range(num_steps):
        # drawn once, before the loop, a noise would push the same way at each step: on data of variance v the
        # points then rest at the variance 4 v^2 / step, ten times v for a step of 0.4 v
        noise = noise_like(x, generator)  # (B, D) fresh in each step
        x = x + step / 2 * score(x, levels)  # (B, D)
        x = x + math.sqrt(step) * noise  # (B, D)
    return x


# --8<-- [end:exercise-4]


# --8<-- [start:exercise-5]
def levels_needed(sigma_max: float, sigma_min: float, numbers: int) -> int:
    """How many levels a ladder should have at least, for examples of so many numbers (NCSNv2, technique 2).

    With gamma for the constant ratio of the ladder, D for `numbers` and Phi for the distribution function of
    the normal distribution, Phi(sqrt(2 D) (gamma - 1) + 3 gamma) - Phi(sqrt(2 D) (gamma - 1) - 3 gamma)
    should be at least a half. Two levels are the fewest.

    Hint: Phi(z) = (1 + erf(z / sqrt(2))) / 2, and there is math.erf. A ladder of L levels has L - 1 ratios.
    """

    def phi(z: float) -> float:
        return (1 + math.erf(z / math.sqrt(2))) / 2

    def overlap(gamma: float) -> float:
        away = math.sqrt(2 * numbers) * (gamma - 1)  # between the two shells, in their widths
        return phi(away + 3 * gamma) - phi(away - 3 * gamma)

    levels = 2
    while overlap((sigma_max / sigma_min) ** (1 / (levels - 1))) < 0.5:
        levels += 1
    # 20 for the digits' ladder, which has 30: enough. In the plane the rule asks for nothing: the shells
    # are thick there
    return levels


# --8<-- [end:exercise-5]


def check_1(answer: Callable) -> None:
    """From the recursion itself, ten thousand steps long."""
    for step, variance in ((0.3, 0.5), (0.02, 4.0)):
        told, rests = f"mixed_variance({step}, {variance})", 0.0
        given = answer(step, variance)
        for _ in range(10_000):
            rests = (1 - step / variance) ** 2 * rests + step
        slips = {
            "that is where the step of the page rests, which goes half as far": variance
            / (1 - step / variance / 4),
            "that is the limit of small steps; this one has a size": variance / 2,
            "that is the standard deviation": rests**0.5,
        }
        compare(told, given, rests, slips)


def check_2(answer: Callable) -> None:
    """From noise itself, with both signs and of mean square 1."""
    sigma = geometric_ladder(3.0, 0.2, 7)
    shares = answer(sigma)
    eps = torch.randn(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    eps = eps / eps.square().mean().sqrt()
    loss = (eps / sigma[:, None]).square().mean(dim=1)
    slips = {
        "that is with the weight, which makes all levels count alike": torch.full((7,), 1 / 7),
        "the loss is a square: eps / sigma is to be squared": 1 / sigma / (1 / sigma).sum(),
        "the arrows are long where sigma is small, not where it is large": (loss / loss.sum()).flip(0),
        "those are the losses; divide by their sum": loss,
    }
    compare("the row of shares", shares, loss / loss.sum(), slips)


def check_3(answer: Callable) -> None:
    """On normal data, where the solution is known, and on the mixture, down again by the page's sampler."""
    s, x = 0.8, torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sigma = geometric_ladder(4.0, 0.05, 60)

    def normal(x: Tensor, level: Tensor) -> Tensor:
        return -x / (s**2 + sigma[level][:, None] ** 2)

    noise, euler = answer(normal, sigma, x), x
    for level in range(59, 0, -1):
        euler = euler * (1 + sigma[level] * (sigma[level - 1] - sigma[level]) / (s**2 + sigma[level] ** 2))
    assert (noise / x).std() < 1e-6, "noise is added on the way; the ODE has none"
    grown = ((s**2 + sigma[0] ** 2) / (s**2 + sigma[-1] ** 2)).sqrt()
    slips = {
        "those are Euler's steps; take the mean of the slopes at both ends": euler,
        "that is the way down: go from the last level to the first": x / grown,
    }
    compare("the noise of normal data", noise, x * grown, slips, tolerance=2e-3)
    toy = toy2d()
    points = toy.sample(6, torch.Generator().manual_seed(1))[0]

    def mixture(x: Tensor, level: Tensor) -> Tensor:
        return toy.score(x, 1.0, float(sigma[level[0]]))

    *_, back, _ = sample_ode(mixture, sigma, answer(mixture, sigma, points))
    off = (back - points).abs().max().item()
    assert off < 0.05, f"up and down again, a point of the mixture is off by {off:.2g}"


def check_4(answer: Callable) -> None:
    """The noises that it adds, found out from where it asks the score, and the spread at the end."""
    variance, step, asked = 0.5, 0.2, []

    def score(x: Tensor, level: Tensor) -> Tensor:
        assert level.tolist() == [3] * len(x), "the score is asked at another level"
        asked.append(x)
        return -x / variance

    x = torch.ones(4000, 2, dtype=torch.float64)
    end = answer(score, 3, x, step, 40, torch.Generator().manual_seed(0))
    assert len(asked) == 40, f"the score is asked {len(asked)} times in 40 steps"
    first, second = (asked[k + 1] - asked[k] + step / 2 * asked[k] / variance for k in (0, 1))
    alike = (first * second).mean() / (first.square().mean() * second.square().mean()).sqrt()
    assert alike < 0.9, "the same noise is added in each step"
    assert abs(alike) < 0.1, f"the noises of two steps are alike: their correlation is {alike:.2f}"
    size = first.var().item() / step
    assert abs(size - 1) < 0.1, f"the noise of a step has {size:.2f} times the variance that it should have"
    *_, right = langevin(score, 3, x, step, 40, torch.Generator().manual_seed(1))
    spread = (end.var() / right.var()).item()
    assert abs(spread - 1) < 0.1, f"the variance at the end is {spread:.2f} times what it should be"


def check_5(answer: Callable) -> None:
    """From evenly drawn normal numbers: which share of one shell lies in the other."""
    even = torch.linspace(0, 1, 100_001, dtype=torch.float64)[1:-1]
    z = math.sqrt(2) * torch.erfinv(2 * even - 1)
    for top, bottom, numbers in ((9.63, 0.03, 64), (50.0, 0.01, 3072), (6.0, 0.05, 2), (20.0, 0.1, 200)):

        def least(width: float, top: float = top, bottom: float = bottom) -> int:
            levels = 2
            while True:
                gamma = (top / bottom) ** (1 / (levels - 1))
                middle = width * (gamma - 1)
                if ((z - middle).abs() <= 3 * gamma).double().mean() >= 0.5:
                    return levels
                levels += 1

        right, told = least(math.sqrt(2 * numbers)), f"levels_needed({top}, {bottom}, {numbers})"
        slips = {
            "that is the number of ratios; a ladder has one level more": right - 1,
            "the root of 2 D stands there, not of D": least(math.sqrt(numbers)),
        }
        compare(told, answer(top, bottom, numbers), right, {} if right == 2 else slips, tolerance=1e-9)
