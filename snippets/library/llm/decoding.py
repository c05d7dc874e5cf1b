"""Texts drawn and drafted by transformers, from a folder.

Shapes: B texts of a batch, T tokens of a prompt.
"""

# --8<-- [start:sample]
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM


def drawn_by_transformers(folder: str, prompt: Tensor, num_new: int, seed: int) -> Tensor:
    """Prompts (B, T) continued at temperature 0.8, top-k 50, top-p 0.95, min-p 0.02: (B, T + num_new)."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    torch.manual_seed(seed)
    settings = {"temperature": 0.8, "top_k": 50, "top_p": 0.95, "min_p": 0.02, "pad_token_id": 0}
    mask = torch.ones_like(prompt)  # (B, T)
    return model.generate(prompt, attention_mask=mask, do_sample=True, max_new_tokens=num_new, **settings)


def drafted_by_transformers(folder: str, small: str, prompt: Tensor, num_new: int) -> Tensor:
    """One prompt (1, T) continued greedily, with a smaller model's drafts: (1, T + num_new)."""
    model, draft = (AutoModelForCausalLM.from_pretrained(path).eval() for path in (folder, small))
    settings = {"attention_mask": torch.ones_like(prompt), "pad_token_id": 0, "max_new_tokens": num_new}
    return model.generate(prompt, assistant_model=draft, do_sample=False, **settings)


# --8<-- [end:sample]
