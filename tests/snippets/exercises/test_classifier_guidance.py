"""The exercises of the post on classifier guidance: answers that tempt, others that are right, what is said of each."""

import math

import pytest
import torch

from snippets import classifier_guidance as cg
from snippets import ddpm
from snippets.exercises import classifier_guidance as exercises
from tests.snippets.exercises.answers import prove


def of_the_logit(x, m, variance):
    return 2 * m / variance


def where_it_is_sure(x, m, variance):
    return 2 * m / variance / (1 + math.exp(-2 * m * x / variance))


def score_of_the_class(x, m, variance):
    return (m - x) / variance


def away(x, m, variance):
    return -exercises.pull(x, m, variance)


def by_scores(x, m, variance):
    """Right too: the score of the class minus that of the mixture."""
    up, down = (math.exp(-((x - mean) ** 2) / (2 * variance)) for mean in (m, -m))
    return (m - x) / variance - (up * (m - x) + down * (-m - x)) / (up + down) / variance


def gradient_of(value):
    def guidance(classifier, wanted, scale, xt, t):
        with torch.enable_grad():
            x = xt.detach().requires_grad_()
            return scale * torch.autograd.grad(value(classifier(x, t), wanted), x)[0]

    return guidance


all_at_once = gradient_of(lambda logits, wanted: (logits.log_softmax(1) * wanted).sum())
of_logits = gradient_of(lambda logits, wanted: logits.masked_fill(~wanted, -torch.inf).logsumexp(1).sum())
the_mean = gradient_of(lambda logits, wanted: (logits.softmax(1) * wanted).sum(1).log().mean())
by_probabilities = gradient_of(lambda logits, wanted: (logits.softmax(1) * wanted).sum(1).log().sum())  # right too


def without_scale(classifier, wanted, scale, xt, t):
    return exercises.guidance_to_any(classifier, wanted, 1.0, xt, t)


def limited(inside):
    return lambda guide, low, high: lambda xt, t: guide(xt, t) * inside(t, low, high)


first_level_only = limited(lambda t, low, high: bool(low <= t[0] < high))
with_high = limited(lambda t, low, high: ((t >= low) & (t <= high)).view(-1, 1, 1, 1))
without_low = limited(lambda t, low, high: ((t > low) & (t < high)).view(-1, 1, 1, 1))
outside = limited(lambda t, low, high: ((t < low) | (t >= high)).view(-1, 1, 1, 1))


def no_function(guide, low, high):
    return guide(torch.zeros(1, 2, 3, 4), torch.tensor([low]))


def other_sign(classifier, y, scale, xt, t):
    return -exercises.careful_guidance(classifier, y, scale, xt, t)


def without_enable_grad(classifier, y, scale, xt, t):
    x = xt.detach().requires_grad_()
    return scale * torch.autograd.grad(classifier(x, t).log_softmax(1).gather(1, y[:, None]).sum(), x)[0]


def model_held_fast(model, schedule, classifier, y, scale, xt, t):
    eps = model(xt, t)
    return exercises.guidance_through(lambda x, t: eps, schedule, classifier, y, scale, xt, t)


def of_the_implied_image(model, schedule, classifier, y, scale, xt, t):
    x0 = ddpm.x0_from_eps(schedule, xt, t, model(xt, t))
    return cg.guidance(classifier, y, scale, x0, 0 * t)


def told_the_level(model, schedule, classifier, y, scale, xt, t):
    return exercises.guidance_through(model, schedule, lambda x, _: classifier(x, t), y, scale, xt, t)


def of_the_noisy_image(model, schedule, classifier, y, scale, xt, t):
    return cg.guidance(classifier, y, scale, xt, t)


WRONG = {
    1: [
        (of_the_logit, "leaves out the other class"),
        (where_it_is_sure, "most to gain where it is not"),
        (score_of_the_class, "score of the class"),
        (away, "away from the class"),
    ],
    2: [
        (all_at_once, "all of the classes at once"),
        (of_logits, "those are logits"),
        (the_mean, "divided by the size of the batch"),
        (without_scale, "scale is missing"),
    ],
    3: [
        (first_level_only, "first image only"),
        (with_high, "`high` itself"),
        (without_low, "`low` is not guided"),
        (outside, "outside and not inside"),
        (no_function, "a function of xt and t"),
    ],
    4: [
        (exercises.hasty_guidance, "divided by the size of the batch"),
        (other_sign, "the sign is wrong now"),
        (without_enable_grad, "does not require grad"),
    ],
    5: [
        (model_held_fast, "through the model too"),
        (of_the_implied_image, "with respect to the implied image"),
        (told_the_level, "of level 0"),
        (of_the_noisy_image, "show the classifier the implied one"),
    ],
}
RIGHT = {1: [by_scores], 2: [by_probabilities], 4: [cg.guidance]}


@pytest.mark.parametrize("number", WRONG)
def test_answers(number):
    prove(exercises, number, WRONG[number], RIGHT.get(number, ()))


def test_guidance_acts_in_between():
    """Exercise 1, what its solution says: at points m of the class, with m and variance as noise leaves them."""
    schedule = ddpm.NoiseSchedule(ddpm.linear_beta())
    pulls = []
    for level in (0, 100, 300, 999):
        bar = float(schedule.alpha_bar[level])
        variance = 0.1 * bar + 1 - bar
        pulls.append((1 - bar) ** 0.5 * exercises.pull(bar**0.5, bar**0.5, variance))  # in units of the noise
    assert max(pulls) == pulls[2] and max(pulls[0], pulls[3]) < 0.1 * pulls[2]
