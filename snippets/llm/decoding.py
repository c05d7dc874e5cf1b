"""From logits to text, fast: ways to draw a token (top-p: 1904.09751, min-p: 2407.01082), weights stored by
input, a compiled step, and speculative decoding (Leviathan et al., 2211.17192; Chen et al., 2302.01318).

Shapes: B texts of a batch, T new positions, V vocabulary, W width, H heads of queries, G of keys and values,
D features of a head, P turning pairs, F hidden features, C places of a cache, K drafted tokens, N bytes of a
text, L tokens that a draft has read, O outputs and I inputs of a matrix.
"""

import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass

# --8<-- [start:imports]
import numpy as np

# --8<-- [end:imports]
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snippets.data.text import as_bytes, text
from snippets.llm.decoder_only import (
    Cache,
    Config,
    Llama,
    check_logits,
    check_prompt,
    check_tokens,
    empty_cache,
    generate,
    likeliest,
    rotate,
    train,
)


# --8<-- [start:samplers]
def temper(logits: Tensor, temperature: float) -> Tensor:
    """Logits (B, V) over the temperature, which is above 0."""
    if not temperature > 0:
        raise ValueError(f"a temperature above 0 is expected, given {temperature}")
    sharpened = logits / temperature  # (B, V)
    return sharpened


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """All but the k largest logits (B, V) become -inf; ties with the k-th stay."""
    if k < 1:
        raise ValueError(f"k >= 1 is expected, given {k}")
    least = logits.topk(min(k, logits.shape[-1]), dim=-1).values[:, -1:]  # (B, 1)
    kept = logits.masked_fill(logits < least, -math.inf)  # (B, V)
    return kept


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the fewest logits (B, V) whose probabilities add up to p or more (nucleus, 1904.09751)."""
    if not 0 < p <= 1:
        raise ValueError(f"a p above 0 and up to 1 is expected, given {p}")
    rising, order = logits.sort(dim=-1)  # (B, V), (B, V)
    drop = rising.softmax(dim=-1).cumsum(dim=-1) <= 1 - p  # (B, V) the rest from here on still has p
    drop[:, -1] = False  # the likeliest always stays
    kept = logits.masked_fill(drop.scatter(1, order, drop), -math.inf)  # (B, V) back in the old order
    return kept


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """Keep logits (B, V) whose probability is at least p times the largest one (2407.01082)."""
    if not 0 <= p <= 1:
        raise ValueError(f"a p from 0 to 1 is expected, given {p}")
    probability = logits.softmax(dim=-1)  # (B, V)
    few = probability < p * probability.amax(dim=-1, keepdim=True)  # (B, V)
    kept = logits.masked_fill(few, -math.inf)  # (B, V)
    return kept


# --8<-- [end:samplers]


# --8<-- [start:sampling]
@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn. Temperature 0 takes the likeliest one."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self):
        if not self.temperature >= 0:
            raise ValueError(f"a temperature of at least 0 is expected, given {self.temperature}")
        flat = torch.zeros(1, 2)  # (1, V) the others are checked where they are used, so use them
        keep_min_p(
            keep_top_p(keep_top_k(flat, 1 if self.top_k is None else self.top_k), self.top_p), self.min_p
        )

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities (B, V) from which the next token is drawn, in the order of transformers."""
        check_logits(logits)
        if self.temperature == 0:
            return F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits)
        logits = temper(logits, self.temperature)  # (B, V)
        if self.top_k is not None:
            logits = keep_top_k(logits, self.top_k)  # (B, V)
        if self.top_p != 1:
            logits = keep_top_p(logits, self.top_p)  # (B, V)
        if self.min_p != 0:
            logits = keep_min_p(logits, self.min_p)  # (B, V)
        return logits.softmax(dim=-1)

    def draw(self, logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The next token (B, 1) after logits (B, V). Raises ValueError for NaN."""
        if self.temperature == 0:
            return likeliest(logits)
        return torch.multinomial(self.probabilities(logits), 1, generator=generator)


GREEDY = Sampling(temperature=0.0)
# --8<-- [end:sampling]


# --8<-- [start:storage]
def store_by_input(model: nn.Module) -> None:
    """Lay matrices out in memory by columns, which MKL reads faster for one text. Save the model before."""
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data = parameter.data.T.contiguous().T  # _ the same shape


# --8<-- [end:storage]


# --8<-- [start:fast]
def matvec(weight: Tensor, x: Tensor) -> Tensor:
    """weight (O, I) times x (I,): (O,). Compiled, it is one loop that reads each weight once."""
    y = (weight * x).sum(dim=-1)  # (O,)
    return y


def fast_step(model: Llama, token: Tensor, place: Tensor, cache: list[Cache]) -> Tensor:
    """Logits (V,) after one token (1,) at its place (1,). Shapes are the same at each step: compile it."""
    config = model.config
    x = model.token.weight[token][0]  # (W,)
    cos, sin = model.turns(place, x)  # (1, P), (1, P)
    seen = torch.arange(cache[0].keys.shape[2], device=x.device) <= place  # (C,) the rest is not written yet
    for block, one in zip(model.blocks, cache, strict=True):
        normed = block.norm_1(x)  # (W,)
        query = matvec(block.to_query.weight, normed).view(config.num_heads, -1)  # (H, D)
        key = matvec(block.to_key.weight, normed).view(config.num_key_heads, -1)  # (G, D)
        value = matvec(block.to_value.weight, normed).view(config.num_key_heads, -1)  # (G, D)
        one.keys[:, :, place] = rotate(key, cos, sin)[None, :, None]  # write first,
        one.values[:, :, place] = value[None, :, None]
        keys, values = one.keys[0], one.values[0]  # (G, C, D), (G, C, D) and take views after it
        rows = rotate(query, cos, sin).unflatten(0, (config.num_key_heads, -1))  # (G, _, D)
        score = rows @ keys.transpose(1, 2) / math.sqrt(config.head_dim)  # (G, _, C)
        weight = score.masked_fill(~seen, -math.inf).softmax(dim=-1)  # (G, _, C)
        x = x + matvec(block.to_out.weight, (weight @ values).flatten())  # (W,)
        normed = block.norm_2(x)  # (W,)
        hidden = F.silu(matvec(block.gate.weight, normed)) * matvec(block.up.weight, normed)  # (F,)
        x = x + matvec(block.down.weight, hidden)  # (W,)
    logits = matvec(model.head.weight, model.norm(x))  # (V,)
    return logits


@torch.no_grad()
def generate_fast(
    model: Llama, prompt: Tensor, num_new: int, step: Callable, choose: Callable = likeliest, generator=None
) -> Tensor:
    """As `generate`, for one prompt (1, T), with a compiled fast_step."""
    check_prompt(prompt, num_new, model.config)
    if len(prompt) != 1 or model.config.window is not None:
        given = f"{len(prompt)} and {model.config.window}"
        raise ValueError(f"one text and a model without a window are expected, given {given}")
    room = -(-(prompt.shape[1] + num_new) // 128) * 128  # few sizes, since a compiler likes fixed ones
    cache = empty_cache(model, 1, room)
    token = choose(model(prompt, cache)[:, -1], generator)  # (1, 1)
    tokens = [prompt, token]
    for place in torch.arange(prompt.shape[1], prompt.shape[1] + num_new - 1, device=prompt.device):
        token = choose(step(model, token[0], place[None], cache)[None], generator)  # (1, 1)
        tokens.append(token)
    return torch.cat(tokens, dim=1)


# --8<-- [end:fast]


# --8<-- [start:accept]
def accept(target: Tensor, draft: Tensor, drafted: Tensor, generator=None) -> Tensor:
    """Those of drafted (K,) that may stay, and one more token (Algorithm 1 of Leviathan et al.).

    drafted[i] was drawn from row i of draft (K, V); target (K + 1, V) are the probabilities that are wanted.
    """
    if target.shape != (len(drafted) + 1, draft.shape[-1]) or draft.shape[0] != len(drafted):
        given = f"{tuple(target.shape)}, {tuple(draft.shape)}, {tuple(drafted.shape)}"
        raise ValueError(f"target (K + 1, V), draft (K, V) and drafted (K,) are expected, given {given}")
    if len(drafted):
        check_tokens(drafted, draft.shape[1])
    here = torch.arange(len(drafted), device=drafted.device)  # (K,)
    ratio = target[here, drafted] / draft[here, drafted]  # (K,)
    chance = torch.rand(len(drafted), generator=generator, device=ratio.device)  # (K,)
    kept = int((chance < ratio).long().cumprod(dim=0).sum())  # up to the first one that is refused
    wanted = target[kept]  # (V,)
    if kept < len(drafted):
        missing = (wanted - draft[kept]).clamp(min=0)  # (V,) what the draft gives too rarely
        wanted = missing if missing.any() else wanted  # (V,) equal but for rounding
    last = torch.multinomial(wanted, 1, generator=generator)  # (1,)
    return torch.cat([drafted[:kept], last])


# --8<-- [end:accept]


# --8<-- [start:network-draft]
class NetworkDraft:
    """Tokens drafted by a smaller network, one after the other."""

    def __init__(self, model: nn.Module, sampling: Sampling):
        self.model, self.sampling = model, sampling
        self.cache = empty_cache(model, 1, model.config.context)
        self.read = torch.zeros(1, 0, dtype=torch.int64)  # (1, L) what the cache holds

    @torch.no_grad()
    def __call__(self, tokens: Tensor, count: int, generator=None) -> tuple[Tensor, Tensor]:
        """Draft after tokens (1, T). Returns what was drawn, (K,), and rows, (K, V), it was drawn from."""
        known, rows = min(self.read.shape[1], tokens.shape[1] - 1), []
        same = (self.read[0, :known] == tokens[0, :known]).long().cumprod(dim=0).sum()  # ()
        for one in self.cache:
            one.length = min(one.length, int(same))  # forget what was refused
        self.read = tokens  # (1, _)
        for _ in range(count):
            logits = self.model(self.read[:, self.cache[0].length :], self.cache)[0, -1:]  # (1, V)
            rows.append(self.sampling.probabilities(logits))
            token = torch.multinomial(rows[-1], 1, generator=generator)  # (1, 1)
            self.read = torch.cat([self.read, token], dim=1)  # (1, _)
        return self.read[0, tokens.shape[1] :], torch.cat(rows)


# --8<-- [end:network-draft]


# --8<-- [start:counted-draft]
class CountedDraft:
    """Tokens drafted from what followed the last few bytes in a text, codes (N,): no network at all.

    Each order takes a discount from its counts and gives it to the next shorter one.
    """

    def __init__(self, codes: Tensor, sampling: Sampling, order: int = 5, discount: float = 0.75):
        if not 1 <= order <= 7 or codes.ndim != 1 or len(codes) < order:
            given = f"order {order} and {tuple(codes.shape)}"
            raise ValueError(f"an order from 1 to 7 and more bytes (N,) are expected, given {given}")
        check_tokens(codes, 256)
        self.sampling, self.discount, self.tables = sampling, discount, []
        values, grams = codes.numpy().astype(np.int64), 0  # _, _
        for n in range(order):  # an n-gram is an integer in base 256
            grams = values if n == 0 else 256 * grams[:-1] + values[n:]  # _
            self.tables.append(np.unique(grams, return_counts=True))

    def row(self, past: list[int]) -> np.ndarray:
        """Probabilities (256,) of the byte after the last ones."""
        probability, context = np.full(256, 1 / 256), 0
        for n, (grams, counts) in enumerate(self.tables):
            if n > len(past):
                break
            context += past[-n] * 256 ** (n - 1) if n else 0
            first, end = np.searchsorted(grams, (256 * context, 256 * (context + 1)))
            if first == end:  # nothing followed this context, and so nothing a longer one
                break
            count, total = counts[first:end], counts[first:end].sum()
            probability *= self.discount * (end - first) / total
            probability[grams[first:end] % 256] += (count - self.discount) / total
        return probability

    def __call__(self, tokens: Tensor, count: int, generator=None) -> tuple[Tensor, Tensor]:
        """Draft after tokens (1, T). Returns what was drawn, (K,), and rows, (K, V), it was drawn from."""
        past, rows = tokens[0, -len(self.tables) :].tolist(), []
        for _ in range(count):
            logits = torch.from_numpy(self.row(past)).log()  # (V,)
            rows.append(self.sampling.probabilities(logits.float()[None])[0])
            past.append(int(torch.multinomial(rows[-1], 1, generator=generator)))
        return torch.tensor(past[-count:]), torch.stack(rows)


# --8<-- [end:counted-draft]


# --8<-- [start:speculate]
@torch.no_grad()
def speculate(
    pair: tuple[nn.Module, Callable],
    prompt: Tensor,
    num_new: int,
    sampling: Sampling,
    num_drafted: int = 4,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, int, int]:
    """Continue one text (1, T) as the model pair[0] would, with tokens drafted by pair[1].

    Returns the tokens (1, T + num_new), how many were drafted, and how many of these stayed.
    """
    model, draft = pair
    check_prompt(prompt, num_new, model.config)
    if len(prompt) != 1 or num_drafted < 1:
        raise ValueError(f"one text and num_drafted >= 1 are expected, given {len(prompt)} and {num_drafted}")
    cache = empty_cache(model, 1, prompt.shape[1] + num_new)
    tokens, end, drafts, stayed = prompt, prompt.shape[1] + num_new, 0, 0  # (1, T), _, _, _
    while (length := tokens.shape[1]) < end:
        drafted, proposals = tokens[0, :0], torch.empty(0, model.config.vocabulary)  # (_,), (_, V)
        if count := min(num_drafted, end - length - 1):  # none before the last token
            drafted, proposals = draft(tokens, count, generator)  # (_,), (_, _)
        unread = torch.cat([tokens[:, cache[0].length :], drafted[None]], dim=1)  # (1, _)
        target = sampling.probabilities(model(unread, cache)[0, -count - 1 :])  # (_, V) all at once
        chosen = accept(target, proposals, drafted, generator)  # (_,)
        tokens = torch.cat([tokens, chosen[None]], dim=1)  # (1, _)
        drafts, stayed = drafts + count, stayed + len(chosen) - 1
        for one in cache:
            one.length = min(one.length, tokens.shape[1] - 1)  # forget what was refused
    return tokens, drafts, stayed


# --8<-- [end:speculate]


# --8<-- [start:main]
TRAIN_STEPS = 520
NUM_NEW = 300


def main() -> None:
    """Train a small Llama on bytes, draw from it in several ways, and time three loops."""
    torch.set_num_threads(1)  # so small a network gains little from more, and loses much on a busy machine
    torch.manual_seed(0)
    model = Llama(Config(context=320, width=128, hidden=344, num_layers=3, num_heads=4))
    train(model, text(), TRAIN_STEPS)
    model.eval()
    prompt = as_bytes("Return the ")[None]  # (1, T)
    for sampling in (Sampling(), Sampling(temperature=0.6), Sampling(temperature=1.0, min_p=0.1)):
        generator = torch.Generator().manual_seed(1)
        written = generate(model, prompt, 120, sampling.draw, generator)  # (1, _)
        print(f"{sampling}:", " ".join(bytes(written[0].tolist()).decode(errors="replace").split()))

    draft = CountedDraft(text(), GREEDY)
    ways = {
        "plain": lambda: generate(model, prompt, NUM_NEW),
        "drafted": lambda: speculate((model, draft), prompt, NUM_NEW, GREEDY)[0],
    }
    if shutil.which("g++"):  # torch.compile makes C++ on a CPU
        step = torch.compile(fast_step, dynamic=False)
        ways["compiled"] = lambda: generate_fast(model, prompt, NUM_NEW, step)
        ways["compiled"]()  # compiles now, outside of the clock
    for name, way in ways.items():
        start = time.perf_counter()
        tokens = way()  # (1, _)
        print(f"{name:>8}: {NUM_NEW / (time.perf_counter() - start):6.0f} tokens a second, greedy")
    print("the same tokens:", tokens.equal(generate(model, prompt, NUM_NEW)))


if __name__ == "__main__":
    main()
# --8<-- [end:main]
