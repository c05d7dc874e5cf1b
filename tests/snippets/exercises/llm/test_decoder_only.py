"""The exercises of the decoder-only post: answers that tempt, others that are right too, and what is said of each."""

import pytest
import torch

from snippets.exercises.llm import decoder_only as exercises
from snippets.llm import decoder_only as decoder
from tests.snippets.exercises.answers import prove


def without_mask(num_layers, width, length):
    return 4 * num_layers * width * length


def half_of_all(num_layers, width, length):
    return 2 * num_layers * width * length


def without_itself(num_layers, width, length):
    return 2 * num_layers * width * (length - 1)


def of_the_text(num_layers, width, length):
    return exercises.attention_flops(num_layers, width, length) * length


def tokens_of_a_round(rate, cost, num_drafted):
    return (1 - rate ** (num_drafted + 1)) / (1 - rate)


def checked_for_nothing(rate, cost, num_drafted):
    return tokens_of_a_round(rate, cost, num_drafted) / (num_drafted * cost)


def without_the_one_more(rate, cost, num_drafted):
    return (tokens_of_a_round(rate, cost, num_drafted) - 1) / (num_drafted * cost + 1)


def all_stay(rate, cost, num_drafted):
    return (num_drafted + 1) / (num_drafted * cost + 1)


def each_by_itself(rate, cost, num_drafted):
    return (num_drafted * rate + 1) / (num_drafted * cost + 1)


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


def all_or_nothing(target, draft, drafted, generator=None):
    here = torch.arange(len(drafted))
    stay = torch.rand(len(drafted), generator=generator) < target[here, drafted] / draft[here, drafted]
    kept = len(drafted) if stay.all() else 0
    wanted = target[kept] if kept else (target[0] - draft[0]).clamp(min=0)
    return torch.cat([drafted[:kept], torch.multinomial(wanted, 1, generator=generator)])


def from_the_target(target, draft, drafted, generator=None):
    for i, token in enumerate(drafted.tolist()):
        if torch.rand((), generator=generator) >= target[i, token] / draft[i, token]:
            return torch.cat([drafted[:i], torch.multinomial(target[i], 1, generator=generator)])
    return torch.cat([drafted, torch.multinomial(target[-1], 1, generator=generator)])


def always(target, drafted, generator=None):
    return torch.cat([drafted, torch.multinomial(target[-1], 1, generator=generator)])


def the_likeliest_only(target, drafted, generator=None):
    wanted = target[0].clone()
    wanted[drafted[0]] = 0
    return torch.multinomial(wanted, 1, generator=generator)


def drawn_anew(target, drafted, generator=None):
    for i, token in enumerate(drafted.tolist()):
        if torch.rand((), generator=generator) >= target[i, token]:
            return torch.cat([drafted[:i], torch.multinomial(target[i], 1, generator=generator)])
    return always(target, drafted, generator)


def without_the_draft(target, drafted, generator=None):
    return torch.multinomial(target[0], 1, generator=generator)


def drawn_and_compared(target, drafted, generator=None):
    """Right too: draw the wanted token, and go on for as long as it is the one that was named."""
    tokens = torch.multinomial(target, 1, generator=generator)[:, 0]
    same = int((tokens[:-1] == drafted).long().cumprod(dim=0).sum())
    return tokens[: same + 1]


WRONG = {
    1: [
        (without_mask, "saw the whole text"),
        (half_of_all, "not S / 2"),
        (without_itself, "sees itself, too"),
        (of_the_text, "not the mean"),
    ],
    2: [
        (tokens_of_a_round, "what does it cost?"),
        (checked_for_nothing, "a step of the large model, too"),
        (without_the_one_more, "comes on top"),
        (all_stay, "that all stay"),
        (each_by_itself, "no other one counts"),
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
        (exercises.hasty_accept, "is refused, and yet 2 tokens come out"),
        (all_or_nothing, "thrown away with a later one"),
        (from_the_target, "how often each first token comes"),
    ],
    5: [
        (always, "stays each time"),
        (the_likeliest_only, "it never stays"),
        (drawn_anew, "comes back"),
        (without_the_draft, "the share of rounds"),
    ],
}
RIGHT = {3: [padding_sees_the_real_ones], 4: [decoder.accept], 5: [drawn_and_compared]}


@pytest.mark.parametrize("number", WRONG)
def test_answers(number):
    prove(exercises, number, WRONG[number], RIGHT.get(number, ()))


def test_the_cost_below_which_two_drafted_tokens_pay():
    """Exercise 2, what the comment in the solution says."""
    assert exercises.drafting_gain(0.64, 0.52, 2) > 1 > exercises.drafting_gain(0.64, 0.53, 2)
