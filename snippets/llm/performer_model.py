"""A small model over bytes or grey levels with exact or a Performer's attention, and the page's program.

Shapes: B batch, T positions, H heads, D features of a head, W width, V kinds of symbols, N in all.
"""

# --8<-- [start:imports]
from collections.abc import Iterator

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import trange

# --8<-- [end:imports]
from snippets.data.text import text
from snippets.llm.performer import (
    PerformerAttention,
    PositiveFeatures,
    causal_attention,
    orthogonal_rows,
    positive_features,
    step,
)


# --8<-- [start:exact]
class ExactAttention(nn.Module):
    """Causal softmax attention, with nothing to learn or to draw."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Means (B, H, T, D) for query, key and value (B, H, T, D)."""
        mean = F.scaled_dot_product_attention(query, key, value, is_causal=True)  # (B, H, T, D)
        return mean


# --8<-- [end:exact]


# --8<-- [start:model]
class Layer(nn.Module):
    """Attention, then a two-layer network, each on normalised features and added to them."""

    def __init__(self, width: int, num_heads: int, attention: nn.Module):
        super().__init__()
        self.num_heads, self.attention = num_heads, attention
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_qkv, self.to_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, T, W) of features x (B, T, W)."""
        qkv = self.to_qkv(self.norm_1(x)).unflatten(-1, (3, self.num_heads, -1))  # (B, T, 3, H, D)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # (B, H, T, D), (B, H, T, D), (B, H, T, D)
        mixed = self.attention(query, key, value).transpose(1, 2).flatten(2)  # (B, T, W) heads side by side
        x = x + self.to_out(mixed)  # (B, T, W)
        x = x + self.mlp(self.norm_2(x))  # (B, T, W)
        return x


class SmallModel(nn.Module):
    """Which symbol comes next? One attention for each layer; where symbols stand is learnt."""

    def __init__(self, attentions: list[nn.Module], num_symbols: int, length: int, width: int = 128):
        super().__init__()
        self.symbols, self.places = nn.Embedding(num_symbols, width), nn.Embedding(length, width)
        nn.init.normal_(self.symbols.weight, std=0.02)
        nn.init.normal_(self.places.weight, std=0.02)
        self.layers = nn.ModuleList(Layer(width, 4, attention) for attention in attentions)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, num_symbols)

    def forward(self, codes: Tensor) -> Tensor:
        """Logits (B, T, V) of the symbol that follows each of codes (B, T)."""
        x = self.symbols(codes) + self.places.weight[: codes.shape[1]]  # (B, T, W)
        for layer in self.layers:
            x = layer(x)  # (B, T, W)
        logits = self.head(self.norm(x))  # (B, T, V)
        return logits


def performers(num_layers: int, num_features: int, dim: int, seed: int = 0) -> list[nn.Module]:
    """One Performer attention for each layer, each with directions of its own."""
    generator = torch.Generator().manual_seed(seed)
    draws = [orthogonal_rows(num_features, dim, generator) for _ in range(num_layers)]
    return [PerformerAttention(PositiveFeatures(omega)) for omega in draws]


def replace_attention(model: SmallModel, attentions: list[nn.Module]) -> None:
    """Put other attentions into a model, one for each layer. No weight changes."""
    for layer, attention in zip(model.layers, attentions, strict=True):
        layer.attention = attention


# --8<-- [end:model]


# --8<-- [start:data]
def windows(codes: Tensor, length: int, batch: int, seed: int) -> Iterator[Tensor]:
    """Random windows (B, length + 1) of codes (N,), without end."""
    if len(codes) <= length:
        raise ValueError(f"more than {length} codes are expected, given {len(codes)}")
    generator = torch.Generator().manual_seed(seed)
    offsets = torch.arange(length + 1)  # (_,)
    while True:
        start = torch.randint(len(codes) - length, (batch, 1), generator=generator)  # (B, 1)
        yield codes[start + offsets]


def rows_of_pixels(images: Tensor) -> Tensor:
    """Pictures (N, 1, 8, 8) in [-1, 1] as rows (N, 65) of symbols: 17 for the start, then 64 grey levels."""
    levels = ((images.flatten(1) + 1) * 8).round().long()  # (N, 64) from 0 to 16
    rows = F.pad(levels, (1, 0), value=17)  # (N, 65)
    return rows


def picked(rows: Tensor, batch: int, seed: int) -> Iterator[Tensor]:
    """Random rows (B, _) of rows (N, _), without end."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield rows[torch.randint(len(rows), (batch,), generator=generator)]


# --8<-- [end:data]


# --8<-- [start:train]
def loss_of(model: nn.Module, window: Tensor) -> Tensor:
    """Mean loss () in nats of all symbols of window (B, T + 1) but the first, each from those before it."""
    logits = model(window[:, :-1])  # (B, T, V)
    return F.cross_entropy(logits.flatten(0, 1), window[:, 1:].flatten())


def train(model: nn.Module, batches: Iterator[Tensor], num_steps: int, rate: float) -> list[float]:
    """Train the model in place; returns the loss of each step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=num_steps + 1, pct_start=0.1)
    losses = []
    for _, window in zip(trange(num_steps, desc="train", mininterval=2), batches, strict=False):
        loss = loss_of(model, window)  # ()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


# --8<-- [end:train]


# --8<-- [start:main]
TRAIN_STEPS = 150
FEATURES = [16, 64, 256, 1024]


def main() -> None:
    """Draw the estimate's error, compare the forms of attention, and train a Performer on text."""
    torch.set_num_threads(1)
    torch.manual_seed(0)  # the same first weights each time
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 200, 16, generator=generator) * 0.15  # (200, 16), (200, 16)
    kernel, errors = torch.exp(x @ y.T), []  # (200, 200), _
    for count in FEATURES:
        omega = orthogonal_rows(count, 16, generator)  # (_, 16)
        guess = positive_features(x, omega) @ positive_features(y, omega).T  # (200, 200)
        errors.append(((guess - kernel).norm() / kernel.norm()).item())
        print(f"{count:4d} features: the kernel is off by {errors[-1]:.1%}")
    query, key, value = torch.randn(3, 1, 2, 300, 16, generator=generator)  # _, _, _ each (1, 2, 300, 16)
    attention = PerformerAttention(PositiveFeatures(orthogonal_rows(40, 16, generator)))
    empty = attention.empty(value)  # (1, 2, 40, 17)
    whole, _ = causal_attention(attention.features, query, key, value, empty)  # (1, 2, 300, 16)
    state, one_by_one = empty.clone(), []  # (1, 2, 40, 17), _
    for t in range(300):
        now = (x[:, :, t : t + 1] for x in (query, key, value))
        one_by_one.append(step(attention.features, *now, state))
    apart = (torch.cat(one_by_one, dim=2) - whole).abs().max()  # ()
    print(f"in chunks and one by one agree: {bool(apart < 1e-4)}")
    model = SmallModel(performers(2, 128, 32), num_symbols=256, length=256)
    losses = train(model, windows(text(), 256, batch=8, seed=0), TRAIN_STEPS, rate=2e-3)
    held_out = next(windows(text(held_out=True), 256, batch=32, seed=1))  # (32, 257)
    with torch.no_grad():
        print(f"held-out text: {loss_of(model.eval(), held_out):.2f} nats a byte")
    panels = plt.figure(figsize=(8, 3), layout="constrained").subplots(1, 2)
    panels[0].loglog(FEATURES, errors, marker="o")
    panels[0].set(xlabel="random features", ylabel="relative error of the kernel")
    mean = [sum(losses[i : i + 10]) / len(losses[i : i + 10]) for i in range(0, len(losses), 10)]
    panels[1].plot(range(0, len(losses), 10), mean)
    panels[1].set(xlabel="training step", ylabel="nats a byte")
    plt.savefig("performer.png")
    plt.close()
    print("error and training loss: performer.png")


if __name__ == "__main__":
    main()
# --8<-- [end:main]
