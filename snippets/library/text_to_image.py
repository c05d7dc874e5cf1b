"""The text-to-image post's flow with diffusers.

Shapes: B batch, C channels, H height, W width.
"""

# --8<-- [start:draw-library]
import numpy as np
import torch
from diffusers import DiTTransformer2DModel, FlowMatchEulerDiscreteScheduler
from torch import Tensor


@torch.no_grad()
def draw_by_diffusers(folder: str, classes: Tensor, noise: Tensor, guidance: float, steps: int) -> Tensor:
    """Data (B, C, H, W) of classes (B,) from noise (B, C, H, W), by a DiT that says velocities."""
    model = DiTTransformer2DModel.from_pretrained(folder).eval()
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps))
    none = torch.full_like(classes, model.config.num_embeds_ada_norm)  # (B,) the class that is no class
    labels, x = torch.cat([classes, none]), noise  # (2 * B,), (B, C, _, _)
    for level in scheduler.timesteps:  # 1,000 is noise there, and 0 here
        times = (1000 - level).expand(len(labels))  # (2 * B,)
        both = model(torch.cat([x, x]), timestep=times, class_labels=labels).sample  # (2 * B, C, _, _)
        told, untold = both.chunk(2)  # (B, C, _, _), (B, C, _, _)
        velocity = untold + guidance * (told - untold)  # (B, C, _, _) towards data
        x = scheduler.step(-velocity, level, x).prev_sample  # (B, C, _, _)
    return x


# --8<-- [end:draw-library]
