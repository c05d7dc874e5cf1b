"""The answers that tempt: bytes of weights alone, means of means, parts in one piece, lengths that are added."""

import pytest

from snippets.exercises.llm import scaling
from tests.snippets.exercises.answers import prove


def only_weights(weights, room):
    return -(-4 * weights // room)


def rounded_down(weights, room):
    return int(16 * weights / room)


def mean_of_means(sums, counts):
    return sum(total / count for total, count in zip(sums, counts, strict=True)) / len(sums)


def by_processes(sums, counts):
    return sum(sums) / len(sums)


def in_one_piece(order, step, a_step, rank, processes):
    own = a_step // processes
    return order[step * a_step + rank * own :][:own]


def the_first(order, step, a_step, rank, processes):
    return order[:a_step][rank::processes]


def each_for_itself(shards, longest):
    return [scaling.cut([shard], longest)[0] for shard in shards]


WRONG = {
    1: [(only_weights, "weights alone"), (rounded_down, "round up")],
    2: [(mean_of_means, "mean of the processes' means"), (by_processes, "divide by tokens")],
    3: [(in_one_piece, "in one piece"), (the_first, "counted from 0")],
    4: [(scaling.cut_with_a_fault, "their squares do"), (each_for_itself, "each shard is cut for itself")],
}


@pytest.mark.parametrize("number", WRONG)
def test_answers(number):
    prove(scaling, number, WRONG[number])
