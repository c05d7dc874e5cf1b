"""The latent diffusion post's pictures with diffusers.

Shapes: B batch, H height, W width.
"""

# --8<-- [start:draw-library]
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor


def draw_by_diffusers(folder: str, prompts: list[str], noise: Tensor, guidance: float, steps: int) -> Tensor:
    """Pictures (B, 3, H, W) in [0, 1] from noise (B, 4, H // 8, W // 8), by the sampler of the folder."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    settings = {"guidance_scale": guidance, "num_inference_steps": steps, "output_type": "pt"}
    size = {"height": noise.shape[2] * pipeline.vae_scale_factor}
    size |= {"width": noise.shape[3] * pipeline.vae_scale_factor}
    drawn = pipeline(prompts, latents=noise, **size, **settings).images  # (B, 3, _, _)
    return drawn.to(torch.float32)


# --8<-- [end:draw-library]
