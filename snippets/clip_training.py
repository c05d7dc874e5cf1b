"""CLIP's training: the loop, the loss over several processes, and a large batch in little memory (GradCache).

Gao et al. 2021, arXiv 2101.06983.

Shapes: B pictures of a batch, C channels, S pixels of a side, M texts, T tokens, E features of the embedding,
N rows of all processes.
"""

# --8<-- [start:imports]
import math
from collections.abc import Callable

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

# --8<-- [end:imports]
from snippets.clip import Clip, clip_loss, similarities


# --8<-- [start:optimizer]
def adamw(model: nn.Module, rate: float) -> torch.optim.AdamW:
    """AdamW with decay on matrices alone: gains, biases and the scale are not pulled towards 0."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    free = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": free, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, rate, betas=(0.9, 0.98), eps=1e-6)


def portion(step: int, steps: int) -> float:
    """Of the highest rate: it rises over the first tenth of the steps, and falls as a cosine does."""
    warm = min((step + 1) / max(steps // 10, 1), 1.0)
    return warm * (1 + math.cos(math.pi * step / steps)) / 2


# --8<-- [end:optimizer]


# --8<-- [start:train]
def train(model: Clip, draw: Callable, steps: int, rate: float = 2e-3) -> list[float]:
    """Train on what draw() returns: B pictures, and tokens of M texts, of which the first B are theirs.

    Returns the losses.
    """
    optimizer, losses = adamw(model, rate), []
    for step in tqdm(range(steps)):
        for group in optimizer.param_groups:
            group["lr"] = rate * portion(step, steps)
        pictures, tokens = draw()  # (B, C, S, S), (M, _)
        loss = clip_loss(model(pictures, tokens))  # ()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.scale.clamp_(max=math.log(100))  # a logit is at most 100
        losses.append(loss.item())
    return losses


# --8<-- [end:train]


# --8<-- [start:gather]
class Gather(torch.autograd.Function):
    """Rows of all processes, in their order. A row's gradient is the sum of what all processes say of it."""

    @staticmethod
    def forward(ctx, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        total = gradient.clone()  # (N, E)
        dist.all_reduce(total)
        return total.chunk(dist.get_world_size())[dist.get_rank()]


def parallel_loss(pictures: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """One process's share of the loss: its own pictures (B, E) among all texts, its texts (B, E) among all.

    The mean over all processes, which have equal numbers of rows, is the loss of the whole batch.
    """
    right = torch.arange(pictures.shape[0], device=pictures.device)  # (B,)
    right = right + dist.get_rank() * pictures.shape[0]  # (B,)
    to_texts = F.cross_entropy(similarities(pictures, Gather.apply(texts), scale), right)  # ()
    to_pictures = F.cross_entropy(similarities(texts, Gather.apply(pictures), scale), right)  # ()
    return (to_texts + to_pictures) / 2


# --8<-- [end:gather]


# --8<-- [start:cache]
def cached_step(model: Clip, pictures: Tensor, tokens: Tensor, chunk: int) -> Tensor:
    """Loss and gradients of a whole batch with the memory of a chunk (GradCache, arXiv 2101.06983).

    Args: pictures (B, C, S, S), tokens (B, T). The loss () is returned, gradients are added to the weights'.
    """
    towers = (model.vision, pictures.split(chunk)), (model.text, tokens.split(chunk))
    with torch.no_grad():  # 1. embeddings of all chunks, without what a gradient needs
        found = [torch.cat([encode(part) for part in parts]) for encode, parts in towers]
    found = [embeddings.requires_grad_() for embeddings in found]
    loss = clip_loss(similarities(*found, model.scale))  # ()
    loss.backward()  # 2. what the loss says of each embedding
    for (encode, parts), embeddings in zip(towers, found, strict=True):
        for part, gradient in zip(parts, embeddings.grad.split(chunk), strict=True):
            encode(part).backward(gradient)  # 3. each chunk once more, with its rows of that
    return loss.detach()


# --8<-- [end:cache]
