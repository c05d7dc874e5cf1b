"""What the live figure of the decoder-only post computes with: its Llama, with the cache as input and output."""

import torch
from safetensors.torch import load_model
from torch import Tensor, nn

from snippets.llm.decoder_only import Config, Llama
from tools.live import ROOT, Network


class Joined:
    """A layer's cache for `LlamaBlock`: old keys and values (1, G, S, D), and it keeps the new ones."""

    def __init__(self, old: Tensor):
        self.old, self.new = old, ()

    def extend(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        self.new = key, value
        return tuple(torch.cat([old, new], dim=2) for old, new in zip(self.old, self.new, strict=True))


class Step(nn.Module):
    """`Llama.forward` for one text, whose cache (S, L, 2, G, D) holds a row for each position read before."""

    def __init__(self, model: Llama):
        super().__init__()
        self.model = model
        self.register_buffer("cos", model.cos.float())
        self.register_buffer("sin", model.sin.float())

    def forward(self, tokens, cache):
        """Logits (T, V) after each of tokens (1, T), and their rows (T, L, 2, G, D) for the cache."""
        place = cache.shape[0] + torch.arange(tokens.shape[1])
        turns, x, rows = (self.cos[place], self.sin[place]), self.model.token(tokens), []
        for layer, block in enumerate(self.model.blocks):
            one = Joined(cache[:, layer].permute(1, 2, 0, 3)[:, None])
            x = block(x, *turns, one)
            rows.append(torch.cat(one.new).permute(2, 0, 1, 3))
        return self.model.head(self.model.norm(x))[0], torch.stack(rows, dim=1)


def llama() -> Llama:
    """The page's model, trained."""
    model = Llama(Config())
    load_model(model, ROOT / "docs/weights/LLM/Decoder-Only.safetensors")
    return model


def networks():
    inputs = {"tokens": torch.randint(256, (1, 5)), "cache": torch.randn(7, 4, 2, 2, 32)}
    varies = {"tokens": {1: "new"}, "cache": {0: "seen"}}
    yield Network("llama", Step(llama()), inputs, varies, outputs=("logits", "rows"))
