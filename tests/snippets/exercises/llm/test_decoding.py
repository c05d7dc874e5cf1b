"""The exercises of the post on decoding: answers that tempt, others that are right too, and what is said of each."""

import pytest
import torch
from transformers.generation import RepetitionPenaltyLogitsProcessor

from snippets.exercises.llm import decoding as exercises
from snippets.llm import decoding
from tests.snippets.exercises.answers import prove


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


def of_the_plain_loop(compiling, plain, fast):
    return compiling * plain


def speeds_subtracted(compiling, plain, fast):
    return compiling * (fast - plain)


def of_the_fast_loop(compiling, plain, fast):
    return compiling * fast


def only_divided(logits, tokens, penalty):
    occurs = torch.zeros_like(logits, dtype=torch.bool).scatter(1, tokens, True)
    return torch.where(occurs, logits / penalty, logits)


def each_time(logits, tokens, penalty):
    logits = logits.clone()
    for b in range(len(tokens)):
        for token in tokens[b].tolist():
            logits[b, token] *= 1 / penalty if logits[b, token] > 0 else penalty
    return logits


def everything(logits, tokens, penalty):
    return torch.where(logits > 0, logits / penalty, logits * penalty)


def in_place(logits, tokens, penalty):
    score = logits.gather(1, tokens)
    return logits.scatter_(1, tokens, torch.where(score < 0, score * penalty, score / penalty))


def the_librarys(logits, tokens, penalty):
    return RepetitionPenaltyLogitsProcessor(penalty)(tokens, logits.clone())


WRONG = {
    1: [
        (tokens_of_a_round, "what does it cost?"),
        (checked_for_nothing, "a step of the large model, too"),
        (without_the_one_more, "comes on top"),
        (all_stay, "that all stay"),
        (each_by_itself, "no other one counts"),
    ],
    2: [
        (of_the_plain_loop, "has written none yet"),
        (speeds_subtracted, "speeds do not subtract"),
        (of_the_fast_loop, "in the time of compiling"),
    ],
    3: [
        (only_divided, "nearer to 0"),
        (each_time, "penalised once"),
        (everything, "not only those that occur"),
        (in_place, "have changed"),
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
RIGHT = {3: [the_librarys], 4: [decoding.accept], 5: [drawn_and_compared]}


@pytest.mark.parametrize("number", WRONG)
def test_answers(number):
    prove(exercises, number, WRONG[number], RIGHT.get(number, ()))


def test_the_cost_below_which_two_drafted_tokens_pay():
    """Exercise 1, what the comment in the solution says."""
    assert exercises.drafting_gain(0.64, 0.52, 2) > 1 > exercises.drafting_gain(0.64, 0.53, 2)
