"""TODO: say of which page these are the exercises, solved, with what checks an answer.

Shapes: B batch, Q queries, K keys, D features of queries and keys.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from snippets.exercises.checking import compare
from snippets.llm.span_corruption import attention_weights


# --8<-- [start:exercise-1]
def sharper_weights(query: Tensor, key: Tensor, temperature: float) -> Tensor:
    """TODO: the task. Weights (B, Q, K) whose scores are divided by a temperature before the softmax.

    Hint: TODO: one sentence that helps whoever is stuck. The score is linear in the query.
    """
    weights = attention_weights(query / temperature, key)  # (B, Q, K) a small temperature makes them sharp
    return weights


# --8<-- [end:exercise-1]


def check_1(answer: Callable) -> None:
    """Against the formula, on random queries and keys."""
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 3, 7, generator=generator), torch.randn(2, 4, 7, generator=generator)
    score = query @ key.transpose(1, 2) / 7**0.5
    slips = {"that multiplies the scores by the temperature": (score * 0.25).softmax(dim=-1)}
    compare("the row of weights", answer(query, key, 0.25), (score / 0.25).softmax(dim=-1), slips)
