"""The classifier guidance post's samples with diffusers.

Shapes: B batch, C channels, H height, W width.
"""

# --8<-- [start:sample]
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, UNet2DModel
from torch import Tensor, nn


def guided_by_diffusers(
    unet: UNet2DModel, classifier: nn.Module, y: Tensor, scale: float, num_steps: int, seed: int
) -> Tensor:
    """Digits (B, 1, 8, 8) of classes y (B,): diffusers' network and scheduler, guided between the two."""
    scheduler = DDIMScheduler(clip_sample=False, timestep_spacing="trailing")  # both are not its defaults
    scheduler.set_timesteps(num_steps)
    x = torch.randn(len(y), 1, 8, 8, generator=torch.Generator().manual_seed(seed))  # (B, 1, 8, 8)
    for t in scheduler.timesteps:
        noisy = x.detach().requires_grad_()  # (B, 1, 8, 8)
        loss = F.cross_entropy(classifier(noisy, t.expand(len(y))), y, reduction="sum")  # () minus log p
        gradient = -torch.autograd.grad(loss, noisy)[0]  # (B, 1, 8, 8)
        with torch.no_grad():
            eps = unet(x, t).sample  # (B, 1, 8, 8)
        eps = eps - scale * (1 - scheduler.alphas_cumprod[t]).sqrt() * gradient  # (B, 1, 8, 8)
        x = scheduler.step(eps, t, x).prev_sample  # (B, 1, 8, 8)
    return x


# --8<-- [end:sample]
