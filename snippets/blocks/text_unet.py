"""The U-Net of Stable Diffusion (Rombach et al. 2021, arXiv 2112.10752), which looks at the states of a text,
with the parameter names of diffusers' UNet2DConditionModel.

Shapes: B batch, C channels, H height, W width, O features, N pixels or words that look, L words that are
looked at, D features of a word, E time embedding.
"""

# --8<-- [start:imports]
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# --8<-- [end:imports]
from snippets.blocks.unet import ResBlock, TimeEmbedding, timestep_embedding


# --8<-- [start:config]
@dataclass(frozen=True)
class UNetConfig:
    """Sizes of the U-Net. Each level halves height and width; `attention` says which ones look at the text.

    Stable Diffusion 1: widths (320, 640, 1280, 1280), attention at the first three levels, 2 layers, 8 heads
    at each level, text of width 768, 32 groups. Stable Diffusion 2 has 5, 10, 20 and 20 heads, text of width
    1024, and `linear`, which stores the transformers' first and last layers as matrices.
    """

    channels: int = 4
    widths: tuple[int, ...] = (32, 64)
    attention: tuple[bool, ...] = (True, True)
    heads: tuple[int, ...] = (4, 4)  # how many, at each level
    text_width: int = 64
    layers: int = 1  # residual blocks a level on the way down; one more on the way up
    groups: int = 8  # of the normalisation; they divide every width
    linear: bool = False

    def __post_init__(self):
        if not self.widths or not len(self.widths) == len(self.attention) == len(self.heads):
            given = f"{self.widths}, {self.attention}, {self.heads}"
            raise ValueError(
                f"a width, an attention flag and heads for each level are expected, given {given}"
            )
        pairs = zip(self.widths, self.heads, strict=True)
        if any(width % heads or width % self.groups for width, heads in pairs):
            given = f"{self.widths}, {self.heads} and {self.groups}"
            raise ValueError(f"widths divisible by their heads and the groups are expected, given {given}")


# --8<-- [end:config]


# --8<-- [start:cross-attention]
class CrossAttention(nn.Module):
    """Each row of x asks, the words of a text answer; with x itself as the text this is self-attention."""

    def __init__(self, width: int, text_width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)  # what a pixel asks
        self.to_k = nn.Linear(text_width, width, bias=False)  # what a word offers
        self.to_v = nn.Linear(text_width, width, bias=False)  # what a word passes on
        self.to_out = nn.ModuleList([nn.Linear(width, width)])  # a list, as in diffusers' layout

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        query = self.to_q(x).unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, _, N, _) a matrix a head
        key = self.to_k(text).unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, _, L, _)
        value = self.to_v(text).unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, _, L, _)
        mixed = F.scaled_dot_product_attention(query, key, value)  # (B, _, N, _) no mask: all words are seen
        out = self.to_out[0](mixed.transpose(1, 2).flatten(2))  # (B, N, O)
        return out


# --8<-- [end:cross-attention]


# --8<-- [start:feed-forward]
class GEGLU(nn.Module):
    """One layer makes values and gates; a value passes as far as the GELU of its gate lets it."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.proj = nn.Linear(width, 2 * hidden)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)  # (B, N, _), (B, N, _) the value first
        out = value * F.gelu(gate)  # (B, N, _)
        return out


class FeedForward(nn.Module):
    """What each pixel does with what it has learnt: four times as wide inside, with gates."""

    def __init__(self, width: int):
        super().__init__()
        self.net = nn.Sequential(GEGLU(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        out = self.net(x)  # (B, N, O)
        return out


# --8<-- [end:feed-forward]


# --8<-- [start:transformer]
class TransformerBlock(nn.Module):
    """Pixels look at each other, then at the text, then each thinks for itself; each time x is corrected."""

    def __init__(self, width: int, text_width: int, heads: int):
        super().__init__()
        self.norm1, self.attn1 = nn.LayerNorm(width), CrossAttention(width, width, heads)
        self.norm2, self.attn2 = nn.LayerNorm(width), CrossAttention(width, text_width, heads)
        self.norm3, self.ff = nn.LayerNorm(width), FeedForward(width)

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        normed = self.norm1(x)  # (B, N, O)
        x = x + self.attn1(normed, normed)  # (B, N, O) pixels among themselves
        x = x + self.attn2(self.norm2(x), text)  # (B, N, O) the only place where the text comes in
        x = x + self.ff(self.norm3(x))  # (B, N, O)
        return x


class PixelLinear(nn.Linear):
    """A linear layer for each pixel: a 1x1 convolution whose weights are stored as a matrix."""

    def forward(self, x: Tensor) -> Tensor:
        out = F.conv2d(x, self.weight[:, :, None, None], self.bias)  # (B, O, H, W)
        return out


class Transformer(nn.Module):
    """A transformer block for the pixels of an image, in a correction of that image."""

    def __init__(self, width: int, heads: int, config: UNetConfig):
        super().__init__()
        self.norm = nn.GroupNorm(config.groups, width, eps=1e-6)  # elsewhere in this network: 1e-5
        self.proj_in, self.proj_out = (
            PixelLinear(width, width) if config.linear else nn.Conv2d(width, width, 1) for _ in range(2)
        )
        self.transformer_blocks = nn.ModuleList([TransformerBlock(width, config.text_width, heads)])

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        inside = self.proj_in(self.norm(x))  # (B, O, H, W)
        pixels = inside.flatten(2).transpose(1, 2)  # (B, H * W, O) the image as a sequence
        pixels = self.transformer_blocks[0](pixels, text)  # (B, H * W, O)
        inside = pixels.transpose(1, 2).unflatten(2, x.shape[2:])  # (B, O, H, W)
        out = x + self.proj_out(inside)  # (B, O, H, W)
        return out


# --8<-- [end:transformer]


# --8<-- [start:resample]
class Halve(nn.Module):
    """Half of height and width, rounded up: a convolution that steps two pixels, padded on all sides."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        half = self.conv(x)  # (B, O, _, _) half of H and W, rounded up
        return half


class Enlarge(nn.Module):
    """To the size of what the way down kept at the next level: repeat pixels, then smooth."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        repeated = F.interpolate(x, size=like.shape[2:], mode="nearest")  # (B, O, _, _) as large as like
        smooth = self.conv(repeated)  # (B, O, _, _)
        return smooth


# --8<-- [end:resample]


# --8<-- [start:stage]
def resblock(width_in: int, width_out: int, time_width: int, groups: int) -> ResBlock:
    """The residual block of DDPM's page, with the normalisation's eps of Stable Diffusion."""
    block = ResBlock(width_in, width_out, time_width, groups)
    block.norm1.eps = block.norm2.eps = 1e-5
    return block


class TextStage(nn.Module):
    """Residual blocks at one resolution, each followed by a transformer if the level looks at the text."""

    def __init__(self, widths_in: list[int], width: int, heads: int, config: UNetConfig):
        super().__init__()
        time_width = 4 * config.widths[0]
        self.resnets = nn.ModuleList(resblock(w, width, time_width, config.groups) for w in widths_in)
        self.attentions = nn.ModuleList(Transformer(width, heads, config) for _ in widths_in if heads)
        self.downsamplers = nn.ModuleList()  # filled on the way down, but for the last stage
        self.upsamplers = nn.ModuleList()  # filled on the way up, but for the last stage

    def block(self, index: int, x: Tensor, time: Tensor, text: Tensor) -> Tensor:
        out = self.resnets[index](x, time)  # (B, O, H, W)
        if index < len(self.attentions):
            out = self.attentions[index](out, text)  # (B, O, H, W)
        return out

    def down(self, x: Tensor, time: Tensor, text: Tensor, skips: list[Tensor]) -> Tensor:
        for index in range(len(self.resnets)):
            x = self.block(index, x, time, text)  # (B, O, H, W)
            skips.append(x)  # kept for the way up
        for halve in self.downsamplers:
            x = halve(x)  # (B, O, _, _) half as high and wide
            skips.append(x)  # kept too
        return x

    def up(self, x: Tensor, time: Tensor, text: Tensor, skips: list[Tensor]) -> Tensor:
        for index in range(len(self.resnets)):
            joined = torch.cat([x, skips.pop()], dim=1)  # (B, _, H, W)
            x = self.block(index, joined, time, text)  # (B, O, H, W)
        for enlarge in self.upsamplers:
            x = enlarge(x, like=skips[-1])  # (B, O, _, _) as large as what comes next
        return x


# --8<-- [end:stage]


# --8<-- [start:unet]
class LevelEmbedding(TimeEmbedding):
    """The time embedding with cosines before sines, and the longest wave a little shorter."""

    def forward(self, t: Tensor) -> Tensor:
        wave = timestep_embedding(t, self.dim, shift=0).roll(self.dim // 2, dims=1)  # (B, D) cosines first
        hidden = F.silu(self.linear_1(wave.to(self.linear_1.weight.dtype)))  # (B, E)
        embedding = self.linear_2(hidden)  # (B, E)
        return embedding


class ConditionedUNet(nn.Module):
    """What noise is in a latent, given a text: a U-Net whose pixels look at the words' states."""

    def __init__(self, config: UNetConfig):
        super().__init__()
        self.config = config
        width = config.widths[0]
        heads = [count * flag for count, flag in zip(config.heads, config.attention, strict=True)]  # 0: none
        self.time_embedding = LevelEmbedding(width, 4 * width)
        self.conv_in = nn.Conv2d(config.channels, width, 3, padding=1)
        skip_widths = [width]  # widths of what the way down keeps for the way up
        self.down_blocks, self.up_blocks = nn.ModuleList(), nn.ModuleList()
        for level, out in enumerate(config.widths):
            stage = TextStage([width] + [out] * (config.layers - 1), out, heads[level], config)
            skip_widths += [out] * config.layers
            if level < len(config.widths) - 1:  # all but the coarsest level
                stage.downsamplers.append(Halve(out))
                skip_widths.append(out)
            self.down_blocks.append(stage)
            width = out
        self.mid_block = TextStage([width, width], width, config.heads[-1], config)
        del self.mid_block.attentions[1]  # only between its two residual blocks
        for level, out in reversed(list(enumerate(config.widths))):
            joined = [(out if i else width) + skip_widths.pop() for i in range(config.layers + 1)]
            stage = TextStage(joined, out, heads[level], config)
            if level:  # all but the finest level
                stage.upsamplers.append(Enlarge(out))
            self.up_blocks.append(stage)
            width = out
        self.conv_norm_out = nn.GroupNorm(config.groups, width, eps=1e-5)
        self.conv_out = nn.Conv2d(width, config.channels, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor, text: Tensor) -> Tensor:
        """The prediction (B, C, H, W) for noisy latents x (B, C, H, W), levels t (B,), text (B, L, D).

        Levels may be fractions. The text is given as the states of its words, one row for each.
        """
        channels, text_width = self.config.channels, self.config.text_width
        if x.ndim != 4 or x.shape[1] != channels or t.shape != x.shape[:1] or not x.is_floating_point():
            given = f"{x.dtype} {tuple(x.shape)} and t {tuple(t.shape)}"
            raise ValueError(f"float latents (B, {channels}, H, W), t (B,) are expected, given {given}")
        if text.ndim != 3 or text.shape[2] != text_width or len(text) != len(x):
            wanted = f"states of a text for each of {len(x)} latents (B, L, {text_width})"
            raise ValueError(f"{wanted} are expected, given {tuple(text.shape)}")
        time = F.silu(self.time_embedding(t))  # (B, E) the noise level, for every block
        x, skips = self.encode(x, time, text)  # (B, _, _, _), _
        x = self.mid_block.block(0, x, time, text)  # (B, _, _, _)
        x = self.mid_block.block(1, x, time, text)  # (B, _, _, _)
        out = self.decode(x, time, text, skips)  # (B, C, H, W)
        return out

    def encode(self, x: Tensor, time: Tensor, text: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The way down: the coarsest view, and what is kept for the way up."""
        x = self.conv_in(x)  # (B, O, H, W)
        skips = [x]  # a stack: last kept, first used
        for stage in self.down_blocks:
            x = stage.down(x, time, text, skips)  # (B, _, _, _) half as large after each stage but the last
        return x, skips

    def decode(self, x: Tensor, time: Tensor, text: Tensor, skips: list[Tensor]) -> Tensor:
        """The way up: the prediction (B, C, H, W), from the coarsest view x (B, O, h, w) and the skips."""
        for stage in self.up_blocks:
            x = stage.up(x, time, text, skips)  # (B, _, _, _) twice as large after each stage but the last
        out = self.conv_out(F.silu(self.conv_norm_out(x)))  # (B, C, H, W)
        return out


# --8<-- [end:unet]
