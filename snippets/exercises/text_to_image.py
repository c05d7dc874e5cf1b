"""Exercises of the text-to-image post, solved, with what checks an answer.

Shapes: B batch, D coordinates, N times.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from snippets.data.toy2d import Toy2D, toy2d
from snippets.exercises.checking import compare
from snippets.flow_matching import exact_velocity


# --8<-- [start:exercise-1]
def code_bits(side: int, factor: int, codes: int) -> tuple[float, float]:
    """By pencil: how many bits a picture has as codes, and how many times fewer that is than as bytes.

    The picture has side * side pixels of three bytes; an autoencoder shrinks each side by a factor, and each
    place holds one of so many codes, all equally likely.

    Hint: One of 256 codes is 8 bits. How many places are there?
    """
    bits = (side // factor) ** 2 * math.log2(codes)
    # DALL-E: 256 pixels a side, factor 8, 8,192 codes: 13,312 bits, 118 times fewer
    return bits, 24 * side**2 / bits


# --8<-- [end:exercise-1]


def check_1(answer: Callable) -> None:
    """Counted by listing places."""
    for side, factor, codes in ((256, 8, 8192), (32, 4, 256), (64, 16, 1000)):
        bits, share = answer(side, factor, codes)
        places = len(range(0, side, factor)) ** 2
        right = places * math.log(codes) / math.log(2)
        slips = {
            "both sides shrink by the factor: count places in two directions": side
            // factor
            * math.log2(codes),
            "a code is a number, and takes the logarithm of how many there are": float(places * codes),
            "bits are counted by logarithms to base 2": places * math.log(codes),
        }
        compare(f"bits of code_bits({side}, {factor}, {codes})", bits, right, slips)
        slips = {
            "a byte has eight bits": 3 * side**2 / right,
            "a pixel has three bytes": 8 * side**2 / right,
            "that is how many times more": right / (24 * side**2),
        }
        compare(
            f"the second number of code_bits({side}, {factor}, {codes})", share, 24 * side**2 / right, slips
        )


# --8<-- [start:exercise-2]
def way(noise: Tensor, mean: Tensor, deviation: float, t: float) -> Tensor:
    """By pencil: where noise (B, D) is at time t, if data are normal with a mean (D,) and a deviation.

    It follows the mean velocity u_t.

    Hint: At each time all of them together are normal. Which mean has x_t, and which deviation? A single one
    keeps its place among the others, as many deviations from the mean as it began with.
    """
    spread = ((1 - t) ** 2 + (t * deviation) ** 2) ** 0.5
    # not straight: spread is no linear function of t. From 1 it falls below the line to `deviation`
    return t * mean + spread * noise  # (B, D)


# --8<-- [end:exercise-2]


def check_2(answer: Callable) -> None:
    """A thousand of Euler's steps."""
    noise = torch.tensor([[0.3, -1.2], [2.0, 0.4], [-0.7, 0.1]], dtype=torch.float64)  # (3, 2)
    mean, deviation = torch.tensor([1.0, -2.0], dtype=torch.float64), 0.4  # (2,), _
    single = Toy2D(torch.ones(1), mean[None], torch.tensor([deviation]))
    x, steps = noise, 1000
    for step in range(steps):
        if step in (0, 300, 600, 900):
            t = step / steps
            slips = {
                "that is the straight line to where it ends, and the way is bent": (1 - t) * noise
                + t * (mean + deviation * noise),
                "variances add up, not deviations' squares times t": t * mean
                + (1 - t + t * deviation**2) ** 0.5 * noise,
                "the mean moves too": ((1 - t) ** 2 + (t * deviation) ** 2) ** 0.5 * noise,
            }
            slips = slips if step else {}
            compare(
                f"way(noise, mean, 0.4, {t})", answer(noise, mean, deviation, t), x, slips, tolerance=1e-3
            )
        x = x + exact_velocity(single, x, step / steps) / steps


# --8<-- [start:exercise-3]
def logit_normal_times(count: int, mean: float, deviation: float, generator: torch.Generator) -> Tensor:
    """Times (count,) in (0, 1): the sigmoid of normal draws with this mean and deviation.

    Draw with `torch.randn(count, generator=generator)`.

    Hint: `torch.randn` has mean 0 and deviation 1. `torch.sigmoid` brings numbers to (0, 1).
    """
    return torch.sigmoid(mean + deviation * torch.randn(count, generator=generator))  # (N,)


# --8<-- [end:exercise-3]


def check_3(answer: Callable) -> None:
    """On the same random numbers, by the exponential function."""
    for mean, deviation in ((0.0, 1.0), (-0.5, 0.7)):
        given = answer(6, mean, deviation, torch.Generator().manual_seed(4))
        draw = torch.randn(6, generator=torch.Generator().manual_seed(4))  # (6,)
        right = 1 / (1 + torch.exp(-mean - deviation * draw))  # (6,)
        slips = {
            "those are draws of any size: bring them to (0, 1)": mean + deviation * draw,
            "the deviation multiplies the draw before the mean is added": torch.sigmoid(
                deviation * (draw + mean)
            ),
            "the mean and the deviation are those of the normal draw, before the sigmoid": mean
            + deviation * torch.sigmoid(draw),
        }
        slips = {said: slip for said, slip in slips.items() if (slip - right).abs().max() > 1e-3}
        compare(f"logit_normal_times(6, {mean}, {deviation}, generator)", given, right, slips)


# --8<-- [start:exercise-4]
def draw_heun(velocity: Callable, noise: Tensor, num_steps: int) -> Tensor:
    """Data (B, D) from noise (B, D) by Heun's method: velocity(x, t) is asked twice in each step.

    Hint: The second question is asked at the end of the trial step: at its place and at its time.
    """
    x, length = noise, 1 / num_steps  # (B, D), _
    for step in range(num_steps):
        here = velocity(x, step * length)  # (B, D)
        there = velocity(x + length * here, (step + 1) * length)  # (B, D)
        x = x + length * (here + there) / 2  # (B, D)
    return x


# --8<-- [end:exercise-4]


def by_hand(velocity: Callable, x: Tensor, steps: int, second: Callable) -> Tensor:
    """Heun's method with a second question of one's own."""
    for step in range(steps):
        t, end = step / steps, (step + 1) / steps
        x = x + second(velocity, x, t, end, velocity(x, t)) / steps
    return x


def check_4(answer: Callable) -> None:
    """The mixture, in five steps; and how often the velocity is asked."""
    mixture, asked = toy2d(), []
    noise = torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)  # (4, 2)

    def velocity(x: Tensor, t: float) -> Tensor:
        asked.append(t)
        return exact_velocity(mixture, x, t)

    given = answer(velocity, noise, 5)
    assert len(asked) == 10, f"in five steps the velocity is asked ten times, not {len(asked)} times"

    def mean(velocity, x, t, end, here):
        return (here + velocity(x + (end - t) * here, end)) / 2

    def early(velocity, x, t, end, here):
        return (here + velocity(x + (end - t) * here, t)) / 2

    def same_place(velocity, x, t, end, here):
        return (here + velocity(x, end)) / 2

    def second_only(velocity, x, t, end, here):
        return velocity(x + (end - t) * here, end)

    slips = {
        "the second question is asked at the time of the first": by_hand(velocity, noise, 5, early),
        "the second question is asked at the place of the first": by_hand(velocity, noise, 5, same_place),
        "the step is taken with the second velocity alone: take the mean": by_hand(
            velocity, noise, 5, second_only
        ),
    }
    compare("draw_heun(velocity, noise, 5)", given, by_hand(velocity, noise, 5, mean), slips)


# --8<-- [start:given-5]
def hasty_draw(velocity: Callable, noise: Tensor, num_steps: int) -> Tensor:
    """Data (B, D) from noise (B, D) by Euler's method. It has a fault."""
    x = noise
    for t in torch.linspace(0, 1, num_steps).tolist():
        x = x + velocity(x, t) / num_steps  # (B, D)
    return x


# --8<-- [end:given-5]


# --8<-- [start:exercise-5]
def careful_draw(velocity: Callable, noise: Tensor, num_steps: int) -> Tensor:
    """hasty_draw without its fault: velocity(x, t) is asked where a step begins.

    Hint: Print the times for four steps. By how much do they differ, and how long is a step?
    """
    x = noise
    for step in range(num_steps):
        x = x + velocity(x, step / num_steps) / num_steps  # (B, D)
    return x


# --8<-- [end:exercise-5]


def check_5(answer: Callable) -> None:
    """The times that are asked, and where the mixture's velocity leads."""
    mixture, asked = toy2d(), []
    noise = torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)  # (4, 2)

    def velocity(x: Tensor, t: float) -> Tensor:
        asked.append(round(float(t), 6))
        return exact_velocity(mixture, x, float(t))

    given = answer(velocity, noise, 4)
    assert asked != [0.0, 0.333333, 0.666667, 1.0], "steps of a quarter are asked at thirds: 0, 1/3, 2/3, 1"
    assert asked != [0.25, 0.5, 0.75, 1.0], "the velocity is asked where a step ends, not where it begins"
    assert asked == [0.0, 0.25, 0.5, 0.75], f"four steps begin at 0, 0.25, 0.5 and 0.75, not at {asked}"
    right = by_hand(velocity, noise, 4, lambda velocity, x, t, end, here: here)
    compare("careful_draw(velocity, noise, 4)", given, right)
