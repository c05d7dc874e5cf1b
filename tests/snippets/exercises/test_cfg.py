"""The exercises of the post on classifier-free guidance: answers that tempt, right ones, and what is said of each."""

import pytest
import torch

from snippets import cfg
from snippets.ddpm import eps_from_x0
from snippets.exercises import cfg as exercises
from tests.snippets.exercises.answers import prove


def exchanged(scale, of_all, of_class):
    return exercises.two_variances(scale, of_all, of_class)[::-1]


def straight(scale, of_all, of_class):
    return (1 - scale) * of_all + scale * of_class, exercises.two_variances(scale, of_all, of_class)[1]


def deviations(scale, of_all, of_class):
    return tuple(v**0.5 for v in exercises.two_variances(scale, of_all, of_class))


def raised(scale, of_all, of_class):
    return exercises.two_variances(scale, of_all, of_class)[0], of_class / scale


def one_number(scale, of_all, of_class):
    return exercises.two_variances(scale, of_all, of_class)[0]


def from_nothing(model, schedule, condition, avoid, scale):
    return cfg.guided(model, schedule, condition, scale)


def towards(model, schedule, condition, avoid, scale):
    return exercises.guided_away(model, schedule, avoid, condition, scale)


def of_three(model, schedule, condition, avoid, scale):
    def predict(xt, t):
        null = torch.full_like(condition, 5)
        yes, no, empty = (eps_from_x0(schedule, xt, t, model(xt, t, c)) for c in (condition, avoid, null))
        return empty + scale * (yes - no)

    return predict


def in_the_noise(model, schedule, condition, avoid, scale):
    """Right too: two passes, combined in the noise."""

    def predict(xt, t):
        yes, no = (eps_from_x0(schedule, xt, t, model(xt, t, told)) for told in (condition, avoid))
        return cfg.guide(yes, no, scale)

    return predict


def wasteful(model, schedule, condition, scale):
    return cfg.guided(model, schedule, condition, scale)


def always_told(model, schedule, condition, scale):
    return lambda xt, t: eps_from_x0(schedule, xt, t, model(xt, t, condition))


def the_noise_itself(model, schedule, condition, scale):
    return model(torch.zeros(3, 2, 4, 6), torch.zeros(3).long(), condition)


def by_batch(condition, null, share, generator):
    return null.expand_as(condition) if torch.rand(1, generator=generator) < 0.9 else condition.clone()


def nobody(condition, null, share, generator):
    return condition.clone()


def too_many(condition, null, share, generator):
    return exercises.careful_drop(condition, null, 1 - share, generator)


def shuffled(condition, null, share, generator):
    return exercises.careful_drop(condition.flip(0), null, share, generator)


def by_where(condition, null, share, generator):
    """Right too."""
    return torch.where(torch.rand(len(condition), generator=generator) < share, null, condition)


def no_colour(grey):
    return lambda x0: grey.expand_as(x0)


def a_third(grey):
    return lambda x0: x0 + (grey - x0.mean(1, keepdim=True)) / 3


def one_channel(grey):
    def adjust(x0):
        x0 = x0.clone()
        x0[:, 0] = 3 * grey[:, 0] - x0[:, 1:].sum(1)
        return x0

    return adjust


def multiplied(grey):
    return lambda x0: x0 * grey / x0.mean(1, keepdim=True)


def sum_known(grey):
    """Right too: by the sum of the channels."""
    return lambda x0: x0 + (x0.shape[1] * grey - x0.sum(1, keepdim=True)) / x0.shape[1]


WRONG = {
    1: [
        (exchanged, "the two are exchanged"),
        (straight, "their logarithms are averaged"),
        (deviations, "standard deviation"),
        (raised, "p(x)^(1 - scale) is missing"),
        (one_number, "two numbers are asked for"),
    ],
    2: [
        (from_nothing, "away from the empty condition"),
        (towards, "towards what is to be avoided"),
        (of_three, "takes no part here"),
    ],
    3: [
        (wasteful, "asked about 6 images, not 3"),
        (always_told, "at scale 0.0 is off"),
        (the_noise_itself, "a function of xt and t"),
    ],
    4: [
        (exercises.hasty_drop, "labels are overwritten"),
        (by_batch, "each sample should draw for itself"),
        (nobody, "all of the batch is dropped or none"),
        (too_many, "are dropped, not about 30 %"),
        (shuffled, "not dropped is changed"),
    ],
    5: [
        (no_colour, "no colour any more"),
        (a_third, "too little"),
        (one_channel, "shares it among them"),
        (multiplied, "to multiply"),
    ],
}
RIGHT = {2: [in_the_noise], 4: [by_where, cfg.drop_condition], 5: [sum_known]}


@pytest.mark.parametrize("number", WRONG)
def test_answers(number):
    prove(exercises, number, WRONG[number], RIGHT.get(number, ()))


def test_points_drawn_are_closer_together_than_the_tilted_density():
    """Exercise 1, what its solution says."""
    for of_all, of_class in ((1.0, 0.5), (0.8, 0.6)):
        for scale in (0.0, 1.0):
            drawn, tilted = exercises.two_variances(scale, of_all, of_class)
            assert drawn == pytest.approx(tilted)
        for scale in (1.5, 2.0, 4.0, 8.0):
            drawn, tilted = exercises.two_variances(scale, of_all, of_class)
            assert drawn < 0.99 * tilted


def test_labels_that_are_overwritten_are_soon_gone():
    """Exercise 4, what its task says: by twenty epochs."""
    labels, generator = torch.arange(4000) % 5, torch.Generator().manual_seed(0)
    for _ in range(20):
        exercises.hasty_drop(labels, torch.tensor(5), 0.1, generator)
    assert abs((labels == 5).double().mean() - 7 / 8) < 0.03
