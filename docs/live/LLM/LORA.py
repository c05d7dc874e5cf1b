"""What the live figure of the LoRA post computes with: the decoder-only post's Llama, with adapters."""

import torch
from safetensors.torch import load_file
from torch import nn

from snippets.llm.decoder_only import Llama
from snippets.llm.lora import LoRA, adapters, add_adapters
from tools.live import ROOT, Network, exporter

BASE = exporter("LLM/Decoder-Only")
LAYERS = ["to_query", "to_key", "to_value", "to_out", "gate", "up", "down"]


def adapted() -> Llama:
    """The base with the lab's adapters of rank 8 on all matrices, trained with alpha = 16."""
    model = add_adapters(BASE["llama"](), LAYERS, rank=8, alpha=16)
    found = load_file(ROOT / "docs/weights/LLM/LORA.safetensors")
    for path, adapter in adapters(model).items():
        adapter.A.data.copy_(found[f"base_model.model.{path}.lora_A.weight"])
        adapter.B.data.copy_(found[f"base_model.model.{path}.lora_B.weight"])
    return model


class Scaled(nn.Module):
    """The base's step, with the adapters' alpha as an input."""

    def __init__(self, model: Llama):
        super().__init__()
        self.step = BASE["Step"](model)

    def forward(self, tokens, cache, alpha):
        found = [module for module in self.step.modules() if isinstance(module, LoRA)]
        trained = [adapter.alpha for adapter in found]
        for adapter in found:
            adapter.alpha = alpha
        logits, rows = self.step(tokens, cache)
        for adapter, one in zip(found, trained, strict=True):
            adapter.alpha = one  # an export wants the module back as it was
        return logits, rows


def networks():
    (base,) = BASE["networks"]()
    inputs = base.inputs | {"alpha": torch.tensor(12.0)}
    yield Network("lora", Scaled(adapted()), inputs, base.varies, outputs=base.outputs, shares="LLM/Decoder-Only/llama")
