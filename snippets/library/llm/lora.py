"""Adapters in peft: put on, merged, and two of them in one batch.

Shapes: B texts of a batch, T positions, V vocabulary.
"""

# --8<-- [start:library]
import copy

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn


def with_peft(model: nn.Module, names: list[str], rank: int, alpha: float) -> PeftModel:
    """What add_adapters does, on a copy: peft's model is trained by the same loop."""
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=names)
    return get_peft_model(copy.deepcopy(model), config)


def merged_by_peft(base: nn.Module, folder: str) -> nn.Module:
    """A base with a saved adapter in its weights, as load_adapter, merge and remove_adapters make it."""
    return PeftModel.from_pretrained(copy.deepcopy(base), folder).merge_and_unload()


@torch.no_grad()
def logits_by_peft(base: nn.Module, folders: dict[str, str], tokens: Tensor, names: list[str]) -> Tensor:
    """Logits (B, T, V) of tokens (B, T), each text with the adapter that names gives it.

    Args: folders, by name. The name "__base__" stands for none.
    """
    first, *others = folders
    model = PeftModel.from_pretrained(copy.deepcopy(base), folders[first], adapter_name=first)
    for name in others:
        model.load_adapter(folders[name], adapter_name=name)
    logits = model.eval()(tokens, adapter_names=names)  # (B, T, V)
    return logits


# --8<-- [end:library]
