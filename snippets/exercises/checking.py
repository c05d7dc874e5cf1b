"""What a starter says of its reader's answers. It is copied to the end of every starter."""

import sys
import traceback
from collections.abc import Callable

import torch


def compare(what: str, given, right, slips: dict | None = None, tolerance: float = 1e-5) -> None:
    """AssertionError, in one sentence, unless a number or tensor is the right one.

    Args: what it is, the subject of the sentence; slips, the values that well-known mistakes give, by what is
    said of each; tolerance, relative to the largest value where that is above 1.
    """
    try:
        given = torch.as_tensor(given).detach().double()
    except (TypeError, ValueError, RuntimeError):
        raise AssertionError(f"{what} should be a number or a tensor, not {given!r}") from None
    right = torch.as_tensor(right).double()
    shapes = f"{tuple(given.shape)}, not {tuple(right.shape)}"
    assert given.shape == right.shape, f"{what} has the shape {shapes}"
    assert given.isfinite().all(), f"{what} holds values that are infinite or no numbers"

    def near(other) -> bool:
        other = torch.as_tensor(other).double()
        return bool((given - other).abs().max() <= tolerance * max(1.0, other.abs().max().item()))

    if not near(right):
        for sentence, value in (slips or {}).items():
            assert not near(value), sentence
        if not right.ndim:
            raise AssertionError(f"{what} is too {'large' if given > right else 'small'}: {given.item():.4g}")
        raise AssertionError(f"{what} is off by up to {(given - right).abs().max().item():.3g}")


def verdict(answer: Callable, check: Callable) -> str:
    """What a check says of an answer: "right", "not yet", or what is wrong."""
    try:
        check(answer)
    except NotImplementedError:
        return "not yet"
    except AssertionError as error:
        return f"wrong: {error}"
    except Exception as error:
        line = traceback.extract_tb(error.__traceback__)[-1]
        return f"wrong: it stops with {type(error).__name__}: {error} (line {line.lineno} of {line.filename})"
    return "right"


def main(answers: list[Callable], checks: list[Callable], hints: list[str]) -> None:
    """Print what is said of each answer, or one hint; the exit status is 0 where all answers are right.

    The command line of the starter is empty, or holds for instance `hint 2`.
    """
    numbers = [str(number) for number in range(1, len(answers) + 1)]
    if len(sys.argv) > 1:
        if sys.argv[1] != "hint" or sys.argv[2:] not in [[number] for number in numbers]:
            sys.exit(f"Add nothing, or one of hint 1 to hint {len(hints)}")
        print(hints[int(sys.argv[2]) - 1])
        return
    said = []
    for number, answer, check in zip(numbers, answers, checks, strict=True):
        said.append(verdict(answer, check))
        print(f"{number}  {said[-1]}", flush=True)
    sys.exit(int(any(one != "right" for one in said)))
