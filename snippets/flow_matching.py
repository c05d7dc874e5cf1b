"""Flow matching (Lipman et al. 2022, arXiv 2210.02747; Liu et al. 2022, arXiv 2209.03003): noise to data.

Shapes: B batch, C channels, H height, W width, D coordinates of a point, S steps, K components.
Time runs from 0, noise, to 1, data: x_t = (1 - t) * noise + t * data. Diffusion counts the other way round.
"""

# --8<-- [start:imports]
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# --8<-- [end:imports]
from snippets.cfg import drop_condition, guide
from snippets.data.toy2d import Toy2D


# --8<-- [start:path]
def like(t: Tensor, x: Tensor) -> Tensor:
    """The times t (B,) in a shape that multiplies x. ValueError unless there is one, in [0, 1], for each.

    Numbers without fractions, such as uint8 levels, would cut the times off: they are refused too.
    """
    if not x.is_floating_point():
        raise ValueError(f"numbers with fractions are expected, given {x.dtype}")
    if t.shape != x.shape[:1] or not bool(((t >= 0) & (t <= 1)).all()):
        raise ValueError(f"{len(x)} times in [0, 1] are expected, given {t}")
    wide = t.to(x).view(-1, *[1] * (x.ndim - 1))  # _ one number, and 1 for each further dimension
    return wide


def on_path(noise: Tensor, data: Tensor, t: Tensor) -> Tensor:
    """Where noise is at times t (B,) on its straight way to data: like both of them."""
    if noise.shape != data.shape:
        given = f"{tuple(noise.shape)} and {tuple(data.shape)}"
        raise ValueError(f"noise and data of one shape are expected, given {given}")
    time = like(t, data)  # _
    x = (1 - time) * noise + time * data  # _ like data
    return x


def data_ahead(x: Tensor, velocity: Tensor, t: Tensor) -> Tensor:
    """Where a velocity leads from x at times t (B,), if it stays as it is until 1."""
    data = x + (1 - like(t, x)) * velocity  # _ like x
    return data


def noise_behind(x: Tensor, velocity: Tensor, t: Tensor) -> Tensor:
    """Where it came from at 0."""
    noise = x - like(t, x) * velocity  # _ like x
    return noise


# --8<-- [end:path]


# --8<-- [start:exact]
def exact_velocity(mixture: Toy2D, x: Tensor, t: float) -> Tensor:
    """E[data - noise | x] (B, D) at points x (B, D), for data from a mixture of Gaussians.

    For each of K components data and noise are Gaussian, given x; the posterior weighs the components.
    """
    means, variances = mixture.means, mixture.deviations.square()[:, None]  # (K, D), (K, 1)
    slope = (t * variances - (1 - t)) / (t**2 * variances + (1 - t) ** 2)  # (K, 1)
    each = means + slope * (x[:, None].double() - t * means)  # (B, K, D)
    weight = mixture.log_posterior(x, t, 1 - t).exp()  # (B, K)
    velocity = (weight[:, :, None] * each).sum(dim=1)  # (B, D)
    return velocity


# --8<-- [end:exact]


# --8<-- [start:loss]
def flow_loss(
    model: nn.Module, data: Tensor, condition: Tensor, drop: float, generator: torch.Generator
) -> Tensor:
    """The squared error of the predicted velocity at random times, a share `drop` of the conditions left out.

    Args: data (B, C, H, W); condition (B,) or (B, L), as the model takes it.
    """
    told = drop_condition(condition, model.encoder.null, drop, generator)  # _ like the condition
    noise = torch.randn(data.shape, generator=generator, device=data.device, dtype=data.dtype)  # (B, C, H, W)
    t = torch.rand(len(data), generator=generator, device=data.device)  # (B,)
    x = on_path(noise, data, t)  # (B, C, H, W)
    loss = F.mse_loss(model(x, 1000 * t, told), data - noise)  # () the waves of time want thousands
    return loss


# --8<-- [end:loss]


# --8<-- [start:euler]
@torch.no_grad()
def flow_paths(velocity: Callable, noise: Tensor, times: Tensor) -> Tensor:
    """Where noise (B, …) is at each of times (S + 1,), by Euler's method: (S + 1, B, …).

    velocity(x, t) of x (B, …) and a number t is what the network says.
    """
    if times.ndim != 1 or len(times) < 2 or not bool((times.diff() > 0).all()):
        raise ValueError(f"at least two times that grow are expected, given {times}")
    x = [noise]
    for here, there in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
        x.append(x[-1] + (there - here) * velocity(x[-1], here))
    return torch.stack(x)


def draw_flow(velocity: Callable, noise: Tensor, num_steps: int) -> Tensor:
    """Data (B, …) from noise (B, …), in num_steps steps of one length."""
    times = torch.linspace(0, 1, num_steps + 1, dtype=torch.float64)  # (S + 1,)
    return flow_paths(velocity, noise, times)[-1]


# --8<-- [end:euler]


# --8<-- [start:guided]
def guided_flow(model: nn.Module, condition: Tensor, scale: float) -> Callable:
    """The guided velocity as a function of x (B, C, H, W) and a time: one pass for both halves."""
    both = torch.cat([condition, model.encoder.null.expand_as(condition)])  # _ twice the condition

    def velocity(x: Tensor, t: float) -> Tensor:
        time = torch.full((2 * len(x),), 1000 * t, device=x.device)  # (2 * B,)
        told, untold = model(torch.cat([x, x]), time, both).chunk(2)  # (B, C, H, W), (B, C, H, W)
        return guide(told, untold, scale)

    return velocity


# --8<-- [end:guided]


# --8<-- [start:straightness]
def straightness(velocity: Callable, noise: Tensor, times: Tensor) -> Tensor:
    """How far ways are from straight (Rectified flow, section 2.1): 0 for straight ones, a number ().

    The squared difference between the velocity on the way and the mean velocity of the whole way: its mean
    over noise (B, D) and over times (S + 1,) from 0 to 1, evenly spaced, that end each small step.
    """
    paths = flow_paths(velocity, noise, times)  # (_, B, D)
    steps = paths.diff(dim=0) / times.diff()[:, None, None]  # (S, B, D)
    whole = paths[-1] - paths[0]  # (B, D)
    bend = (steps - whole).square().sum(dim=2).mean()  # ()
    return bend


# --8<-- [end:straightness]


# --8<-- [start:diffusion]
def time_of_level(signal: Tensor, noise: Tensor) -> Tensor:
    """When a flow is as noisy as x = signal * data + noise * eps: times (S,) of levels (S,)."""
    t = signal / (signal + noise)  # (S,)
    return t


def velocity_from_eps(x: Tensor, eps: Tensor, signal: float, noise: float) -> Tensor:
    """A flow's velocity where a diffusion model sees x and predicts eps. Like x."""
    velocity = (x - (signal + noise) * eps) / signal  # _ data minus eps
    return velocity


def velocity_from_v(x: Tensor, v: Tensor, signal: float, noise: float) -> Tensor:
    """A flow's velocity where a diffusion model sees x and predicts v = signal * eps - noise * data."""
    velocity = (signal - noise) * x - (signal + noise) * v  # _ if signal^2 + noise^2 = 1
    return velocity


# --8<-- [end:diffusion]
