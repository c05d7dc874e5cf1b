"""What follows once noise levels are a continuum: the general way back and the likelihood (Song et al. 2021,
arXiv 2011.13456), and the ladder and the network of Karras et al. (2022, arXiv 2206.00364).

Shapes: B batch, D numbers of one example, L noise levels, P probes.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from snippets.ncsn import at


# --8<-- [start:general]
def back_step(
    x: Tensor, drift: Tensor, score: Tensor, g: float, dt: float, share: float, noise: Tensor
) -> Tensor:
    """Run dx = drift dt + g dw back by dt, for x (B, D), its drift (B, D) and its score (B, D), noise (B, D).

    share says how much of the noise is added on the way back: 1 for the reverse SDE, 0 for the ODE.
    """
    if g <= 0 or dt <= 0 or share < 0 or not x.shape == drift.shape == score.shape == noise.shape:
        given = f"{g}, {dt}, {share} and {[tuple(one.shape) for one in (x, drift, score, noise)]}"
        raise ValueError(f"g > 0, dt > 0, share >= 0 and tensors of one shape are expected, given {given}")
    pull = (1 + share**2) / 2 * g**2 * score  # (B, D) half for the ODE, the rest for Langevin dynamics
    x = x - (drift - pull) * dt + share * g * math.sqrt(dt) * noise  # (B, D)
    return x


# --8<-- [end:general]


# --8<-- [start:likelihood]
def divergence(field: Callable, x: Tensor, probes: Tensor) -> tuple[Tensor, Tensor]:
    """A field's value (B, D) at examples x (B, D), and its divergence (B,), by probes (P, B, D).

    The mean of probe * J probe, with J the Jacobian. Random signs give it on average; the D axes, each
    sqrt(D) long, give it exactly.
    """
    if not len(probes) or probes.shape[1:] != x.shape:
        raise ValueError(f"probes of shape (P, *{tuple(x.shape)}) are expected, given {tuple(probes.shape)}")
    with torch.enable_grad():
        x = x.detach().requires_grad_()  # (B, D)
        value = field(x)  # (B, D)
        turned = [torch.autograd.grad(value, x, probe, retain_graph=True)[0] for probe in probes]
    spread = (torch.stack(turned) * probes).sum(dim=2).mean(dim=0)  # (B,)
    return value.detach(), spread


def velocity(score: Callable, sigma: Tensor, level: int) -> Callable:
    """dx / dsigma of the ODE at a level of the ladder sigma (L,), as a function of the examples."""

    def slope(x: Tensor) -> Tensor:
        levels = torch.full(x.shape[:1], level, device=x.device)  # (B,)
        return -float(sigma[level]) * score(x, levels)

    return slope


def log_likelihood(score: Callable, sigma: Tensor, x: Tensor, probes: Tensor) -> tuple[Tensor, Tensor]:
    """log p(x) (B,) of examples x (B, D), by the ODE up the ladder sigma (L,), and the noise (B, D) there.

    p is the density of what the ODE draws, at the last level, from noise of deviation sigma[0]. For probes
    see `divergence`.
    """
    if (sigma.diff() >= 0).any():
        raise ValueError(f"a descending ladder is expected, given {sigma}")
    gained = torch.zeros_like(x[:, 0])  # (B,)
    for level in range(len(sigma) - 1, 0, -1):
        gap = float(sigma[level - 1] - sigma[level])
        first, spread = divergence(velocity(score, sigma, level), x, probes)  # (B, D), (B,)
        ahead = x + gap * first  # (B, D) Euler's guess
        second, wider = divergence(velocity(score, sigma, level - 1), ahead, probes)  # (B, D), (B,)
        x = x + gap * (first + second) / 2  # (B, D) along the mean of the two
        gained = gained + gap * (spread + wider) / 2  # (B,)
    scaled = x / float(sigma[0])  # (B, D) standard normal, if it is the noise that samplers start from
    normal = -(scaled.square() + math.log(2 * math.pi * float(sigma[0]) ** 2)).sum(dim=1) / 2  # (B,)
    return normal + gained, x


# --8<-- [end:likelihood]


# --8<-- [start:power]
def power_ladder(sigma_max: float, sigma_min: float, num_levels: int, rho: float) -> Tensor:
    """Standard deviations (L,), float64, evenly spaced in sigma^(1 / rho)."""
    if not 0 < sigma_min < sigma_max or num_levels < 2 or rho <= 0:
        given = f"{sigma_max}, {sigma_min}, {num_levels}, {rho}"
        raise ValueError(f"sigma_max > sigma_min > 0, num_levels > 1, rho > 0 are expected, given {given}")
    top, bottom = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    root = torch.linspace(top, bottom, num_levels, dtype=torch.float64)  # (L,)
    return root**rho


# --8<-- [end:power]


# --8<-- [start:karras]
class KarrasNetwork(nn.Module):
    """Like ScoreNetwork, but the net says what the best linear guess of the clean example lacks."""

    def __init__(self, net: nn.Module, sigma: Tensor, spread: float):
        super().__init__()
        if sigma.ndim != 1 or not len(sigma) or sigma.min() <= 0 or spread <= 0:
            raise ValueError(f"a row sigma > 0 and spread > 0 are expected, given {sigma}, {spread}")
        self.net, variance = net, spread**2 + sigma.double() ** 2
        self.register_buffer("sigma", sigma.double())
        self.register_buffer("shrink", variance.rsqrt())
        self.register_buffer("skip", spread**2 / variance)
        self.register_buffer("out", spread * sigma.double() * variance.rsqrt())

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """The score (B, D) of the noisy density at examples x (B, D) of levels (B,)."""
        rest = self.net(at(self.shrink, level, x) * x, level)  # (B, D) of unit scale, at every level
        clean = at(self.skip, level, x) * x + at(self.out, level, x) * rest  # (B, D)
        score = (clean - x) / at(self.sigma, level, x) ** 2  # (B, D) Tweedie's formula, the other way round
        return score


# --8<-- [end:karras]
