"""Beyond turning by one position: layers without positions (NoPE, Kazemnejad et al. 2023, arXiv 2305.19466),
the base that a length asks for (Men et al. 2024, 2405.14591), a factor for each pair (LongRoPE, Ding et al.
2024, 2402.13753), and positions in the plane.

Shapes: B batch, H heads, T positions, D features of a head, P turning pairs of features, W width.
"""

import math

# --8<-- [start:imports]
from collections.abc import Callable

# --8<-- [end:imports]
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import trange

from snippets.llm.rope import angles, check_stretch, mean_cosine


# --8<-- [start:nope]
class Nope(nn.Module):
    """Causal attention that is told no positions at all."""

    def embed(self, x: Tensor) -> Tensor:
        """Nothing is added to the embeddings x (B, T, W)."""
        return x

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Means of values (B, H, T, D), weighted by content alone."""
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)  # (B, H, T, D)
        return mixed


class Unturned(nn.Module):
    """A block of a model that is told no positions, whatever the other blocks are told."""

    def __init__(self, block: nn.Module):
        super().__init__()
        self.block, self.nope = block, Nope()

    def forward(self, x: Tensor, position: nn.Module) -> Tensor:
        x = self.block(x, self.nope)  # (B, T, W) the model's own positions are left aside
        return x


# --8<-- [end:nope]


# --8<-- [start:longrope]
def by_factors(theta: Tensor, factors: Tensor) -> Tensor:
    """LongRoPE: each pair turns more slowly by a factor of its own (P,); theta and factors are (P,)."""
    if theta.shape != factors.shape or not (factors >= 1).all():
        expected = f"a factor >= 1 for each of {len(theta)} pairs"
        raise ValueError(f"{expected} is expected, given {tuple(factors.shape)}")
    slower = theta / factors.to(theta)  # (P,)
    return slower


def longrope_magnitude(factor: float, trained: int) -> float:
    """sqrt(1 + ln factor / ln trained): by what queries and keys grow, as YaRN's 0.1 ln factor + 1."""
    check_stretch(factor, trained)
    if trained < 2:
        raise ValueError(f"a trained length of at least 2 is expected, given {trained}")
    return math.sqrt(1 + math.log(factor) / math.log(trained))


def search_factors(loss: Callable, start: Tensor, rounds: int, largest: float) -> tuple[Tensor, float]:
    """Factors (P,) of the lowest loss found, and that loss: change one stretch of pairs, keep what is better.

    Args: loss, a function of factors (P,); start (P,); largest, what no factor may exceed. As in the paper,
    factors never fall from one pair to the next, slower one.
    """
    if start.ndim != 1 or rounds < 1 or largest < 1:
        given = f"{tuple(start.shape)}, {rounds}, {largest}"
        raise ValueError(f"factors (P,), at least one round and largest >= 1 are expected, given {given}")
    best, lowest = start, loss(start)  # (P,), _
    generator = torch.Generator().manual_seed(0)
    for _ in trange(rounds, desc="search", mininterval=2):
        first, last = torch.randint(len(start), (2,), generator=generator).sort().values.tolist()
        change = 0.3 * torch.randn(1, generator=generator, dtype=start.dtype)  # (1,)
        other = best.clone()  # (P,)
        other[first : last + 1] *= change.exp()  # (_,)
        other = other.clamp(1, largest).cummax(dim=0).values  # (P,)
        if (found := loss(other)) < lowest:
            best, lowest = other, found  # (P,), _
    return best, lowest


# --8<-- [end:longrope]


# --8<-- [start:reach]
def reach(theta: Tensor, most: int) -> int:
    """The first distance up to `most` at which a key equal to the query scores below 0 on average, or `most`.

    Men et al. (2024): up to there, keys that are like the query score higher than keys that are not.
    """
    if most < 1:
        raise ValueError(f"most >= 1 is expected, given {most}")
    score = mean_cosine(torch.arange(most + 1), theta)  # (_,)
    below = (score < 0).nonzero()  # (_, 1)
    return int(below[0]) if len(below) else most


# --8<-- [end:reach]


# --8<-- [start:plane]
def plane_angles(places: Tensor, theta: Tensor) -> Tensor:
    """Angles (T, 2 * P) of places (T, 2), row and column: half of the pairs turn by each, with theta (P,)."""
    if places.ndim != 2 or places.shape[1] != 2:
        raise ValueError(f"places (T, 2) are expected, given {tuple(places.shape)}")
    angle = torch.cat([angles(places[:, 0], theta), angles(places[:, 1], theta)], dim=1)  # (T, 2 * P)
    return angle


# --8<-- [end:plane]
