"""Networks of other libraries that several tests compare ours with."""

import torch
from diffusers import UNet2DModel


def perturbed(module, scale=0.2):
    """Move every weight away from its first value: unit norms and zero biases would hide a wrong wiring."""
    for p in module.parameters():
        p.data += scale * torch.randn_like(p)
    return module.eval()


def diffusers_unet(channels, widths, attention, layers, groups, **others) -> UNet2DModel:
    """diffusers' network of the DDPM paper's kind, with the arguments of our UNet."""
    down = ["AttnDownBlock2D" if a else "DownBlock2D" for a in attention]
    up = ["AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)]
    sizes = {"in_channels": channels, "out_channels": channels, "block_out_channels": widths}
    paper = {"freq_shift": 1, "flip_sin_to_cos": False, "downsample_padding": 0, "norm_eps": 1e-6}
    kinds = {"down_block_types": down, "up_block_types": up, "attention_head_dim": None}
    return UNet2DModel(**sizes, **paper, **kinds, layers_per_block=layers, norm_num_groups=groups, **others)
