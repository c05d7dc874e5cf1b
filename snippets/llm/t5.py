"""T5, an encoder and a decoder (Raffel et al. 2019, arXiv 1910.10683), and its version 1.1 with a gated MLP
(Shazeer 2020, arXiv 2002.05202).

Shapes: B texts of a batch, S tokens of a source, T tokens of a target, V vocabulary, W width, H heads,
D features of a head, F hidden features, Q queries, K keys.
Positions are counted from 0.
"""

# --8<-- [start:imports]
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# --8<-- [end:imports]


# --8<-- [start:config]
@dataclass(frozen=True)
class Config:
    """Sizes of a model; those of T5 small (v1.0) unless given. Raises ValueError for too few buckets."""

    vocabulary: int = 32128
    width: int = 512
    head_width: int = 64  # features of a head; heads times this need not be the width
    hidden: int = 2048  # features inside of the MLP
    num_layers: int = 6  # of the encoder
    decoder_layers: int = 6
    num_heads: int = 8
    buckets: int = 32  # of distances
    max_distance: int = 128  # at the latest from here on, all distances share a bucket
    dropout: float = 0.1
    eps: float = 1e-6
    gated: bool = False  # whether the MLP has a gate, as in v1.1
    tied: bool = True  # whether the words' head is the embedding
    scaled: bool = True  # whether logits are divided by the root of the width
    pad: int = 0
    end: int = 1  # the token that ends a target
    start: int = 0  # the token that the decoder reads first: T5 takes the padding

    def __post_init__(self):
        if self.buckets < 4 or self.max_distance <= self.buckets // 2:
            given = f"{self.buckets}, {self.max_distance}"
            raise ValueError(
                f"4 buckets or more and a max_distance above half of them are expected, given {given}"
            )


# --8<-- [end:config]


# --8<-- [start:buckets]
def bucket(offset: Tensor, buckets: int, max_distance: int, causal: bool) -> Tensor:
    """The bucket of each offset (Q, K), key minus query: (Q, K).

    In the decoder (causal) the future has bucket 0, and a mask hides it. In the encoder each side has half.
    """
    if causal:
        first, distance = torch.zeros_like(offset), (-offset).clamp(min=0)  # (Q, K), (Q, K)
    else:
        buckets //= 2
        first, distance = (offset > 0) * buckets, offset.abs()  # (Q, K), (Q, K)
    exact = buckets // 2  # so many small distances have a bucket each
    far = distance.clamp(min=1).float() / exact  # (Q, K)
    far = torch.log(far) / math.log(max_distance / exact) * (buckets - exact)  # (Q, K)
    far = (exact + far.long()).clamp(max=buckets - 1)  # (Q, K)
    return first + torch.where(distance < exact, distance, far)


class PositionBias(nn.Module):
    """What is added to the scores of a stack: a learnt number for each bucket and head."""

    def __init__(self, config: Config, causal: bool):
        super().__init__()
        self.buckets, self.max_distance, self.causal = config.buckets, config.max_distance, causal
        self.table = nn.Embedding(config.buckets, config.num_heads)

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """Places of queries (Q,) and keys (K,) to (H, Q, K); minus infinity hides the future."""
        offset = key[None, :] - query[:, None]  # (Q, K)
        which = bucket(offset, self.buckets, self.max_distance, self.causal)  # (Q, K)
        bias = self.table(which).permute(2, 0, 1)  # (H, Q, K)
        return bias.masked_fill(offset > 0, float("-inf")) if self.causal else bias


# --8<-- [end:buckets]


# --8<-- [start:attend]
def heads(x: Tensor, num_heads: int) -> Tensor:
    """Features of all heads (B, T, H * D) to one matrix for each head (B, H, T, D)."""
    apart = x.unflatten(-1, (num_heads, -1)).transpose(1, 2)  # (B, H, T, D)
    return apart


class Attention(nn.Module):
    """Queries of one text look at keys of another one, or of the same. Scores are not divided by a root."""

    def __init__(self, config: Config):
        super().__init__()
        inner = config.num_heads * config.head_width
        self.num_heads, self.dropout = config.num_heads, config.dropout
        self.to_query = nn.Linear(config.width, inner, bias=False)
        self.to_key = nn.Linear(config.width, inner, bias=False)
        self.to_value = nn.Linear(config.width, inner, bias=False)
        self.to_out = nn.Linear(inner, config.width, bias=False)

    def read(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, H, K, D) of what is looked at (B, K, W)."""
        key = heads(self.to_key(text), self.num_heads)  # (B, H, K, D)
        value = heads(self.to_value(text), self.num_heads)  # (B, H, K, D)
        return key, value

    def forward(self, x: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """x (B, Q, W), keys and values (B, H, K, D) to (B, Q, W). mask: added, or which keys are real."""
        query = heads(self.to_query(x), self.num_heads)  # (B, H, Q, D)
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, mask, dropout, scale=1.0)  # (B, H, Q, D)
        return self.to_out(mixed.transpose(1, 2).flatten(2))


# --8<-- [end:attend]


# --8<-- [start:parts]
class RMSNorm(nn.Module):
    """Divide by the root of the mean square. No mean is subtracted, and there is no bias."""

    def __init__(self, config: Config):
        super().__init__()
        self.eps, self.gain = config.eps, nn.Parameter(torch.ones(config.width))

    def forward(self, x: Tensor) -> Tensor:
        """Vectors (…, W) to (…, W)."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))  # _ squares overflow in half precision
        root = torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + self.eps)  # _ (…, 1)
        return self.gain * (x * root).to(self.gain.dtype)


class Mlp(nn.Module):
    """Two layers, with ReLU between them in v1.0. In v1.1 a gate with tanh's GELU multiplies what goes up."""

    def __init__(self, config: Config):
        super().__init__()
        self.up = nn.Linear(config.width, config.hidden, bias=False)
        self.gate = nn.Linear(config.width, config.hidden, bias=False) if config.gated else None
        self.down, self.dropout = (
            nn.Linear(config.hidden, config.width, bias=False),
            nn.Dropout(config.dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Each token by itself: (…, W)."""
        if self.gate is None:
            inside = F.relu(self.up(x))  # _ (…, F)
        else:
            inside = F.gelu(self.gate(x), approximate="tanh") * self.up(x)  # _ (…, F)
        return self.down(self.dropout(inside).to(self.down.weight.dtype))  # float32 where `halve` was here


# --8<-- [end:parts]


# --8<-- [start:layers]
class EncoderLayer(nn.Module):
    """Self-attention, then an MLP. The norms stand on the branches (pre-LN)."""

    def __init__(self, config: Config):
        super().__init__()
        self.norm_1, self.attention = RMSNorm(config), Attention(config)
        self.norm_2, self.mlp, self.dropout = RMSNorm(config), Mlp(config), nn.Dropout(config.dropout)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """x (B, S, W); bias, for each text or one for all, is added to the scores. Returns (B, S, W)."""
        normed = self.norm_1(x)  # (B, S, W)
        x = x + self.dropout(self.attention(normed, *self.attention.read(normed), bias))  # (B, S, W)
        return x + self.dropout(self.mlp(self.norm_2(x)))


class DecoderLayer(nn.Module):
    """Self-attention over what was written, cross-attention over the source, then an MLP."""

    def __init__(self, config: Config):
        super().__init__()
        self.norm_1, self.attention = RMSNorm(config), Attention(config)
        self.norm_2, self.cross = RMSNorm(config), Attention(config)
        self.norm_3, self.mlp, self.dropout = RMSNorm(config), Mlp(config), nn.Dropout(config.dropout)

    def forward(self, x: Tensor, bias: Tensor, memory: Tensor, real: Tensor | None) -> Tensor:
        """x (B, T, W); bias (1, H, T, T); memory (B, S, W), the source as read; real (B, 1, 1, S)."""
        normed = self.norm_1(x)  # (B, T, W)
        x = x + self.dropout(self.attention(normed, *self.attention.read(normed), bias))  # (B, T, W)
        return self.finish(x, *self.cross.read(memory), real)

    def finish(self, x: Tensor, key: Tensor, value: Tensor, real: Tensor | None) -> Tensor:
        """What follows self-attention. x (B, T, W); key and value (B, H, S, D) of the source."""
        x = x + self.dropout(self.cross(self.norm_2(x), key, value, real))  # (B, T, W)
        return x + self.dropout(self.mlp(self.norm_3(x)))


class Stack(nn.Module):
    """Layers, the table of distances that they share, and the last norm."""

    def __init__(self, config: Config, layers: list[nn.Module], causal: bool):
        super().__init__()
        self.bias, self.layers = PositionBias(config, causal), nn.ModuleList(layers)
        self.norm, self.dropout = RMSNorm(config), nn.Dropout(config.dropout)


# --8<-- [end:layers]


# --8<-- [start:t5]
class T5(nn.Module):
    """One embedding for both sides; the encoder reads the source, the decoder writes the target."""

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.token = nn.Embedding(config.vocabulary, config.width)
        self.encoder = Stack(config, [EncoderLayer(config) for _ in range(config.num_layers)], causal=False)
        self.decoder = Stack(
            config, [DecoderLayer(config) for _ in range(config.decoder_layers)], causal=True
        )
        self.head = nn.Linear(config.width, config.vocabulary, bias=False)
        initialize(self)
        if config.tied:
            self.head.weight = self.token.weight

    def encode(self, source: Tensor, real: Tensor | None = None) -> Tensor:
        """The memory (B, S, W) of sources (B, S); real (B, S) is false for padding."""
        place = torch.arange(source.shape[1], device=source.device)  # (S,)
        bias = self.encoder.bias(place, place)[None]  # (1, H, S, S)
        if real is not None:
            bias = bias.masked_fill(~real.bool()[:, None, None, :], float("-inf"))  # (B, H, S, S)
        x = self.encoder.dropout(self.token(source))  # (B, S, W) no position is added
        for layer in self.encoder.layers:
            x = layer(x, bias)  # (B, S, W)
        return self.encoder.dropout(self.encoder.norm(x))

    def decode(self, written: Tensor, memory: Tensor, real: Tensor | None = None) -> Tensor:
        """Logits (B, T, V) of what follows each token of written (B, T), which starts with config.start."""
        place = torch.arange(written.shape[1], device=written.device)  # (T,)
        bias = self.decoder.bias(place, place)[None]  # (1, H, T, T) the future is hidden
        real = None if real is None else real.bool()[:, None, None, :]  # _ (B, 1, 1, S)
        x = self.decoder.dropout(self.token(written))  # (B, T, W)
        for layer in self.decoder.layers:
            x = layer(x, bias, memory, real)  # (B, T, W)
        return self.logits(self.decoder.dropout(self.decoder.norm(x)))

    def logits(self, x: Tensor) -> Tensor:
        """Vectors (…, W) to logits (…, V). A head that is the embedding would make them too large."""
        return self.head(x * self.config.width**-0.5 if self.config.scaled else x)

    def forward(self, source: Tensor, written: Tensor, real: Tensor | None = None) -> Tensor:
        """Logits (B, T, V) for sources (B, S) and what is written so far (B, T); real (B, S)."""
        return self.decode(written, self.encode(source, real), real)


@torch.no_grad()
def initialize(model: T5) -> None:
    """T5's first weights: queries are so small that no score has to be divided by the root of D."""
    config = model.config
    nn.init.normal_(model.token.weight)
    nn.init.normal_(model.head.weight, std=config.width**-0.5)
    for name, weight in model.named_parameters():
        if name.endswith(("to_query.weight", "to_key.weight", "to_value.weight", "up.weight", "gate.weight")):
            nn.init.normal_(weight, std=config.width**-0.5)
        if name.endswith("to_query.weight"):
            weight *= config.head_width**-0.5  # _
        if name.endswith(("to_out.weight", "down.weight")):
            nn.init.normal_(weight, std=weight.shape[1] ** -0.5)
        if name.endswith("table.weight"):
            nn.init.normal_(weight, std=config.width**-0.5)


# --8<-- [end:t5]


# --8<-- [start:batch]
IGNORED = -100  # a label that costs nothing


def pad_rows(rows: list[list[int]], pad: int, vocabulary: int) -> Tensor:
    """Rows of tokens, of any lengths from 1, as one tensor (B, T). Raises ValueError for other rows."""
    flat = [token for row in rows for token in row]
    if not rows or not all(rows) or not 0 <= min(flat) <= max(flat) < vocabulary:
        raise ValueError(
            f"rows of one token or more, from 0 to {vocabulary - 1}, are expected, given {rows!r:.60}"
        )
    length = max(len(row) for row in rows)
    return torch.tensor([row + [pad] * (length - len(row)) for row in rows])


def collate(sources: list[list[int]], targets: list[list[int]], config: Config) -> dict[str, Tensor]:
    """A batch: source (B, S), which of it are real (B, S), and target (B, T) with padding ignored."""
    if len(sources) != len(targets):
        raise ValueError(f"a target for each source is expected, given {len(targets)} for {len(sources)}")
    source = pad_rows(sources, config.pad, config.vocabulary)  # (B, S)
    target = pad_rows(targets, config.pad, config.vocabulary)  # (B, T)
    lengths = torch.tensor([[len(row)] for row in sources])  # (B, 1)
    real = torch.arange(source.shape[1]) < lengths  # (B, S)
    ends = torch.tensor([[len(row)] for row in targets])  # (B, 1)
    target = target.masked_fill(torch.arange(target.shape[1]) >= ends, IGNORED)  # (B, T)
    return {"source": source, "real": real, "target": target}


# --8<-- [end:batch]


# --8<-- [start:loss]
def shift_right(target: Tensor, config: Config) -> Tensor:
    """What the decoder reads to write a target (B, T): the start token, then all but its last (B, T)."""
    written = target.roll(1, dims=1).masked_fill(target.roll(1, dims=1) == IGNORED, config.pad)  # (B, T)
    written[:, 0] = config.start
    return written


def loss(model: T5, source: Tensor, real: Tensor, target: Tensor) -> Tensor:
    """Mean cost () of the tokens of target (B, T) that are not IGNORED, after source (B, S), each in nats."""
    logits = model(source, shift_right(target, model.config), real)  # (B, T, V) teacher forcing
    cost = F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=IGNORED)  # ()
    return cost


# --8<-- [end:loss]


# --8<-- [start:halve]
def halve(model: T5) -> T5:
    """Half precision, but for the last matrix of each MLP, whose output can be too large for it."""
    model = model.half()
    for name, module in model.named_modules():
        if name.endswith("mlp.down"):
            module.float()
    return model


# --8<-- [end:halve]


# --8<-- [start:maps]
@torch.no_grad()
def cross_maps(model: T5, source: Tensor, written: Tensor) -> list[Tensor]:
    """How much each written token looks at each of the source, (B, H, T, S) for each layer."""
    memory, maps = model.encode(source), []  # (B, S, W), _
    place = torch.arange(written.shape[1], device=written.device)  # (T,)
    bias, x = model.decoder.bias(place, place)[None], model.token(written)  # (1, H, T, T), (B, T, W)
    for layer in model.decoder.layers:
        normed = layer.norm_1(x)  # (B, T, W)
        x = x + layer.attention(normed, *layer.attention.read(normed), bias)  # (B, T, W)
        key, value = layer.cross.read(memory)  # (B, H, S, D), (B, H, S, D)
        query = heads(layer.cross.to_query(layer.norm_2(x)), layer.cross.num_heads)  # (B, H, T, D)
        maps.append((query @ key.transpose(2, 3)).softmax(dim=-1))
        x = layer.finish(x, key, value, None)  # (B, T, W)
    return maps


# --8<-- [end:maps]
