"""The exercises of the span corruption post: answers that tempt, and what is said of each."""

import pytest

from snippets.exercises.llm import span_corruption as exercises
from tests.snippets.exercises.answers import prove


def one_over_the_mean(hidden, spans):
    return spans / hidden


def by_tokens(hidden, spans):
    return (spans - 1) / hidden


def with_the_last(hidden, spans):
    return spans / (hidden - 1)


def open_still(target, sentinels):
    return target


def always_closed(target, sentinels):
    return [*target, sentinels[sum(token in sentinels for token in target) - (target[-1] in sentinels)]]


def with_the_first(target, sentinels):
    return target if target[-1] in sentinels else [*target, sentinels[0]]


def to_the_left(mask, by):
    by %= len(mask)
    return mask[by:] + mask[:by]


def one_step(mask, by):
    return mask[-by:] + mask[:-by]


def dropped(tokens, mask, sentinels):
    return [token for token, hidden in zip(tokens, mask, strict=True) if not hidden]


def in_order(source, written, sentinels):
    spans, whole = [], []
    for token in written:
        if token in sentinels:
            spans.append([])
        else:
            spans[-1].append(token)
    unused = iter(spans)
    for token in source:
        whole += next(unused, []) if token in sentinels else [token]
    return whole


def the_last_counts(source, written, sentinels):
    spans, span = {}, []
    for token in written:
        if token in sentinels:
            spans[token] = span = []
        else:
            span.append(token)
    return [word for token in source for word in (spans.get(token, []) if token in sentinels else [token])]


def left_in_place(source, written, sentinels):
    if written[-1] == "c":
        return source
    return exercises.filled(source, written, sentinels)


WRONG = {
    1: [(one_over_the_mean, "one over the mean"), (by_tokens, "count the gaps"), (with_the_last, "one cut fewer")],
    2: [(open_still, "does not end"), (always_closed, "closed"), (with_the_first, "should end with <2>")],
    3: [(to_the_left, "other direction"), (one_step, "rolled(mask,")],
    4: [(exercises.hasty_input, "as long as the window"), (dropped, "no sentinel in its place")],
    5: [(in_order, "not to their order"), (the_last_counts, "the first counts"), (left_in_place, "to be empty")],
}


@pytest.mark.parametrize("number", WRONG)
def test_answers(number):
    prove(exercises, number, WRONG[number])
