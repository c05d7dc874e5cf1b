"""Gradients of one batch shared by several processes: torchrun starts this, once each. See test_clip_training.py.

Every process has a part of the batch; DistributedDataParallel takes the mean of the processes' gradients.
"""

import sys

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

from snippets import clip_training as page
from snippets.clip import Clip, VisionConfig, clip_loss, similarities
from snippets.clip_text import TextConfig


class Embeddings(torch.nn.Module):
    """What DistributedDataParallel wraps: everything that has weights, and nothing of the loss."""

    def __init__(self, clip):
        super().__init__()
        self.clip = clip

    def forward(self, pictures, tokens):
        return self.clip.vision(pictures), self.clip.text(tokens), self.clip.scale * 1


def stopped(rows):
    """Rows of all processes; gradients reach this process's own alone."""
    parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, rows.contiguous())
    parts[dist.get_rank()] = rows
    return torch.cat(parts)


def local(gather, pictures, texts, scale):
    """The loss of a process's own rows among all."""
    right = torch.arange(len(pictures)) + dist.get_rank() * len(pictures)
    to_texts = F.cross_entropy(similarities(pictures, gather(texts), scale), right)
    return (to_texts + F.cross_entropy(similarities(texts, gather(pictures), scale), right)) / 2


def whole(gather, pictures, texts, scale):
    """The loss of the whole batch, in every process."""
    return clip_loss(similarities(gather(pictures), gather(texts), scale))


LOSSES = {
    "page": page.parallel_loss,
    "whole, gathered": lambda *rows: whole(page.Gather.apply, *rows),
    "whole, stopped": lambda *rows: whole(stopped, *rows),
    "local, stopped": lambda *rows: local(stopped, *rows),
    "not gathered": lambda *rows: clip_loss(similarities(*rows)),
}


def model_and_batch():
    """A CLIP of float64, its weights moved, with 6 pictures and texts: the same in every process."""
    torch.manual_seed(0)
    model = Clip(TextConfig(41, 11, 24, 20, 2, 4, 10), VisionConfig(12, 4, 3, 18, 26, 2, 3, 10)).double()
    for p in model.parameters():
        p.data += 0.2 * torch.randn_like(p)
    return model, torch.randn(6, 3, 12, 12).double(), torch.randint(41, (6, 9))


def gradients(model):
    """Of the encoders and of the scale: two vectors."""
    encoders = [p.grad.flatten() for name, p in model.named_parameters() if name != "scale"]
    return torch.cat(encoders), model.scale.grad.view(1)


if __name__ == "__main__":
    dist.init_process_group("gloo")
    found = {}
    for name, loss in LOSSES.items():
        model, pictures, tokens = model_and_batch()
        spread = DistributedDataParallel(Embeddings(model))
        mine = torch.arange(6).chunk(dist.get_world_size())[dist.get_rank()]
        value = loss(*spread(pictures[mine], tokens[mine]))
        value.backward()
        total = value.detach() / dist.get_world_size()
        dist.all_reduce(total)
        found[name] = *gradients(model), total
    if dist.get_rank() == 0:
        torch.save(found | {"processes": dist.get_world_size()}, sys.argv[1])
    dist.destroy_process_group()
