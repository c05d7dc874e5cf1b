"""The exercises of the text-to-image post: answers that tempt, and what is said of each."""

import math

import pytest
import torch

from snippets.exercises import text_to_image as exercises
from tests.snippets.exercises.answers import prove


def bits_as(bits, share=lambda side, bits: 24 * side**2 / bits):
    def code_bits(side, factor, codes):
        found = bits(side // factor, codes)
        return found, share(side, found)

    return code_bits


def right_bits(side, codes):
    return side**2 * math.log2(codes)


def heun(second):
    def draw_heun(velocity, noise, num_steps):
        return exercises.by_hand(velocity, noise, num_steps, second)

    return draw_heun


def asked_at(times):
    def careful_draw(velocity, noise, num_steps):
        x = noise
        for step in range(num_steps):
            x = x + velocity(x, times(step, num_steps)) / num_steps
        return x

    return careful_draw


def long_steps(velocity, noise, num_steps):
    x = noise
    for step in range(num_steps):
        x = x + velocity(x, step / num_steps) / (num_steps - 1)
    return x


WRONG = {
    1: [
        (bits_as(lambda side, codes: side * math.log2(codes)), "in two directions"),
        (bits_as(lambda side, codes: float(side**2 * codes)), "takes the logarithm"),
        (bits_as(lambda side, codes: side**2 * math.log(codes)), "base 2"),
        (bits_as(right_bits, lambda side, bits: 3 * side**2 / bits), "eight bits"),
        (bits_as(right_bits, lambda side, bits: 8 * side**2 / bits), "three bytes"),
        (bits_as(right_bits, lambda side, bits: bits / (24 * side**2)), "times more"),
    ],
    2: [
        (lambda noise, mean, s, t: (1 - t) * noise + t * (mean + s * noise), "the way is bent"),
        (lambda noise, mean, s, t: t * mean + (1 - t + t * s**2) ** 0.5 * noise, "variances add up"),
        (lambda noise, mean, s, t: ((1 - t) ** 2 + (t * s) ** 2) ** 0.5 * noise, "the mean moves too"),
    ],
    3: [
        (lambda n, m, s, g: m + s * torch.randn(n, generator=g), "of any size"),
        (lambda n, m, s, g: torch.sigmoid(s * (torch.randn(n, generator=g) + m)), "before the mean is added"),
        (lambda n, m, s, g: m + s * torch.sigmoid(torch.randn(n, generator=g)), "before the sigmoid"),
    ],
    4: [
        (heun(lambda u, x, t, end, here: (here + u(x + (end - t) * here, t)) / 2), "the time of the first"),
        (heun(lambda u, x, t, end, here: (here + u(x, end)) / 2), "the place of the first"),
        (heun(lambda u, x, t, end, here: u(x + (end - t) * here, end)), "take the mean"),
        (heun(lambda u, x, t, end, here: here), "asked ten times, not 5"),
    ],
    5: [
        (exercises.hasty_draw, "asked at thirds"),
        (asked_at(lambda step, steps: (step + 1) / steps), "where a step ends"),
        (asked_at(lambda step, steps: (step + 0.5) / steps), "begin at 0, 0.25"),
        (long_steps, "off by"),
    ],
}


@pytest.mark.parametrize("number", WRONG)
def test_answers(number):
    prove(exercises, number, WRONG[number])
