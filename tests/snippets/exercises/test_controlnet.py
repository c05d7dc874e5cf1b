"""The exercises of the ControlNet post: answers that tempt, and what is said of each."""

import pytest
import torch.nn.functional as F

from snippets.exercises import controlnet as exercises
from tests.snippets.exercises.answers import prove


def nothing_moves(k, c, target, rate):
    return 0.0, 0.0, 0.0, 0.0


def uphill(k, c, target, rate):
    of_w, of_k, w, after = exercises.two_steps(k, c, target, rate)
    return of_w, of_k, -w, after


def copy_moves_at_once(k, c, target, rate):
    of_w, _, w, after = exercises.two_steps(k, c, target, rate)
    return of_w, -target * k * c, w, after


def y_stays(k, c, target, rate):
    of_w, of_k, w, _ = exercises.two_steps(k, c, target, rate)
    return of_w, of_k, w, -target * w * c


def still_zero(k, c, target, rate):
    return *exercises.two_steps(k, c, target, rate)[:3], 0.0


def without_middle(widths, layers):
    return exercises.zero_parameters(widths, layers) - widths[-1] ** 2 - widths[-1]


def without_first(widths, layers):
    return exercises.zero_parameters(widths, layers) - widths[0] ** 2 - widths[0]


def without_biases(widths, layers):
    kept = [widths[0]] + [w for i, w in enumerate(widths) for _ in range(layers + (i < len(widths) - 1))]
    return sum(w**2 for w in [*kept, widths[-1]])


def without_halvings(widths, layers):
    return sum(w**2 + w for w in [widths[0], *[w for w in widths for _ in range(layers)], widths[-1]])


def always_halved(widths, layers):
    return exercises.zero_parameters(widths, layers) + widths[-1] ** 2 + widths[-1]


def begun_is_enough(num_steps, start, end):
    return [float(start <= i / num_steps < end) for i in range(num_steps)]


def the_other_way(num_steps, start, end):
    return [1 - one for one in exercises.window(num_steps, start, end)]


def everywhere(added, region):
    return added


def outside(added, region):
    return exercises.within(added, 1 - region)


def by_corners(added, region):
    return [one * F.interpolate(region[:, None], size=one.shape[2:], mode="nearest") for one in added]


def written_into(residuals, scales):
    total = residuals[0]
    for place in range(len(total)):
        total[place] *= scales[0]
        for added, scale in zip(residuals[1:], scales[1:], strict=True):
            total[place] += scale * added[place]
    return total


def unscaled(residuals, scales):
    return [sum(parts) for parts in zip(*residuals, strict=True)]


WRONG = {
    1: [
        (nothing_moves, "it holds k c, not w"),
        (uphill, "against the gradient"),
        (copy_moves_at_once, "holds w, which is 0"),
        (y_stays, "y is no longer 0"),
        (still_zero, "w is no longer 0"),
    ],
    2: [
        (without_middle, "the middle"),
        (without_first, "the first convolution"),
        (without_biases, "a bias"),
        (without_halvings, "halved is kept"),
        (always_halved, "not halved"),
    ],
    3: [(begun_is_enough, "cut by `end`"), (the_other_way, "stands for control")],
    4: [(everywhere, "where is the region"), (outside, "left out where it should be"), (by_corners, "take the mean")],
    5: [
        (exercises.hasty_sum, "multiplies the controls before it"),
        (written_into, "have changed"),
        (unscaled, "are not used"),
    ],
}


@pytest.mark.parametrize("number", WRONG)
def test_answers(number):
    prove(exercises, number, WRONG[number])
