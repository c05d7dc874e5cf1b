"""Logits and texts of a Llama by transformers, from a folder.

Shapes: B texts of a batch, T tokens of a prompt, V vocabulary.
"""

# --8<-- [start:write]
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM


@torch.no_grad()
def write_by_transformers(folder: str, prompt: Tensor, num_new: int) -> tuple[Tensor, Tensor]:
    """Logits (B, T, V) of prompts (B, T), and the prompts continued greedily, (B, T + num_new)."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    logits = model(prompt).logits  # (B, T, V)
    mask = torch.ones_like(prompt)  # (B, T)
    settings = {"do_sample": False, "max_new_tokens": num_new, "pad_token_id": 0}
    return logits, model.generate(prompt, attention_mask=mask, **settings)


# --8<-- [end:write]
