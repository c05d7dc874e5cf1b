"""Noise Conditional Score Networks (Song and Ermon 2019, arXiv 1907.05600), with the advice of NCSNv2
(Song and Ermon 2020, arXiv 2006.09011) and the variance-exploding SDE (Song et al. 2021, arXiv 2011.13456).

Shapes: B batch, D numbers of one example, L noise levels, N examples, C channels, H height, W width.
An example is a row: a point of the plane has D = 2 numbers, a digit D = 64.
A level is an index into the ladder: level 0 is the noisiest, level L - 1 the cleanest.
"""

# --8<-- [start:imports]
import copy
import math
from collections import deque
from collections.abc import Callable, Iterator

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn
from tqdm import trange

# --8<-- [end:imports]
from snippets.blocks.unet import UNet
from snippets.data.digits import digits
from snippets.data.toy2d import toy2d
from snippets.ddpm import ema_update, save_grid


# --8<-- [start:ladder]
def geometric_ladder(sigma_max: float, sigma_min: float, num_levels: int) -> Tensor:
    """Standard deviations (L,), float64, from sigma_max down to sigma_min, with a constant ratio."""
    if not 0 < sigma_min < sigma_max or num_levels < 2:
        given = f"{sigma_max}, {sigma_min}, {num_levels}"
        raise ValueError(f"sigma_max > sigma_min > 0 and num_levels > 1 are expected, given {given}")
    log_max, log_min = math.log(sigma_max), math.log(sigma_min)
    exponent = torch.linspace(log_max, log_min, num_levels, dtype=torch.float64)  # (L,) even in the logarithm
    return exponent.exp()


def largest_distance(x0: Tensor) -> float:
    """Between any two of the examples x0 (N, D): where the ladder should begin (NCSNv2, technique 1)."""
    if x0.ndim != 2 or len(x0) < 2:
        raise ValueError(f"examples (N, D), N > 1, are expected, given {tuple(x0.shape)}")
    return float(torch.pdist(x0).max())


def at(table: Tensor, level: Tensor, x: Tensor) -> Tensor:
    """The entries (B, 1) of a table (L,) at levels (B,), in the type of examples x (B, D)."""
    if x.ndim != 2 or not x.is_floating_point():
        raise ValueError(f"float examples (B, D) are expected, given {x.dtype} {tuple(x.shape)}")
    wrong = level.shape != x.shape[:1] or level.is_floating_point()
    if wrong or level.min() < 0 or level.max() >= len(table):
        raise ValueError(f"one integer level in [0, {len(table)}) per example is expected, given {level}")
    entry = table[level.to(table.device).long()].to(x)[:, None]  # (B, 1) one number for each example
    return entry


# --8<-- [end:ladder]


# --8<-- [start:network]
class ScoreNetwork(nn.Module):
    """The score at each level of a ladder sigma (L,), from a network that predicts the noise.

    Args: net, from examples (B, D) of about unit scale and levels (B,) to (B, D); sigma, descending; spread,
    the standard deviation of the clean data.
    """

    def __init__(self, net: nn.Module, sigma: Tensor, spread: float):
        super().__init__()
        if sigma.ndim != 1 or not len(sigma) or sigma.min() <= 0 or (sigma.diff() >= 0).any() or spread <= 0:
            raise ValueError(
                f"a descending row sigma > 0 and spread > 0 are expected, given {sigma}, {spread}"
            )
        self.net = net
        self.register_buffer("sigma", sigma.double())
        self.register_buffer("shrink", (spread**2 + sigma.double() ** 2).rsqrt())  # to unit scale

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """The score (B, D) of the noisy density at examples x (B, D) of levels (B,)."""
        small = at(self.shrink, level, x) * x  # (B, D) of unit scale, however much noise there is
        eps = self.net(small, level)  # (B, D) the noise, which is of unit scale too
        score = -eps / at(self.sigma, level, x)  # (B, D) long where there is little noise
        return score


# --8<-- [end:network]


# --8<-- [start:points]
class PointNetwork(nn.Module):
    """Four hidden layers for points of the plane; the level is a third input."""

    def __init__(self, num_levels: int, width: int = 64):
        super().__init__()
        self.last = num_levels - 1
        layers = [nn.Linear(3, width), nn.SiLU()]
        for _ in range(3):
            layers += [nn.Linear(width, width), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(width, 2))

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """The noise (B, 2) in points x (B, 2) of levels (B,)."""
        place = (1 - 2 * level / self.last).to(x)  # (B,) from 1 to -1, evenly in log sigma
        eps = self.layers(torch.cat([x, place[:, None]], dim=1))  # (B, 2)
        return eps


# --8<-- [end:points]


# --8<-- [start:images]
class ImageNetwork(nn.Module):
    """The U-Net of DDPM, for images that are written as rows."""

    def __init__(self, shape: tuple[int, int, int], widths: tuple[int, ...] = (24, 48)):
        super().__init__()
        self.shape = shape
        self.unet = UNet(shape[0], widths)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """The noise (B, D) in rows x (B, D) of levels (B,)."""
        images = x.unflatten(1, self.shape)  # (B, C, H, W)
        eps = self.unet(images, level).flatten(1)  # (B, D)
        return eps


# --8<-- [end:images]


# --8<-- [start:loss]
def noise_like(x: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal numbers of the shape, type and device of float examples x (B, D)."""
    if x.ndim != 2 or not x.is_floating_point():
        raise ValueError(f"float examples (B, D) are expected, given {x.dtype} {tuple(x.shape)}")
    noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)  # (B, D)
    return noise


def dsm_loss(score: Callable, sigma: Tensor, x0: Tensor, generator: torch.Generator) -> Tensor:
    """Denoising score matching, weighted by sigma^2, at a random level for each example x0 (B, D).

    Each noise is used with both signs: the two errors nearly cancel where the noise is small.
    """
    level = torch.randint(len(sigma), x0.shape[:1], generator=generator, device=x0.device)  # (B,)
    half = noise_like(x0, generator)  # (B, D)
    eps, level = torch.cat([half, -half]), level.repeat(2)  # (2 * B, D), (2 * B,)
    size = at(sigma, level, eps)  # (2 * B, 1) the standard deviation, not the variance
    x = x0.repeat(2, 1) + size * eps  # (2 * B, D) nothing shrinks: the variance grows, "explodes"
    error = size * score(x, level) + eps  # (2 * B, D) sigma times the error of the score
    loss = error.square().mean()  # () the mean over the numbers of an example, where the formula has the sum
    return loss


# --8<-- [end:loss]


# --8<-- [start:train]
def train(
    model: ScoreNetwork, x0: Tensor, num_steps: int, batch_size: int, learning_rate: float
) -> ScoreNetwork:
    """Train on clean examples x0 (N, D) and return the averaged network, in `eval` mode."""
    if num_steps <= 0 or batch_size <= 0 or learning_rate <= 0:
        given = f"{num_steps}, {batch_size}, {learning_rate}"
        raise ValueError(f"num_steps, batch_size and learning_rate > 0 are expected, given {given}")
    if not x0.is_floating_point() or not x0.isfinite().all():
        raise ValueError(f"finite float examples are expected, given {x0.dtype} up to {x0.abs().max()}")
    generator = torch.Generator(x0.device).manual_seed(0)  # the same run each time
    average = copy.deepcopy(model).eval()  # a calmer copy (NCSNv2, technique 5)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, fused=True)
    decline = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    for step in trange(num_steps, desc="train", mininterval=2):
        rows = torch.randint(len(x0), (batch_size,), generator=generator, device=x0.device)  # (B,)
        loss = dsm_loss(model, model.sigma, x0[rows], generator)  # ()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decline.step()
        ema_update(average, model, decay=min(0.995, step / (step + 10)))
    return average


# --8<-- [end:train]


# --8<-- [start:langevin]
def langevin_step(x: Tensor, score: Tensor, step: float, noise: Tensor) -> Tensor:
    """Half a step along the score, and noise of variance `step`, for examples x (B, D)."""
    if step <= 0 or not x.shape == score.shape == noise.shape:
        given = f"{step}, {tuple(x.shape)}, {tuple(score.shape)} and {tuple(noise.shape)}"
        raise ValueError(f"step > 0, and x, score and noise of one shape, are expected, given {given}")
    x = x + step / 2 * score + math.sqrt(step) * noise  # (B, D)
    return x


@torch.no_grad()
def langevin(
    score: Callable, level: int, x: Tensor, step: float, num_steps: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """Langevin dynamics at one level: yield examples (B, D) after each of num_steps steps from x (B, D)."""
    if num_steps <= 0:
        raise ValueError(f"num_steps > 0 is expected, given {num_steps}")
    levels = torch.full(x.shape[:1], level, device=x.device)  # (B,)
    for _ in range(num_steps):
        x = langevin_step(x, score(x, levels), step, noise_like(x, generator))  # (B, D)
        yield x


# --8<-- [end:langevin]


# --8<-- [start:annealed]
def step_sizes(sigma: Tensor, epsilon: float) -> Tensor:
    """The step (L,) of each level: epsilon at the last one, and in proportion to sigma^2 (Algorithm 1)."""
    if epsilon <= 0:
        raise ValueError(f"epsilon > 0 is expected, given {epsilon}")
    step = epsilon * (sigma / sigma[-1]) ** 2  # (L,)
    return step


def annealed_langevin(
    score: Callable, sigma: Tensor, x: Tensor, epsilon: float, num_steps: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """Algorithm 1: num_steps of Langevin dynamics at each level of the ladder sigma (L,), noisiest first."""
    if (sigma.diff() >= 0).any():
        raise ValueError(f"a descending ladder is expected, given {sigma}")
    for level, step in enumerate(step_sizes(sigma, epsilon).tolist()):
        for moved in langevin(score, level, x, step, num_steps, generator):  # (B, D)
            yield moved
        x = moved  # (B, D) where the next level starts


@torch.no_grad()
def denoise(score: Callable, sigma: Tensor, x: Tensor) -> Tensor:
    """The mean of the clean examples, given examples x (B, D) of the last level (Tweedie's formula)."""
    level = torch.full(x.shape[:1], len(sigma) - 1, device=x.device)  # (B,)
    clean = x + at(sigma, level, x) ** 2 * score(x, level)  # (B, D)
    return clean


# --8<-- [end:annealed]


# --8<-- [start:epsilon]
def leftover(rate: float, gamma: float, num_steps: int) -> float:
    """Variance, over sigma^2, after num_steps from gamma^2, if each takes off the share `rate` of x."""
    if not 0 < rate <= 1 or gamma <= 1 or num_steps <= 0:
        given = f"{rate}, {gamma}, {num_steps}"
        raise ValueError(f"rate in (0, 1], gamma > 1 and num_steps > 0 are expected, given {given}")
    resting = 2 * rate / (1 - (1 - rate) ** 2)  # where the variance neither grows nor falls
    return resting + (1 - rate) ** (2 * num_steps) * (gamma**2 - resting)


def choose_epsilon(sigma: Tensor, num_steps: int) -> float:
    """The epsilon that leaves the least variance, for a ladder sigma (L,) (NCSNv2, technique 4)."""
    gamma = float(sigma[0] / sigma[1])
    rate = min((n / 1000 for n in range(1, 1001)), key=lambda rate: leftover(rate, gamma, num_steps))
    return 2 * rate * float(sigma[-1]) ** 2


# --8<-- [end:epsilon]


# --8<-- [start:sde]
def reverse_step(x: Tensor, score: Tensor, sigma: float, lower: float, noise: Tensor) -> Tensor:
    """The reverse SDE from sigma to lower: examples x (B, D), their scores, fresh noise."""
    if not 0 <= lower < sigma:
        raise ValueError(f"0 <= lower < sigma is expected, given {lower}, {sigma}")
    variance = sigma**2 - lower**2  # that the forward process adds between the two
    x = x + variance * score + math.sqrt(variance) * noise  # (B, D)
    return x


def ancestral_step(x: Tensor, score: Tensor, sigma: float, lower: float, noise: Tensor) -> Tensor:
    """The same with the noise of DDPM's posterior, which is less: none where lower is 0."""
    x = reverse_step(x, score, sigma, lower, noise * (lower / sigma))  # (B, D)
    return x


@torch.no_grad()
def sample_sde(
    score: Callable, sigma: Tensor, x: Tensor, generator: torch.Generator, step: Callable
) -> Iterator[Tensor]:
    """Yield noise x (B, D) of deviation sigma[0], then examples after each step, one of the two above."""
    yield x
    for level, lower in enumerate(sigma[1:].tolist()):
        levels = torch.full(x.shape[:1], level, device=x.device)  # (B,)
        x = step(x, score(x, levels), float(sigma[level]), lower, noise_like(x, generator))  # (B, D)
        yield x
    yield denoise(score, sigma, x)


# --8<-- [end:sde]


# --8<-- [start:ode]
def ode_step(x: Tensor, score: Tensor, sigma: float, lower: float) -> Tensor:
    """Euler's step of the probability-flow ODE from sigma to lower: examples x (B, D) and their scores."""
    if not 0 <= lower < sigma:
        raise ValueError(f"0 <= lower < sigma is expected, given {lower}, {sigma}")
    x = x + sigma * (sigma - lower) * score  # (B, D)
    return x


@torch.no_grad()
def sample_ode(score: Callable, sigma: Tensor, x: Tensor) -> Iterator[Tensor]:
    """Yield noise x (B, D) of deviation sigma[0], then examples after each step of Heun's method."""
    yield x
    for level, lower in enumerate(sigma[1:].tolist()):
        here = torch.full(x.shape[:1], level, device=x.device)  # (B,)
        slope = score(x, here)  # (B, D) at the beginning of the step
        ahead = ode_step(x, slope, float(sigma[level]), lower)  # (B, D) Euler's guess
        change = lower / sigma[level].item() * score(ahead, here + 1)  # (B, D) sigma * score, at its end
        x = ode_step(x, (slope + change) / 2, float(sigma[level]), lower)  # (B, D) along the mean of the two
        yield x
    yield denoise(score, sigma, x)


# --8<-- [end:ode]


# --8<-- [start:bridge]
def score_from_eps(eps: Tensor, alpha_bar: Tensor) -> Tensor:
    """The score (B, D) of DDPM's noisy density, from predicted noise eps (B, D) at alpha_bar (B,)."""
    if not eps.is_floating_point():
        raise ValueError(f"float eps is expected, given {eps.dtype}")
    if alpha_bar.shape != eps.shape[:1] or not bool(((alpha_bar >= 0) & (alpha_bar < 1)).all()):
        raise ValueError(f"one alpha_bar in [0, 1) per example is expected, given {alpha_bar}")
    score = -eps / (1 - alpha_bar).sqrt()[:, None]  # (B, D)
    return score


def exploding(x: Tensor, score: Tensor, alpha_bar: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """DDPM's x (B, D) and score (B, D) at alpha_bar (B,), as x, score and sigma of the exploding process."""
    signal = alpha_bar.sqrt()[:, None]  # (B, 1)
    sigma = ((1 - alpha_bar) / alpha_bar).sqrt()  # (B,)
    return x / signal, signal * score, sigma


# --8<-- [end:bridge]


# --8<-- [start:borrow]
class DDPMNetwork(nn.Module):
    """A network trained by DDPM, for a ScoreNetwork of spread 1: level i of the ladder is its time t[i]."""

    def __init__(self, unet: nn.Module, shape: tuple[int, int, int], t: Tensor):
        super().__init__()
        if t.ndim != 1 or t.is_floating_point() or (t.diff() >= 0).any():
            raise ValueError(f"a descending row of integers t is expected, given {t}")
        self.unet, self.shape = unet, shape
        self.register_buffer("t", t)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """The noise (B, D) in DDPM's rows x (B, D)."""
        images = x.unflatten(1, self.shape)  # (B, C, H, W)
        eps = self.unet(images, self.t[level]).flatten(1)  # (B, D)
        return eps


# --8<-- [end:borrow]


# --8<-- [start:main]
POINT_STEPS = 1000
DIGIT_STEPS = 600


def draw_points() -> Tensor:
    """Train on a mixture of three Gaussians, then draw 2,000 points (2000, 2) of it."""
    toy, generator = toy2d(), torch.Generator().manual_seed(0)
    x0 = toy.sample(100_000, generator)[0].float()  # (100000, 2)
    sigma = geometric_ladder(6.0, 0.05, 20)  # (L,)
    model = ScoreNetwork(PointNetwork(len(sigma)), sigma, spread=float(x0.std()))
    model = train(model, x0, POINT_STEPS, batch_size=512, learning_rate=1e-2)
    x = torch.rand(2000, 2, generator=generator) * 16 - 8  # (2000, 2) anywhere in a square
    steps = annealed_langevin(model, sigma, x, 0.4 * float(sigma[-1]) ** 2, 50, generator)
    x = denoise(model, sigma, deque(steps, maxlen=1)[0])  # (2000, 2) the last of all steps, cleaned
    share = toy.log_posterior(x, 1.0, 0.0).exp().mean(dim=0)  # (3,)
    print("shares of the blobs", [round(w, 2) for w in share.tolist()], "for 0.5, 0.3 and 0.2")
    return x


def draw_digits() -> Tensor:
    """Train on the real digits, then draw sixty (60, 1, 8, 8) that nobody wrote."""
    x0 = digits()[0].flatten(1)  # (N, D)
    sigma = geometric_ladder(largest_distance(x0), 0.03, 30)  # (L,)
    model = ScoreNetwork(ImageNetwork((1, 8, 8)), sigma, spread=float(x0.std()))
    model = train(model, x0, DIGIT_STEPS, batch_size=32, learning_rate=2e-3)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(60, 64, generator=generator) * 2 - 1  # (60, 64) any grey in any pixel
    steps = annealed_langevin(model, sigma, x, choose_epsilon(sigma, 5), 5, generator)
    x = denoise(model, sigma, deque(steps, maxlen=1)[0])  # (60, 64)
    return x.unflatten(1, (1, 8, 8))


def main() -> None:
    """Points of a mixture, then handwritten digits, both by annealed Langevin dynamics."""
    torch.set_num_threads(1)  # so small a network gains little from more
    torch.manual_seed(0)  # the same first weights each time
    x = draw_points()  # (2000, 2)
    figure, axis = plt.subplots(figsize=(4, 4))
    axis.plot(*x.T, ".", markersize=2)
    axis.set_aspect("equal")
    figure.savefig("points.png", dpi=150)
    plt.close(figure)
    save_grid("digits.png", draw_digits())
    print("two thousand points: points.png, sixty new digits: digits.png")


if __name__ == "__main__":
    main()
# --8<-- [end:main]
