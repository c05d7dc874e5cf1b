"""Exercises of the RoPE post, solved, with what checks an answer.

Shapes: B batch, H heads, T positions, D features of a head, P turning pairs of features.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from snippets.exercises.checking import compare
from snippets.llm.rope import (
    angles,
    inverse_frequencies,
    ntk_aware,
    rotate_halves,
    rotate_pairs,
    rotate_partial,
)


# --8<-- [start:exercise-1]
def largest_base(dim: int, length: int) -> float:
    """By pencil: the largest base with which all pairs of a head go round in `length` positions.

    Args: dim, the features of the head.

    Hint: The slowest pair is the last one, i = dim / 2 - 1. Its wavelength, 2 pi / theta, is to be `length`.
    """
    slowest = 2 * math.pi / length  # the angle of one position that goes round just once
    # base^(-2i / dim) = slowest with 2i = dim - 2
    return slowest ** (-dim / (dim - 2))  # 24.9 for the head of this page and 128 positions


# --8<-- [end:exercise-1]


def check_1(answer: Callable) -> None:
    """The base is put into the page's own frequencies: the last pair has to go round once."""
    for dim, length in ((32, 128), (10, 50)):
        base, told = answer(dim, length), f"largest_base({dim}, {length})"
        right = (length / (2 * math.pi)) ** (dim / (dim - 2))
        slips = {
            "the last pair has i = dim / 2 - 1, not dim / 2": length / (2 * math.pi),
            "a full turn is 2 pi radians, not 1": length ** (dim / (dim - 2)),
        }
        compare(told, base, right, slips)
        turns = length * inverse_frequencies(dim, base)[-1] / (2 * math.pi)
        compare(f"with {told}, the number of turns of the last pair", turns, 1.0)


# --8<-- [start:exercise-2]
def enough_factor(dim: int, trained: int, length: int, base: float = 10_000.0) -> float:
    """The smallest factor of NTK-aware scaling with which no pair meets an unknown angle before `length`.

    Unknown are the angles that a pair did not reach in `trained` positions, unless it went round in them.

    Hint: Of the pairs that do not go round in `trained` positions, the fastest one meets an unknown angle
    first. By how much has it to be slowed, and by how much is it slowed?
    """
    turns = trained * inverse_frequencies(dim, base) / (2 * math.pi)  # (P,) in the trained length
    first = int((turns >= 1).sum())  # the fastest pair that does not go round
    # it is slowed by factor^(2i / (dim - 2)), and has to be slowed by length / trained
    # the slowest pair is slowed by the whole of it, 181 times where 8 would do
    return (length / trained) ** ((dim - 2) / (2 * first))  # 181 for our head, 128 positions and 1,024


# --8<-- [end:exercise-2]


def check_2(answer: Callable) -> None:
    """By halving an interval of factors of the page's own ntk_aware."""
    for dim, trained, length, base in ((32, 128, 1024, 10_000.0), (20, 100, 250, 500.0)):
        known = trained * inverse_frequencies(dim, base)
        short = known < 2 * math.pi  # pairs that do not go round
        low, high = 1.0, 1e6
        for _ in range(100):
            middle = (low * high) ** 0.5
            reached = (length * ntk_aware(dim, middle, base) <= known)[short].all()
            low, high = (low, middle) if reached else (middle, high)
        first = int((~short).sum())
        slips = {
            "that is enough for the slowest pair only": length / trained,
            "that is the number for the slowest pair that goes round; it needs nothing": (length / trained)
            ** ((dim - 2) / (2 * first - 2)),
            "the exponent of the factor is 2i / (dim - 2), not 2i / dim": (length / trained)
            ** (dim / (2 * first)),
        }
        compare(
            f"enough_factor({dim}, {trained}, {length}, {base})",
            answer(dim, trained, length, base),
            low,
            slips,
        )


# --8<-- [start:exercise-3]
def warm_partial(theta: Tensor, magnitude: float, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Causal attention whose first 2 P features turn, with YaRN's temperature on the whole of each score.

    Args: theta (P,); magnitude, the root of 1 / t; query, key, value (B, H, T, D). Returns (B, H, T, D).

    Hint: rotate_partial turns. A score is a sum over all features. F.scaled_dot_product_attention has an
    argument `scale`, which replaces 1 / sqrt(D).
    """
    angle = angles(torch.arange(query.shape[2], device=query.device), theta)  # (T, P)
    query, key = rotate_partial(query, angle), rotate_partial(key, angle)  # (B, H, T, D), (B, H, T, D)
    # one number, and nothing is multiplied for it. Larger cosines and sines leave out what does not turn
    scale = magnitude**2 / query.shape[-1] ** 0.5
    mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale)  # (B, H, T, D)
    return mixed


# --8<-- [end:exercise-3]


def check_3(answer: Callable) -> None:
    """Against a softmax written out, with 4 of 10 features that turn."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 2, 3, 7, 10, generator=generator, dtype=torch.float64)
    theta, magnitude = inverse_frequencies(4), 1.2
    angle = angles(torch.arange(7), theta)

    def mixed(query_grown, key_grown, share=1.0, causal=True):
        """Grown: factors of the features that turn, and of the others."""
        turned = []
        for x, (first, rest) in ((query, query_grown), (key, key_grown)):
            x = rotate_halves(x[..., :4], angle) * first, x[..., 4:] * rest
            turned.append(torch.cat(x, dim=-1))
        score = share * turned[0] @ turned[1].transpose(2, 3) / 10**0.5
        score = score.masked_fill(torch.ones(7, 7).triu(1).bool(), -math.inf) if causal else score
        return score.softmax(dim=-1) @ value

    both = magnitude, magnitude
    slips = {
        "only what turns has grown; the other features are part of the score, too": mixed(
            (magnitude, 1.0), (magnitude, 1.0)
        ),
        "the temperature is not there": mixed((1.0, 1.0), (1.0, 1.0)),
        "queries and keys both grow by the magnitude, so scores grow by its square": mixed(both, (1.0, 1.0)),
        "`scale` replaces 1 / sqrt(D): it has to be part of it": mixed(both, both, share=10**0.5),
        "each position sees what comes after it": mixed(both, both, causal=False),
    }
    compare("the mixed values", answer(theta, magnitude, query, key, value), mixed(both, both), slips)


# --8<-- [start:given-4]
def hasty_rotation(x: Tensor, angle: Tensor) -> Tensor:
    """rotate_halves by one formula for all features. One line has a fault."""
    cos = angle.cos().repeat_interleave(2, dim=-1).to(x)  # (T, D) each pair's cosine for both of its features
    sin = angle.sin().repeat_interleave(2, dim=-1).to(x)  # (T, D) and its sine
    first, second = x.chunk(2, dim=-1)  # (B, H, T, P), (B, H, T, P)
    crossed = torch.cat([-second, first], dim=-1)  # (B, H, T, D) the partner of each feature
    turned = x * cos + crossed * sin  # (B, H, T, D)
    return turned


# --8<-- [end:given-4]


# --8<-- [start:exercise-4]
def careful_rotation(x: Tensor, angle: Tensor) -> Tensor:
    """hasty_rotation without its fault: x (B, H, T, D), whose halves are pairs, turned by angles (T, P).

    Hint: Write down, for D = 4, which cosine stands at which feature, and which features are a pair.
    """
    # the cosines stood at neighbours, as the paper has its pairs; here feature i and feature i + P are one
    cos = torch.cat([angle.cos(), angle.cos()], dim=-1).to(x)  # (T, D)
    sin = torch.cat([angle.sin(), angle.sin()], dim=-1).to(x)  # (T, D)
    first, second = x.chunk(2, dim=-1)  # (B, H, T, P), (B, H, T, P)
    crossed = torch.cat([-second, first], dim=-1)  # (B, H, T, D) the partner of each feature
    turned = x * cos + crossed * sin  # (B, H, T, D)
    return turned


# --8<-- [end:exercise-4]


def check_4(answer: Callable) -> None:
    """Against the page's rotation, at positions near and far."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 5, 8, generator=generator, dtype=torch.float64)
    angle = angles(torch.tensor([0, 1, 2, 30, 500]), inverse_frequencies(8))
    turned = answer(x, angle)
    compare("the shape of what is turned", torch.tensor(turned.shape), torch.tensor(x.shape))
    slips = {
        "features i and i + P are turned by different angles": hasty_rotation(x, angle),
        "that turns neighbours; here the two halves are pairs": rotate_pairs(x, angle),
        "that turns the other way round": rotate_halves(x, -angle),
    }
    compare("what is turned", turned, rotate_halves(x, angle), slips)


# --8<-- [start:exercise-5]
def changed_keys(key: Tensor, theta: Tensor, other: Tensor) -> Tensor:
    """Cached keys (B, H, T, D) of positions 0 to T - 1, turned with theta (P,), as if turned with other (P,).

    The halves are pairs. The keys as they were before they were turned are not kept.

    Hint: Two turns, one after the other, add their angles. Which turn leads from m theta to m other?
    """
    missing = angles(torch.arange(key.shape[2], device=key.device), other - theta)  # (T, P) angle still to go
    changed = rotate_halves(key, missing)  # (B, H, T, D)
    return changed


# --8<-- [end:exercise-5]


def check_5(answer: Callable) -> None:
    """Keys turned with the frequencies of a shorter text, then asked for those of a longer one."""
    generator = torch.Generator().manual_seed(0)
    key = torch.randn(2, 3, 7, 10, generator=generator, dtype=torch.float64)
    theta, other, place = inverse_frequencies(10), ntk_aware(10, 4.0), torch.arange(7)
    cached = rotate_halves(key, angles(place, theta))
    slips = {
        "they are now turned twice, by both": rotate_halves(cached, angles(place, other)),
        "that turns the other way: to the new angle goes new minus old": rotate_halves(
            cached, angles(place, theta - other)
        ),
        "those are the keys before any turn": key,
        "they are as they were": cached,
    }
    compare("the changed keys", answer(cached, theta, other), rotate_halves(key, angles(place, other)), slips)
