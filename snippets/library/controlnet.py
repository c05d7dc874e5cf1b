"""The ControlNet post's pictures with diffusers.

Shapes: B batch, C channels, H height, W width.
"""

# --8<-- [start:draw-library]
import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline
from torch import Tensor


def draw_controlled(
    folder: str,
    controls: list[str],
    hints: list[Tensor],
    scales: list[float],
    prompts: list[str],
    noise: Tensor,
) -> Tensor:
    """Pictures (B, 3, H, W) in [0, 1] from noise (B, 4, H // 8, W // 8), under one control or several.

    Args: folder of Stable Diffusion; a folder, a hint (B, C, H, W) from 0 to 1 and a scale for each control.
    """
    networks = [ControlNetModel.from_pretrained(control) for control in controls]
    pipeline = StableDiffusionControlNetPipeline.from_pretrained(
        folder, controlnet=networks, safety_checker=None
    )
    settings = {"controlnet_conditioning_scale": scales, "num_inference_steps": 20, "output_type": "pt"}
    drawn = pipeline(prompts, image=hints, latents=noise, **settings).images  # (B, 3, _, _)
    return drawn.to(torch.float32)


# --8<-- [end:draw-library]
