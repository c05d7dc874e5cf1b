"""Exercises of the Performer post, solved, with what checks an answer.

Shapes: B batch, H heads, T queries, S keys, D entries of a query, E of a value, M random features.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from snippets.exercises.checking import compare
from snippets.llm.performer import (
    PerformerAttention,
    PositiveFeatures,
    delta_net,
    orthogonal_rows,
    positive_features,
    positive_variance,
    recurrence,
)


# --8<-- [start:exercise-1]
def features_needed(length: float, error: float) -> float:
    """By pencil: how many independent positive features make the relative error as small as `error`?

    x = y, of this length |x| (after the division by d^(1/4)). The relative error is the standard deviation of
    the estimate over exp(|x|^2). The answer need not be whole.

    Hint: Put x = y into the variance. What is |x + y|^2 then?
    """
    relative = torch.exp(torch.tensor(4.0 * length**2, dtype=torch.float64)) - 1  # () variance for m = 1
    return relative.item() / error**2


# --8<-- [end:exercise-1]


def check_1(answer: Callable) -> None:
    """From the page's own variance, of one feature."""
    for length, error in ((0.5, 0.1), (1.0, 0.5)):
        x = torch.tensor([length], dtype=torch.float64)
        relative = positive_variance(x, x, 1).item() / torch.exp(2 * x * x).item()
        half = torch.expm1(2 * x * x).item() / error**2
        slips = {
            "that is 2 |x|^2 in the exponent; x + y = 2x, so that it is 4 |x|^2": half,
            "the error falls with the root of m, so that m grows with the square of 1 / error": relative
            / error,
        }
        compare(f"features_needed({length}, {error})", answer(length, error), relative / error**2, slips)


# --8<-- [start:exercise-2]
def hyperbolic_features(x: Tensor, omega: Tensor) -> Tensor:
    """Features (B, 2 * M) of x (B, D) that use each direction of omega (M, D) and its opposite.

    Hint: omega and -omega are equally probable. Join positive_features for both. Think of the factor in
    front: there are 2 * M features now.
    """
    both = torch.cat([omega, -omega])  # (2 * M, D)
    phi = positive_features(x, both)  # (B, 2 * M) its factor counts 2 * M already
    return phi


# --8<-- [end:exercise-2]


def check_2(answer: Callable) -> None:
    """Against the hyperbolic cosine of omega (x + y)."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 3, 5, generator=generator, dtype=torch.float64) * 0.5
    omega = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    half = (x.square().sum(-1) + y.square().sum(-1)) / 2
    right = torch.cosh((x + y) @ omega.T).mean(-1) * torch.exp(-half)
    once = (positive_features(x, omega) * positive_features(y, omega)).sum(-1)
    given = answer(x, omega)
    assert getattr(given, "shape", None) == (3, 14), "there are two features for each direction"
    slips = {
        "the estimate is twice what it should be: divide by the number of features, not of directions": 2
        * right,
        "that is the estimate by the directions alone": once,
    }
    compare("the estimate of exp(x y)", (given * answer(y, omega)).sum(-1), right, slips)


# --8<-- [start:exercise-3]
def weights_of(features: PositiveFeatures, query: Tensor, key: Tensor) -> Tensor:
    """The matrix of weights (B, H, T, S) that a Performer without a causal mask uses but never stores.

    Args: query (B, H, T, D), key (B, H, S, D). To look at it is what one often wants of attention.

    Hint: Attention gives means of values. Which values (B, H, S, S) give the weights themselves?
    """
    identity = torch.eye(key.shape[2]).to(key)  # (S, S) value j is 1 at place j
    attention = PerformerAttention(features, causal=False)
    weights = attention(query, key, identity.expand(*key.shape[:2], -1, -1))  # (B, H, T, S)
    return weights


# --8<-- [end:exercise-3]


def made(seed: int = 0) -> tuple[PositiveFeatures, Tensor, Tensor, Tensor]:
    """Features, queries, keys and values for the checks; no two sizes are equal."""
    generator = torch.Generator().manual_seed(seed)
    features = PositiveFeatures(orthogonal_rows(11, 4, generator).double())
    query = torch.randn(2, 3, 5, 4, generator=generator, dtype=torch.float64)
    key = torch.randn(2, 3, 7, 4, generator=generator, dtype=torch.float64)
    return features, query, key, torch.randn(2, 3, 7, 6, generator=generator, dtype=torch.float64)


def check_3(answer: Callable) -> None:
    """By writing the products of features out."""
    features, query, key, _ = made()
    product = features.query(query) @ features.key(key).transpose(-1, -2)
    right = product / product.sum(-1, keepdim=True)
    slips = {
        "the rows do not sum to 1: divide by the sum of weights": product,
        "that is exact attention; here are asked the weights that the features give": (
            query @ key.transpose(-1, -2) / 2
        ).softmax(-1),
    }
    compare("the matrix of weights", answer(features, query, key), right, slips)


# --8<-- [start:given-4]
def hasty_chunks(query: Tensor, key: Tensor, value: Tensor, chunk: int) -> Tensor:
    """Causal attention in chunks, on features query, key (B, H, T, M). One line has a fault."""
    sums, total, means = 0.0, 0.0, []
    for q, k, v in zip(*(x.split(chunk, dim=2) for x in (query, key, value)), strict=True):
        sums = sums + k.transpose(-1, -2) @ v  # (B, H, M, E)
        total = total + k.sum(dim=2)  # (B, H, M)
        weight = (q @ k.transpose(-1, -2)).tril()  # (B, H, _, _)
        mixed = weight @ v + q @ sums  # (B, H, _, E)
        means.append(mixed / (weight.sum(-1, keepdim=True) + q @ total[..., None]))
    return torch.cat(means, dim=2)


# --8<-- [end:given-4]


# --8<-- [start:exercise-4]
def careful_chunks(query: Tensor, key: Tensor, value: Tensor, chunk: int) -> Tensor:
    """hasty_chunks without its fault.

    Args: features query, key (B, H, T, M), value (B, H, T, E). Returns (B, H, T, E).

    Hint: Values of 1 still give 1, so that the division is right. Change the last key of a chunk: whose
    means move?
    """
    sums, total, means = 0.0, 0.0, []
    for q, k, v in zip(*(x.split(chunk, dim=2) for x in (query, key, value)), strict=True):
        weight = (q @ k.transpose(-1, -2)).tril()  # (B, H, _, _)
        mixed, norm = weight @ v, weight.sum(-1, keepdim=True)  # (B, H, _, E), (B, H, _, 1)
        if means:  # what came before this chunk
            mixed, norm = mixed + q @ sums, norm + q @ total[..., None]  # (B, H, _, E), (B, H, _, 1)
        means.append(mixed / norm)
        sums = sums + k.transpose(-1, -2) @ v  # (B, H, M, E) only now: its own chunk is in `weight`
        total = total + k.sum(dim=2)  # (B, H, M)
    return torch.cat(means, dim=2)


# --8<-- [end:exercise-4]


def check_4(answer: Callable) -> None:
    """Against the masked matrix."""
    generator = torch.Generator().manual_seed(0)
    query, key = torch.rand(2, 2, 3, 10, 5, generator=generator, dtype=torch.float64)
    value = torch.randn(2, 3, 10, 4, generator=generator, dtype=torch.float64)
    weight = (query @ key.transpose(-1, -2)).tril()
    for chunk in (1, 4, 10):
        own = torch.arange(10) // chunk
        product = query @ key.transpose(-1, -2)
        block = product * (own[:, None] > own)
        twice = weight - block + product * (own[:, None] >= own)
        slips = {
            "keys of a query's own chunk count twice, or before their time": twice
            / twice.sum(-1, keepdim=True)
            @ value,
            "keys of a query's own chunk do not count": (block / block.sum(-1, keepdim=True)).nan_to_num()
            @ value,
        }
        right = weight / weight.sum(-1, keepdim=True) @ value
        compare(f"the means in chunks of {chunk}", answer(query, key, value, chunk), right, slips)


# --8<-- [start:exercise-5]
def gated_delta(query: Tensor, key: Tensor, value: Tensor, beta: Tensor, decay: Tensor) -> Tensor:
    """The gated delta rule (Yang et al. 2024, 2412.06464): the state fades, then it is as in delta_net.

    Args: query, key (B, H, T, M), value (B, H, T, E), beta, decay (B, H, T). Returns (B, H, T, E).

    Hint: Look at delta_net. Which of the three gates is 1 there?
    """
    unit = torch.nn.functional.normalize(key, dim=-1)  # (B, H, T, M)
    return recurrence(query, unit, value, decay, erase=beta, write=beta)


# --8<-- [end:exercise-5]


def check_5(answer: Callable) -> None:
    """S_t = a (I - b k k^T) S_(t-1) + b k v^T, written with matrices."""
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 2, 3, 8, 4, generator=generator, dtype=torch.float64)
    value = torch.randn(2, 3, 8, 5, generator=generator, dtype=torch.float64)
    beta, decay = torch.rand(2, 2, 3, 8, generator=generator, dtype=torch.float64)
    unit, right = key / key.norm(dim=-1, keepdim=True), torch.zeros_like(value)
    for b in range(2):
        for h in range(3):
            state = torch.zeros(4, 5, dtype=torch.float64)
            for t in range(8):
                k, written = unit[b, h, t], beta[b, h, t]
                erased = torch.eye(4, dtype=torch.float64) - written * torch.outer(k, k)
                state = decay[b, h, t] * erased @ state + written * torch.outer(k, value[b, h, t])
                right[b, h, t] = query[b, h, t] @ state
    slips = {
        "the state does not fade: that is delta_net": delta_net(query, key, value, beta),
        "the keys are to have length 1": recurrence(query, key, value, decay, beta, beta),
        "what is written is multiplied by beta, not by 1": recurrence(
            query, unit, value, decay, beta, beta**0
        ),
    }
    compare("the rows of answers", answer(query, key, value, beta, decay), right, slips)
