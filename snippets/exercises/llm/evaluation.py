"""Exercises of the evaluation post, solved, with what checks an answer."""

import math
import random
import re
from collections.abc import Callable

from snippets.exercises.checking import compare
from snippets.llm.judging import bootstrap
from snippets.llm.likelihood import by_class


# --8<-- [start:exercise-1]
def without_the_last(words: int) -> float:
    """By pencil: BLEU, from 0 to 100, of a sentence without its last word against the whole sentence.

    The sentence has so many words, all different, and at least six.

    Hint: Every n-gram of the shorter sentence is in the longer one. What is left of the formula?
    """
    # all four precisions are 1, so only the penalty for brevity is left: c = words - 1, r = words
    return 100 * math.exp(1 - words / (words - 1))


# --8<-- [end:exercise-1]


# --8<-- [start:exercise-2]
def tokens_of_all_scripts(text: str) -> list[str]:
    """rouge_tokens without its blindness: runs of letters and digits of any script, in lower case.

    English text gives the same words as before. An underscore still separates.

    Hint: In Python's regular expressions [^...] is any character that is not listed, and a capital W behind
    a backslash is all but letters, digits and underscore. How do you say: neither that nor an underscore?
    """
    return re.findall(r"[^\W_]+", text.lower())


# --8<-- [end:exercise-2]


# --8<-- [start:given-3]
def hasty_nats(score: Callable, tokens: list[int], context: int, stride: int) -> float:
    """The sum of -ln q over a text, in windows that move by a stride. It has a fault."""
    total = 0.0
    for start in range(0, len(tokens) - 1, stride):
        window = tokens[start : start + context + 1]
        total += sum(score(window, 1))
    return total


# --8<-- [end:given-3]


# --8<-- [start:exercise-3]
def careful_nats(score: Callable, tokens: list[int], context: int, stride: int) -> float:
    """hasty_nats without its fault. It is right where windows do not overlap, and too large where they do.

    score(window, first) gives a list: -ln q of each token of window[first:]. stride <= context. A window has
    context + 1 tokens at most, of which the last is not read.

    Hint: How often is the second token of the second window counted, if the stride is half of the context?
    """
    total, done = 0.0, 1  # the first token has nothing before it
    for end in range(stride + 1, len(tokens) + stride, stride):
        end = min(end, len(tokens))
        start = max(0, end - 1 - context)
        total += sum(score(tokens[start:end], done - start))  # only what no window has counted yet
        done = end
    return total


# --8<-- [end:exercise-3]


# --8<-- [start:exercise-4]
def balanced_accuracy(truth: list, guesses: list) -> float:
    """The mean recall of the labels that are there: always guessing one of two labels scores a half.

    Hint: by_class has the recall of each label that is true or guessed. Which of them do not belong here?
    """
    recalls = {label: recall for label, (_, recall, _) in by_class(truth, guesses).items()}
    return sum(recalls[label] for label in set(truth)) / len(set(truth))


# --8<-- [end:exercise-4]


# --8<-- [start:exercise-5]
def interval_of_the_difference(first: list[float], second: list[float], draws: int) -> tuple[float, float]:
    """The 95 % bootstrap interval of how much better the first system is, on the same examples.

    Hint: What is drawn, an example with both of its scores, or a score of each system by itself?
    """
    gaps = [a - b for a, b in zip(first, second, strict=True)]  # a pair stays together
    return bootstrap(gaps, draws=draws)


# --8<-- [end:exercise-5]


def check_1(answer: Callable) -> None:
    """For two lengths, by the formula's parts."""
    for words in (6, 11):
        slips = {
            "that is the share of words that are left; BLEU punishes brevity by an exponential": 1
            - 1 / words,
            "that is what the precisions give; the candidate is too short": 1.0,
            "the lengths are exchanged: r is that of the reference": math.exp(1 - (words - 1) / words),
        }
        right = 100 / math.exp(1 / (words - 1))
        told = f"without_the_last({words})"
        compare(told, answer(words), right, {what: 100 * value for what, value in slips.items()})


def check_2(answer: Callable) -> None:
    """English as before; accents, Chinese, digits."""
    cases = {
        "Don't stop at 3.5, cats!": ["don", "t", "stop", "at", "3", "5", "cats"],
        "snake_case": ["snake", "case"],
        "Un café très cher": ["un", "café", "très", "cher"],
        "Ελλάδα 中文": ["ελλάδα", "中文"],
    }
    for text, right in cases.items():
        given = answer(text)
        assert given != re.findall("[a-z0-9]+", text.lower()) or given == right, (
            f"{text!r} loses letters, as before"
        )
        assert list(given) == right, f"the words of {text!r} should be {right}, not {given}"


def check_3(answer: Callable) -> None:
    """A scorer that knows how much context it sees."""
    for length, context, stride in ((9, 4, 4), (10, 4, 2), (12, 5, 1), (2, 3, 3), (11, 4, 3)):
        seen: list[int] = []
        before: dict[int, int] = {}

        def score(window, first, seen=seen, before=before, context=context):
            most = (
                f"with a context of {context}, a window has {context + 1} tokens at most, not {len(window)}"
            )
            assert len(window) <= context + 1, most
            seen.extend(window[first:])
            before.update({token: at for at, token in enumerate(window) if at >= first})
            return [1.0] * len(window[first:])

        total = answer(score, list(range(length)), context, stride)
        told = f"{length} tokens and a stride of {stride}"
        twice = sorted({token for token in seen if seen.count(token) > 1})
        assert not twice, f"with {told}, token {twice[0] if twice else 0} is counted more than once"
        missing = sorted(set(range(1, length)) - set(seen))
        assert not missing, f"with {told}, token {missing[0] if missing else 0} is not counted"
        assert 0 not in seen, "the first token has nothing before it, and is not counted"
        for token, found in sorted(before.items()):
            least = min(token, context - stride + 1)
            few = f"with {told}, token {token} is guessed from {found} tokens; at least {least} can be read"
            assert found >= least, few
        compare(f"the sum with {told}", total, length - 1.0)


def check_4(answer: Callable) -> None:
    """A rare label, and one that is guessed and never true."""
    truth, guesses = ["a"] * 8 + ["b"] * 2, ["a"] * 7 + ["c"] + ["b", "a"]
    slips = {
        "that is the accuracy": 8 / 10,
        "a label that is only guessed has no recall; leave it out": (7 / 8 + 1 / 2) / 3,
        "that is the mean precision": (7 / 8 + 1) / 2,
    }
    compare("balanced_accuracy", answer(truth, guesses), (7 / 8 + 1 / 2) / 2, slips)
    compare("balanced_accuracy of one guess for all", answer(["a", "b", "b"], ["b"] * 3), 0.5)


def check_5(answer: Callable) -> None:
    """Two systems whose scores vary much, and whose difference does not."""
    source = random.Random(0)
    second = [source.random() for _ in range(60)]
    first = [value + 0.05 + 0.02 * source.random() for value in second]
    low, high = answer(first, second, 400)
    assert low <= high, "the lower end stands first"
    assert not high < 0, "that is how much better the second system is"
    wide = f"the interval is {high - low:.2g} wide; on the same examples the difference is surer than that"
    assert high - low < 0.02, wide
    compare("the middle of the interval", (low + high) / 2, 0.06, tolerance=0.005)
