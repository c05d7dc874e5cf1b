"""Rotary position embedding (RoFormer, Su et al. 2021, arXiv 2104.09864), stretched to longer texts: position
interpolation (Chen et al. 2023, 2306.15595), NTK-aware scaling and YaRN (Peng et al. 2023, 2309.00071),
Llama 3.1's; with learnt positions and ALiBi (Press et al. 2021, 2108.12409) to compare.

Shapes: B batch, H heads, T positions, D features of a head, P turning pairs of features, W width, N bytes.
Positions and pairs are counted from 0, as the code of all models does; the paper counts pairs from 1.
"""

# --8<-- [start:imports]
import math
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import trange

# --8<-- [end:imports]
from snippets.blocks.checkpoint import read_config
from snippets.data.text import text


# --8<-- [start:frequencies]
def inverse_frequencies(dim: int, base: float = 10_000.0) -> Tensor:
    """theta_i = base^(-2i/dim) (P,), float64: by what angle one position turns pair i (section 3.2.2)."""
    if dim < 2 or dim % 2 or base <= 1:
        raise ValueError(f"an even dim of at least 2 and base > 1 are expected, given {dim}, {base}")
    twice = torch.arange(0, dim, 2, dtype=torch.float64)  # (P,) 2i: 0, 2, 4, …
    theta = base ** (-twice / dim)  # (P,) from 1 down to nearly 1 / base
    return theta


def angles(positions: Tensor, theta: Tensor) -> Tensor:
    """m theta_i (T, P) in the type of theta (P,), for positions m (T,), whole or not."""
    if positions.ndim != 1 or theta.ndim != 1 or not theta.is_floating_point():
        given = f"{tuple(positions.shape)} and {theta.dtype} {tuple(theta.shape)}"
        raise ValueError(f"positions (T,) and float theta (P,) are expected, given {given}")
    angle = positions.to(theta)[:, None] * theta  # (T, P) in radians
    return angle


# --8<-- [end:frequencies]


# --8<-- [start:check]
def check(x: Tensor, angle: Tensor, features: int) -> None:
    """Raise ValueError unless x is (B, H, T, features) and float, and angle (T, P)."""
    if x.ndim != 4 or not x.is_floating_point() or x.shape[2:] != (len(angle), features):
        expected = f"float (B, H, {len(angle)}, {features})"
        raise ValueError(f"for angles {tuple(angle.shape)}, {expected} is expected, given {tuple(x.shape)}")


# --8<-- [end:check]


# --8<-- [start:complex]
def rotate_complex(x: Tensor, angle: Tensor) -> Tensor:
    """Turn neighbours (x_0, x_1), (x_2, x_3), … of x (B, H, T, D) by angles (T, P), as complex numbers."""
    check(x, angle, 2 * angle.shape[1])
    number = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())  # (B, H, T, P) x_2i + i x_2i+1
    turn = torch.polar(torch.ones_like(angle), angle).to(number)  # (T, P) of length 1: e^(i m theta)
    turned = torch.view_as_real(number * turn).flatten(-2)  # (B, H, T, D) neighbours again
    return turned


# --8<-- [end:complex]


# --8<-- [start:pairs]
def rotate_pairs(x: Tensor, angle: Tensor) -> Tensor:
    """The same in real numbers, for any float type (Eq. 34): the layout of the paper and of Meta's Llama."""
    check(x, angle, 2 * angle.shape[1])
    first, second = x[..., 0::2], x[..., 1::2]  # (B, H, T, P), (B, H, T, P) even and odd features
    cos, sin = angle.cos().to(x), angle.sin().to(x)  # (T, P), (T, P) cast last
    turned = [first * cos - second * sin, second * cos + first * sin]  # a rotation of each pair
    x = torch.stack(turned, dim=-1).flatten(-2)  # (B, H, T, D) neighbours again
    return x


# --8<-- [end:pairs]


# --8<-- [start:halves]
def rotate_halves(x: Tensor, angle: Tensor) -> Tensor:
    """The layout of transformers: feature i of the first half and feature i of the second are a pair."""
    check(x, angle, 2 * angle.shape[1])
    first, second = x.chunk(2, dim=-1)  # (B, H, T, P), (B, H, T, P) two contiguous halves
    cos, sin = angle.cos().to(x), angle.sin().to(x)  # (T, P), (T, P) cast last
    x = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)  # (B, H, T, D)
    return x


# --8<-- [end:halves]


# --8<-- [start:layouts]
def halves_order(dim: int) -> Tensor:
    """0, 2, 4, …, 1, 3, 5, … (D,): the features of interleaved pairs, in the order of split halves."""
    order = torch.arange(dim).view(-1, 2).T.flatten()  # (D,) even ones first
    return order


def by_head(weight: Tensor, num_heads: int) -> Tensor:
    """Rows of W_q or W_k (H * D, W) by head (H, D, W); ValueError unless heads have an even size."""
    if weight.ndim != 2 or num_heads < 1 or len(weight) % (2 * num_heads):
        raise ValueError(f"{num_heads} heads of an even size are expected, given {tuple(weight.shape)}")
    heads = weight.unflatten(0, (num_heads, -1))  # (H, D, W)
    return heads


def pairs_to_halves(weight: Tensor, num_heads: int) -> Tensor:
    """Rows of W_q or W_k (H * D, W) from Meta's layout to transformers'. (A bias is a matrix with W = 1.)"""
    heads = by_head(weight, num_heads)  # (H, D, W) rows move inside of their own head only
    moved = heads[:, halves_order(heads.shape[1])].flatten(0, 1)  # (H * D, W)
    return moved


def halves_to_pairs(weight: Tensor, num_heads: int) -> Tensor:
    """The way back, from transformers' layout to Meta's."""
    heads = by_head(weight, num_heads)  # (H, D, W)
    moved = heads[:, halves_order(heads.shape[1]).argsort()].flatten(0, 1)  # (H * D, W)
    return moved


# --8<-- [end:layouts]


# --8<-- [start:partial]
def rotate_partial(x: Tensor, angle: Tensor) -> Tensor:
    """Turn the first 2 P features of x (B, H, T, D) and pass on the others, which know no position."""
    rotary = 2 * angle.shape[1]  # how many features turn
    if rotary > x.shape[-1]:
        raise ValueError(f"at most {x.shape[-1]} turning features are expected, given {rotary}")
    turned = rotate_halves(x[..., :rotary], angle)  # (B, H, T, 2 * P)
    x = torch.cat([turned, x[..., rotary:]], dim=-1)  # (B, H, T, D)
    return x


# --8<-- [end:partial]


# --8<-- [start:decay]
def mean_cosine(distances: Tensor, theta: Tensor) -> Tensor:
    """Score of a query and an equal key of all ones at distances (T,), over its largest value: (T,)."""
    score = angles(distances, theta).cos().mean(dim=1)  # (T,) pairs agree near 0 and drift apart
    return score


def decay_bound(distances: Tensor, theta: Tensor) -> Tensor:
    """Mean of |S_1|, …, |S_P| (T,), where S_j adds the first j turns e^(i m theta) (section 3.4.3)."""
    angle = angles(distances, theta)  # (T, P)
    turn = torch.polar(torch.ones_like(angle), angle)  # (T, P)
    bound = turn.cumsum(dim=1).abs().mean(dim=1)  # (T,)
    return bound


# --8<-- [end:decay]


# --8<-- [start:linear]
def check_stretch(factor: float, trained: int = 1) -> None:
    """Raise ValueError unless factor >= 1, the growth of the text, and trained >= 1, its length before."""
    if factor < 1 or trained < 1:
        raise ValueError(f"factor >= 1 and trained length >= 1 are expected, given {factor}, {trained}")


def linear(theta: Tensor, factor: float) -> Tensor:
    """Position interpolation: every pair turns factor times more slowly (P,)."""
    check_stretch(factor)
    slower = theta / factor  # (P,) the same as dividing positions
    return slower


# --8<-- [end:linear]


# --8<-- [start:ntk]
def ntk_aware(dim: int, factor: float, base: float = 10_000.0) -> Tensor:
    """A larger base (P,): the slowest pair turns factor times more slowly, the fastest one as before."""
    check_stretch(factor)
    if dim < 4:
        raise ValueError(f"at least two pairs, dim >= 4, are expected, given {dim}")
    theta = inverse_frequencies(dim, base * factor ** (dim / (dim - 2)))  # (P,)
    return theta


def dynamic_ntk(dim: int, length: int, trained: int, factor: float = 1.0, base: float = 10_000.0) -> Tensor:
    """NTK-aware scaling by as much as a text of `length` asks for: none up to the trained length (P,).

    With factor = 1 it stretches by length / trained. transformers' factor makes that steeper.
    """
    check_stretch(factor, trained)
    stretch = max(1.0, factor * length / trained - (factor - 1))
    theta = ntk_aware(dim, stretch, base)  # (P,)
    return theta


# --8<-- [end:ntk]


# --8<-- [start:parts]
def by_parts(theta: Tensor, factor: float, trained: int, low: float, high: float) -> Tensor:
    """Interpolate pairs of fewer than `low` turns in the trained length, keep those of more than `high` (P,).

    YaRN's paper (section 3.2) has low = 1 and high = 32, Llama 3.1 has low = 1 and high = 4.
    """
    check_stretch(factor, trained)
    if not 0 <= low < high:
        raise ValueError(f"0 <= low < high are expected, given {low}, {high}")
    turns = trained * theta / (2 * math.pi)  # (P,) how often a pair goes round in the trained length
    keep = ((turns - low) / (high - low)).clamp(0, 1)  # (P,) 0: interpolate, 1: leave as it is
    mixed = keep * theta + (1 - keep) * theta / factor  # (P,)
    return mixed


# --8<-- [end:parts]


# --8<-- [start:yarn]
def yarn(dim: int, factor: float, trained: int, base: float = 10_000.0, fast=32.0, slow=1.0) -> Tensor:
    """YaRN as its authors' code and transformers have it (P,): the ramp is even in i, not in turns."""
    check_stretch(factor, trained)
    if not 0 < slow < fast:
        raise ValueError(f"0 < slow < fast are expected, given {slow}, {fast}")

    def index(turns: float) -> float:
        """Which i, as a real number, goes round this often: solve trained theta_i = 2 pi turns."""
        return dim * math.log(trained / (2 * math.pi * turns)) / (2 * math.log(base))

    first, last = max(math.floor(index(fast)), 0), min(math.ceil(index(slow)), dim - 1)  # whole pairs
    theta = inverse_frequencies(dim, base)  # (P,)
    ramp = (torch.arange(len(theta), dtype=torch.float64) - first) / max(last - first, 0.001)  # (P,)
    share = ramp.clamp(0, 1)  # (P,) 0: leave as it is, 1: interpolate
    mixed = (1 - share) * theta + share * theta / factor  # (P,)
    return mixed


def yarn_magnitude(factor: float) -> float:
    """0.1 ln(factor) + 1: queries and keys both grow by it, scores by its square (section 3.4)."""
    check_stretch(factor)
    return 0.1 * math.log(factor) + 1


# --8<-- [end:yarn]


# --8<-- [start:rope]
class Rope(nn.Module):
    """Causal attention whose queries and keys are turned by their positions, with frequencies theta (P,)."""

    def __init__(self, theta: Tensor, magnitude: float = 1.0):
        super().__init__()
        self.magnitude = magnitude  # YaRN's factor of queries and keys
        self.register_buffer("theta", theta.double())

    def embed(self, x: Tensor) -> Tensor:
        """Nothing is added to the embeddings x (B, T, W)."""
        return x

    def forward(self, query: Tensor, key: Tensor, value: Tensor, cached: int = 0) -> Tensor:
        """Means of values (B, H, T, D). The first key has position 0, the first query position `cached`."""
        if self.theta.dtype != torch.float64:
            raise ValueError(f"theta is expected to stay in float64, given {self.theta.dtype}")
        if cached + query.shape[2] != key.shape[2]:
            given = f"{cached} + {query.shape[2]} for {key.shape[2]} keys"
            raise ValueError(f"cached positions and queries as many as keys are expected, given {given}")
        key_angle = angles(torch.arange(key.shape[2], device=key.device), self.theta)  # (T, P)
        query_angle = key_angle[cached:]  # (_, P) of new positions only
        query = self.magnitude * rotate_halves(query, query_angle)  # (B, H, _, D)
        key = self.magnitude * rotate_halves(key, key_angle)  # (B, H, T, D)
        past = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=key.device)  # (_, T)
        mask = past.tril(cached)  # (_, T) query 0 sees keys 0 to `cached`
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)  # (B, H, _, D)
        return mixed


# --8<-- [end:rope]


# --8<-- [start:others]
class Learnt(nn.Module):
    """Causal attention over embeddings to which a learnt row for each position was added (GPT-2, BERT)."""

    def __init__(self, table: Tensor):
        super().__init__()
        self.table = nn.Parameter(table)  # (T, W)

    def embed(self, x: Tensor) -> Tensor:
        if x.shape[1] > len(self.table):
            raise ValueError(f"at most {len(self.table)} positions are expected, given {x.shape[1]}")
        placed = x + self.table[: x.shape[1]]  # (B, T, W)
        return placed

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)  # (B, H, T, D)
        return mixed


class Alibi(nn.Module):
    """Causal attention whose scores fall with distance, at a slope of 2^(-8h/H) for head h = 1, …, H."""

    def __init__(self, num_heads: int):
        super().__init__()
        self.register_buffer("slope", 2 ** (-8 * torch.arange(1, num_heads + 1) / num_heads))

    def embed(self, x: Tensor) -> Tensor:
        return x

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        place = torch.arange(key.shape[2], device=key.device)  # (T,)
        distance = place[:, None] - place  # (T, T) how far back a key is; negative: to come
        bias = -self.slope[:, None, None] * distance  # (H, T, T)
        bias = bias.masked_fill(distance < 0, -math.inf).to(query)  # (H, T, T)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)  # (B, H, T, D)
        return mixed


# --8<-- [end:others]


# --8<-- [start:decoder]
class Block(nn.Module):
    """Attention, then a two-layer network, each on normalised features and added to them."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_qkv, self.to_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, position: nn.Module) -> Tensor:
        qkv = self.to_qkv(self.norm_1(x)).unflatten(-1, (3, self.num_heads, -1))  # (B, T, 3, H, D)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # (B, H, T, D), (B, H, T, D), (B, H, T, D)
        mixed = position(query, key, value).transpose(1, 2).flatten(2)  # (B, T, W) heads side by side
        x = x + self.to_out(mixed)  # (B, T, W)
        x = x + self.mlp(self.norm_2(x))  # (B, T, W)
        return x


class Decoder(nn.Module):
    """A small language model over bytes. Only `position`, the same in all layers, knows where bytes are."""

    def __init__(self, position: nn.Module, width: int = 128, num_heads: int = 4, num_layers: int = 2):
        super().__init__()
        if width % num_heads:
            raise ValueError(f"a width that {num_heads} heads divide is expected, given {width}")
        self.embedding = nn.Embedding(256, width)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.position = position
        self.blocks = nn.ModuleList(Block(width, num_heads) for _ in range(num_layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 256)

    def forward(self, codes: Tensor) -> Tensor:
        """Logits (B, T, 256) of the byte that follows each of codes (B, T)."""
        if codes.ndim != 2 or codes.is_floating_point():
            raise ValueError(f"integers (B, T) are expected, given {codes.dtype} {tuple(codes.shape)}")
        x = self.position.embed(self.embedding(codes))  # (B, T, W)
        for block in self.blocks:
            x = block(x, self.position)  # (B, T, W)
        logits = self.head(self.norm(x))  # (B, T, 256)
        return logits


# --8<-- [end:decoder]


# --8<-- [start:train]
def train(
    model: nn.Module, codes: Tensor, num_steps: int, length: int = 128, rate: float = 2e-3, seed: int = 0
):
    """Train on random windows of `length` of codes (N,); returns the model in `eval` mode."""
    if num_steps < 1 or len(codes) <= length:
        given = f"{num_steps} steps, {len(codes)} codes"
        raise ValueError(f"num_steps >= 1 and more than {length} codes are expected, given {given}")
    generator = torch.Generator(codes.device).manual_seed(seed)  # the same windows for each model
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=num_steps + 1, pct_start=0.1)
    offsets = torch.arange(length + 1, device=codes.device)  # (T + 1,)
    for _ in trange(num_steps, desc="train", mininterval=2):
        start = torch.randint(len(codes) - length, (8, 1), generator=generator, device=codes.device)  # (B, 1)
        window = codes[start + offsets]  # (B, T + 1)
        logits = model(window[:, :-1])  # (B, T, 256)
        loss = F.cross_entropy(logits.flatten(0, 1), window[:, 1:].flatten())  # () nats for each byte
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval()


# --8<-- [end:train]


# --8<-- [start:evaluate]
def passages(codes: Tensor, count: int, length: int = 1024) -> Tensor:
    """`count` passages (B, length + 1) of codes (N,), evenly spread over them."""
    if count < 1 or len(codes) < count * length + 1:
        raise ValueError(f"at least {count} * {length} + 1 codes are expected, given {len(codes)}")
    start = torch.linspace(0, len(codes) - length - 1, count, dtype=torch.float64).long()  # (B,)
    passage = codes[(start[:, None] + torch.arange(length + 1)).to(codes.device)]  # (B, _)
    return passage


@torch.no_grad()
def loss_by_position(model: nn.Module, passage: Tensor, length: int) -> Tensor:
    """Nats at each position (T,) of windows of `length`, into which the rows of passage are cut.

    Whatever the length, the same bytes are predicted: only how far back the model may look differs.
    """
    if passage.ndim != 2 or (passage.shape[1] - 1) % length:
        given = f"{tuple(passage.shape)} for windows of {length}"
        raise ValueError(f"passages of a multiple of the length, and one more, are expected, given {given}")
    losses = []
    for row in passage:
        window = row.unfold(0, length + 1, length)  # (B, T + 1)
        logits = model(window[:, :-1])  # (B, T, 256)
        losses.append(F.cross_entropy(logits.transpose(1, 2), window[:, 1:], reduction="none").mean(dim=0))
    loss = torch.stack(losses).mean(dim=0)  # (T,)
    return loss


# --8<-- [end:evaluate]


# --8<-- [start:settings]
FULL = "llama", "mistral", "mixtral", "qwen2", "qwen3", "gemma", "gemma2", "olmo2"  # turn all of a head


def rope_settings(config: dict) -> tuple[str, float, dict]:
    """Kind, base and all else that a config.json in transformers' layout says of rotation, old or new.

    Raises ValueError for what this page does not have, and for a model of another kind of rotation.
    """
    given = dict(config.get("rope_scaling") or config.get("rope_parameters") or {})  # the old name wins
    kind = given.get("rope_type") or given.get("type") or "default"
    base = given.get("rope_theta") or config.get("rope_theta") or 10_000.0
    trained = config.get("max_position_embeddings") or config.get("max_sequence_length") or 2048  # Llama 1's
    first = config.get("original_max_position_embeddings")  # before the model was stretched; it wins, too
    first = first or given.get("original_max_position_embeddings") or trained
    plain = {"partial_rotary_factor": 1.0, "mscale": None, "mscale_all_dim": None, "truncate": True}
    other = {name: given[name] for name in plain if given.get(name, plain[name]) not in (plain[name], None)}
    part = {"partial_rotary_factor": 1.0, "rotary_pct": 1.0, "rotary_dim": None}
    other |= {name: config[name] for name in part if config.get(name, part[name]) not in (part[name], None)}
    other |= {name: value for name, value in given.items() if isinstance(value, dict)}  # by kind of layer
    if config.get("model_type", FULL[0]) not in FULL:
        other["model_type"] = config["model_type"]
    if other or kind not in ("default", "linear", "dynamic", "yarn", "llama3"):
        expected = f"default, linear, dynamic, yarn or llama3, one for all layers and features, of {FULL},"
        raise ValueError(f"a rope_type {expected} is expected, given {kind} and {other}")
    factor = given.get("factor") or (trained / first if kind == "yarn" else 1.0)
    return kind, base, given | {"factor": factor, "trained": trained, "first": first}


# --8<-- [end:settings]


# --8<-- [start:config]
def stretched(config: dict, length: int | None = None) -> tuple[Tensor, float]:
    """Frequencies (P,) and YaRN's magnitude that a config.json asks for, for a text of `length`.

    Raises ValueError as rope_settings does, and for frequencies that depend on a length that is not given.
    """
    kind, base, given = rope_settings(config)
    dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    factor, first = given["factor"], given["first"]
    theta = inverse_frequencies(dim, base)  # (P,)
    if kind == "linear":
        theta = linear(theta, factor)  # (P,)
    if kind == "dynamic":
        if length is None:
            raise ValueError("a length is expected for rope_type dynamic, given none: it changes with it")
        theta = dynamic_ntk(dim, length, given["trained"], factor, base)  # (P,)
    if kind == "llama3":
        theta = by_parts(theta, factor, first, given["low_freq_factor"], given["high_freq_factor"])  # (P,)
    if kind != "yarn":
        return theta, 1.0
    fast, slow = given.get("beta_fast") or 32.0, given.get("beta_slow") or 1.0
    theta = yarn(dim, factor, first, base, fast, slow)  # (P,)
    return theta, given.get("attention_factor") or yarn_magnitude(factor)


# --8<-- [end:config]


# --8<-- [start:load]
def load_rope(folder: str | Path, length: int) -> Rope:
    """The attention of this page with the frequencies of a folder's config.json, for a text of `length`."""
    theta, magnitude = stretched(read_config(folder, {}), length)  # (P,), _
    return Rope(theta, magnitude)


# --8<-- [end:load]


# --8<-- [start:main]
TRAIN_STEPS = 600


def main() -> None:
    """Train on windows of 128 bytes, then read held-out text in windows of up to 1,024, stretched or not."""
    torch.set_num_threads(1)  # so small a network gains little from more, and loses much on a busy machine
    torch.manual_seed(0)  # the same first weights each time
    theta = inverse_frequencies(dim=32)  # (P,) four heads of 32 features
    model = train(Decoder(Rope(theta)), text(), TRAIN_STEPS)
    passage = passages(text(held_out=True), count=16)  # (B, _)
    lengths = [64, 128, 256, 512, 1024]
    factor = lengths[-1] / 128
    ways = {"as trained": Rope(theta), "interpolated": Rope(linear(theta, factor))}
    ways["NTK-aware"] = Rope(ntk_aware(32, factor))
    ways["YaRN"] = Rope(yarn(32, factor, trained=128), yarn_magnitude(factor))
    for name, position in ways.items():
        model.position = position  # nothing else changes, no weight is trained
        losses = [loss_by_position(model, passage, length).mean().item() for length in lengths]
        print(f"{name:>12}:", *(f"{loss:.2f}" for loss in losses), "nats a byte")
        plt.plot(lengths, losses, marker="o", label=name)
    plt.xscale("log", base=2)
    plt.xticks(lengths, [f"{length:,}" for length in lengths])
    plt.xlabel("length of a window, trained on 128 bytes")
    plt.ylabel("held-out loss, nats a byte")
    plt.legend()
    plt.savefig("lengths.png")
    plt.close()
    print("held-out loss by length: lengths.png")


if __name__ == "__main__":
    main()
# --8<-- [end:main]
