"""The exercises of the decoder-only post: answers that tempt, others that are right too, and what is said of each."""

import math

import pytest
import torch
import torch.nn.functional as F

from snippets.exercises.llm import decoder_only as exercises
from tests.snippets.exercises.answers import prove


def without_mask(num_layers, width, length):
    return 4 * num_layers * width * length


def half_of_all(num_layers, width, length):
    return 2 * num_layers * width * length


def without_itself(num_layers, width, length):
    return 2 * num_layers * width * (length - 1)


def of_the_text(num_layers, width, length):
    return exercises.attention_flops(num_layers, width, length) * length


def causal_only(begin, length):
    place, _ = exercises.left_padded(begin, length)
    return place, torch.ones(len(begin), length, length, dtype=torch.bool).tril()


def real_only(begin, length):
    place, _ = exercises.left_padded(begin, length)
    real = torch.arange(length) >= begin[:, None]
    return place, real[:, None].expand(-1, length, -1)


def padding_sees_nothing(begin, length):
    place, seen = exercises.left_padded(begin, length)
    real = torch.arange(length) >= begin[:, None]
    return place, seen & real[:, None] & real[:, :, None]


def exchanged(begin, length):
    place, seen = exercises.left_padded(begin, length)
    return place, seen.transpose(1, 2)


def padding_has_places(begin, length):
    return torch.arange(length).expand(len(begin), -1), exercises.left_padded(begin, length)[1]


def places_below_0(begin, length):
    return torch.arange(length) - begin[:, None], exercises.left_padded(begin, length)[1]


def padding_sees_the_real_ones(begin, length):
    """Right too: nobody looks at what padding sees."""
    place, seen = exercises.left_padded(begin, length)
    real = torch.arange(length) >= begin[:, None]
    return place, seen | (real[:, None] & ~real[:, :, None])


def of_a_byte(bits, size):
    return 2**bits


def bits_as_nats(bits, size):
    return math.exp(bits * size)


def divided(bits, size):
    return 2 ** (bits / size)


def bits_of_a_token(bits, size):
    return bits * size


def not_moved(logits, tokens):
    return F.cross_entropy(logits.flatten(0, 1), tokens.flatten())


def summed(logits, tokens):
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum")


def one_text_at_a_time(logits, tokens):
    """Right too: texts are equally long."""
    return torch.stack([F.cross_entropy(row[:-1], text[1:]) for row, text in zip(logits, tokens, strict=True)]).mean()


def as_it_was(tokens, end):
    return tokens


def after_the_last(tokens, end):
    later = (tokens == end).flip(1).long().cumsum(dim=1).flip(1)
    return tokens.masked_fill((later == 0) & (tokens == end).any(dim=1, keepdim=True), end)


def all_of_it(tokens, end):
    return torch.where((tokens == end).any(dim=1)[:, None], end, tokens)


def row_by_row(tokens, end):
    """Right too, though the task asks for no loop."""
    rows = []
    for row in tokens.tolist():
        rows.append([end if end in row[:i] else token for i, token in enumerate(row)])
    return torch.tensor(rows)


WRONG = {
    1: [
        (without_mask, "saw the whole text"),
        (half_of_all, "not S / 2"),
        (without_itself, "sees itself, too"),
        (of_the_text, "not the mean"),
    ],
    2: [
        (of_a_byte, "a token has several"),
        (bits_as_nats, "their base is 2"),
        (divided, "more than a byte"),
        (bits_of_a_token, "how many equally likely ones"),
    ],
    3: [
        (causal_only, "real tokens see padding"),
        (real_only, "what comes after them"),
        (padding_sees_nothing, "over nothing"),
        (exchanged, "rows are queries"),
        (padding_has_places, "padding counts as places"),
        (places_below_0, "a place is negative"),
    ],
    4: [
        (exercises.hasty_loss, "the token before its own"),
        (not_moved, "it has just read"),
        (summed, "a mean is asked for"),
    ],
    5: [
        (as_it_was, "nothing has changed"),
        (after_the_last, "the first one counts"),
        (all_of_it, "is lost, too"),
    ],
}
RIGHT = {3: [padding_sees_the_real_ones], 4: [one_text_at_a_time], 5: [row_by_row]}


@pytest.mark.parametrize("number", WRONG)
def test_answers(number):
    prove(exercises, number, WRONG[number], RIGHT.get(number, ()))
