"""The NCSN post's reverse SDE with diffusers.

Shapes: B batch, D numbers of one example, L noise levels.
"""

# --8<-- [start:sample]
from collections.abc import Callable

import torch
from diffusers import ScoreSdeVeScheduler
from torch import Tensor


@torch.no_grad()
def sample_by_diffusers(score: Callable, sigma: Tensor, x: Tensor, generator: torch.Generator) -> Tensor:
    """Examples (B, D) by diffusers' scheduler, from noise x (B, D), for a geometric ladder sigma (L,)."""
    count = len(sigma)
    scheduler = ScoreSdeVeScheduler(count, sigma_min=float(sigma[-1]), sigma_max=float(sigma[0]))
    scheduler.set_timesteps(count)
    scheduler.set_sigmas(count)
    for level, time in enumerate(scheduler.timesteps):
        levels = torch.full(x.shape[:1], level, device=x.device)  # (B,)
        step = scheduler.step_pred(score(x, levels), time, x, generator=generator)
        x = step.prev_sample  # (B, D)
    return step.prev_sample_mean  # the mean of the last step is Tweedie's formula


# --8<-- [end:sample]
