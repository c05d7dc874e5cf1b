"""Exercises of the post on classifier guidance, solved, with what checks an answer.

Shapes: B batch, C channels, H height, W width, K classes.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snippets.classifier_guidance import guidance
from snippets.ddpm import NoiseSchedule, linear_beta, q_sample, x0_from_eps
from snippets.exercises.checking import compare


# --8<-- [start:exercise-1]
def pull(x: float, m: float, variance: float) -> float:
    """By pencil: the derivative of log p(y | x) with respect to x, for the class y whose mean is m.

    Two classes are equally frequent. Their numbers are normal, with means m and -m and the same variance.

    Hint: By Bayes' rule p(y | x) = 1 / (1 + exp(-2 m x / variance)). The derivative of the logarithm of such
    a sigmoid function is one minus the function, times the inner derivative.
    """
    other = 1 / (1 + math.exp(2 * m * x / variance))  # p of the other class: what there is to gain
    # where the class is sure, nothing pulls. The noise of a diffusion model shrinks m and widens the
    # variance, so that a very noisy number is hardly pulled either: guidance acts in between
    return 2 * m / variance * other


# --8<-- [end:exercise-1]


# --8<-- [start:exercise-2]
def guidance_to_any(classifier: nn.Module, wanted: Tensor, scale: float, xt: Tensor, t: Tensor) -> Tensor:
    """Like guidance, but any of several classes will do: scale * grad log p(one of the wanted ones | x_t).

    Args: wanted (B, K), True for each class that will do; xt (B, C, H, W); t (B,). Returns (B, C, H, W).

    Hint: The probability of "a 3 or an 8" is the sum of the two. logsumexp makes the logarithm of a sum from
    logarithms. Logarithms of classes that are not wanted can be set to -inf before.
    """
    with torch.enable_grad():  # the samplers run under no_grad
        x = xt.detach().requires_grad_()  # (B, C, H, W)
        log_p = classifier(x, t).log_softmax(dim=1)  # (B, K)
        log_any = log_p.masked_fill(~wanted, -torch.inf).logsumexp(dim=1)  # (B,)
        gradient = torch.autograd.grad(log_any.sum(), x)[0]  # (B, C, H, W)
    # the sum of the guides of a 3 and of an 8 asks for both at once: its density is p(x) p(3 | x) p(8 | x)
    return scale * gradient


# --8<-- [end:exercise-2]


# --8<-- [start:exercise-3]
def between_levels(guide: Callable, low: int, high: int) -> Callable:
    """A guide that guides at levels from low to high - 1 only, and says 0 at all others.

    Args: guide(xt, t), for images xt (B, C, H, W) at levels t (B,). Returns a function of xt and t.

    Hint: Each image has a level of its own. Make a mask (B, 1, 1, 1) from t.
    """

    def limited(xt: Tensor, t: Tensor) -> Tensor:
        inside = ((t >= low) & (t < high)).view(-1, 1, 1, 1)  # (B, 1, 1, 1)
        shift = guide(xt, t) * inside  # (B, C, H, W)
        return shift

    # at 500 the page's classifier reads a quarter of the digits and its gradients are small, at 300 it reads
    # two thirds: expect most of the class to be decided below 500, and draw to see it

    return limited


# --8<-- [end:exercise-3]


# --8<-- [start:given-4]
def hasty_guidance(classifier: nn.Module, y: Tensor, scale: float, xt: Tensor, t: Tensor) -> Tensor:
    """guidance in three lines. One of them has a fault."""
    with torch.enable_grad():
        x = xt.detach().requires_grad_()  # (B, C, H, W)
        loss = F.cross_entropy(classifier(x, t), y)  # () it is -log p of the class
        return -scale * torch.autograd.grad(loss, x)[0]  # (B, C, H, W)


# --8<-- [end:given-4]


# --8<-- [start:exercise-4]
def careful_guidance(classifier: nn.Module, y: Tensor, scale: float, xt: Tensor, t: Tensor) -> Tensor:
    """hasty_guidance without its fault. One digit alone is drawn as asked, a hundred together are not.

    Args: y (B,); xt (B, C, H, W); t (B,). Returns (B, C, H, W).

    Hint: The sign is right: the loss is minus log p. What does a loss of PyTorch do with a batch?
    """
    with torch.enable_grad():
        x = xt.detach().requires_grad_()  # (B, C, H, W)
        # by default it is the mean, and the scale of a hundred images a hundredth of what was asked for
        loss = F.cross_entropy(classifier(x, t), y, reduction="sum")  # ()
        return -scale * torch.autograd.grad(loss, x)[0]  # (B, C, H, W)


# --8<-- [end:exercise-4]


# --8<-- [start:exercise-5]
def guidance_through(
    model: nn.Module,
    schedule: NoiseSchedule,
    classifier: nn.Module,
    y: Tensor,
    scale: float,
    xt: Tensor,
    t: Tensor,
) -> Tensor:
    """Guidance by a classifier of clean images: it is shown the image that the predicted noise implies.

    Args: classifier(x0, t) is told level 0 always; y (B,); xt (B, C, H, W); t (B,). Returns scale times the
    gradient (B, C, H, W) of log p(y | implied image) with respect to xt, through the model.

    Hint: Call the model, x0_from_eps and the classifier inside enable_grad, on an xt that requires a
    gradient.
    """
    with torch.enable_grad():
        x = xt.detach().requires_grad_()  # (B, C, H, W)
        x0 = x0_from_eps(schedule, x, t, model(x, t))  # (B, C, H, W) what the model thinks it will be
        log_p = classifier(x0, torch.zeros_like(t)).log_softmax(dim=1)  # (B, K)
        chosen = log_p.gather(1, y[:, None])  # (B, 1)
        gradient = torch.autograd.grad(chosen.sum(), x)[0]  # (B, C, H, W) back through the model too
    return scale * gradient


# --8<-- [end:exercise-5]


class Reader(nn.Module):
    """A classifier of 5 classes that is not linear, and depends on the level."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("weight", torch.randn(24, 5, generator=generator, dtype=torch.float64) / 5)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Logits of images of 24 numbers."""
        return torch.sin(x.flatten(1) + 0.01 * t[:, None]) @ self.weight * 3


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Six images, their levels and classes."""
    xt = torch.randn(6, 2, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return xt, torch.tensor([39, 17, 2, 0, 1, 30]), torch.tensor([4, 0, 2, 1, 3, 3])


def slope(value: Callable, x: Tensor) -> Tensor:
    """The gradient of a function that gives a number for each image, by differences."""
    steps = 1e-5 * torch.eye(x[0].numel(), dtype=x.dtype).view(-1, 1, *x.shape[1:])
    return torch.stack([(value(x + step) - value(x - step)) / 2e-5 for step in steps], dim=1).view(x.shape)


def check_1(answer: Callable) -> None:
    """From the two densities, by differences."""

    def log_p(x: float, m: float, variance: float) -> float:
        up, down = (math.exp(-((x - mean) ** 2) / (2 * variance)) for mean in (m, -m))
        return math.log(up / (up + down))

    for x, m, variance in ((0.4, 1.5, 2.0), (-0.7, 0.3, 0.5)):
        told = f"pull({x}, {m}, {variance})"
        given = answer(x, m, variance)
        right = (log_p(x + 1e-5, m, variance) - log_p(x - 1e-5, m, variance)) / 2e-5
        other = 1 - math.exp(log_p(x, m, variance))
        slips = {
            "that is the gradient of the logit, which leaves out the other class": 2 * m / variance,
            "that is large where the class is sure; there is most to gain where it is not": right
            / other
            * (1 - other),
            "that is the score of the class; the unconditional score is to be taken off": (m - x) / variance,
            "the sign is wrong: it pulls away from the class": -right,
        }
        compare(told, given, right, slips)


def check_2(answer: Callable) -> None:
    """By differences of the logarithm of the sum of probabilities."""
    classifier, (xt, t, _) = Reader(), batch()
    wanted = torch.tensor([[0, 1, 0, 1, 0], [1, 0, 0, 0, 0], [1, 1, 0, 0, 1]]).bool().repeat(2, 1)
    given = answer(classifier, wanted, 1.5, xt, t)
    one = slope(lambda x: 1.5 * (classifier(x, t).softmax(1) * wanted).sum(1).log(), xt)
    every = slope(lambda x: 1.5 * (classifier(x, t).log_softmax(1) * wanted).sum(1), xt)
    logits = slope(lambda x: 1.5 * classifier(x, t).masked_fill(~wanted, -torch.inf).logsumexp(1), xt)
    slips = {
        "that asks for all of the classes at once; any of them should do": every,
        "those are logits, not log-probabilities: the other classes are left out": logits,
        "that is divided by the size of the batch: take the sum over it": one / 6,
        "the scale is missing": one / 1.5,
    }
    compare("the guidance to any of the classes", given, one, slips)


def check_3(answer: Callable) -> None:
    """At levels inside, outside and at both ends, in one batch."""
    guide = lambda xt, t: xt.cos() + t.view(-1, 1, 1, 1)  # noqa: E731
    xt = torch.randn(5, 2, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    t = torch.tensor([20, 9, 10, 30, 29])
    given = answer(guide, 10, 30)
    assert callable(given), "a function of xt and t is to be returned"
    full, inside = guide(xt, t), torch.tensor([1, 0, 1, 0, 1]).view(-1, 1, 1, 1)
    slips = {
        "that asks for the level of the first image only; each has its own": full,
        "the level `high` itself is guided; it is the first above": full
        * torch.tensor([1, 0, 1, 1, 1]).view(-1, 1, 1, 1),
        "the level `low` is not guided; it is the first inside": full
        * torch.tensor([1, 0, 0, 0, 1]).view(-1, 1, 1, 1),
        "it guides outside and not inside": full * (1 - inside),
    }
    compare("what the guide says", given(xt, t), full * inside, slips)


def check_4(answer: Callable) -> None:
    """By differences, and under no_grad, as samplers call it."""
    classifier, (xt, t, y) = Reader(), batch()
    with torch.no_grad():
        given = answer(classifier, y, 2.0, xt, t)
    right = slope(lambda x: 2.0 * classifier(x, t).log_softmax(1).gather(1, y[:, None])[:, 0], xt)
    slips = {
        "it is divided by the size of the batch": right / 6,
        "the sign is wrong now: the loss is minus log p": -right,
    }
    compare("the guidance", given, right, slips)


def check_5(answer: Callable) -> None:
    """By differences, through a model that is not linear."""
    classifier, (xt, t, y) = Reader(), batch()
    schedule = NoiseSchedule(linear_beta(40, 2e-3, 0.3))
    xt = q_sample(schedule, xt.tanh(), t, xt.flip(0))

    def model(x: Tensor, t: Tensor) -> Tensor:
        return torch.sin(x) * 0.8 + 0.1 * x.mean(dim=(1, 2, 3), keepdim=True)

    def log_p(x0: Tensor, level: Tensor) -> Tensor:
        return 1.5 * classifier(x0, level).log_softmax(1).gather(1, y[:, None])[:, 0]

    with torch.no_grad():
        given = answer(model, schedule, classifier, y, 1.5, xt, t)
    eps = model(xt, t)
    right = slope(lambda x: log_p(x0_from_eps(schedule, x, t, model(x, t)), 0 * t), xt)
    slips = {
        "the gradient has to go through the model too; its noise is held fast": slope(
            lambda x: log_p(x0_from_eps(schedule, x, t, eps), 0 * t), xt
        ),
        "that is the gradient with respect to the implied image, not to xt": slope(
            lambda x: log_p(x, 0 * t), x0_from_eps(schedule, xt, t, eps)
        ),
        "the classifier is told the level of xt; it reads a clean image, of level 0": slope(
            lambda x: log_p(x0_from_eps(schedule, x, t, model(x, t)), t), xt
        ),
        "that is the guidance of the noisy image; show the classifier the implied one": guidance(
            classifier, y, 1.5, xt, t
        ),
    }
    compare("the guidance through the model", given, right, slips)
