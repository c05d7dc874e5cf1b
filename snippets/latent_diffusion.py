"""Latent diffusion (Rombach et al. 2021, arXiv 2112.10752): draw in the small latents of an autoencoder.

Shapes: B batch, C channels of a picture, Z channels of a latent, H height, W width, T noise levels,
L tokens of a text, D features of a token, K words of a quiz, N pictures, S sampling steps.
Levels count from 0, the least noisy one, as in ddpm.py. The guidance scale is that of cfg.py.
"""

# --8<-- [start:imports]
import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import trange

# --8<-- [end:imports]
from snippets.blocks.autoencoder import AutoencoderConfig, AutoencoderKL, kl_divergence, sample_latent
from snippets.blocks.text_unet import ConditionedUNet, UNetConfig
from snippets.cfg import drop_condition, guide
from snippets.clip_text import TextConfig, TextEncoder
from snippets.data.scenes import (
    COLOURS,
    KINDS,
    MAX_WORDS,
    PLACES,
    RADIUS,
    VOCABULARY,
    Scene,
    encode_captions,
    scenes,
)
from snippets.ddpm import NoiseSchedule, ema_update, noise_like, q_sample, save_grid, velocity


# --8<-- [start:descend]
def descend(
    loss: Tensor, optimizer: torch.optim.Optimizer, rate: torch.optim.lr_scheduler.LRScheduler
) -> None:
    """One step down the gradient of a loss (), which is cut to length 1; then the next learning rate."""
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 1.0)
    optimizer.step()
    rate.step()


# --8<-- [end:descend]


# --8<-- [start:autoencoder-loss]
def autoencoder_loss(
    model: AutoencoderKL, pictures: Tensor, kl_weight: float, generator: torch.Generator
) -> Tensor:
    """How far pictures are from their rebuilt selves, and their latents from the standard normal, one number.

    Both are sums over a picture, divided by how many numbers the picture has.
    """
    mean, log_variance = model.encode(pictures)  # (B, Z, _, _), (B, Z, _, _)
    latents = sample_latent(mean, log_variance, noise_like(mean, generator))  # (B, Z, _, _)
    rebuilt = model.decode(latents)  # (B, C, H, W)
    difference = (pictures - rebuilt).square().flatten(1).sum(dim=1)  # (B,)
    each = difference + kl_weight * kl_divergence(mean, log_variance)  # (B,)
    loss = each.mean() / pictures[0].numel()  # ()
    return loss


def train_autoencoder(
    model: AutoencoderKL, pictures: Tensor, num_steps: int, kl_weight: float = 1e-3, batch_size: int = 8
) -> AutoencoderKL:
    """Train on pictures (N, C, H, W) in [-1, 1]; the same network, in `eval` mode."""
    if num_steps <= 0 or batch_size <= 0:
        raise ValueError(f"num_steps > 0 and batch_size > 0 are expected, given {num_steps}, {batch_size}")
    if not pictures.is_floating_point() or not pictures.abs().max() <= 1:  # NaN is not
        given = f"{pictures.dtype} up to {pictures.abs().max()}"
        raise ValueError(f"float pictures in [-1, 1] are expected, given {given}")
    generator = torch.Generator(pictures.device).manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3, betas=(0.9, 0.99), fused=True)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, num_steps)  # up, then down to almost 0
    for _ in trange(num_steps, desc="autoencoder", mininterval=2):
        rows = torch.randint(len(pictures), (batch_size,), generator=generator)  # (B,)
        loss = autoencoder_loss(model, pictures[rows], kl_weight, generator)  # ()
        descend(loss, optimizer, rate)
    return model.eval()


# --8<-- [end:autoencoder-loss]


# --8<-- [start:scale]
@torch.no_grad()
def latent_scale(model: AutoencoderKL, pictures: Tensor, generator: torch.Generator) -> float:
    """The factor that gives latents of pictures (B, C, H, W) the standard deviation 1."""
    mean, log_variance = model.encode(pictures)  # (B, Z, _, _), (B, Z, _, _)
    latents = sample_latent(mean, log_variance, noise_like(mean, generator))  # (B, Z, _, _)
    return 1 / latents.std().item()


# --8<-- [end:scale]


# --8<-- [start:text]
class Quiz(nn.Module):
    """Asks what stands at each of the four places: one question a place looks at all states of a caption."""

    def __init__(self, width: int):
        super().__init__()
        self.question = nn.Parameter(torch.randn(len(PLACES), width) / width**0.5)
        self.key, self.value = nn.Linear(width, width), nn.Linear(width, width)
        self.answer = nn.Linear(width, len(KINDS) + len(COLOURS) + len(RADIUS))

    def forward(self, states: Tensor) -> Tensor:
        """A number (B, 4, K) for each of K words at each place, high for yes; states (B, L, D)."""
        question = self.question.expand(len(states), -1, -1)  # (B, 4, D)
        seen = F.scaled_dot_product_attention(question, self.key(states), self.value(states))  # (B, 4, D)
        words = self.answer(seen)  # (B, 4, K)
        return words


def quiz_answers(examples: list[Scene]) -> Tensor:
    """1 where a scene has this kind, colour or size at this place, else 0: (N, 4, K)."""
    words = [*KINDS, *COLOURS, *RADIUS]
    answers = torch.zeros(len(examples), len(PLACES), len(words))  # (N, 4, K)
    for row, scene in enumerate(examples):
        for shape in scene.shapes:
            place = list(PLACES).index(shape.place)
            for word in (shape.kind, shape.colour, shape.size):
                answers[row, place, words.index(word)] = 1
    return answers


def train_text(text: TextEncoder, examples: list[Scene], num_steps: int, batch_size: int = 32) -> TextEncoder:
    """Train a text encoder to say what captions say. The quiz is thrown away afterwards."""
    generator = torch.Generator().manual_seed(0)
    quiz, answers = Quiz(text.config.width), quiz_answers(examples)  # _, _ answers (N, 4, K)
    tokens = encode_captions([scene.caption for scene in examples])  # (N, L)
    optimizer = torch.optim.Adam(
        [*text.parameters(), *quiz.parameters()], lr=3e-3, betas=(0.9, 0.99), fused=True
    )
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, num_steps)
    for _ in trange(num_steps, desc="text encoder", mininterval=2):
        rows = torch.randint(len(examples), (batch_size,), generator=generator)  # (B,)
        told = quiz(text.states(tokens[rows]))  # (B, 4, K)
        loss = F.binary_cross_entropy_with_logits(told, answers[rows])  # ()
        descend(loss, optimizer, rate)
    return text


# --8<-- [end:text]


# --8<-- [start:model]
def noise_from_noise(output: Tensor, x: Tensor, alpha_bar: Tensor) -> Tensor:
    """The noise (B, Z, H, W) in latents x that a network which predicts the noise sees: its output."""
    return output


def noise_from_velocity(output: Tensor, x: Tensor, alpha_bar: Tensor) -> Tensor:
    """The noise (B, Z, H, W) in latents x that the velocity implies; alpha_bar () is the level's."""
    noise = (1 - alpha_bar).sqrt().to(x) * x + alpha_bar.sqrt().to(x) * output  # (B, Z, H, W)
    return noise


@dataclass
class LatentDiffusion:
    """All parts of a model that draws pictures from texts."""

    autoencoder: AutoencoderKL
    text: TextEncoder
    unet: ConditionedUNet
    schedule: NoiseSchedule
    scale: float  # latents times this have the standard deviation 1
    as_noise: Callable  # noise_from_noise or noise_from_velocity: what the U-Net's output is

    @torch.no_grad()
    def to_latents(self, pictures: Tensor, generator: torch.Generator) -> Tensor:
        """Latents (B, Z, h, w), of standard deviation 1, of pictures (B, C, H, W) in [-1, 1]."""
        mean, log_variance = self.autoencoder.encode(pictures)  # (B, Z, _, _), (B, Z, _, _)
        latents = sample_latent(mean, log_variance, noise_like(mean, generator))  # (B, Z, _, _)
        return self.scale * latents

    @torch.no_grad()
    def to_pictures(self, latents: Tensor) -> Tensor:
        """Pictures (B, C, H, W) of latents (B, Z, h, w) of standard deviation 1."""
        pictures = self.autoencoder.decode(latents / self.scale)  # (B, C, _, _)
        return pictures


# --8<-- [end:model]


# --8<-- [start:beta]
def scaled_linear_beta(num_steps: int = 1000, beta_min: float = 0.00085, beta_max: float = 0.012) -> Tensor:
    """Stable Diffusion's variances beta (T,), float64: their square roots grow evenly."""
    if num_steps <= 0 or not 0 < beta_min <= beta_max < 1:
        given = f"{num_steps}, {beta_min}, {beta_max}"
        raise ValueError(f"num_steps > 0 and 0 < beta_min <= beta_max < 1 are expected, given {given}")
    root = torch.linspace(beta_min**0.5, beta_max**0.5, num_steps, dtype=torch.float64)  # (T,)
    beta = root**2  # (T,)
    return beta


# --8<-- [end:beta]


# --8<-- [start:training]
def latent_loss(
    model: LatentDiffusion, latents: Tensor, tokens: Tensor, empty: Tensor, generator: torch.Generator
) -> Tensor:
    """The squared error of the predicted velocity of latents (B, Z, H, W), given texts: tokens (B, L).

    One text in ten is replaced by the one without words, empty (L,).
    """
    told = drop_condition(tokens, empty, 0.1, generator)  # (B, L)
    eps = noise_like(latents, generator)  # (B, Z, H, W)
    t = torch.randint(
        model.schedule.num_steps, latents.shape[:1], generator=generator, device=latents.device
    )  # (B,)
    xt = q_sample(model.schedule, latents, t, eps)  # (B, Z, H, W)
    output = model.unet(xt, t, model.text.states(told))  # (B, Z, H, W)
    loss = F.mse_loss(output, velocity(model.schedule, latents, t, eps))  # ()
    return loss


def train_latent(
    model: LatentDiffusion,
    latents: Tensor,
    tokens: Tensor,
    empty: Tensor,
    num_steps: int,
    batch_size: int = 32,
) -> LatentDiffusion:
    """Train U-Net and text encoder on latents (N, Z, H, W) and their texts: tokens (N, L).

    Returns a model with the averages of their weights.
    """
    if len(latents) != len(tokens) or num_steps <= 0 or batch_size <= 0:
        given = f"{len(latents)} latents, {len(tokens)} texts, {num_steps} steps, batches of {batch_size}"
        raise ValueError(f"a text for each latent, and positive numbers, are expected, given {given}")
    generator = torch.Generator(latents.device).manual_seed(0)
    both = nn.ModuleList([model.unet, model.text])
    average = copy.deepcopy(both).eval()
    optimizer = torch.optim.Adam(both.parameters(), lr=2e-3, betas=(0.9, 0.99), fused=True)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, num_steps)
    for step in trange(num_steps, desc="latent diffusion", mininterval=2):
        rows = torch.randint(len(latents), (batch_size,), generator=generator, device=latents.device)  # (B,)
        loss = latent_loss(model, latents[rows], tokens[rows], empty, generator)  # ()
        descend(loss, optimizer, rate)
        ema_update(average, both, decay=min(0.995, step / (step + 10)))
    unet, text = average
    return LatentDiffusion(model.autoencoder, text, unet, model.schedule, model.scale, model.as_noise)


# --8<-- [end:training]


# --8<-- [start:guidance]
def guided_noise(model: LatentDiffusion, tokens: Tensor, empty: Tensor, guidance: float) -> Callable:
    """The noise as a function of latents x, levels t and alpha_bar (): asked with the text and without.

    Args: tokens (B, L), one text for each latent; empty (L,), the text to lead away from.
    """
    with torch.no_grad():
        states = model.text.states(torch.cat([tokens, empty.expand_as(tokens)]))  # (2 * B, L, D)

    @torch.no_grad()
    def predict(x: Tensor, t: Tensor, alpha_bar: Tensor) -> Tensor:
        both = model.unet(torch.cat([x, x]), torch.cat([t, t]), states)  # (_, Z, H, W)
        told, untold = both.chunk(2)  # (B, Z, H, W), (B, Z, H, W) in the order of the line above
        noise = model.as_noise(guide(told, untold, guidance), x, alpha_bar)  # (B, Z, H, W)
        return noise

    return predict


# --8<-- [end:guidance]


# --8<-- [start:sampling]
def ddim_stops(schedule: NoiseSchedule, num_steps: int) -> tuple[Tensor, Tensor]:
    """Levels (S,) from noisy to clean, and the noise over the signal (S + 1,), where Stable Diffusion stops.

    Evenly spaced levels, counted up from 1; the run ends at level 0, where a little noise is left.
    """
    if not 0 < num_steps < schedule.num_steps:
        raise ValueError(f"num_steps in [1, {schedule.num_steps}) is expected, given {num_steps}")
    stride = schedule.num_steps // num_steps
    levels = (torch.arange(num_steps) * stride + 1).flip(0)  # (S,)
    ratio = (schedule.noise / schedule.signal).cpu()  # (T,)
    lower = (levels - stride).clamp(min=0)  # (S,)
    return levels, torch.cat([ratio[levels], ratio[lower[-1:]]])


def euler_stops(schedule: NoiseSchedule, num_steps: int) -> tuple[Tensor, Tensor]:
    """The same for the sampler called Euler: from level T - 1 to level 0, in fractions, then to no noise."""
    if not 0 < num_steps <= schedule.num_steps:
        raise ValueError(f"num_steps in [1, {schedule.num_steps}] is expected, given {num_steps}")
    last = schedule.num_steps - 1
    levels = torch.linspace(0, last, num_steps, dtype=torch.float64).flip(0)  # (S,)
    ratio = (schedule.noise / schedule.signal).cpu()  # (T,)
    lower = levels.floor().long().clamp(max=max(last - 1, 0))  # (S,) the whole level below
    upper = (lower + 1).clamp(max=last)  # (S,)
    between = torch.lerp(ratio[lower], ratio[upper], levels - lower)  # (S,)
    return levels, torch.cat([between, torch.zeros_like(between[:1])])


def sample_latents(predict: Callable, x: Tensor, levels: Tensor, ratio: Tensor) -> Tensor:
    """Latents (B, Z, H, W) at the last stop from x (B, Z, H, W) at the first one.

    Args: levels (S,) at which the network is asked; ratio (S + 1,), noise over signal, from stop to stop.
    """
    for level, here, there in zip(levels, ratio[:-1], ratio[1:], strict=True):
        t = level.to(x.device).expand(len(x))  # (B,)
        eps = predict(x, t, 1 / (1 + here**2))  # (B, Z, H, W)
        spread = x * (1 + here**2).sqrt().to(x)  # (B, Z, H, W) image plus `here` times noise
        spread = spread + (there - here).to(x) * eps  # (B, Z, H, W) image plus `there` times noise
        x = spread / (1 + there**2).sqrt().to(x)  # (B, Z, H, W) the size that the network knows
    return x


# --8<-- [end:sampling]


# --8<-- [start:draw]
def draw_ddim(model: LatentDiffusion, predict: Callable, noise: Tensor, num_steps: int) -> Tensor:
    """Pictures (B, C, H, W) in [-1, 1] from noise (B, Z, h, w), by DDIM."""
    latents = sample_latents(predict, noise, *ddim_stops(model.schedule, num_steps))  # (B, Z, _, _)
    pictures = model.to_pictures(latents).clamp(-1, 1)  # (B, C, _, _)
    return pictures


def draw_euler(model: LatentDiffusion, predict: Callable, noise: Tensor, num_steps: int) -> Tensor:
    """Pictures (B, C, H, W) in [-1, 1] from noise (B, Z, h, w), by Euler's method."""
    levels, ratio = euler_stops(model.schedule, num_steps)  # (S,), (S + 1,)
    start = noise * (ratio[0] / (1 + ratio[0] ** 2).sqrt()).to(noise)  # (B, Z, _, _)
    latents = sample_latents(predict, start, levels, ratio)  # (B, Z, _, _)
    pictures = model.to_pictures(latents).clamp(-1, 1)  # (B, C, _, _)
    return pictures


# --8<-- [end:draw]


# --8<-- [start:main]
AUTOENCODER_STEPS = 400
TEXT_STEPS = 300
TRAIN_STEPS = 600


def main() -> None:
    """Train an autoencoder, a text encoder and a U-Net on drawn scenes; draw pictures from captions."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    pictures = torch.stack([scene.picture for scene in scenes(3000, generator)])
    autoencoder = AutoencoderKL(AutoencoderConfig(widths=(16, 32, 32)))
    autoencoder = train_autoencoder(autoencoder, pictures, AUTOENCODER_STEPS)
    examples = scenes(3000, generator, max_shapes=1)  # one shape a picture is learnt faster; no red square
    pictures = torch.stack([scene.picture for scene in examples])
    tokens = encode_captions([scene.caption for scene in examples])
    text = TextEncoder(TextConfig(len(VOCABULARY), MAX_WORDS, 64, 128, 2, 2, embedding=None))
    text = train_text(text, examples, TEXT_STEPS)
    unet = ConditionedUNet(UNetConfig(4, (48, 64), attention=(False, True), heads=(2, 2), groups=16))
    scale = latent_scale(autoencoder, pictures[:256], generator)
    schedule = NoiseSchedule(scaled_linear_beta())
    model = LatentDiffusion(autoencoder, text, unet, schedule, scale, noise_from_velocity)
    latents = model.to_latents(pictures, generator)
    empty = encode_captions([""])[0]
    model = train_latent(model, latents, tokens, empty, TRAIN_STEPS)
    captions = [scene.caption for scene in scenes(10, torch.Generator().manual_seed(2), True, max_shapes=1)]
    captions = [*captions, *[scene.caption for scene in scenes(10, generator, max_shapes=1)]]  # 10 new pairs
    predict = guided_noise(model, encode_captions(captions), empty, guidance=3.0)
    noise = torch.randn(len(captions), 4, 8, 8, generator=generator)
    drawn = draw_ddim(model, predict, noise, num_steps=20)
    save_grid("drawn.png", drawn)
    print(f"latents times {scale:.2f}: standard deviation {latents.std():.2f}")
    print("drawn.png, row by row:", *captions, sep="\n")


if __name__ == "__main__":
    main()
# --8<-- [end:main]
