"""The CFG post's guided digits with diffusers.

Shapes: B batch, C channels, H height, W width.
"""

# --8<-- [start:sample]
import torch
from diffusers import ClassifierFreeGuidance, DDIMScheduler, UNet2DModel
from torch import Tensor


@torch.no_grad()
def guided_by_diffusers(weights: dict[str, Tensor], labels: Tensor, scale: float, noise: Tensor) -> Tensor:
    """Digits (B, 1, 8, 8) of classes labels (B,) from noise (B, 1, 8, 8), by the page's network."""
    unet = UNet2DModel(
        in_channels=1,
        out_channels=1,
        block_out_channels=(24, 48),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=8,
        num_class_embeds=11,  # ten digits, and the empty condition
        # what follows is the DDPM paper's; diffusers' defaults are others
        norm_eps=1e-6,
        attention_head_dim=None,
        downsample_padding=0,
        freq_shift=1,
        flip_sin_to_cos=False,
    )
    named = {"encoder.embedding.weight": "class_embedding.weight"}
    unet.load_state_dict({named.get(k, k): w for k, w in weights.items() if k != "encoder.null"})
    settings = {"clip_sample": False, "timestep_spacing": "trailing", "prediction_type": "sample"}
    scheduler, guider = DDIMScheduler(**settings), ClassifierFreeGuidance(guidance_scale=scale)
    scheduler.set_timesteps(50)
    empty, x = torch.full_like(labels, 10), noise  # (B,), (B, 1, 8, 8)
    for t in scheduler.timesteps:
        told = unet(x, t, class_labels=labels).sample  # (B, 1, 8, 8)
        untold = unet(x, t, class_labels=empty).sample  # (B, 1, 8, 8)
        x0 = guider.forward(told, untold).pred  # (B, 1, 8, 8) guided
        x = scheduler.step(x0, t, x).prev_sample  # (B, 1, 8, 8)
    return x


# --8<-- [end:sample]
