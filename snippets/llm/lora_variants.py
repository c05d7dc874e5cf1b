"""Relatives of LoRA: several adapters in one batch, a base of 4 bits (QLoRA), lengths of their own (DoRA).

QLoRA: Dettmers et al. 2023, arXiv 2305.14314. DoRA: Liu et al. 2024, 2402.09353.

Shapes: N rows of a batch, T positions, I inputs of a layer, O outputs of a layer, R rank of an adapter,
K blocks of weights, Z weights of a block.
"""

import torch
from torch import Tensor, nn

from snippets.llm.lora import LoRA


# --8<-- [start:each]
def forward_each(layer: nn.Module, parts: list[LoRA], which: Tensor, x: Tensor) -> Tensor:
    """Outputs (N, T, O) of inputs x (N, T, I): of the layer for all, and for row n of its adapter which[n].

    Args: which (N,). Raises ValueError unless the adapters have one rank and `which` names one for each row.
    """
    if len({part.rank for part in parts}) != 1 or which.shape != x.shape[:1]:
        given = f"ranks {[part.rank for part in parts]}, {len(which)} numbers for {len(x)} rows"
        raise ValueError(f"adapters of one rank, and a number for each row, are expected, given {given}")
    A = torch.stack([part.A for part in parts])[which]  # (N, R, I)
    B = torch.stack([part.alpha / part.rank * part.B for part in parts])[which]  # (N, O, R)
    low = x @ A.mT  # (N, T, R)
    return layer(x) + low @ B.mT


# --8<-- [end:each]


# --8<-- [start:levels]
def levels() -> Tensor:
    """The 16 levels (16,) of NF4, from -1 to 1: about as many normally distributed weights are near each."""
    delta = (1 / 32 + 1 / 30) / 2  # half of a sixteenth, and half of a fifteenth, between both
    below = torch.linspace(delta, 0.5, 8, dtype=torch.float64)  # (8,) up to the level 0
    above = torch.linspace(0.5, 1 - delta, 9, dtype=torch.float64)  # (9,) from it on
    places = torch.special.ndtri(torch.cat([below[:-1], above]))  # (16,)
    return (places / places[-1]).float()


def round_to_levels(weight: Tensor, block: int = 64) -> tuple[Tensor, Tensor]:
    """Numbers (K, Z) of the nearest levels and factors (K, 1), for blocks of that many weights in a row.

    Raises ValueError unless the blocks come out even.
    """
    if weight.numel() % block:
        raise ValueError(f"a multiple of {block} weights is expected, given {tuple(weight.shape)}")
    blocks = weight.detach().reshape(-1, block)  # (K, Z)
    factor = blocks.abs().amax(dim=1, keepdim=True)  # (K, 1)
    scaled = blocks / factor.clamp(min=torch.finfo(blocks.dtype).tiny)  # (K, Z) a block of zeros stays zero
    middle = (levels()[1:] + levels()[:-1]).to(blocks) / 2  # (15,)
    nearest = torch.bucketize(scaled, middle)  # (K, Z)
    return nearest.to(torch.uint8), factor


def from_levels(nearest: Tensor, factor: Tensor, shape: torch.Size) -> Tensor:
    """The weights of that shape again, from numbers of levels nearest (K, Z) and factors (K, 1)."""
    blocks = levels().to(factor)[nearest.long()] * factor  # (K, Z)
    return blocks.reshape(shape)


# --8<-- [end:levels]


# --8<-- [start:dora]
def dora_weight(adapter: LoRA, length: Tensor) -> Tensor:
    """Weight (O, I) of a layer with DoRA: rows of the adapted weight, with these lengths (O,)."""
    change = adapter.alpha / adapter.rank * (adapter.B @ adapter.A)  # (O, I)
    adapted = adapter.layer.weight + change  # (O, I) the layer is an nn.Linear
    return length[:, None] * adapted / adapted.norm(dim=1, keepdim=True)


# --8<-- [end:dora]
