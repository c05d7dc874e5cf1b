"""Attention with linear cost: FAVOR+ (Performer, Choromanski et al. 2021, arXiv 2009.14794), its causal and
recurrent forms, and the recurrence of which later models (RetNet, Mamba-2, DeltaNet) are special cases.

Shapes: B batch, H heads, T queries, S keys, D entries of a query, E of a value, M random features,
K blocks of orthogonal rows.
Means are divided by the sum of their weights, so that a factor that all keys of a query share cancels.
"""

# --8<-- [start:imports]
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# --8<-- [end:imports]


# --8<-- [start:positive]
def positive_features(x: Tensor, omega: Tensor) -> Tensor:
    """Features (…, M) of x (…, D), all above 0, by directions omega (M, D) (Lemma 1)."""
    half = x.square().sum(dim=-1, keepdim=True) / 2  # _ |x|^2 / 2, one number for each x
    phi = torch.exp(x @ omega.T - half) / len(omega) ** 0.5  # _ M numbers for each x
    return phi


# --8<-- [end:positive]


# --8<-- [start:trigonometric]
def trigonometric_features(x: Tensor, omega: Tensor) -> Tensor:
    """Features (…, 2 * M) of x (…, D) by omega (M, D): sines, then cosines; some negative (section 2.3)."""
    angle = x @ omega.T  # _ M numbers for each x
    growth = torch.exp(x.square().sum(dim=-1, keepdim=True) / 2)  # _ one number for each x
    phi = growth * torch.cat([angle.sin(), angle.cos()], dim=-1) / len(omega) ** 0.5  # _ 2 M for each x
    return phi


# --8<-- [end:trigonometric]


# --8<-- [start:variance]
def positive_variance(x: Tensor, y: Tensor, num_features: int) -> Tensor:
    """Variance of the estimate of exp(x y) by positive features, for each x and y (…, D) (Lemma 2)."""
    kernel, length = torch.exp((x * y).sum(dim=-1)), (x + y).square().sum(dim=-1)  # _, _
    variance = kernel**2 * (torch.exp(length) - 1) / num_features  # _ one number for each pair
    return variance


def trigonometric_variance(x: Tensor, y: Tensor, num_features: int) -> Tensor:
    """The same for sines and cosines of num_features independent directions."""
    lengths = x.square().sum(dim=-1) + y.square().sum(dim=-1)  # _ |x|^2 + |y|^2
    apart = (x - y).square().sum(dim=-1)  # _ |x - y|^2
    variance = torch.exp(lengths) * (1 - torch.exp(-apart)) ** 2 / (2 * num_features)  # _
    return variance


# --8<-- [end:variance]


# --8<-- [start:orthogonal]
def orthogonal_rows(num_features: int, dim: int, generator: torch.Generator) -> Tensor:
    """omega (M, D): each row is standard normal, rows are orthogonal within blocks of D (section 2.4)."""
    if num_features < 1 or dim < 1:
        raise ValueError(f"num_features and dim of at least 1 are expected, given {num_features}, {dim}")
    num_blocks = -(-num_features // dim)  # the last block may be used in part
    gaussian = torch.randn(num_blocks, dim, dim, generator=generator, dtype=torch.float64)  # (K, D, D)
    rotation, upper = torch.linalg.qr(gaussian)  # (K, D, D), (K, D, D)
    sign = upper.diagonal(dim1=-2, dim2=-1).sign()  # (K, D)
    rotation = rotation * sign[:, None, :]  # (K, D, D) without the signs, some directions come more often
    direction = rotation.flatten(0, 1)[:num_features]  # (M, D) of length 1
    lengths = torch.randn(num_features, dim, generator=generator, dtype=torch.float64).norm(dim=1)  # (M,)
    omega = lengths[:, None] * direction  # (M, D) as long as rows of independent numbers are
    return omega.float()


# --8<-- [end:orthogonal]


# --8<-- [start:features]
class PositiveFeatures(nn.Module):
    """Positive features of queries and keys by omega (M, D), up to factors that cancel in attention."""

    def __init__(self, omega: Tensor):
        super().__init__()
        self.register_buffer("omega", omega)
        bound = omega.square().sum(dim=1).max() / 2  # () no exponent of a key is larger
        shift = (bound - 40).clamp(min=0)  # () knows no key, so that nothing leaks from the future
        if omega.dtype != torch.float64 and shift > 60:  # features of all keys would be 0
            raise ValueError(f"float64 is expected for directions this long, given {omega.dtype}")
        self.register_buffer("shift", shift)

    def exponent(self, x: Tensor) -> Tensor:
        """omega x / D^(1/4): (B, H, T, M) of x (B, H, T, D)."""
        scaled = self.omega.T * x.shape[-1] ** -0.25  # (D, M) once for queries and once for keys: 1 / sqrt(D)
        product = x.to(scaled) @ scaled  # (B, H, T, M)
        return product

    def query(self, x: Tensor) -> Tensor:
        """Features (B, H, T, M) of queries x (B, H, T, D). The largest of each query is 1."""
        exponent = self.exponent(x)  # (B, H, T, M)
        largest = exponent.detach().amax(dim=-1, keepdim=True)  # (B, H, T, 1) a query's own: it cancels
        phi = exponent.sub_(largest).exp_()  # (B, H, T, M) in place: memory is what costs time here
        return phi

    def key(self, x: Tensor) -> Tensor:
        """Features (B, H, S, M) of keys x (B, H, S, D). All keys share one constant factor."""
        half = x.to(self.omega).square().sum(dim=-1, keepdim=True) / (2 * x.shape[-1] ** 0.5)  # (B, H, S, 1)
        phi = self.exponent(x).sub_(half + self.shift).exp_()  # (B, H, S, M)
        return phi


# --8<-- [end:features]


# --8<-- [start:kernels]
class KernelFeatures(nn.Module):
    """Features of another kernel: any function that is not negative, of omega x (section 2.2)."""

    def __init__(self, omega: Tensor, function: Callable[[Tensor], Tensor], floor: float = 1e-3):
        super().__init__()
        self.register_buffer("omega", omega)
        self.function, self.floor = function, floor

    def query(self, x: Tensor) -> Tensor:
        """Features (B, H, T, M) of x (B, H, T, D). The floor keeps sums of weights away from 0."""
        product = x.to(self.omega) @ self.omega.T * x.shape[-1] ** -0.25  # (B, H, T, M)
        phi = self.function(product) + self.floor  # (B, H, T, M)
        return phi

    key = query


def elu_features(dim: int) -> KernelFeatures:
    """elu(x) + 1, without random directions (Katharopoulos et al. 2020, Eq. 7)."""
    return KernelFeatures(torch.eye(dim) * dim**0.25, lambda x: F.elu(x) + 1, floor=0.0)


# --8<-- [end:kernels]


# --8<-- [start:linear]
def with_ones(value: Tensor, like: Tensor) -> Tensor:
    """Values (B, H, S, E) and a 1 for each, (B, H, S, E + 1): the sum of the ones is the sum of weights."""
    if value.ndim != 4 or value.shape[:3] != like.shape[:3] or not value.is_floating_point():
        given = f"{value.dtype} {tuple(value.shape)} for keys {tuple(like.shape)}"
        raise ValueError(f"float values (B, H, S, E) are expected, given {given}")
    ones = F.pad(value, (0, 1), value=1.0)  # (B, H, S, E + 1)
    return ones


def divided(mixed: Tensor, value: Tensor) -> Tensor:
    """Means (B, H, T, E) of sums (B, H, T, E + 1), in the type of the values."""
    mean = mixed[..., :-1] / mixed[..., -1:]  # (B, H, T, E)
    return mean.to(value)


def linear_attention(
    features, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None = None
) -> Tensor:
    """Each query looks at all keys, at a cost that is linear in their number.

    Args: query (B, H, T, D), key (B, H, S, D), value (B, H, S, E), keep (B, S), False where a key is padded.
    Returns (B, H, T, E).
    """
    ones, state = with_ones(value, key), 0.0  # (B, H, S, E + 1), _
    if keep is not None:
        ones = ones * keep[:, None, :, None]  # (B, H, S, E + 1) neither the value nor its weight counts
    for k, v in zip(key.split(256, dim=2), ones.split(256, dim=2), strict=True):  # features of few at a time
        state = state + features.key(k).transpose(-1, -2) @ v.to(features.omega)  # (B, H, M, E + 1)
    mixed = [features.query(q) @ state for q in query.split(256, dim=2)]
    return divided(torch.cat(mixed, dim=2), value)


# --8<-- [end:linear]


# --8<-- [start:causal]
def causal_attention(features, query: Tensor, key: Tensor, value: Tensor, state: Tensor, chunk: int = 64):
    """Each query looks at keys up to its own place: within a chunk by a mask, beyond it by the state.

    Args: query, key (B, H, T, D), value (B, H, T, E), state (B, H, M, E + 1) of what came before.
    Returns means (B, H, T, E), and (B, H, M, E + 1), the state after them.
    """
    if query.shape != key.shape or chunk < 1:
        given = f"{tuple(query.shape)}, {tuple(key.shape)} and {chunk}"
        raise ValueError(f"as many queries as keys and a chunk of at least 1 are expected, given {given}")
    ones, mixed = with_ones(value, key).to(state), []  # (B, H, T, E + 1), _
    for q, k, v in zip(*(x.split(chunk, dim=2) for x in (query, key, ones)), strict=True):
        q, k = features.query(q), features.key(k)  # (B, H, _, M), (B, H, _, M)
        weight = (q @ k.transpose(-1, -2)).tril_()  # (B, H, _, _) 0 for keys to come
        mixed.append(weight @ v + q @ state)
        state = state + k.transpose(-1, -2) @ v  # (B, H, M, E + 1)
    return divided(torch.cat(mixed, dim=2), value), state


# --8<-- [end:causal]


# --8<-- [start:recurrent]
@torch.no_grad()
def step(features, query: Tensor, key: Tensor, value: Tensor, state: Tensor) -> Tensor:
    """One position: query, key (B, H, 1, D), value (B, H, 1, E). The cost is the same at each position.

    Changes state (B, H, M, E + 1) in place, so that no other memory of its size is needed; without gradients.
    Returns the mean (B, H, 1, E).
    """
    state.addcmul_(features.key(key).transpose(-1, -2), with_ones(value, key).to(state))  # in place
    mixed = features.query(query) @ state  # (B, H, 1, E + 1)
    return divided(mixed, value)


# --8<-- [end:recurrent]


# --8<-- [start:module]
class PerformerAttention(nn.Module):
    """Takes the place of F.scaled_dot_product_attention. Its directions are saved with the weights."""

    def __init__(self, features: nn.Module, causal: bool = True):
        super().__init__()
        self.features, self.causal = features, causal

    def empty(self, value: Tensor) -> Tensor:
        """The state (B, H, M, E + 1) before the first position, for values (B, H, T, E)."""
        omega = self.features.omega
        state = omega.new_zeros(*value.shape[:2], len(omega), value.shape[-1] + 1)  # (B, H, M, E + 1)
        return state

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Means (B, H, T, E) for query (B, H, T, D), key (B, H, S, D), value (B, H, S, E)."""
        if self.causal:
            mean, _ = causal_attention(self.features, query, key, value, self.empty(value))  # (B, H, T, E)
            return mean
        return linear_attention(self.features, query, key, value)


def redraw(attention: PerformerAttention, generator: torch.Generator) -> None:
    """New directions, of the same number. The model's function changes: do it in training, if at all."""
    num_features, dim = attention.features.omega.shape
    omega = orthogonal_rows(num_features, dim, generator).to(attention.features.omega)  # (M, D)
    fresh = PositiveFeatures(omega)
    attention.features.load_state_dict(fresh.state_dict())


# --8<-- [end:module]


# --8<-- [start:recurrence]
def recurrence(query, key, value, decay: Tensor, erase: Tensor, write: Tensor) -> Tensor:
    """A state that fades, forgets what it held under the key, takes the new value, and answers the query.

    Args: query, key (B, H, T, M), value (B, H, T, E); decay, erase, write (B, H, T). Returns (B, H, T, E).
    """
    state, answers = key.new_zeros(*key.shape[:2], key.shape[-1], value.shape[-1]), []  # (B, H, M, E), _
    for t in range(key.shape[2]):
        k = key[:, :, t, :, None]  # (B, H, M, 1)
        gates = [x[:, :, t, None, None] for x in (decay, erase, write)]  # each (B, H, 1, 1)
        state = gates[0] * state  # (B, H, M, E) what stays
        held = k.transpose(-1, -2) @ state  # (B, H, 1, E) what the state answers to this key
        state = state + k @ (gates[2] * value[:, :, t : t + 1] - gates[1] * held)  # (B, H, M, E)
        answers.append(query[:, :, t : t + 1] @ state)
    answer = torch.cat(answers, dim=2)  # (B, H, T, E)
    return answer


# --8<-- [end:recurrence]


# --8<-- [start:later]
def linear(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Linear attention, not yet divided: query, key (B, H, T, M), value (B, H, T, E)."""
    one = torch.ones_like(key[..., 0])  # (B, H, T)
    return recurrence(query, key, value, decay=one, erase=0 * one, write=one)


def decayed(query: Tensor, key: Tensor, value: Tensor, decay: Tensor) -> Tensor:
    """Linear attention with a decay (B, H, T) between 0 and 1 that may depend on the input."""
    return recurrence(query, key, value, decay, erase=0 * decay, write=torch.ones_like(decay))


def retnet(query: Tensor, key: Tensor, value: Tensor, gamma: Tensor) -> Tensor:
    """Retention (Sun et al. 2023, 2307.08621): one fixed decay gamma (H,) for each head."""
    return decayed(query, key, value, gamma[:, None].expand(key.shape[:3]))


def mamba2(query: Tensor, key: Tensor, value: Tensor, rate: Tensor, time: Tensor) -> Tensor:
    """State-space duality (Dao and Gu 2024, 2405.21060): their C, B, x; rate (H,) is -A."""
    return recurrence(query, key, value, torch.exp(-rate[:, None] * time), erase=0 * time, write=time)


def delta_net(query: Tensor, key: Tensor, value: Tensor, beta: Tensor) -> Tensor:
    """The delta rule (Yang et al. 2024, 2406.06484): a share beta (B, H, T) of the old value is replaced."""
    return recurrence(query, F.normalize(key, dim=-1), value, torch.ones_like(beta), erase=beta, write=beta)


# --8<-- [end:later]
