"""Deep fusion: attention between picture and text in both directions (GLIP, Li et al. 2021, arXiv 2112.03857,
section 3.2; the authors' code, fuse_helper.py).

Shapes: B pictures and prompts of a batch, R regions, T tokens, V width of regions, L width of tokens, A width
of the attention, H heads, D features of a head.
"""

# --8<-- [start:imports]
import torch
from torch import Tensor, nn

# --8<-- [end:imports]


# --8<-- [start:attention]
class BothWays(nn.Module):
    """Regions look at tokens, and tokens at regions, by one table of scores.

    Raises ValueError for heads that do not divide the attention's width.
    """

    def __init__(self, region_width: int, token_width: int, width: int, num_heads: int):
        super().__init__()
        if num_heads < 1 or width % num_heads:
            raise ValueError(f"a width that heads divide is expected, given {width}, {num_heads}")
        self.num_heads = num_heads
        self.region_query, self.region_value = (nn.Linear(region_width, width) for _ in range(2))
        self.token_query, self.token_value = (nn.Linear(token_width, width) for _ in range(2))
        self.region_out, self.token_out = nn.Linear(width, region_width), nn.Linear(width, token_width)

    def heads(self, x: Tensor) -> Tensor:
        """Features of regions or tokens, (B, _, A) to (B, H, _, D)."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def weights(self, regions: Tensor, tokens: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """How regions (B, R, V) share attention among tokens (B, T, L), and tokens theirs among regions.

        Each row adds up to 1. real (B, T) is false for padding. Returns (B, H, R, T), (B, H, T, R).
        """
        query = self.heads(self.region_query(regions))  # (B, H, R, D)
        key = self.heads(self.token_query(tokens))  # (B, H, T, D)
        scores = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5  # (B, H, R, T)
        to_tokens = scores.masked_fill(~real[:, None, None, :], -torch.inf).softmax(dim=3)  # (B, H, R, T)
        to_regions = scores.transpose(2, 3).softmax(dim=3)  # (B, H, T, R)
        return to_tokens, to_regions

    def forward(self, regions: Tensor, tokens: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """What to add to regions (B, R, V) and to tokens (B, T, L); real (B, T) is false for padding."""
        to_tokens, to_regions = self.weights(regions, tokens, real)  # (B, H, R, T), (B, H, T, R)
        for_regions = to_tokens @ self.heads(self.token_value(tokens))  # (B, H, R, D)
        for_tokens = to_regions @ self.heads(self.region_value(regions))  # (B, H, T, D)
        new_regions = self.region_out(for_regions.transpose(1, 2).flatten(2))  # (B, R, V)
        new_tokens = self.token_out(for_tokens.transpose(1, 2).flatten(2))  # (B, T, L)
        return new_regions, new_tokens


# --8<-- [end:attention]


# --8<-- [start:fusion]
class Fusion(nn.Module):
    """Norm both sides, let them look at each other, and add a little of what they see.

    It is added to the normed features, as in the authors' code. little is the share of it at first: 1e-4
    as in Grounding DINO; in the authors' GLIP, 1 over the number of layers.
    """

    def __init__(self, region_width: int, token_width: int, width: int, num_heads: int, little: float = 1e-4):
        super().__init__()
        self.region_norm, self.token_norm = nn.LayerNorm(region_width), nn.LayerNorm(token_width)
        self.attention = BothWays(region_width, token_width, width, num_heads)
        self.region_scale = nn.Parameter(little * torch.ones(region_width))
        self.token_scale = nn.Parameter(little * torch.ones(token_width))

    def forward(self, regions: Tensor, tokens: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """New features of regions (B, R, V) and tokens (B, T, L); real (B, T) is false for padding.

        Returns (B, R, V), (B, T, L).
        """
        regions, tokens = self.region_norm(regions), self.token_norm(tokens)  # (B, R, V), (B, T, L)
        new_regions, new_tokens = self.attention(regions, tokens, real)  # (B, R, V), (B, T, L)
        return regions + self.region_scale * new_regions, tokens + self.token_scale * new_tokens


# --8<-- [end:fusion]
