"""The Performer post's attention with performer-pytorch.

Shapes: B batch, H heads, T queries, S keys, D entries of a query, E of a value, M random features.
"""

# --8<-- [start:attention]
from performer_pytorch.performer_pytorch import linear_attention, softmax_kernel
from torch import Tensor


def attention_by_library(query: Tensor, key: Tensor, value: Tensor, omega: Tensor) -> Tensor:
    """Means (B, H, T, E) of query (B, H, T, D), key (B, H, S, D), value (B, H, S, E) by directions (M, D)."""
    # eps=0, for what is added to a feature after the largest exponent was subtracted does not cancel
    phi_q = softmax_kernel(query, projection_matrix=omega, is_query=True, eps=0)  # (B, H, T, M)
    phi_k = softmax_kernel(key, projection_matrix=omega, is_query=False, eps=0)  # (B, H, S, M)
    mean = linear_attention(phi_q, phi_k, value)  # (B, H, T, E)
    return mean


# --8<-- [end:attention]
