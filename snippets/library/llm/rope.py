"""Queries and keys turned by transformers, with the page's settings.

Shapes: B batch, H heads, T positions, D features of a head.
"""

# --8<-- [start:library]
import torch
from torch import Tensor
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb


def turn_by_transformers(query: Tensor, key: Tensor, parameters: dict, trained: int) -> tuple[Tensor, Tensor]:
    """Query and key (B, H, T, D), turned as a Llama with these rope_parameters turns them."""
    heads, length, dim = query.shape[1:]
    shape = {"hidden_size": heads * dim, "num_attention_heads": heads, "head_dim": dim}
    config = LlamaConfig(**shape, max_position_embeddings=trained, rope_parameters=parameters)
    cos, sin = LlamaRotaryEmbedding(config)(query, torch.arange(length)[None])  # (1, T, D), (1, T, D)
    return apply_rotary_pos_emb(query, key, cos, sin)


# --8<-- [end:library]
