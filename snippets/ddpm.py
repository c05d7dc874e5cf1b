"""Denoising Diffusion Probabilistic Models (Ho et al. 2020, arXiv 2006.11239), with the DDIM sampler
(Song et al. 2020, arXiv 2010.02502) and the cosine schedule (Nichol and Dhariwal 2021, arXiv 2102.09672).

Shapes: B batch, C channels, H height, W width, T noise levels, N images, S sampling steps.
Time is an index: t = 0 is the least noisy level, t = T - 1 is almost pure noise. The paper counts from 1,
so its t is ours plus 1; x0 is the clean image in both.
"""

# --8<-- [start:imports]
import copy
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import trange

# --8<-- [end:imports]
from snippets.blocks.checkpoint import fill, read_config, read_weights
from snippets.blocks.unet import Attention, Downsample, UNet
from snippets.data.digits import digits


# --8<-- [start:beta]
def linear_beta(num_steps: int = 1000, beta_min: float = 1e-4, beta_max: float = 0.02) -> Tensor:
    """Variances beta (T,), float64, that grow evenly from beta_min to beta_max (section 4 of the paper)."""
    if num_steps <= 0 or not 0 < beta_min <= beta_max < 1:
        given = f"{num_steps}, {beta_min}, {beta_max}"
        raise ValueError(f"num_steps > 0 and 0 < beta_min <= beta_max < 1 are expected, given {given}")
    beta = torch.linspace(beta_min, beta_max, num_steps, dtype=torch.float64)  # (T,) one for each level
    return beta


def cosine_beta(num_steps: int = 1000, offset: float = 0.008) -> Tensor:
    """Variances beta (T,), float64, that make alpha_bar a squared cosine (Improved DDPM, Eq. 17)."""
    if num_steps <= 0 or offset < 0:
        raise ValueError(f"num_steps > 0 and offset >= 0 are expected, given {num_steps}, {offset}")
    time = torch.linspace(0, 1, num_steps + 1, dtype=torch.float64)  # (T + 1,) 0 is clean, 1 is noise
    alpha_bar = torch.cos((time + offset) / (1 + offset) * math.pi / 2).square()  # (T + 1,) up to a factor
    beta = 1 - alpha_bar[1:] / alpha_bar[:-1]  # (T,) the factor cancels in the ratio
    beta = beta.clamp(max=0.999)  # (T,) the last would be 1: no signal at all, and no way back
    return beta


# --8<-- [end:beta]


# --8<-- [start:schedule]
class NoiseSchedule(nn.Module):
    """Tables of length T, in float64: how much signal and noise x_t holds, and its steps' variances."""

    def __init__(self, beta: Tensor):
        super().__init__()
        if beta.ndim != 1 or not len(beta) or not bool(((beta > 0) & (beta < 1)).all()):
            raise ValueError(f"beta is a non-empty row of numbers in (0, 1), given {beta}")
        beta = beta.double()  # (T,) float32 would leave 1 - alpha_bar about 3 digits at t = 0
        alpha_bar = torch.cumprod(1 - beta, dim=0)  # (T,) share of the image's variance left at t
        before = torch.cat([torch.ones_like(beta[:1]), alpha_bar[:-1]])  # (T,) one level earlier; 1 at t = 0
        beta_tilde = beta * (1 - before) / (1 - alpha_bar)  # (T,) variance of a step back, if x_0 is known
        self.num_steps = len(beta)  # T
        self.register_buffer("beta", beta)  # noise that step t adds
        self.register_buffer("alpha_bar", alpha_bar)
        self.register_buffer("alpha_bar_before", before)
        self.register_buffer("signal", alpha_bar.sqrt())  # factor of the image in x_t
        self.register_buffer("noise", (1 - alpha_bar).sqrt())  # factor of the noise in x_t
        self.register_buffer("beta_tilde", beta_tilde)

    def pick(self, table: Tensor, t: Tensor, x: Tensor, *others: Tensor) -> Tensor:
        """The entries (B, 1, 1, 1) of a table (T,) at levels t (B,) of images x (B, C, H, W), in float64.

        Others, such as their noise, must have the shape of x: a single noise would serve all images.
        """
        if any(other.shape != x.shape for other in others):
            given = ", ".join(str(tuple(image.shape)) for image in (x, *others))
            raise ValueError(f"images and noise of one shape are expected, given {given}")
        if x.ndim != 4 or not x.is_floating_point():
            raise ValueError(f"float images (B, C, H, W) are expected, given {x.dtype} {tuple(x.shape)}")
        if t.shape != x.shape[:1] or t.is_floating_point() or t.min() < 0 or t.max() >= self.num_steps:
            raise ValueError(f"one integer t in [0, {self.num_steps}) per image is expected, given {t}")
        entry = table[t.to(table.device).long()].view(-1, 1, 1, 1)  # (B, 1, 1, 1) one number for each image
        return entry

    def at(self, table: Tensor, t: Tensor, x: Tensor, *others: Tensor) -> Tensor:
        """The same in the images' type and on their device, ready to multiply them."""
        entry = self.pick(table, t, x, *others).to(x)  # (B, 1, 1, 1) cast last
        return entry


# --8<-- [end:schedule]


# --8<-- [start:forward]
def q_step(schedule: NoiseSchedule, x: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """One step of the forward process, up to level t (the paper's Eq. 2): shrink, add some noise."""
    keep = schedule.at((1 - schedule.beta).sqrt(), t, x, eps)  # (B, 1, 1, 1) a little less than 1
    add = schedule.at(schedule.beta.sqrt(), t, x)  # (B, 1, 1, 1) how much noise this step adds
    xt = keep * x + add * eps  # (B, C, H, W) the variance stays 1 if it was 1
    return xt


def q_sample(schedule: NoiseSchedule, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """Jump from clean images x0 to level t (the paper's Eq. 4): all steps' noises add up to one Gaussian."""
    signal = schedule.at(schedule.signal, t, x0, eps)  # (B, 1, 1, 1) what is left of the image
    noise = schedule.at(schedule.noise, t, x0)  # (B, 1, 1, 1) how much noise has come in
    xt = signal * x0 + noise * eps  # (B, C, H, W) the noisy image
    return xt


# --8<-- [end:forward]


# --8<-- [start:conversions]
def x0_from_eps(schedule: NoiseSchedule, xt: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """Solve q_sample for the clean image: take the noise off, undo the shrinking."""
    signal = schedule.at(schedule.signal, t, xt, eps)  # (B, 1, 1, 1) near 0 at the noisy end: errors grow
    noise = schedule.at(schedule.noise, t, xt)  # (B, 1, 1, 1) how much of eps is in xt
    x0 = (xt - noise * eps) / signal  # (B, C, H, W) the clean image that eps implies
    return x0


def eps_from_x0(schedule: NoiseSchedule, xt: Tensor, t: Tensor, x0: Tensor) -> Tensor:
    """Solve q_sample for the noise."""
    signal = schedule.at(schedule.signal, t, xt)  # (B, 1, 1, 1) how much of x0 is in xt
    noise = schedule.at(schedule.noise, t, xt)  # (B, 1, 1, 1) near 0 at the clean end: errors of x0 grow
    eps = (xt - signal * x0) / noise  # (B, C, H, W) the noise that x0 implies
    return eps


def velocity(schedule: NoiseSchedule, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """The v of Salimans and Ho (2022): the noise near the clean end, minus the image near the noisy end."""
    signal = schedule.at(schedule.signal, t, x0, eps)  # (B, 1, 1, 1) cosine of an angle
    noise = schedule.at(schedule.noise, t, x0)  # (B, 1, 1, 1) sine of the same angle
    v = signal * eps - noise * x0  # (B, C, H, W) (x_t, v) is (x_0, eps), rotated by that angle
    return v


def x0_from_v(schedule: NoiseSchedule, xt: Tensor, t: Tensor, v: Tensor) -> Tensor:
    """Rotate back: the clean image. No division, so no level at which errors grow."""
    signal = schedule.at(schedule.signal, t, xt, v)  # (B, 1, 1, 1) cosine of the angle
    noise = schedule.at(schedule.noise, t, xt)  # (B, 1, 1, 1) sine of the angle
    x0 = signal * xt - noise * v  # (B, C, H, W) the clean image that v implies
    return x0


def eps_from_v(schedule: NoiseSchedule, xt: Tensor, t: Tensor, v: Tensor) -> Tensor:
    """Rotate back: the noise."""
    signal = schedule.at(schedule.signal, t, xt, v)  # (B, 1, 1, 1) cosine of the angle
    noise = schedule.at(schedule.noise, t, xt)  # (B, 1, 1, 1) sine of the angle
    eps = noise * xt + signal * v  # (B, C, H, W) the noise that v implies
    return eps


# --8<-- [end:conversions]


# --8<-- [start:posterior]
def posterior_mean(schedule: NoiseSchedule, x0: Tensor, xt: Tensor, t: Tensor) -> Tensor:
    """Mean of q(x_{t-1} | x_t, x_0) (its Eq. 7): both images, weighted. The variance is beta_tilde."""
    beta, before, after = schedule.beta, schedule.alpha_bar_before, schedule.alpha_bar  # (T,), (T,), (T,)
    weight_x0 = schedule.at(before.sqrt() * beta / (1 - after), t, xt)  # (B, 1, 1, 1) 1 at t = 0
    weight_xt = schedule.at((1 - beta).sqrt() * (1 - before) / (1 - after), t, xt)  # (B, 1, 1, 1) 0 at t = 0
    mean = weight_x0 * x0 + weight_xt * xt  # (B, C, H, W) at t = 0 the clean image itself
    return mean


# --8<-- [end:posterior]


# --8<-- [start:loss]
def noise_like(x: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal numbers of the shape, type and device of float images x (B, C, H, W)."""
    if x.ndim != 4 or not x.is_floating_point():
        raise ValueError(f"float images (B, C, H, W) are expected, given {x.dtype} {tuple(x.shape)}")
    noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)  # (B, C, H, W) fresh
    return noise


def ddpm_loss(model: nn.Module, schedule: NoiseSchedule, x0: Tensor, generator: torch.Generator) -> Tensor:
    """Algorithm 1, one batch: the mean squared error of the predicted noise at random levels (its Eq. 14)."""
    eps = noise_like(x0, generator)  # (B, C, H, W) the answer
    t = torch.randint(schedule.num_steps, x0.shape[:1], generator=generator, device=x0.device)  # (B,) levels
    xt = q_sample(schedule, x0, t, eps)  # (B, C, H, W) the question
    loss = F.mse_loss(model(xt, t), eps)  # () how far the network's answer is off
    return loss


# --8<-- [end:loss]


# --8<-- [start:ema]
@torch.no_grad()
def ema_update(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Move each averaged weight towards the trained one: decay * average + (1 - decay) * weight."""
    if not 0 <= decay <= 1:
        raise ValueError(f"decay in [0, 1] is expected, given {decay}")
    for slow, fast in zip(average.parameters(), model.parameters(), strict=True):
        slow.lerp_(fast, 1 - decay)  # in place: no second copy of the network
    for slow, fast in zip(average.buffers(), model.buffers(), strict=True):
        slow.copy_(fast)  # what is counted, not learnt, such as BatchNorm's means


# --8<-- [end:ema]


# --8<-- [start:train]
def train(
    model: nn.Module, schedule: NoiseSchedule, x0: Tensor, num_steps: int, batch_size: int = 64
) -> nn.Module:
    """Train on images x0 (N, C, H, W) in [-1, 1] and return the averaged network, in `eval` mode."""
    if num_steps <= 0 or batch_size <= 0:
        raise ValueError(f"num_steps > 0 and batch_size > 0 are expected, given {num_steps}, {batch_size}")
    if not x0.is_floating_point() or not x0.abs().max() <= 1:  # NaN is not
        raise ValueError(f"float images in [-1, 1] are expected, given {x0.dtype} up to {x0.abs().max()}")
    generator = torch.Generator(x0.device).manual_seed(0)  # the same run each time
    average = copy.deepcopy(model).eval()  # a calmer copy, used for sampling
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3, fused=True)  # fused: all weights in one pass
    decline = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)  # ends at learning rate 0
    for step in trange(num_steps, desc="train", mininterval=2):
        rows = torch.randint(len(x0), (batch_size,), generator=generator, device=x0.device)  # (B,) images
        loss = ddpm_loss(model, schedule, x0[rows], generator)  # () Algorithm 1, lines 2 to 5
        optimizer.zero_grad()  # forget the last gradient
        loss.backward()  # how each weight changes the loss
        optimizer.step()  # move each weight a little
        decline.step()  # and next time a little less
        ema_update(average, model, decay=min(0.995, step / (step + 10)))  # average over more and more steps
    return average


# --8<-- [end:train]


# --8<-- [start:ddpm]
def ddpm_step(schedule: NoiseSchedule, xt: Tensor, t: Tensor, eps: Tensor, noise: Tensor) -> Tensor:
    """Algorithm 2, line 4: one level down from t, given the predicted noise eps and fresh noise."""
    beta = schedule.beta  # (T,)
    share = schedule.at(beta / schedule.noise, t, xt, eps, noise)  # (B, 1, 1, 1) how much of eps to take off
    growth = schedule.at(1 / (1 - beta).sqrt(), t, xt)  # (B, 1, 1, 1) undoes the forward step's shrinking
    mean = growth * (xt - share * eps)  # (B, C, H, W) a little cleaner, and back to full size
    sigma = schedule.at(schedule.beta_tilde, t, xt).sqrt()  # (B, 1, 1, 1) 0 at t = 0: no noise at the end
    x = mean + sigma * noise  # (B, C, H, W) a draw one level down
    return x


def ddpm_step_clipped(schedule: NoiseSchedule, xt: Tensor, t: Tensor, eps: Tensor, noise: Tensor) -> Tensor:
    """The step that most code takes: the implied image is clipped to [-1, 1] before it is used."""
    x0 = x0_from_eps(schedule, xt, t, eps).clamp(-1, 1)  # (B, C, H, W) no pixel can be outside
    sigma = schedule.at(schedule.beta_tilde, t, xt, noise).sqrt()  # (B, 1, 1, 1) as in ddpm_step
    x = posterior_mean(schedule, x0, xt, t) + sigma * noise  # (B, C, H, W) ddpm_step, if nothing clips
    return x


def ddpm_step_clipped_large(
    schedule: NoiseSchedule, xt: Tensor, t: Tensor, eps: Tensor, noise: Tensor
) -> Tensor:
    """The clipped step with the larger variance beta: the paper's on CIFAR-10, `fixed_large` in diffusers."""
    mean = ddpm_step_clipped(schedule, xt, t, eps, torch.zeros_like(noise))  # (B, C, H, W) without noise
    variance = schedule.beta * (schedule.beta_tilde > 0)  # (T,) beta, and still none at t = 0
    x = mean + schedule.at(variance, t, xt).sqrt() * noise  # (B, C, H, W) a little more noise at each step
    return x


@torch.no_grad()
def sample_ddpm(
    model: nn.Module, schedule: NoiseSchedule, xt: Tensor, generator: torch.Generator, step: Callable
) -> Iterator[Tensor]:
    """Algorithm 2: yield noise xt (B, C, H, W), then the images after each step, one of the three above."""
    yield xt
    for level in reversed(range(schedule.num_steps)):
        t = torch.full(xt.shape[:1], level, device=xt.device)  # (B,) all images at the same level
        noise = noise_like(xt, generator)  # (B, C, H, W) fresh at each step
        xt = step(schedule, xt, t, model(xt, t), noise)  # (B, C, H, W) one level cleaner
        yield xt


# --8<-- [end:ddpm]


# --8<-- [start:ddim]
def ddim_levels(schedule: NoiseSchedule, num_steps: int) -> list[int]:
    """num_steps levels from T - 1 down, evenly spaced, then -1 for the clean image."""
    if not 0 < num_steps <= schedule.num_steps:
        raise ValueError(f"num_steps in [1, {schedule.num_steps}] is expected, given {num_steps}")
    stops = torch.linspace(schedule.num_steps, 0, num_steps + 1)  # (S + 1,) from T to 0, evenly spaced
    return (stops.round().long() - 1).tolist()  # from T - 1 to -1


def ddim_step(
    schedule: NoiseSchedule, xt: Tensor, t: Tensor, target: Tensor, eps: Tensor, eta: float, noise: Tensor
) -> Tensor:
    """From levels t to any lower ones, target, where -1 is the clean image (DDIM, Eqs. 12 and 16).

    eta from 0 to 1 scales the fresh noise: none for 0, DDPM's posterior deviation for 1.
    """
    if not 0 <= eta <= 1 or (target >= t).any():
        raise ValueError(f"eta in [0, 1] and target < t are expected, given {eta}, {target} and t {t}")
    here = schedule.pick(schedule.alpha_bar, t, xt, eps, noise)  # (B, 1, 1, 1) alpha_bar where we are
    there = schedule.pick(schedule.alpha_bar_before, target + 1, xt)  # (B, 1, 1, 1) of the target; 1 at -1
    sigma = eta * ((1 - there) / (1 - here) * (1 - here / there)).sqrt()  # (B, 1, 1, 1) of the fresh noise
    direction = (1 - there - sigma**2).sqrt()  # (B, 1, 1, 1) how much of eps goes back in
    x0 = x0_from_eps(schedule, xt, t, eps)  # (B, C, H, W) the clean image that eps implies
    x = there.sqrt().to(xt) * x0 + direction.to(xt) * eps + sigma.to(xt) * noise  # (B, C, H, W) at the target
    return x


@torch.no_grad()
def sample_ddim(
    model: nn.Module,
    schedule: NoiseSchedule,
    xt: Tensor,
    num_steps: int,
    eta: float,
    generator: torch.Generator,
) -> Tensor:
    """Images (B, C, H, W) from noise xt (B, C, H, W), in num_steps evaluations of the network."""
    levels = ddim_levels(schedule, num_steps)  # where to stop
    for level, lower in zip(levels[:-1], levels[1:], strict=True):
        t = torch.full(xt.shape[:1], level, device=xt.device)  # (B,) where all images are
        target = torch.full_like(t, lower)  # (B,) where they go
        noise = noise_like(xt, generator)  # (B, C, H, W) unused if eta = 0
        xt = ddim_step(schedule, xt, t, target, model(xt, t), eta, noise)  # (B, C, H, W) fewer, longer steps
    return xt


# --8<-- [end:ddim]


# --8<-- [start:grid]
def save_grid(path: str, images: Tensor, columns: int = 10) -> None:
    """Write images (N, C, H, W) in [-1, 1], grey (C = 1) or coloured (C = 3), to a PNG file."""
    fits = images.ndim == 4 and images.shape[1] in (1, 3) and images.is_floating_point()
    if not fits or not len(images) or columns <= 0:
        given = f"{images.dtype} {tuple(images.shape)} and columns = {columns}"
        wanted = "float images (N, 1 or 3, H, W), N > 0, and columns > 0"
        raise ValueError(f"{wanted} are expected, given {given}")
    pixels = (images.clamp(-1, 1).permute(0, 2, 3, 1).cpu().float() + 1) / 2  # (N, H, W, C) from 0 to 1
    rows = math.ceil(len(images) / columns)  # the last row may be shorter
    figure, axes = plt.subplots(rows, columns, figsize=(columns * 0.7, rows * 0.7), squeeze=False)
    for axis, image in zip(axes.flat, pixels.numpy(), strict=False):
        axis.imshow(image, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")  # grey: ink is dark
    for axis in axes.flat:
        axis.axis("off")  # no ticks
    figure.savefig(path, dpi=100)
    plt.close(figure)


# --8<-- [end:grid]


# --8<-- [start:pretrained]
def load_pretrained(folder: str | Path) -> UNet:
    """The U-Net of a folder in diffusers' layout, such as that of google/ddpm-cifar10-32, in `eval` mode.

    The folder holds config.json and diffusion_pytorch_model.safetensors. Raises ValueError where one is
    missing, and where the configuration is not that of this page's network, but for its numbers.
    """
    expected = {"center_input_sample": False, "time_embedding_type": "positional", "time_embedding_dim": None}
    expected |= {"act_fn": "silu", "mid_block_type": "UNetMidBlock2D", "mid_block_scale_factor": 1}
    expected |= {"downsample_type": "conv", "upsample_type": "conv", "resnet_time_scale_shift": "default"}
    expected |= {"num_class_embeds": None, "class_embed_type": None, "add_attention": True}
    expected |= {"attn_norm_num_groups": None, "dual_cross_attention": False, "quantization_config": None}
    needed = "in_channels", "out_channels", "block_out_channels", "down_block_types", "up_block_types"
    given = read_config(folder, expected, needed)
    absent = {"layers_per_block": 2, "norm_num_groups": 32, "norm_eps": 1e-5, "downsample_padding": 1}
    absent |= {"flip_sin_to_cos": True, "freq_shift": 0, "attention_head_dim": 8}  # as diffusers assumes
    given = absent | given
    attention = [kind.startswith("Attn") for kind in given["down_block_types"]]
    blocks = {"Attn" * flag + f"{way}Block2D" for flag in (0, 1) for way in ("Down", "Up")}
    symmetric = [kind.startswith("Attn") for kind in given["up_block_types"]] == attention[::-1]
    if not symmetric or not blocks >= {*given["down_block_types"], *given["up_block_types"]}:
        raise ValueError(f"a symmetric U of {sorted(blocks)} is expected, given {given['up_block_types']}")
    if given["out_channels"] != given["in_channels"] or given["downsample_padding"] not in (0, 1):
        names = "in_channels", "out_channels", "downsample_padding"
        values = [given[name] for name in names]
        raise ValueError(f"channels out as in, and a padding of 0 or 1, are expected, given {values}")
    sizes = given["block_out_channels"], attention, given["layers_per_block"], given["norm_num_groups"]
    model = UNet(given["in_channels"], *sizes)
    for module in model.modules():  # what is the paper's in all networks of this page, and not in all folders
        if isinstance(module, nn.GroupNorm):
            module.eps = given["norm_eps"]
        if isinstance(module, Attention) and given["attention_head_dim"] is not None:
            module.heads = module.to_q.out_features // given["attention_head_dim"]
        if isinstance(module, Downsample) and given["downsample_padding"]:
            module.padding = 1, 0, 1, 0  # a last column or row of zeros would never be read
    model.time_embedding.shift = given["freq_shift"]
    weights = read_weights(folder, "diffusion_pytorch_model.safetensors")
    for old, new in {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}.items():
        weights = {name.replace(f".{old}.", f".{new}."): w for name, w in weights.items()}  # as of 2022
    if given["flip_sin_to_cos"] and "time_embedding.linear_1.weight" in weights:  # cosines come first there
        first = weights["time_embedding.linear_1.weight"]  # _ cosines, then sines
        weights["time_embedding.linear_1.weight"] = first.roll(first.shape[1] // 2, dims=1)  # _
    return fill(model, weights)


# --8<-- [end:pretrained]


# --8<-- [start:main]
TRAIN_STEPS = 1000


def main() -> None:
    """Train on the real digits, then draw sixty that nobody wrote."""
    torch.set_num_threads(1)  # so small a network gains little from more, and loses much on a busy machine
    torch.manual_seed(0)  # the same first weights each time
    images, _ = digits()  # (N, 1, 8, 8), labels: nothing here needs them
    schedule = NoiseSchedule(linear_beta())  # 1,000 levels
    model = train(UNet(channels=1, widths=(24, 48)), schedule, images, TRAIN_STEPS)
    generator = torch.Generator().manual_seed(0)  # the same noise each time
    noise = torch.randn(60, 1, 8, 8, generator=generator)  # (60, 1, 8, 8) where all sixty start
    drawn = sample_ddim(model, schedule, noise, num_steps=50, eta=0.0, generator=generator)  # (60, 1, 8, 8)
    save_grid("digits.png", drawn)
    print("sixty new digits: digits.png")


if __name__ == "__main__":
    main()
# --8<-- [end:main]
