"""Exercises of the span corruption post, solved, with what checks an answer."""

import random
from collections.abc import Callable

from snippets.exercises.checking import compare
from snippets.llm.span_corruption import corrupt, noise_mask, segment


# --8<-- [start:exercise-1]
def share_of_single_tokens(hidden: int, spans: int) -> float:
    """By pencil: of the spans, which share has a single token?

    Args: hidden, the tokens that are cut into spans, for instance 85; spans, their number, 28 (at least 2).

    Hint: A span at the beginning has one token if the first gap is cut. There are hidden - 1 gaps, and all
    are equally likely to be among the spans - 1 cuts.
    """
    return (spans - 1) / (hidden - 1)


# --8<-- [end:exercise-1]


# --8<-- [start:exercise-2]
def closed(target: list, sentinels: list) -> list:
    """The target as the paper's Figure 2 shows it: one more sentinel ends it, unless one does already.

    Args: target, as `corrupt` gives it, without its end; sentinels, in the order in which they are used.

    Hint: How many sentinels has the target used? The next one is the last token.
    """
    if target[-1] in sentinels:
        return target
    return [*target, sentinels[sum(token in sentinels for token in target)]]


# --8<-- [end:exercise-2]


# --8<-- [start:exercise-3]
def rolled(mask: list[bool], by: int) -> list[bool]:
    """The mask moved `by` places to the right; what leaves at the end comes in at the beginning.

    With a random `by`, the end of a short text is not hidden each time. Any whole number is allowed.

    Hint: Where does the last place of the mask go for by = 1? A slice from -1 begins there.
    """
    by %= len(mask)
    return mask[len(mask) - by :] + mask[: len(mask) - by]


# --8<-- [end:exercise-3]


# --8<-- [start:given-4]
def hasty_input(tokens: list, mask: list[bool], sentinels: list) -> list:
    """The input of a window, a sentinel for each span. It has a fault."""
    unused = iter(sentinels)
    return [next(unused) if hidden else token for token, hidden in zip(tokens, mask, strict=True)]


# --8<-- [end:given-4]


# --8<-- [start:exercise-4]
def careful_input(tokens: list, mask: list[bool], sentinels: list) -> list:
    """hasty_input without its fault: its inputs are as long as their windows, and tell how much is hidden.

    Args: tokens and mask of a window, sentinels in the order in which they are used.

    Hint: What stands in the place of the second token of a span?
    """
    unused, source, before = iter(sentinels), [], False
    for token, hidden in zip(tokens, mask, strict=True):
        if not hidden:
            source.append(token)
        elif not before:
            source.append(next(unused))
        before = hidden
    return source


# --8<-- [end:exercise-4]


# --8<-- [start:exercise-5]
def filled(source: list, written: list, sentinels: list) -> list:
    """The input with its gaps filled by what a model wrote, which may be no proper target.

    A gap that the model did not fill is empty. Before the first sentinel, what it wrote is dropped; of a
    sentinel that it wrote twice, the first counts.

    Hint: Collect the tokens behind each sentinel in a dictionary, then walk through the input.
    """
    spans, span = {}, []
    for token in written:
        if token in sentinels:
            span = []
            spans.setdefault(token, span)
        else:
            span.append(token)
    whole = []
    for token in source:
        whole += spans.get(token, []) if token in sentinels else [token]
    return whole


# --8<-- [end:exercise-5]

MARKS = [f"<{k}>" for k in range(9)]


def check_1(answer: Callable) -> None:
    """Counted over many cuts."""
    for hidden, spans in ((85, 28), (7, 3)):
        rng = random.Random(0)
        drawn = [span for _ in range(4000) for span in segment(hidden, spans, rng)]
        slips = {
            "that is one over the mean length; spans of one token are a little rarer": spans / hidden,
            "that counts the tokens; count the gaps between them": (spans - 1) / hidden,
            "the last piece ends by itself: one cut fewer than pieces is needed": spans / (hidden - 1),
        }
        given = answer(hidden, spans)
        compare(f"share_of_single_tokens({hidden}, {spans})", given, (spans - 1) / (hidden - 1), slips)
        assert abs(given - drawn.count(1) / len(drawn)) < 0.02


def check_2(answer: Callable) -> None:
    """Masks that end with a span, and one that ends with text."""
    words = "a b c d e f g".split()
    for mask, last in (("0110011", "<2>"), ("0000001", "<1>"), ("0101010", "<3>")):
        target = corrupt(words, [place == "1" for place in mask], MARKS)[1]
        given = answer(list(target), MARKS)
        assert given != target or target[-1] == last, "the target does not end with a sentinel"
        assert given.count(last) < 2, "a target that ends with a sentinel already is closed"
        assert given[-1] == last, f"{given} should end with {last}, the first sentinel that is not used yet"
        assert given[: len(target)] == target, "the rest of the target changed"


def check_3(answer: Callable) -> None:
    """Small steps, none, a whole turn, backwards."""
    mask = [False, False, True, False, True]
    assert answer(list(mask), 1) != [False, True, False, True, False], "that is the other direction"
    for by in (1, 2, 0, 5, -1, 12):
        right = [mask[(place - by) % 5] for place in range(5)]
        given = answer(list(mask), by)
        assert len(given) == 5, f"rolled(mask, {by}) has {len(given)} places, the mask has 5"
        assert given == right, f"rolled(mask, {by}) is {given}, not {right}"


def check_4(answer: Callable) -> None:
    """Against the page's own function."""
    rng = random.Random(0)
    for length in (9, 40):
        tokens = [f"w{place}" for place in range(length)]
        mask = noise_mask(length, 0.3, 3, rng)
        given, right = answer(tokens, mask, [f"<{k}>" for k in range(40)]), corrupt(tokens, mask, MARKS)[0]
        assert len(given) != length, (
            "the input is as long as the window: each hidden token has a sentinel of its own"
        )
        assert set(given) >= set(right), "a span has no sentinel in its place"
        assert given == right, f"the input is {given}, not {right}"


def check_5(answer: Callable) -> None:
    """A proper target, one that stops, one in another order, one with a sentinel twice."""
    source = "a <0> d <1> g".split()
    cases = {
        "<0> b c <1> e f": ("a b c d e f g", "a proper target is not put back"),
        "<0> b c": ("a b c d g", "a gap that was not filled is to be empty"),
        "<1> e f <0> b c": ("a b c d e f g", "spans belong to their sentinels, not to their order"),
        "x <0> b <7> y <1> e": ("a b d e g", "what no gap of the input asks for is to be dropped"),
        "<0> b <0> x <1> e": ("a b d e g", "of a sentinel that was written twice, the first counts"),
    }
    for written, (right, sentence) in cases.items():
        given = answer(list(source), written.split(), MARKS)
        assert given == right.split(), f"{sentence}: {given} for {written!r}"
