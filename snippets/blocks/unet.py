"""The U-Net of DDPM (Ho et al. 2020, arXiv 2006.11239, appendix B), with the parameter names of diffusers.

Shapes: B batch, C image channels, H height, W width, O features, D waves, E time embedding.
"""

# --8<-- [start:time]
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def timestep_embedding(t: Tensor, dim: int, shift: int = 1) -> Tensor:
    """Write each level t as dim/2 sines and dim/2 cosines, of wavelengths from 2 pi to 20,000 pi.

    Args: t (B,) levels; dim even, at least 4; shift, 0 in some libraries, whose longest wave is a little
    shorter. Returns (B, dim). Section 4 and appendix B.
    """
    if dim < 4 or dim % 2:
        raise ValueError(f"dim is an even number of at least 4, given {dim}")
    half = dim // 2  # one frequency for each pair of a sine and a cosine
    index = torch.arange(half, device=t.device)  # (D // 2,)
    exponent = -math.log(10_000) * index / (half - shift)  # (D // 2,) from 0 down
    frequency = torch.exp(exponent)  # (D // 2,) from 1 down to 1/10,000, evenly in the logarithm
    angle = t[:, None].float() * frequency  # (B, D // 2) how far each wave has turned at level t
    embedding = torch.cat([angle.sin(), angle.cos()], dim=1)  # (B, D) all sines, then all cosines
    return embedding


class TimeEmbedding(nn.Module):
    """Two linear layers that turn the waves into features that the blocks can use."""

    def __init__(self, dim: int, time_dim: int):
        super().__init__()
        self.dim, self.shift = dim, 1  # how many waves; see timestep_embedding
        self.linear_1 = nn.Linear(dim, time_dim)  # widens the waves
        self.linear_2 = nn.Linear(time_dim, time_dim)  # mixes them

    def forward(self, t: Tensor) -> Tensor:
        wave = timestep_embedding(t, self.dim, self.shift)  # (B, D) the waves of level t
        wave = wave.to(self.linear_1.weight.dtype)  # (B, D) in the type of the weights
        hidden = F.silu(self.linear_1(wave))  # (B, E) widened, with a smooth non-linearity
        embedding = self.linear_2(hidden)  # (B, E) what every residual block is told about the level
        return embedding


# --8<-- [end:time]


# --8<-- [start:resblock]
class ResBlock(nn.Module):
    """Two 3x3 convolutions with a short cut around them; the time embedding is added between the two."""

    def __init__(self, width_in: int, width_out: int, time_dim: int, groups: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, width_in, eps=1e-6)  # steady scale, whatever the noise level
        self.conv1 = nn.Conv2d(width_in, width_out, 3, padding=1)  # looks at each pixel's neighbours
        self.time_emb_proj = nn.Linear(time_dim, width_out)  # one shift for each channel
        self.norm2 = nn.GroupNorm(groups, width_out, eps=1e-6)  # steady scale again
        self.conv2 = nn.Conv2d(width_out, width_out, 3, padding=1)  # looks one pixel farther
        same = width_in == width_out  # the sum below needs equal widths
        self.conv_shortcut = nn.Identity() if same else nn.Conv2d(width_in, width_out, 1)  # else adapt

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        hidden = self.conv1(F.silu(self.norm1(x)))  # (B, O, H, W) first look at the image
        shift = self.time_emb_proj(time)  # (B, O) what this noise level changes
        hidden = hidden + shift[:, :, None, None]  # (B, O, H, W) the same shift at every pixel
        hidden = self.conv2(F.silu(self.norm2(hidden)))  # (B, O, H, W) second look
        out = self.conv_shortcut(x) + hidden  # (B, O, H, W) the block only learns a correction of x
        return out


# --8<-- [end:resblock]


# --8<-- [start:attention]
class Attention(nn.Module):
    """Self-attention over the pixels: every pixel may look at every other one."""

    def __init__(self, width: int, groups: int):
        super().__init__()
        self.heads = 1  # the paper's choice
        self.group_norm = nn.GroupNorm(groups, width, eps=1e-6)  # steady scale
        self.to_q = nn.Linear(width, width)  # what a pixel asks
        self.to_k = nn.Linear(width, width)  # what a pixel offers
        self.to_v = nn.Linear(width, width)  # what a pixel passes on
        self.to_out = nn.ModuleList([nn.Linear(width, width)])  # a list, as in diffusers' layout

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]  # to restore the image below
        pixels = self.group_norm(x).flatten(2).transpose(1, 2)  # (B, H * W, O) the image as a sequence
        query, key, value = (  # what each pixel asks, offers and passes on
            part(pixels).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in (self.to_q, self.to_k, self.to_v)
        )  # (B, _, H * W, _), (B, _, H * W, _), (B, _, H * W, _) one matrix for each head
        mixed = F.scaled_dot_product_attention(query, key, value)  # (B, _, H * W, _) means of values
        mixed = mixed.transpose(1, 2).flatten(2)  # (B, H * W, O) the heads side by side
        mixed = self.to_out[0](mixed).transpose(1, 2)  # (B, O, H * W) back to channels first
        out = x + mixed.unflatten(2, (height, width))  # (B, O, H, W) a correction of x again
        return out


# --8<-- [end:attention]


# --8<-- [start:resample]
class Downsample(nn.Module):
    """Halve height and width: a convolution that steps two pixels, padded at the right and the bottom."""

    def __init__(self, width: int):
        super().__init__()
        self.padding = 0, 1, 0, 1  # left, right, above, below
        self.conv = nn.Conv2d(width, width, 3, stride=2)  # every second pixel, with its neighbours

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x, self.padding)  # (B, O, H + 1, W + 1) one more column and row of zeros
        half = self.conv(padded)  # (B, O, H // 2, W // 2) coarser, and four times cheaper to work on
        return half


class Upsample(nn.Module):
    """Double height and width: repeat each pixel, then smooth with a convolution."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)  # smooths the blocks that repetition leaves

    def forward(self, x: Tensor) -> Tensor:
        repeated = F.interpolate(x, scale_factor=2.0, mode="nearest")  # (B, O, 2 * H, 2 * W) blocks of 2x2
        double = self.conv(repeated)  # (B, O, 2 * H, 2 * W) smoothed
        return double


# --8<-- [end:resample]


# --8<-- [start:stage]
class Stage(nn.Module):
    """Residual blocks at one resolution; the first `attentions` of them are each followed by attention."""

    def __init__(self, widths_in: list[int], width: int, time_dim: int, groups: int, attentions: int):
        super().__init__()
        self.resnets = nn.ModuleList(ResBlock(w, width, time_dim, groups) for w in widths_in)
        self.attentions = nn.ModuleList(Attention(width, groups) for _ in range(attentions))
        self.downsamplers = nn.ModuleList()  # filled on the way down, but for the last stage
        self.upsamplers = nn.ModuleList()  # filled on the way up, but for the last stage

    def block(self, index: int, x: Tensor, time: Tensor) -> Tensor:
        out = self.resnets[index](x, time)  # (B, O, H, W) one residual block
        if index < len(self.attentions):
            out = self.attentions[index](out)  # (B, O, H, W) every pixel sees every other one
        return out

    def down(self, x: Tensor, time: Tensor, skips: list[Tensor]) -> Tensor:
        for index in range(len(self.resnets)):
            x = self.block(index, x, time)  # (B, O, H, W) work at this resolution
            skips.append(x)  # kept for the way up
        for downsample in self.downsamplers:
            x = downsample(x)  # (B, O, H // 2, W // 2) on to the next resolution
            skips.append(x)  # kept too
        return x

    def up(self, x: Tensor, time: Tensor, skips: list[Tensor]) -> Tensor:
        for index in range(len(self.resnets)):
            joined = torch.cat([x, skips.pop()], dim=1)  # (B, _, H, W) the detail that the way down kept
            x = self.block(index, joined, time)  # (B, O, H, W) coarse view and detail, merged
        for upsample in self.upsamplers:
            x = upsample(x)  # (B, O, 2 * H, 2 * W) on to the next resolution
        return x


# --8<-- [end:stage]


# --8<-- [start:unet]
class UNet(nn.Module):
    """Predict the noise in an image: down to a coarse view, back up to a sharp one, with skips between.

    Args: channels of the image; widths of the levels, each level half as large as the one before; attention,
    one flag a level; layers, residual blocks a level; groups of the normalisation, which divide every width.
    """

    def __init__(self, channels=1, widths=(16, 32), attention=(False, True), layers=1, groups=8):
        super().__init__()
        if len(widths) != len(attention) or any(w % groups for w in widths):
            raise ValueError(
                f"one attention flag for each width, and widths divisible by {groups} groups are expected,"
                f" given widths {widths} and attention {attention}"
            )
        self.channels, self.factor = channels, 2 ** (len(widths) - 1)  # how far the image shrinks
        time_dim, width = 4 * widths[0], widths[0]  # the paper's choice for the time embedding
        self.time_embedding = TimeEmbedding(width, time_dim)
        self.conv_in = nn.Conv2d(channels, width, 3, padding=1)  # from pixels to features
        skip_widths = [width]  # widths of what the way down keeps for the way up
        self.down_blocks, self.up_blocks = nn.ModuleList(), nn.ModuleList()
        for level, out in enumerate(widths):
            widths_in = [width] + [out] * (layers - 1)  # only the first block changes the width
            stage = Stage(widths_in, out, time_dim, groups, layers * attention[level])
            skip_widths += [out] * layers  # each block's result will wait
            if level < len(widths) - 1:  # all but the coarsest level
                stage.downsamplers.append(Downsample(out))
                skip_widths.append(out)  # and so will the smaller image
            self.down_blocks.append(stage)
            width = out  # what the next level gets
        self.mid_block = Stage([width, width], width, time_dim, groups, attentions=1)  # the coarsest view
        for level, out in reversed(list(enumerate(widths))):
            joined = [(out if i else width) + skip_widths.pop() for i in range(layers + 1)]  # x and its skip
            stage = Stage(joined, out, time_dim, groups, (layers + 1) * attention[level])
            if level:  # all but the finest level
                stage.upsamplers.append(Upsample(out))
            self.up_blocks.append(stage)
            width = out  # what the next level gets
        self.conv_norm_out = nn.GroupNorm(groups, width, eps=1e-6)  # steady scale before the last layer
        self.conv_out = nn.Conv2d(width, channels, 3, padding=1)  # from features back to pixels

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The predicted noise (B, C, H, W) in images x (B, C, H, W) at levels t (B,)."""
        if not x.is_floating_point() or t.shape != x.shape[:1]:
            given = f"{x.dtype} and t {tuple(t.shape)}"
            raise ValueError(f"float images and one t for each are expected, given {given}")
        if x.ndim != 4 or x.shape[1] != self.channels or any(n % self.factor for n in x.shape[2:]):
            raise ValueError(
                f"images of shape (B, {self.channels}, H, W) with H and W multiples of {self.factor} are "
                f"expected, given {tuple(x.shape)}"
            )
        eps = self.denoise(x, self.time_embedding(t))  # (B, C, H, W) one number for each pixel
        return eps

    def denoise(self, x: Tensor, embedding: Tensor) -> Tensor:
        """The U itself: images x (B, _, H, W), and what every block is told, embedding (B, E)."""
        time = F.silu(embedding)  # (B, E) the noise level, for every block
        x = self.conv_in(x)  # (B, O, H, W) features of each pixel
        skips = [x]  # a stack: last kept, first used
        for stage in self.down_blocks:
            x = stage.down(x, time, skips)  # (B, _, _, _) half as large after each stage but the last
        x = self.mid_block.block(0, x, time)  # (B, _, _, _) the whole image at a glance
        x = self.mid_block.block(1, x, time)  # (B, _, _, _) once more, without attention
        for stage in self.up_blocks:
            x = stage.up(x, time, skips)  # (B, _, _, _) twice as large after each stage but the last
        eps = self.conv_out(F.silu(self.conv_norm_out(x)))  # (B, C, H, W) one number for each pixel
        return eps


# --8<-- [end:unet]
