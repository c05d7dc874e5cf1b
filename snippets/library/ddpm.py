"""The DDPM post's samples with diffusers.

Shapes: B batch, C channels, H height, W width.
"""

# --8<-- [start:sample]
import torch
from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel
from torch import Tensor


def sample_by_diffusers(weights: dict[str, Tensor], count: int, num_steps: int, seed: int) -> Tensor:
    """Digits (B, 1, 8, 8) in [0, 1] by diffusers, with the weights of the page's network."""
    unet = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(24, 48),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=8,
        # what follows is the paper's; diffusers' defaults are others
        norm_eps=1e-6,
        attention_head_dim=None,
        downsample_padding=0,
        freq_shift=1,
        flip_sin_to_cos=False,
    )
    unet.load_state_dict(weights)  # the names are the same
    scheduler = DDIMScheduler(clip_sample=False, timestep_spacing="trailing")  # both are not its defaults
    pipeline = DDIMPipeline(unet, scheduler)
    generator = torch.Generator().manual_seed(seed)
    drawn = pipeline(count, generator, num_inference_steps=num_steps, output_type="pt")
    digits = drawn.images  # (B, 1, 8, 8)
    return digits


# --8<-- [end:sample]
