"""Decoder-only language models: GPT-2 (Radford et al. 2019) and Llama (Touvron et al. 2023, arXiv 2302.13971,
2307.09288; Llama 3: 2407.21783), with RMSNorm (1910.07467), SwiGLU (2002.05202), grouped-query attention
(2305.13245), and a cache of keys and values. Sampling and speed are in decoding.py, sizes in sizes.py.

Shapes: B texts of a batch, T new positions, S positions seen, old and new, V vocabulary, W width, H heads
of queries, G heads of keys and values, D features of a head, P turning pairs, F hidden features, C context,
N bytes of a text.
Positions are counted from 0.
"""

# --8<-- [start:imports]
import math
import shutil  # noqa: F401  for the page on decoding, whose program begins with these lines
import time
from collections.abc import Callable
from dataclasses import dataclass

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import trange

# --8<-- [end:imports]
from snippets.data.text import as_bytes, text
from snippets.llm.rope import angles, inverse_frequencies


# --8<-- [start:config]
@dataclass(frozen=True)
class Config:
    """Sizes of a model. Raises ValueError for sizes below 1 and for sizes that do not divide."""

    vocabulary: int = 256  # bytes
    context: int = 512  # positions that it can read
    width: int = 192
    hidden: int = 512  # features inside of the MLP
    num_layers: int = 4
    num_heads: int = 6  # of queries
    num_key_heads: int = 2  # of keys and values; a real GPT-2 has as many as num_heads
    tied: bool = True  # whether the head is the embedding
    eps: float = 1e-5
    window: int | None = None  # of the newest positions that a query sees, as in Mistral 7B; None: all

    def __post_init__(self):
        sizes = self.vocabulary, self.context, self.width, self.hidden, self.num_layers, self.window or 1
        if min(*sizes, self.num_heads, self.num_key_heads) < 1 or self.eps <= 0:
            raise ValueError(f"sizes of at least 1 and eps above 0 are expected, given {self}")
        if self.width % (2 * self.num_heads) or self.num_heads % self.num_key_heads:
            given = f"{self.width}, {self.num_heads}, {self.num_key_heads}"
            raise ValueError(f"width / heads even, and heads / key heads whole, are expected, given {given}")

    @property
    def head_dim(self) -> int:
        """Features of a head."""
        return self.width // self.num_heads


# --8<-- [end:config]


# --8<-- [start:norm]
class RMSNorm(nn.Module):
    """x over its root mean square, times a learnt gain (Eq. 4 of its paper): (…, W). At least in float32."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))  # _ like x
        wide = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + self.eps)  # _ like x
        return wide.to(x) * self.weight


# --8<-- [end:norm]


# --8<-- [start:rotate]
def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE in the layout of transformers: x (…, T, D) by angles, given as cos and sin (T, P) or (1, P)."""
    first, second = x.chunk(2, dim=-1)  # _, _ of P features each: partners
    turned = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)  # _ like x
    return turned


# --8<-- [end:rotate]


# --8<-- [start:attend]
def heads(x: Tensor, size: int) -> Tensor:
    """Features of all heads (B, T, H * D) to one matrix for each head (B, H, T, D)."""
    apart = x.unflatten(-1, (-1, size)).transpose(1, 2)  # (B, H, T, D)
    return apart


def attend(query: Tensor, key: Tensor, value: Tensor, window: int | None = None) -> Tensor:
    """Causal attention of the newest T of S positions (B, T, H * D). H / G query heads share a key head.

    With a window, a query sees only so many positions, itself among them.
    """
    new, group = query.shape[2], query.shape[1] // key.shape[1]
    if window is not None:  # what not even the first query sees
        key, value = key[:, :, -(window + new - 1) :], value[:, :, -(window + new - 1) :]  # (B, G, S, D), _
    seen = key.shape[2]
    if new == 1:  # it may see everything: no mask, and queries that share keys become rows of one matrix
        rows = query.unflatten(1, (-1, group)).squeeze(3)  # (B, G, _, D)
        mixed = F.scaled_dot_product_attention(rows, key, value)  # (B, G, _, D)
        return mixed.flatten(1).unsqueeze(1)
    mask = None  # is_causal is the mask for S = T only
    if new < seen or (window is not None and window < seen):
        mask = torch.ones(new, seen, dtype=torch.bool, device=key.device).tril(seen - new)  # (T, S)
        mask = mask if window is None else mask.triu(seen - new - window + 1)  # (T, S)
    mixed = F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=mask is None, enable_gqa=True
    )  # (B, H, T, D)
    return mixed.transpose(1, 2).flatten(2)


# --8<-- [end:attend]


# --8<-- [start:cache]
class Cache:
    """Keys and values of one layer, (B, G, C, D) each, in memory that is taken once for C positions."""

    def __init__(self, config: Config, batch: int, room: int, like: Tensor):
        shape = batch, config.num_key_heads, room, config.head_dim
        self.keys, self.values = like.new_zeros(shape), like.new_zeros(shape)  # (B, G, C, D), (B, G, C, D)
        self.length = 0  # how many positions hold something; set it back to forget the last ones

    def extend(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Write new ones (B, G, T, D) behind the old ones; returns views of all, (B, G, S, D) each."""
        start, self.length = self.length, self.length + key.shape[2]
        self.keys[:, :, start : self.length] = key
        self.values[:, :, start : self.length] = value
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]


def empty_cache(model: nn.Module, batch: int, room: int) -> list[Cache]:
    """A cache for each layer, with room for so many positions, of the model's type and device."""
    return [Cache(model.config, batch, room, model.token.weight.detach()) for _ in model.blocks]


def check_tokens(tokens: Tensor, vocabulary: int) -> None:
    """Raise ValueError unless all tokens are integers that index an embedding, and in the vocabulary."""
    if tokens.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"tokens of int64 are expected, given {tokens.dtype}: .long() converts them")
    least, most = (end.item() for end in tokens.aminmax())
    if least < 0 or most >= vocabulary:
        raise ValueError(f"tokens from 0 to {vocabulary - 1} are expected, given {least} to {most}")


def places(tokens: Tensor, config: Config, cache: list[Cache] | None) -> slice:
    """Where new tokens (B, T) stand. Raises ValueError if they are none, too many, or no tokens."""
    if tokens.ndim != 2 or not tokens.numel():
        raise ValueError(f"at least one token, integers (B, T), is expected, given {tuple(tokens.shape)}")
    if cache and len(cache[0].keys) != len(tokens):
        raise ValueError(f"a cache of {len(tokens)} texts is expected, given one of {len(cache[0].keys)}")
    start, room = (cache[0].length, cache[0].keys.shape[2]) if cache else (0, config.context)
    if start + tokens.shape[1] > min(room, config.context):
        given = f"context {config.context}, room for {room} and {start} + {tokens.shape[1]} positions"
        raise ValueError(f"no more positions than the context and the cache have are expected, given {given}")
    if tokens.shape[1] > 1 or not cache:  # a lone one after others is our own, and looking costs a tenth
        check_tokens(tokens, config.vocabulary)
    return slice(start, start + tokens.shape[1])


# --8<-- [end:cache]


# --8<-- [start:gpt2-block]
class GPT2Block(nn.Module):
    """LayerNorm, biases everywhere, positions in the embedding, an MLP of two matrices with GELU."""

    def __init__(self, config: Config):
        super().__init__()
        self.head_dim, self.window = config.head_dim, config.window
        width, keys = config.width, config.head_dim * config.num_key_heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width, config.eps), nn.LayerNorm(width, config.eps)
        self.to_query, self.to_out = nn.Linear(width, width), nn.Linear(width, width)
        self.to_key, self.to_value = nn.Linear(width, keys), nn.Linear(width, keys)
        self.up, self.down = nn.Linear(width, config.hidden), nn.Linear(config.hidden, width)

    def forward(self, x: Tensor, cache: Cache | None = None) -> Tensor:
        normed = self.norm_1(x)  # (B, T, W)
        query = heads(self.to_query(normed), self.head_dim)  # (B, H, T, D)
        key = heads(self.to_key(normed), self.head_dim)  # (B, G, T, D)
        value = heads(self.to_value(normed), self.head_dim)  # (B, G, T, D)
        if cache is not None:
            key, value = cache.extend(key, value)  # (B, G, S, D), (B, G, S, D)
        x = x + self.to_out(attend(query, key, value, self.window))  # (B, T, W)
        x = x + self.down(F.gelu(self.up(self.norm_2(x)), approximate="tanh"))  # (B, T, W)
        return x


# --8<-- [end:gpt2-block]


# --8<-- [start:llama-block]
class LlamaBlock(nn.Module):
    """RMSNorm, no biases, positions in queries and keys, an MLP of three matrices with a gate."""

    def __init__(self, config: Config):
        super().__init__()
        self.head_dim, self.window = config.head_dim, config.window
        width, hidden, keys = config.width, config.hidden, config.head_dim * config.num_key_heads
        self.norm_1, self.norm_2 = RMSNorm(width, config.eps), RMSNorm(width, config.eps)
        self.to_query, self.to_out = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.to_key, self.to_value = nn.Linear(width, keys, bias=False), nn.Linear(width, keys, bias=False)
        self.gate, self.up = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, cache: Cache | None = None) -> Tensor:
        normed = self.norm_1(x)  # (B, T, W)
        query = rotate(heads(self.to_query(normed), self.head_dim), cos, sin)  # (B, H, T, D)
        key = rotate(heads(self.to_key(normed), self.head_dim), cos, sin)  # (B, G, T, D)
        value = heads(self.to_value(normed), self.head_dim)  # (B, G, T, D)
        if cache is not None:
            key, value = cache.extend(key, value)  # (B, G, S, D), (B, G, S, D)
        x = x + self.to_out(attend(query, key, value, self.window))  # (B, T, W)
        normed = self.norm_2(x)  # (B, T, W)
        x = x + self.down(F.silu(self.gate(normed)) * self.up(normed))  # (B, T, W)
        return x


# --8<-- [end:llama-block]


# --8<-- [start:initialize]
def initialize(model: nn.Module) -> None:
    """GPT-2's first weights: standard deviation 0.02, and less for what adds to the residual stream."""
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            added = name.endswith(("to_out.weight", "down.weight"))  # two in each layer
            nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * len(model.blocks)) if added else 0.02)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
    if model.config.tied:
        model.head.weight = model.token.weight  # one matrix, read as rows and as columns


# --8<-- [end:initialize]


# --8<-- [start:gpt2]
class GPT2(nn.Module):
    """Learnt positions are added to the tokens once; then the blocks, a last norm, the head."""

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.token = nn.Embedding(config.vocabulary, config.width)
        self.position = nn.Embedding(config.context, config.width)
        self.blocks = nn.ModuleList(GPT2Block(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.width, config.eps)
        self.head = nn.Linear(config.width, config.vocabulary, bias=False)
        initialize(self)

    def forward(self, tokens: Tensor, cache: list[Cache] | None = None) -> Tensor:
        """Logits (B, T, V) of the token after each of tokens (B, T), which follow those in the cache."""
        place = places(tokens, self.config, cache)
        x = self.token(tokens) + self.position.weight[place]  # (B, T, W)
        for layer, block in enumerate(self.blocks):
            x = block(x, cache[layer] if cache else None)  # (B, T, W)
        logits = self.head(self.norm(x))  # (B, T, V)
        return logits


# --8<-- [end:gpt2]


# --8<-- [start:llama]
class Llama(nn.Module):
    """Nothing is added to the tokens; each layer turns queries and keys by frequencies theta (P,).

    YaRN makes both larger by a magnitude. Raises ValueError for frequencies that do not fit the heads.
    """

    def __init__(self, config: Config, theta: Tensor | None = None, magnitude: float = 1.0):
        super().__init__()
        self.config = config
        self.token = nn.Embedding(config.vocabulary, config.width)
        self.blocks = nn.ModuleList(LlamaBlock(config) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.width, config.eps)
        self.head = nn.Linear(config.width, config.vocabulary, bias=False)
        initialize(self)
        if theta is None:
            theta = inverse_frequencies(config.head_dim)  # (P,)
        elif theta.shape != (config.head_dim // 2,) or not theta.isfinite().all():
            given = f"{tuple(theta.shape)}: {theta}"
            raise ValueError(f"{config.head_dim // 2} finite frequencies are expected, given {given}")
        angle = angles(torch.arange(config.context), theta.double())  # (C, P)
        self.cos, self.sin = magnitude * angle.cos(), magnitude * angle.sin()  # (C, P), (C, P)

    def turns(self, place: slice | Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines (T, P) of some places, from float64 rounded once, to the type of x."""
        if self.cos.device != x.device:
            self.cos, self.sin = self.cos.to(x.device), self.sin.to(x.device)  # (C, P), (C, P)
        return self.cos[place].to(x), self.sin[place].to(x)

    def forward(self, tokens: Tensor, cache: list[Cache] | None = None) -> Tensor:
        """Logits (B, T, V) of the token after each of tokens (B, T), which follow those in the cache."""
        place = places(tokens, self.config, cache)
        x = self.token(tokens)  # (B, T, W)
        cos, sin = self.turns(place, x)  # (T, P), (T, P)
        for layer, block in enumerate(self.blocks):
            x = block(x, cos, sin, cache[layer] if cache else None)  # (B, T, W)
        logits = self.head(self.norm(x))  # (B, T, V)
        return logits


# --8<-- [end:llama]


# --8<-- [start:train]
def rate_factor(step: int, num_steps: int, warm_up: int) -> float:
    """What the learning rate is multiplied by at a step: a straight rise to 1, half a cosine down to 0.1."""
    if step < warm_up:
        return (step + 1) / warm_up
    progress = (step - warm_up) / max(1, num_steps - warm_up)
    return 0.1 + 0.9 * (1 + math.cos(math.pi * progress)) / 2


def train(model: nn.Module, codes: Tensor, num_steps: int, rate: float = 3e-3) -> list[float]:
    """Train on random windows of codes (N,), as long as the context, 4 a step. Returns losses in nats."""
    length = model.config.context
    if num_steps < 1 or codes.ndim != 1 or len(codes) <= length:
        given = f"{num_steps} steps, {tuple(codes.shape)} codes"
        raise ValueError(f"num_steps >= 1 and more than {length} codes are expected, given {given}")
    check_tokens(codes, model.config.vocabulary)
    device = codes.device
    generator = torch.Generator(device).manual_seed(0)
    matrices = [p for p in model.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if p.ndim != 2]  # gains and biases are not drawn to 0
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95), fused=True)
    warm_up = min(100, num_steps // 5)
    offsets, losses = torch.arange(length + 1, device=device), []  # (T + 1,), _
    for step in trange(num_steps, desc="train", mininterval=2):
        for group in optimizer.param_groups:
            group["lr"] = rate * rate_factor(step, num_steps, warm_up)
        start = torch.randint(len(codes) - length, (4, 1), generator=generator, device=device)  # (B, 1)
        window = codes[start + offsets]  # (B, T + 1)
        logits = model(window[:, :-1])  # (B, T, V)
        loss = F.cross_entropy(logits.flatten(0, 1), window[:, 1:].flatten())  # () nats for each token
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


# --8<-- [end:train]


# --8<-- [start:evaluate]
@torch.no_grad()
def bits_per_byte(model: nn.Module, codes: Tensor, stride: int = 256) -> float:
    """Mean bits for each of codes (N,) but the first, which see the context less a stride, or all before."""
    context = model.config.context
    if not 0 < stride <= context or len(codes) < 2:
        given = f"stride {stride}, {len(codes)} codes"
        raise ValueError(f"a stride from 1 to {context} and two codes are expected, given {given}")
    nats = 0.0
    for start in range(0, len(codes) - 1, stride):
        end = min(start + stride, len(codes) - 1)  # codes start + 1 to end are predicted in this round
        window = codes[max(0, end - context) : end + 1]  # (_,)
        logits = model(window[None, :-1])[0, start - end :]  # (_, V)
        nats += F.cross_entropy(logits, codes[start + 1 : end + 1], reduction="sum").item()
    return nats / (len(codes) - 1) / math.log(2)


# --8<-- [end:evaluate]


# --8<-- [start:generate]
def check_prompt(prompt: Tensor, num_new: int, config: Config) -> None:
    """Raise ValueError unless a prompt (B, T) and what is to come fit into the context."""
    if prompt.ndim != 2 or not prompt.numel() or num_new < 1:
        given = f"{tuple(prompt.shape)} and {num_new}"
        raise ValueError(
            f"a prompt (B, T) of one token or more, and num_new >= 1, are expected, given {given}"
        )
    if prompt.shape[1] + num_new > config.context:
        given = f"{prompt.shape[1]} and {num_new} new ones"
        raise ValueError(f"at most {config.context} tokens, the context, are expected, given {given}")
    check_tokens(prompt, config.vocabulary)


def check_logits(logits: Tensor) -> None:
    """Raise ValueError for NaN among logits, of which argmax is silent."""
    if logits.isnan().any():
        raise ValueError("logits that are numbers are expected, given NaN among them")


def likeliest(logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """The token (B, 1) with the largest of logits (B, V): greedy decoding, which draws nothing."""
    check_logits(logits)
    return logits.argmax(dim=-1, keepdim=True)


def drawn(logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """A token (B, 1) drawn with the model's own probabilities, from logits (B, V)."""
    check_logits(logits)
    return torch.multinomial(logits.softmax(dim=-1), 1, generator=generator)


@torch.no_grad()
def generate(
    model: nn.Module, prompt: Tensor, num_new: int, choose: Callable = likeliest, generator=None
) -> Tensor:
    """Continue prompts (B, T) by num_new tokens: (B, T + num_new). Each token is read once.

    choose makes of logits (B, V) the next tokens (B, 1); it is given the generator.
    """
    check_prompt(prompt, num_new, model.config)
    cache = empty_cache(model, len(prompt), prompt.shape[1] + num_new)
    tokens = [prompt]
    for _ in range(num_new):
        logits = model(tokens[-1], cache)[:, -1]  # (B, V)
        tokens.append(choose(logits, generator))
    return torch.cat(tokens, dim=1)


@torch.no_grad()
def generate_without_cache(model: nn.Module, prompt: Tensor, num_new: int) -> Tensor:
    """The same, greedily, reading the whole text again for each token: only to compare."""
    check_prompt(prompt, num_new, model.config)
    for _ in range(num_new):
        prompt = torch.cat([prompt, likeliest(model(prompt)[:, -1])], dim=1)  # (B, _)
    return prompt


# --8<-- [end:generate]


# --8<-- [start:names]
LLAMA_NAMES = {  # matrices of blocks, by parts of their paths: in transformers' Llama -> in that of this page
    "model.layers.": "blocks.",
    "self_attn.q_proj": "to_query",
    "self_attn.k_proj": "to_key",
    "self_attn.v_proj": "to_value",
    "self_attn.o_proj": "to_out",
    "mlp.gate_proj": "gate",
    "mlp.up_proj": "up",
    "mlp.down_proj": "down",
}


# --8<-- [end:names]


# --8<-- [start:main]
TRAIN_STEPS = 520
NUM_NEW = 300


def main() -> None:
    """Train a small Llama on bytes, let it write, and time it with and without a cache."""
    torch.set_num_threads(1)  # so small a network gains little from more, and loses much on a busy machine
    torch.manual_seed(0)
    model = Llama(Config(context=320, width=128, hidden=344, num_layers=3, num_heads=4))
    losses = train(model, text(), TRAIN_STEPS)
    held_out = text(held_out=True)[:20_000]  # (N,)
    print(f"{bits_per_byte(model.eval(), held_out):.2f} bits a byte on held-out text")
    prompt = as_bytes("Return the ")[None]  # (1, T)
    for way in (likeliest, drawn):
        written = generate(model, prompt, NUM_NEW, way, torch.Generator().manual_seed(1))  # (1, _)
        print(f"\n{way.__name__}:", bytes(written[0].tolist()).decode(errors="replace"))

    for way in (generate_without_cache, generate):
        start = time.perf_counter()
        tokens = way(model, prompt, NUM_NEW)  # (1, _)
        print(f"{way.__name__}: {NUM_NEW / (time.perf_counter() - start):.0f} tokens a second")
    print("the same tokens:", tokens.equal(generate_without_cache(model, prompt, NUM_NEW)))
    plt.plot([loss / math.log(2) for loss in losses])
    plt.xlabel("step")
    plt.ylabel("training loss, bits a byte")
    plt.savefig("loss.png")
    plt.close()
    print("loss by step: loss.png")


if __name__ == "__main__":
    main()
# --8<-- [end:main]
