"""Exercises of the post on classifier-free guidance, solved, with what checks an answer.

Shapes: B batch, C channels, H height, W width.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from snippets.cfg import guide, guided
from snippets.ddpm import NoiseSchedule, eps_from_x0, linear_beta
from snippets.exercises.checking import compare


# --8<-- [start:exercise-1]
def two_variances(scale: float, of_all: float, of_class: float) -> tuple[float, float]:
    """By pencil: the variance that guided DDIM draws, and the one that the tilted density has.

    All numbers and those of the class are normal, with mean 0 and these variances. Steps are as short as you
    like.

    Hint: Divide x_t by the signal: then DDIM follows dx / dsigma = -sigma * score from a very large sigma
    down, and the scores are -x / (variance + sigma^2). Guidance weighs them with 1 - scale and scale. For the
    tilted density p(x)^(1 - scale) p(x | y)^scale look at the exponent.
    """
    # d log x = (1 - s) / 2 * d log(of_all + sigma^2) + s / 2 * d log(of_class + sigma^2): a geometric mean
    drawn = of_all ** (1 - scale) * of_class**scale
    # precisions add up: a harmonic mean. Equal at scales 0 and 1; above, the points drawn are closer together
    tilted = 1 / ((1 - scale) / of_all + scale / of_class)
    return drawn, tilted


# --8<-- [end:exercise-1]


# --8<-- [start:exercise-2]
def guided_away(
    model: nn.Module, schedule: NoiseSchedule, condition: Tensor, avoid: Tensor, scale: float
) -> Callable:
    """Like guided, with a negative condition: from the answer to `avoid` towards the one to `condition`.

    Args: condition, avoid, for classes (B,) each. Returns the guided noise as a function of xt and t.

    Hint: Begin with a copy of guided, without phi. Which line makes the condition that one walks away from?
    """

    def predict(xt: Tensor, t: Tensor) -> Tensor:
        # no look at the empty condition: avoid stands in its place, in every step
        both = model(
            torch.cat([xt, xt]), torch.cat([t, t]), torch.cat([condition, avoid])
        )  # (2 * B, C, H, W)
        wanted, unwanted = both.chunk(2)  # (B, C, H, W), (B, C, H, W)
        x0 = guide(wanted, unwanted, scale)  # (B, C, H, W)
        eps = eps_from_x0(schedule, xt, t, x0)  # (B, C, H, W)
        return eps

    return predict


# --8<-- [end:exercise-2]


# --8<-- [start:exercise-3]
def thrifty(model: nn.Module, schedule: NoiseSchedule, condition: Tensor, scale: float) -> Callable:
    """Like guided, but where one of the two answers does not count, the network is not asked for it.

    Returns the guided noise as a function of xt and t.

    Hint: Which answers count at scale 0, and which at scale 1?
    """
    if scale not in (0, 1):
        return guided(model, schedule, condition, scale)
    null = model.encoder.null.expand_as(condition)  # (B,) for classes
    told = condition if scale == 1 else null  # (B,) at scale 1 the condition, at scale 0 none

    def predict(xt: Tensor, t: Tensor) -> Tensor:
        eps = eps_from_x0(schedule, xt, t, model(xt, t, told))  # (B, C, H, W) half the work
        return eps

    return predict


# --8<-- [end:exercise-3]


# --8<-- [start:given-4]
def hasty_drop(condition: Tensor, null: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """drop_condition in three lines. Something is wrong with them."""
    dropped = torch.rand(len(condition), generator=generator) < share  # (B,)
    condition[dropped] = null
    return condition


# --8<-- [end:given-4]


# --8<-- [start:exercise-4]
def careful_drop(condition: Tensor, null: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """hasty_drop without its fault. In the first batches all is right. After twenty epochs
    with a share of 0.1, seven labels of eight are gone.

    Args: condition (B,) or (B, L); null, the empty one. Each sample is dropped by its own draw.

    Hint: What do the caller's labels look like afterwards?
    """
    dropped = torch.rand(len(condition), generator=generator) < share  # (B,)
    told = condition.clone()  # _ a copy: what is written into the caller's labels is lost for good
    told[dropped] = null
    # train_guided hands over condition[rows], which is a copy already: indexing by a tensor makes one
    return told


# --8<-- [end:exercise-4]


# --8<-- [start:exercise-5]
def keep_grey(grey: Tensor) -> Callable:
    """A correction of guesses for colouring: the mean of the channels is known, grey (B, 1, H, W).

    Returns a function of a guess (B, C, H, W), which gives the nearest picture with these means. It may leave
    [-1, 1].

    Hint: It is keep_small, but for channels in place of pixels: add to each what their mean lacks.
    """

    def adjust(x0: Tensor) -> Tensor:
        missing = grey - x0.mean(dim=1, keepdim=True)  # (B, 1, H, W) the same for all channels of a pixel
        x0 = x0 + missing  # (B, C, H, W) so that the differences between the channels, the colour, stay
        return x0

    return adjust


# --8<-- [end:exercise-5]


class Painter(nn.Module):
    """A network of 5 classes that is not linear; it remembers how many images it was asked about."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Module()
        self.encoder.register_buffer("null", torch.tensor(5))
        self.asked = []

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """A picture that depends on all that it is told."""
        self.asked.append(condition.tolist())
        return torch.sin(x + 0.7 * condition.view(-1, 1, 1, 1) + 0.01 * t.view(-1, 1, 1, 1))


def made() -> tuple[NoiseSchedule, Tensor, Tensor, Tensor, Tensor]:
    """A schedule, noisy images, levels and two rows of classes."""
    x = torch.randn(3, 2, 4, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    classes = torch.tensor([4, 0, 2]), torch.tensor([1, 3, 3])
    return NoiseSchedule(linear_beta(40, 2e-3, 0.3)), x, torch.tensor([39, 17, 2]), *classes


def check_1(answer: Callable) -> None:
    """From the differential equation, by the trapezoidal rule, and from the density, on a grid."""
    for scale, of_all, of_class in ((2.0, 1.0, 0.5), (3.0, 0.8, 0.6)):
        told = f"two_variances({scale}, {of_all}, {of_class})"
        given = answer(scale, of_all, of_class)
        assert isinstance(given, tuple) and len(given) == 2, "two numbers are asked for: drawn and tilted"
        log_sigma = torch.linspace(-12, 12, 40_001, dtype=torch.float64)
        square = (2 * log_sigma).exp()
        rate = square * ((1 - scale) / (of_all + square) + scale / (of_class + square))
        drawn = math.exp(24 - 2 * torch.trapezoid(rate, log_sigma).item())
        x = torch.linspace(-12, 12, 40_001, dtype=torch.float64)
        density = (-x.square() * ((1 - scale) / of_all + scale / of_class) / 2).exp()
        tilted = ((density * x.square()).sum() / density.sum()).item()
        slips = {
            "the two are exchanged": tilted,
            "that is the mean of the variances; their logarithms are averaged": (1 - scale) * of_all
            + scale * of_class,
            "that is the standard deviation": drawn**0.5,
        }
        compare(f"the variance drawn, of {told},", given[0], drawn, slips)
        raised = {"that is p(x | y)^scale alone; p(x)^(1 - scale) is missing": of_class / scale}
        compare(f"the variance of the tilted density, of {told},", given[1], tilted, raised)


def check_2(answer: Callable) -> None:
    """From the network's answers, one at a time, combined in the noise."""
    schedule, x, t, wanted, avoid = made()
    model, scale = Painter(), 2.5
    predict = answer(model, schedule, wanted, avoid, scale)
    assert callable(predict), "a function of xt and t is to be returned"
    given = predict(x, t)
    null = torch.full_like(wanted, 5)
    yes, no, empty = (eps_from_x0(schedule, x, t, model(x, t, told)) for told in (wanted, avoid, null))
    slips = {
        "that is guidance away from the empty condition": empty + scale * (yes - empty),
        "that walks towards what is to be avoided": yes + scale * (no - yes),
        "the empty condition takes no part here": empty + scale * (yes - no),
    }
    compare("the guided noise", given, no + scale * (yes - no), slips)


def check_3(answer: Callable) -> None:
    """The same noise as guided, and how often the network is asked."""
    schedule, x, t, condition, _ = made()
    for scale in (0.0, 1.0, 2.5):
        model = Painter()
        predict = answer(model, schedule, condition, scale)
        assert callable(predict), "a function of xt and t is to be returned"
        given, asked = predict(x, t), sum(len(classes) for classes in model.asked)
        right = guided(Painter(), schedule, condition, scale)(x, t)
        compare(f"the guided noise at scale {scale}", given, right)
        needed = 3 if scale in (0.0, 1.0) else 6
        assert asked == needed, f"at scale {scale} the network is asked about {asked} images, not {needed}"


def check_4(answer: Callable) -> None:
    """What comes out, what is left of the labels, and that each sample draws for itself."""
    labels = torch.arange(4000) % 5
    before = labels.clone()
    given = answer(labels, torch.tensor(5), 0.3, torch.Generator().manual_seed(0))
    assert torch.equal(labels, before), "the caller's labels are overwritten; next time they are missing"
    compare("the number of conditions", len(given), 4000)
    dropped = given == 5
    kept = torch.equal(given[~dropped], before[~dropped])
    assert kept, "a condition that is not dropped is changed"
    share = dropped.double().mean().item()
    assert 0 < share < 1, "all of the batch is dropped or none; each sample should draw for itself"
    assert abs(share - 0.3) < 0.04, f"of 4,000 conditions {share:.0%} are dropped, not about 30 %"


def check_5(answer: Callable) -> None:
    """Against the least-squares solution by pseudo-inverse."""
    generator = torch.Generator().manual_seed(1)
    x0 = torch.randn(2, 3, 4, 6, generator=generator, dtype=torch.float64)
    grey = torch.rand(2, 1, 4, 6, generator=generator, dtype=torch.float64)
    adjust = answer(grey)
    assert callable(adjust), "a function of a guess is to be returned"
    given = adjust(x0)
    mean = torch.full((1, 3), 1 / 3, dtype=torch.float64)
    pixels, wanted = x0.movedim(1, -1), grey.movedim(1, -1)
    right = (pixels + (wanted - pixels @ mean.T) @ torch.linalg.pinv(mean).T).movedim(-1, 1)
    lacks = grey - x0.mean(dim=1, keepdim=True)
    slips = {
        "that picture has no colour any more": grey.expand_as(x0),
        "a third of what the mean lacks is too little: each channel gets all of it": x0 + lacks / 3,
        "one channel gets it all; the nearest picture shares it among them": x0
        + 3 * lacks * torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1),
        "to multiply gives the right means too, but not the nearest picture": x0 * grey / (grey - lacks),
    }
    compare("the corrected guess", given, right, slips)
