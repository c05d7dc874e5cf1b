"""Exercises of the page on many processes, solved, with what checks an answer."""

import math
from collections.abc import Callable

from snippets.exercises.checking import compare
from snippets.llm.scaling_costs import state_bytes


# --8<-- [start:exercise-1]
def fewest_gpus(weights: float, room: float) -> int:
    """How many GPUs, with `room` bytes each, hold weights, gradients and AdamW of a model, cut into shards.

    Hint: state_bytes says what is needed in all, and what is left over needs a GPU, too.
    """
    return math.ceil(state_bytes(weights) / room)


# --8<-- [end:exercise-1]


def check_1(answer: Callable) -> None:
    """16 bytes a weight."""
    slips = {"that is for the weights alone": 5, "a GPU too few: round up": 17, "a GPU has no half": 17.5}
    compare("fewest_gpus(70e9, 64e9)", answer(70e9, 64e9), 18, slips)
    compare("fewest_gpus(1e9, 16e9)", answer(1e9, 16e9), 1, {"what fits exactly needs one": 2})


# --8<-- [start:exercise-2]
def mean_loss(sums: list[float], counts: list[int]) -> float:
    """The loss of a step, nats a token, from each process's sum of nats and number of tokens.

    Hint: a process with few tokens must not count as much as one with many.
    """
    return sum(sums) / sum(counts)


# --8<-- [end:exercise-2]


def check_2(answer: Callable) -> None:
    """Three tokens and one."""
    slips = {"that is the mean of the processes' means": 3.0, "divide by tokens, not by processes": 5.0}
    compare("mean_loss([6.0, 4.0], [3, 1])", answer([6.0, 4.0], [3, 1]), 2.5, slips)


# --8<-- [start:exercise-3]
def own_windows(order: list[int], step: int, a_step: int, rank: int, processes: int) -> list[int]:
    """Which windows of an epoch's order process `rank` reads in a step of the epoch, a_step of all processes.

    Hint: first what all processes read in this step; of these, every P-th.
    """
    return order[step * a_step : (step + 1) * a_step][rank::processes]


# --8<-- [end:exercise-3]


def check_3(answer: Callable) -> None:
    """By hand, on an order that is easily read."""
    order, mine = [7, 2, 9, 4, 0, 5, 8, 1, 3, 6], [5, 1]
    slips = {"that is a part in one piece: with another number of processes, steps would differ": [8, 1]}
    said = answer(order, 1, 4, 1, 2)
    if said in slips.values():
        raise AssertionError(next(iter(slips)))
    if said == [2, 4]:
        raise AssertionError("that is the first step; steps are counted from 0")
    if said != mine:
        raise AssertionError(
            f"own_windows(order, 1, 4, 1, 2) is {said}, and should be {mine} for order {order}"
        )


# --8<-- [start:given-4]
def cut_with_a_fault(shards: list[list[float]], longest: float) -> list[list[float]]:
    """Cut the gradient to a length. It is in shards, one of each process."""
    length = sum(math.sqrt(sum(value**2 for value in shard)) for shard in shards)
    return [[value * min(1, longest / length) for value in shard] for shard in shards]


# --8<-- [end:given-4]


# --8<-- [start:exercise-4]
def cut(shards: list[list[float]], longest: float) -> list[list[float]]:
    """Cut the gradient to a length, without the fault.

    Hint: with shards (3) and (4), how long is the whole gradient?
    """
    length = math.sqrt(sum(value**2 for shard in shards for value in shard))
    return [[value * min(1, longest / length) for value in shard] for shard in shards]


# --8<-- [end:exercise-4]


def check_4(answer: Callable) -> None:
    """3 and 4 have the length 5."""
    said = [value for shard in answer([[3.0], [4.0]], 1.0) for value in shard]
    slips = {"lengths of shards do not add up, their squares do": 3 / 7, "each shard is cut for itself": 1.0}
    compare("the first number of cut([[3.0], [4.0]], 1.0)", said[0], 0.6, slips)
    compare(
        "the first number of cut([[3.0], [4.0]], 9.0)",
        answer([[3.0], [4.0]], 9.0)[0][0],
        3.0,
        {"shorter": 5.4},
    )
