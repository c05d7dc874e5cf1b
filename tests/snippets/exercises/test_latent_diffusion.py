"""The exercises of the latent diffusion post: answers that tempt, and what is said of each."""

import pytest
import torch
import torch.nn.functional as F

from snippets.exercises import latent_diffusion as exercises
from snippets.latent_diffusion import sample_latents
from tests.snippets.exercises.answers import prove


def without_the_square(deviation):
    return 1 / (1 + deviation)


def share_of_noise(deviation):
    return deviation**2 / (1 + deviation**2)


def of_scaled_latents(deviation):
    return 0.5


def with_biases(width, text_width):
    return exercises.block_parameters(width, text_width) + 6 * width


def without_gates(width, text_width):
    return exercises.block_parameters(width, text_width) - 4 * width**2 - 4 * width


def reads_itself(width, text_width):
    return exercises.block_parameters(width, width)


def without_norms(width, text_width):
    return exercises.block_parameters(width, text_width) - 6 * width


def from_(start):
    def redraw(predict, latents, noise, levels, ratio, skip):
        x = start(latents, noise, ratio[skip])
        return sample_latents(predict, x, levels[skip:], ratio[skip:])

    return redraw


def from_the_first_stop(predict, latents, noise, levels, ratio, skip):
    return sample_latents(predict, latents, levels, ratio)


def one_stop_late(predict, latents, noise, levels, ratio, skip):
    return sample_latents(predict, latents, levels[skip + 1 :], ratio[skip + 1 :])


def returns_the_latents(predict, latents, noise, levels, ratio, skip):
    return latents


def unmasked(query, key, value, real):
    return F.scaled_dot_product_attention(query, key, value)


def added(query, key, value, real):
    return F.scaled_dot_product_attention(query, key, value, attn_mask=real[:, None, None].float())


def keys_of_zero(query, key, value, real):
    there = real[:, None, :, None]
    return F.scaled_dot_product_attention(query, key * there, value * there)


def inverted(query, key, value, real):
    return torch.nan_to_num(F.scaled_dot_product_attention(query, key, value, attn_mask=~real[:, None, None]))


def sized_by_before(x, eps, here, there):
    return exercises.hasty_step(x, eps, here, there) / (1 + here**2 * (there > 0)) ** 0.5


WRONG = {
    1: [
        (without_the_square, "square of the deviation"),
        (share_of_noise, "share of signal"),
        (of_scaled_latents, "scaled latents"),
    ],
    2: [
        (with_biases, "have no bias"),
        (without_gates, "the gates are missing"),
        (reads_itself, "come from the text"),
        (without_norms, "two numbers for each feature"),
    ],
    3: [
        (from_(lambda latents, noise, start: latents + start * noise), "twice the variance"),
        (from_(lambda latents, noise, start: noise), "where is the picture"),
        (from_(lambda latents, noise, start: latents), "add the noise of that level"),
        (from_the_first_stop, "leave out the first ones"),
        (one_stop_late, "not at [1]"),
        (returns_the_latents, "never asked"),
    ],
    4: [
        (unmasked, "the padding is still seen"),
        (added, "use True and False"),
        (keys_of_zero, "exp(0)"),
        (inverted, "off by"),
    ],
    5: [(exercises.hasty_step, "still spread out"), (sized_by_before, "not the one that is")],
}


@pytest.mark.parametrize("number", WRONG)
def test_answers(number):
    prove(exercises, number, WRONG[number])
