"""Exercises of the DDPM post, solved, with what checks an answer.

Shapes: B batch, C channels, H height, W width, T noise levels.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snippets.ddpm import (
    NoiseSchedule,
    cosine_beta,
    ddim_levels,
    ddim_step,
    ddpm_step,
    eps_from_x0,
    linear_beta,
    noise_like,
    posterior_mean,
    q_sample,
    velocity,
    x0_from_eps,
)
from snippets.exercises.checking import compare


# --8<-- [start:exercise-1]
def smallest_loss(alpha_bar: float, variance: float) -> float:
    """By pencil: the smallest mean squared error of the noise that any network can reach at a level.

    Suppose that all pixels of the pictures are independent normal numbers with mean 0 and this variance. Then
    the error is a formula of alpha_bar at that level and of the variance.

    Hint: For such pictures the best guess of the noise is a multiple of the noisy picture, c * x_t. Which c
    makes the mean of (eps - c * x_t)^2 smallest? x_t has the variance alpha_bar * variance + 1 - alpha_bar.
    """
    signal, noise = alpha_bar * variance, 1 - alpha_bar  # the two parts of the variance of x_t
    # the mean of eps * x_t is sqrt(noise), so c = sqrt(noise) / (signal + noise) is best,
    # and of the variance of eps, 1, it explains noise / (signal + noise)
    # the digits' pixels together have the variance 0.57. At the clean end the formula goes to 1, where the
    # network has less: real pixels are neither independent nor normal, so that there is more to know. At the
    # noisy end it goes to 0, and the network is above it: there the error is mostly its own
    return signal / (signal + noise)


# --8<-- [end:exercise-1]


# --8<-- [start:exercise-2]
def between(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Noise from which a sampler can start, on the way from noise a (share 0) to noise b (share 1).

    Args: a, b (B, C, H, W), both standard normal; share from 0 to 1. Returns (B, C, H, W).

    Hint: A sampler starts from noise of variance 1. The variances of independent numbers add: which variance
    has (1 - share) * a + share * b half way?
    """
    mixed = (1 - share) * a + share * b  # (B, C, H, W) half way its variance is only 1/2
    mixed = mixed / ((1 - share) ** 2 + share**2) ** 0.5  # (B, C, H, W) variance 1 all the way
    return mixed


# --8<-- [end:exercise-2]


# --8<-- [start:exercise-3]
def v_loss(model: nn.Module, schedule: NoiseSchedule, x0: Tensor, generator: torch.Generator) -> Tensor:
    """The loss () of one batch of images x0 (B, C, H, W) for a network that predicts the velocity v.

    Hint: Begin with a copy of ddpm_loss. The network is asked the same question, but another answer is right.
    """
    eps = noise_like(x0, generator)  # (B, C, H, W) the noise
    t = torch.randint(schedule.num_steps, x0.shape[:1], generator=generator, device=x0.device)  # (B,) levels
    xt = q_sample(schedule, x0, t, eps)  # (B, C, H, W) the question, as before
    v = velocity(schedule, x0, t, eps)  # (B, C, H, W) the answer
    loss = F.mse_loss(model(xt, t), v)  # () how far the network's answer is off
    return loss


# --8<-- [end:exercise-3]


# --8<-- [start:given-4]
def hasty_step(schedule: NoiseSchedule, xt: Tensor, t: Tensor, target: Tensor, eps: Tensor) -> Tensor:
    """ddim_step without fresh noise, in four lines. One of them has a fault."""
    here = schedule.alpha_bar[t].view(-1, 1, 1, 1).to(xt)  # (B, 1, 1, 1) where we are
    there = schedule.alpha_bar[target].view(-1, 1, 1, 1).to(xt)  # (B, 1, 1, 1) where we go
    x0 = (xt - (1 - here).sqrt() * eps) / here.sqrt()  # (B, C, H, W) the clean image that eps implies
    return there.sqrt() * x0 + (1 - there).sqrt() * eps  # (B, C, H, W)


# --8<-- [end:given-4]


# --8<-- [start:exercise-4]
def careful_step(schedule: NoiseSchedule, xt: Tensor, t: Tensor, target: Tensor, eps: Tensor) -> Tensor:
    """hasty_step without its fault. Whoever draws with hasty_step gets nothing but noise.

    Args: xt, eps (B, C, H, W); t (B,) the level of xt; target (B,) where to go, -1 for the clean image.

    Hint: All steps but one are right. Ask of each index: which entry of the table is it at the last step?
    """
    here = schedule.alpha_bar[t].view(-1, 1, 1, 1).to(xt)  # (B, 1, 1, 1) where we are
    # alpha_bar[-1] is the noisiest level, not the clean image: Python counts from the end
    there = schedule.alpha_bar_before[target + 1].view(-1, 1, 1, 1).to(xt)  # (B, 1, 1, 1) 1 at -1
    x0 = (xt - (1 - here).sqrt() * eps) / here.sqrt()  # (B, C, H, W) the clean image that eps implies
    return there.sqrt() * x0 + (1 - there).sqrt() * eps  # (B, C, H, W)


# --8<-- [end:exercise-4]


# --8<-- [start:exercise-5]
def steady_ddim(model: Callable, schedule: NoiseSchedule, xt: Tensor, num_steps: int) -> Tensor:
    """DDIM without fresh noise that survives the cosine schedule, whose last level holds no signal.

    Args: model(xt, t) predicts the noise; xt (B, C, H, W) is the noise to start from; num_steps is how often
    the model is asked. Returns images (B, C, H, W).

    Hint: Begin with a copy of sample_ddim. x0_from_eps divides by the signal, which makes each error of the
    model huge. Either clip the clean image to [-1, 1] and take the eps that fits it, or start at a level that
    still has some signal.
    """
    levels = ddim_levels(schedule, num_steps)  # where to stop
    for level, lower in zip(levels[:-1], levels[1:], strict=True):
        t = torch.full(xt.shape[:1], level, device=xt.device)  # (B,) where all images are
        x0 = x0_from_eps(schedule, xt, t, model(xt, t)).clamp(-1, 1)  # (B, C, H, W) no pixel can be outside
        eps = eps_from_x0(schedule, xt, t, x0)  # (B, C, H, W) the noise that fits it
        xt = ddim_step(schedule, xt, t, torch.full_like(t, lower), eps, 0.0, xt)  # (B, C, H, W)
    return xt


# --8<-- [end:exercise-5]


# --8<-- [start:exercise-6]
def bound_weights(schedule: NoiseSchedule) -> Tensor:
    """The factors (T - 1,) of the squared errors in the variational bound, for all levels but the first.

    A factor is beta^2 / (2 sigma^2 alpha (1 - alpha_bar)), with beta_tilde for sigma^2. Why is there none for
    the first level?

    Hint: The schedule's tables hold all that is needed; alpha is 1 - beta. Look at beta_tilde[0].
    """
    beta, after = schedule.beta[1:], schedule.alpha_bar[1:]  # (T - 1,), (T - 1,)
    variance = schedule.beta_tilde[1:]  # (T - 1,) 0 at the first level: its step adds no noise
    weights = beta**2 / (2 * variance * (1 - beta) * (1 - after))  # (T - 1,)
    return weights  # with linear_beta(), 0.60 at the clean end is 120 times the smallest


# --8<-- [end:exercise-6]


def check_1(answer: Callable) -> None:
    """At two levels."""
    for alpha_bar, variance in ((0.3, 0.5), (0.9, 0.2)):
        signal, noise = alpha_bar * variance, 1 - alpha_bar
        slips = {
            "that is how much of the noise the guess explains; what is left of it?": noise / (signal + noise),
            "that holds for pictures of variance 1; these have another": alpha_bar,
            "that is the error of x_t itself, not of its best multiple": signal + (1 - noise**0.5) ** 2,
        }
        told = f"smallest_loss({alpha_bar}, {variance})"
        compare(told, answer(alpha_bar, variance), signal / (signal + noise), slips)


def check_2(answer: Callable) -> None:
    """On 36,000 pixels: the ends, the spread on the way, and whether a and b are all that it is made of."""
    a, b = torch.randn(2, 5, 3, 40, 60, generator=torch.Generator().manual_seed(2718))
    compare("between(a, b, 0)", answer(a, b, 0.0), a, {"share 0 should give a, and 1 should give b": b})
    compare("between(a, b, 1)", answer(a, b, 1.0), b)
    for share in (0.5, 0.2):
        mixed, told = answer(a, b, share), f"between(a, b, {share})"
        compare(f"the number of pixels of {told}", mixed.numel(), a.numel())
        parts, mixed = torch.stack([a.flatten(), b.flatten()], dim=1), mixed.reshape(-1, 1)
        weights = torch.linalg.lstsq(parts, mixed).solution
        rest = (parts @ weights - mixed).abs().max()
        assert rest < 1e-3 and weights.min() > 0.1, f"{told} is no mixture of a and b"
        spread = mixed.std().item()
        assert abs(spread - 1) < 0.02, f"{told} has a standard deviation of {spread:.2f}; samplers start at 1"


class Known(nn.Module):
    """Answers half of what it is asked plus 0.3, and remembers the question."""

    def forward(self, xt: Tensor, t: Tensor) -> Tensor:
        """An answer of the shape of xt."""
        self.asked = xt.detach(), t
        return 0.5 * xt + 0.3


def check_3(answer: Callable) -> None:
    """The loss of a known network, from the question that it was asked."""
    schedule, model = NoiseSchedule(linear_beta(40, 2e-3, 0.3)), Known()
    x0 = torch.rand(300, 3, 4, 6, generator=torch.Generator().manual_seed(31), dtype=torch.float64) * 2 - 1
    loss = answer(model, schedule, x0, torch.Generator().manual_seed(1))
    assert hasattr(model, "asked"), "the network is never asked"
    xt, t = model.asked
    assert len(t.unique()) == 40, "not every image has a random level of its own, from 0 to T - 1"
    eps = eps_from_x0(schedule, xt, t, x0)
    noisy = abs(eps.std() - 1) < 0.05 and abs((eps * x0).mean()) < 0.05
    assert noisy, "the network is not asked about x0 with standard normal noise, as q_sample makes it"
    targets = {
        "that is the error of the noise; the network is to predict v": eps,
        "that is the error of the clean image; the network is to predict v": x0,
        "velocity is given the noisy image where it expects the clean one": velocity(schedule, xt, t, eps),
        "that is the error of -v: check the sign": -velocity(schedule, x0, t, eps),
    }
    said = 0.5 * xt + 0.3
    slips = {sentence: (said - target).square().mean() for sentence, target in targets.items()}
    compare("the loss", loss, (said - velocity(schedule, x0, t, eps)).square().mean(), slips)


def check_4(answer: Callable) -> None:
    """Steps of all lengths, the last one among them."""
    schedule, generator = NoiseSchedule(linear_beta(40, 2e-3, 0.3)), torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 5, 3, 4, 6, generator=generator, dtype=torch.float64)
    for level, lower in ((39, 30), (30, 1), (1, 0), (0, -1), (17, -1)):
        t, target = torch.full((5,), level), torch.full((5,), lower)
        xt, right, slips = q_sample(schedule, x0, t, eps), x0, {}
        if lower >= 0:
            right = q_sample(schedule, x0, target, eps)
        else:
            first = q_sample(schedule, x0, torch.zeros_like(t), eps)
            slips["the last step, to -1, still ends in noise"] = hasty_step(schedule, xt, t, target, eps)
            slips["the last step ends at level 0, which is noisy; the clean image comes before it"] = first
        compare(f"the step from level {level} to {lower}", answer(schedule, xt, t, target, eps), right, slips)


def check_5(answer: Callable) -> None:
    """A network that knows the picture, and one that says 5 % too little, under both schedules."""
    generator = torch.Generator().manual_seed(0)
    picture = torch.rand(1, 3, 4, 6, generator=generator, dtype=torch.float64) * 1.6 - 0.8
    start = torch.randn(5, 3, 4, 6, generator=generator, dtype=torch.float64)
    linear, cosine = NoiseSchedule(linear_beta()), NoiseSchedule(cosine_beta())
    for schedule, said, bar in ((linear, 1.0, 1e-5), (cosine, 1.0, 1e-4), (cosine, 0.95, 0.05)):
        asked = []

        def network(xt, t, schedule=schedule, said=said, asked=asked):
            asked.append(xt)
            return said * eps_from_x0(schedule, xt, t, picture.expand_as(xt))

        images = answer(network, schedule, start, 50)
        where = "the linear schedule" if schedule is linear else "the cosine schedule"
        told = f"under {where}, with a network that is {'right' if said == 1 else '5 % off'}"
        compare(f"{told}, the number of values", images.numel(), start.numel())
        assert len(asked) <= 50, f"{told}, the network is asked {len(asked)} times, more than num_steps = 50"
        off = (images - picture).abs().max().item()
        assert off < bar, f"{told}, a pixel of the picture is off by {off:.2g}"
        clipped = asked[1].abs().max() < 1.5
        assert not clipped, f"{told}, the noisy image is clipped too; only the clean one is within [-1, 1]"


def check_6(answer: Callable) -> None:
    """From the distance between the page's own means of the two Gaussians."""
    schedule, generator = NoiseSchedule(linear_beta(40, 2e-3, 0.3)), torch.Generator().manual_seed(0)
    x0, eps, error = torch.randn(3, 39, 1, 1, 1, generator=generator, dtype=torch.float64)
    t = torch.arange(1, 40)
    xt = q_sample(schedule, x0, t, eps)
    guessed = ddpm_step(schedule, xt, t, eps + error, torch.zeros_like(xt))
    distance = ((posterior_mean(schedule, x0, xt, t) - guessed) / error).square().flatten()
    beta, after, variance = schedule.beta[1:], schedule.alpha_bar[1:], schedule.beta_tilde[1:]
    slips = {
        "sigma^2 is beta there; take beta_tilde": distance / (2 * beta),
        "the factor 1/2 is missing": distance / variance,
        "alpha is missing in the denominator; it is 1 - beta": beta**2 / (2 * variance * (1 - after)),
        "beta is there, not its square": beta / (2 * variance * (1 - beta) * (1 - after)),
    }
    factors = answer(schedule)
    every = getattr(factors, "shape", None) == (40,)
    assert not every, "there is a factor for each level; the first has none, for its step adds no noise"
    compare("the row of factors", factors, distance / (2 * variance), slips)
