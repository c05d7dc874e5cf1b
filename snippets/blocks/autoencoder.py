"""The autoencoder of latent diffusion (Rombach et al. 2021, arXiv 2112.10752), with the parameter names of
diffusers' AutoencoderKL: pictures to small latents and back.

Shapes: B batch, C channels of a picture, Z channels of a latent, H height, W width, O features.
"""

# --8<-- [start:imports]
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

# --8<-- [end:imports]
from snippets.blocks.unet import Attention, Downsample, Upsample


# --8<-- [start:sizes]
@dataclass(frozen=True)
class AutoencoderConfig:
    """Sizes of an autoencoder; each level after the first halves height and width.

    Stable Diffusion's: 3 channels, 4 latent channels, widths (128, 256, 512, 512), 2 layers, 32 groups.
    """

    channels: int = 3
    latent_channels: int = 4
    widths: tuple[int, ...] = (32, 64, 64)
    layers: int = 1  # residual blocks a level on the way down; one more on the way up
    groups: int = 8  # of the normalisation; they divide every width

    def __post_init__(self):
        if not self.widths or any(width % self.groups for width in self.widths):
            raise ValueError(f"widths divisible by {self.groups} groups are expected, given {self.widths}")

    @property
    def factor(self) -> int:
        """How many times as high and wide as the latent the picture is."""
        return 2 ** (len(self.widths) - 1)


# --8<-- [end:sizes]


# --8<-- [start:block]
class PlainBlock(nn.Module):
    """Two 3x3 convolutions with a short cut around them; no noise level to be told."""

    def __init__(self, width_in: int, width_out: int, groups: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, width_in, eps=1e-6)
        self.conv1 = nn.Conv2d(width_in, width_out, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, width_out, eps=1e-6)
        self.conv2 = nn.Conv2d(width_out, width_out, 3, padding=1)
        same = width_in == width_out  # the sum below needs equal widths
        self.conv_shortcut = nn.Identity() if same else nn.Conv2d(width_in, width_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(F.silu(self.norm1(x)))  # (B, O, H, W)
        hidden = self.conv2(F.silu(self.norm2(hidden)))  # (B, O, H, W)
        out = self.conv_shortcut(x) + hidden  # (B, O, H, W) a correction of x
        return out


class PlainStage(nn.Module):
    """Residual blocks, attention after the first of them if there is any, then perhaps another resolution."""

    def __init__(self, widths_in: list[int], width: int, groups: int):
        super().__init__()
        self.resnets = nn.ModuleList(PlainBlock(width_in, width, groups) for width_in in widths_in)
        self.attentions = nn.ModuleList()  # filled in the middle of the network
        self.downsamplers = nn.ModuleList()  # filled in the encoder, but for the last stage
        self.upsamplers = nn.ModuleList()  # filled in the decoder, but for the last stage

    def forward(self, x: Tensor) -> Tensor:
        x = self.resnets[0](x)  # (B, O, H, W)
        for layer in [*self.attentions, *self.resnets[1:], *self.downsamplers, *self.upsamplers]:
            x = layer(x)  # (B, O, _, _) the last layer may halve or double height and width
        return x


def middle(width: int, groups: int) -> PlainStage:
    """The stage at the coarsest resolution: two blocks, between them attention with one head."""
    stage = PlainStage([width, width], width, groups)
    stage.attentions.append(Attention(width, groups))
    return stage


# --8<-- [end:block]


# --8<-- [start:coders]
class Encoder(nn.Module):
    """From a picture (B, C, H, W) to mean and log-variance of each number of its latent, side by side."""

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        width = config.widths[0]
        self.conv_in = nn.Conv2d(config.channels, width, 3, padding=1)
        self.down_blocks = nn.ModuleList()
        for level, out in enumerate(config.widths):
            stage = PlainStage([width] + [out] * (config.layers - 1), out, config.groups)
            if level < len(config.widths) - 1:  # all but the coarsest level
                stage.downsamplers.append(Downsample(out))
            self.down_blocks.append(stage)
            width = out
        self.mid_block = middle(width, config.groups)
        self.conv_norm_out = nn.GroupNorm(config.groups, width, eps=1e-6)
        self.conv_out = nn.Conv2d(width, 2 * config.latent_channels, 3, padding=1)

    def forward(self, picture: Tensor) -> Tensor:
        hidden = self.conv_in(picture)  # (B, O, H, W)
        for stage in [*self.down_blocks, self.mid_block]:
            hidden = stage(hidden)  # (B, _, _, _) half as large after each stage that has a downsampler
        moments = self.conv_out(F.silu(self.conv_norm_out(hidden)))  # (B, 2 * Z, _, _)
        return moments


class Decoder(nn.Module):
    """From a latent (B, Z, H, W) to a picture, 2 ** (levels - 1) times as high and wide."""

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        width = config.widths[-1]
        self.conv_in = nn.Conv2d(config.latent_channels, width, 3, padding=1)
        self.mid_block = middle(width, config.groups)
        self.up_blocks = nn.ModuleList()
        for level, out in reversed(list(enumerate(config.widths))):
            stage = PlainStage([width] + [out] * config.layers, out, config.groups)
            if level:  # all but the finest level
                stage.upsamplers.append(Upsample(out))
            self.up_blocks.append(stage)
            width = out
        self.conv_norm_out = nn.GroupNorm(config.groups, width, eps=1e-6)
        self.conv_out = nn.Conv2d(width, config.channels, 3, padding=1)

    def forward(self, latent: Tensor) -> Tensor:
        hidden = self.conv_in(latent)  # (B, O, H, W)
        for stage in [self.mid_block, *self.up_blocks]:
            hidden = stage(hidden)  # (B, _, _, _) twice as large after each stage that has an upsampler
        picture = self.conv_out(F.silu(self.conv_norm_out(hidden)))  # (B, C, _, _)
        return picture


# --8<-- [end:coders]


# --8<-- [start:autoencoder]
class AutoencoderKL(nn.Module):
    """Encoder and decoder. A picture is encoded as a Gaussian, close to the standard one."""

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.quant_conv = nn.Conv2d(2 * config.latent_channels, 2 * config.latent_channels, 1)
        self.post_quant_conv = nn.Conv2d(config.latent_channels, config.latent_channels, 1)

    def encode(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, each (B, Z, h, w), of the latents of pictures (B, C, H, W) in [-1, 1]."""
        channels, factor = self.config.channels, self.config.factor
        fits = pictures.ndim == 4 and pictures.shape[1] == channels and pictures.is_floating_point()
        if not fits or any(size % factor for size in pictures.shape[2:]):
            wanted = f"float pictures (B, {channels}, H, W) with H and W multiples of {factor}"
            raise ValueError(f"{wanted} are expected, given {pictures.dtype} {tuple(pictures.shape)}")
        moments = self.quant_conv(self.encoder(pictures))  # (B, 2 * Z, _, _) smaller by the factor
        mean, log_variance = moments.chunk(2, dim=1)  # (B, Z, _, _), (B, Z, _, _)
        log_variance = log_variance.clamp(-30, 20)  # (B, Z, _, _) so that its exponential stays a number
        return mean, log_variance

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures (B, C, factor * H, factor * W) of latents (B, Z, H, W)."""
        channels = self.config.latent_channels
        if latents.ndim != 4 or latents.shape[1] != channels or not latents.is_floating_point():
            wanted = f"float latents (B, {channels}, H, W)"
            raise ValueError(f"{wanted} are expected, given {latents.dtype} {tuple(latents.shape)}")
        pictures = self.decoder(self.post_quant_conv(latents))  # (B, C, _, _)
        return pictures


def sample_latent(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """A draw (B, Z, H, W) from the encoder's Gaussians, given standard normal noise of the same shape."""
    if not mean.shape == log_variance.shape == noise.shape:
        given = f"{tuple(mean.shape)}, {tuple(log_variance.shape)} and {tuple(noise.shape)}"
        raise ValueError(f"mean, log-variance and noise of one shape are expected, given {given}")
    latent = mean + (log_variance / 2).exp() * noise  # (B, Z, H, W) gradients reach mean and variance
    return latent


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """How far each picture's Gaussians are from the standard one: KL (B,), summed over the latent."""
    if mean.ndim != 4 or mean.shape != log_variance.shape:
        given = f"{tuple(mean.shape)} and {tuple(log_variance.shape)}"
        raise ValueError(f"mean and log-variance (B, Z, H, W) are expected, given {given}")
    each = (mean**2 + log_variance.exp() - 1 - log_variance) / 2  # (B, Z, H, W) 0 where mean 0, variance 1
    return each.sum(dim=(1, 2, 3))


# --8<-- [end:autoencoder]
