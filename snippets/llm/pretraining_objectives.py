"""Inputs and targets from plain text by five objectives (Raffel et al. 2019, arXiv 1910.10683, section 3.3;
Tay et al. 2022, arXiv 2205.05131), and trainings that cost the same.

Shapes: B windows or pairs of a batch, T tokens of a window, I tokens of an input, O tokens of a target, N
tokens of a text.
Tokens are bytes, as in ByT5 (Xue et al. 2021, arXiv 2105.13626).
"""

# --8<-- [start:imports]
from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

# --8<-- [end:imports]
from snippets.data.text import text
from snippets.llm.span_corruption import corrupt_batch, rebuild, sentinel_ids
from snippets.llm.t5 import T5, Config, loss

# --8<-- [start:tokens]
PAD = 0
END = 1
BYTES = 3  # the first byte's id; 2 is T5's unknown token, which bytes never need
VOCABULARY = 384  # 3 + 256 bytes + 125 others, as in ByT5
SENTINELS = sentinel_ids(VOCABULARY, 122)
MODES = {"[R]": 259, "[S]": 260, "[X]": 261}  # the three that are left, for UL2


def decode(tokens: list[int]) -> str:
    """The text of bytes' ids. The end is left out, sentinels are numbered: ⟨0⟩, ⟨1⟩, and so on."""
    parts = [
        bytes([token - BYTES]) if BYTES <= token < 259 else f"⟨{VOCABULARY - 1 - token}⟩".encode()
        for token in tokens
        if token not in (PAD, END)
    ]
    return b"".join(parts).decode("utf-8", "replace")


# --8<-- [end:tokens]


# --8<-- [start:objectives]
def with_end(tokens: Tensor) -> Tensor:
    """Rows (B, T) with the end behind each: (B, T + 1)."""
    return F.pad(tokens, (0, 1), value=END)


def span_corruption(
    tokens: Tensor, rng: np.random.Generator, density: float = 0.15, mean_span: float = 3.0
) -> tuple[Tensor, Tensor]:
    """T5's objective: inputs (B, I) and targets (B, O) of windows tokens (B, T)."""
    return corrupt_batch(tokens, density, mean_span, SENTINELS, END, rng)


def bert_style(tokens: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """15 % of the tokens, each by itself: 90 % of them masked, 10 % made any byte. The target is the window.

    Windows (B, T) to inputs (B, T + 1) and targets (B, T + 1).
    """
    chosen = torch.from_numpy(rng.random(tokens.shape) < 0.15)  # (B, T)
    random = torch.from_numpy(rng.random(tokens.shape) < 0.1)  # (B, T)
    other = torch.from_numpy(rng.integers(BYTES, 259, tokens.shape))  # (B, T)
    source = tokens.masked_fill(chosen, SENTINELS[0])  # (B, T) one and the same mask everywhere
    source = torch.where(chosen & random, other, source)  # (B, T)
    return with_end(source), with_end(tokens)


def prefix_lm(tokens: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """The beginning of each window (B, T) is the input (B, I), the rest the target (B, O).

    All windows of a batch are cut at the same place, so that none needs padding.
    """
    cut = int(rng.integers(1, tokens.shape[1]))
    return with_end(tokens[:, :cut]), with_end(tokens[:, cut:])


def deshuffle(tokens: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """The tokens (B, T) in any order; the target has the right one: (B, T + 1) and (B, T + 1)."""
    order = torch.from_numpy(rng.random(tokens.shape)).argsort(dim=1)  # (B, T)
    return with_end(tokens.gather(1, order)), with_end(tokens)


# --8<-- [end:objectives]


# --8<-- [start:ul2]
REGULAR = [(0.15, 3), (0.15, 8)]  # density, mean span
EXTREME = [(0.5, 3), (0.5, 8), (0.15, 32), (0.5, 32)]


def ul2(tokens: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A mixture in the manner of UL2: one of three modes for each batch, named by a token before the input.

    tokens (B, T) are windows. [R] is regular span corruption, [X] hides long spans or half of the window, [S]
    all behind a prefix.
    """
    mode = ["[R]", "[S]", "[X]"][int(rng.integers(3))]
    if mode == "[S]":
        source, target = prefix_lm(tokens, rng)  # (B, I), (B, O)
    else:
        ways = REGULAR if mode == "[R]" else EXTREME
        density, mean_span = ways[int(rng.integers(len(ways)))]
        source, target = span_corruption(tokens, rng, density, mean_span)  # (B, I), (B, O)
    return F.pad(source, (1, 0), value=MODES[mode]), target


# --8<-- [end:ul2]


# --8<-- [start:cost]
def multiplications(config: Config, source: int, target: int) -> int:
    """Multiplications of a forward pass over an input of `source` and a target of `target` tokens.

    Norms, softmax and sums are left out. All scores of the decoder count, though half of them are hidden.
    """
    inner = config.num_heads * config.head_width
    projection = config.width * inner
    mlp = (3 if config.gated else 2) * config.width * config.hidden
    encoder = source * (4 * projection + mlp) + 2 * source * source * inner
    decoder = target * (6 * projection + mlp) + source * 2 * projection
    decoder += 2 * target * (target + source) * inner
    words = target * config.width * config.vocabulary
    return config.num_layers * encoder + config.decoder_layers * decoder + words


# --8<-- [end:cost]


# --8<-- [start:fit]
def rate_factor(share: float) -> float:
    """What the rate is multiplied by after a share of the budget: up to 1 in a tenth, then down to 0."""
    return min(10 * share, (1 - share) / 0.9)


def fit(
    model: T5, batch: Callable[[], tuple[Tensor, Tensor, Tensor]], budget: float, rate: float
) -> list[tuple[float, float]]:
    """Train until so many multiplications of forward passes are spent. Returns those and the loss, by step.

    batch() gives inputs, which of them are real, and targets with IGNORED for padding.
    """
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), fused=True)
    spent, history = 0.0, []
    model.train()
    with tqdm(total=budget, desc="train", mininterval=5, unit_scale=True) as bar:
        while spent < budget:
            source, real, target = batch()  # (B, _), (B, _), (B, _)
            cost = len(source) * multiplications(model.config, source.shape[1], target.shape[1])
            for group in optimizer.param_groups:
                group["lr"] = rate * rate_factor(min(1.0, (spent + cost / 2) / budget))
            value = loss(model, source, real, target)  # ()
            optimizer.zero_grad()
            value.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            spent += cost
            history.append((spent, value.item()))
            bar.update(cost)
    model.eval()
    return history


# --8<-- [end:fit]


# --8<-- [start:windows]
Objective = Callable[[Tensor, np.random.Generator], tuple[Tensor, Tensor]]


def batches(
    codes: Tensor, length: int, rows: int, objective: Objective, rng: np.random.Generator
) -> Callable[[], tuple[Tensor, Tensor, Tensor]]:
    """What `fit` asks for: windows of `length` from random places of a text's bytes codes (N,), as pairs."""
    if len(codes) <= length:
        raise ValueError(f"a text of more than {length} tokens is expected, given {len(codes)}")

    def batch() -> tuple[Tensor, Tensor, Tensor]:
        at = torch.from_numpy(rng.integers(0, len(codes) - length, (rows, 1)))  # (B, 1)
        tokens = codes[at + torch.arange(length)] + BYTES  # (B, T)
        source, target = objective(tokens, rng)  # (B, I), (B, O)
        real = torch.ones_like(source, dtype=torch.bool)  # (B, I)
        return source, real, target

    return batch


# --8<-- [end:windows]


# --8<-- [start:greedy]
@torch.no_grad()
def write(model: T5, source: Tensor, most: int) -> list[list[int]]:
    """The likeliest token, again and again, for each input (B, I): at most so many, up to the end."""
    memory = model.encode(source, source != PAD)  # (B, I, _)
    written = torch.full((len(source), 1), model.config.start)  # (B, 1)
    done = torch.zeros(len(source), dtype=torch.bool)  # (B,)
    while written.shape[1] <= most and not done.all():
        best = model.decode(written, memory, source != PAD)[:, -1].argmax(dim=-1)  # (B,)
        written = torch.cat([written, best.masked_fill(done, PAD)[:, None]], dim=1)  # (B, _)
        done |= best == END  # (B,)
    rows = written[:, 1:].tolist()
    return [row[: row.index(END)] if END in row else row for row in rows]


# --8<-- [end:greedy]


# --8<-- [start:main]
BUDGET = 8e10
SMALL = Config(VOCABULARY, 64, 16, 128, 2, 2, 4, dropout=0.0, gated=True, tied=False, scaled=False)


def main() -> None:
    """Pre-train a small T5 on Python's own prose by span corruption, and let it fill gaps."""
    torch.set_num_threads(1)  # so small a network gains nothing from more
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = T5(SMALL)
    history = fit(model, batches(text(), 64, 8, span_corruption, rng), BUDGET, 5e-3)
    print(f"{len(history)} steps, loss from {history[0][1]:.2f} to {history[-1][1]:.2f} nats")
    held_out = text(held_out=True)  # (_,)
    batch = batches(held_out, 64, 3, span_corruption, rng)
    source, _, target = batch()  # (B, I), (B, O)
    for read, right, row in zip(source.tolist(), target.tolist(), write(model, source, 20), strict=True):
        print("read    ", repr(decode(read)))
        print("right   ", repr(decode(right)))
        print("written ", repr(decode(row)))
        print("rebuilt ", repr(decode(rebuild(read[:-1], right[:-1], SENTINELS))))
    means = [np.mean([value for _, value in history[at : at + 25]]) for at in range(0, len(history), 25)]
    plt.plot(range(0, len(history), 25), means)
    plt.xlabel("step")
    plt.ylabel("loss, nats a token of the target")
    plt.savefig("loss.png")
    plt.close()
    print("loss by step: loss.png")


if __name__ == "__main__":
    main()
# --8<-- [end:main]
