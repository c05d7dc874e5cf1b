"""The CLIP post's zero-shot classification with transformers.

Shapes: B pictures of a batch, C channels, S pixels of a side, K classes.
"""

# --8<-- [start:zero-shot-library]
import torch
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer


def zero_shot_by_transformers(folder: str, pictures: Tensor, texts: list[str]) -> Tensor:
    """Probabilities (B, K) of texts for pictures (B, C, S, S), by transformers, from a folder."""
    model = CLIPModel.from_pretrained(folder).eval()
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    tokens = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = model(**tokens, pixel_values=pictures).logits_per_image  # (B, K)
    return logits.softmax(dim=-1)


# --8<-- [end:zero-shot-library]
