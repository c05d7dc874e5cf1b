"""Gaps filled and texts sorted by transformers, with the page's weights.

Shapes: B texts of a batch, K labels.
"""

# --8<-- [start:library]
from pathlib import Path

import torch
from torch import Tensor
from transformers import BertForMaskedLM, BertForSequenceClassification, BertTokenizer, pipeline


def tokenizer_of(folder: str) -> BertTokenizer:
    """The tokenizer of a folder with a vocab.txt."""
    pieces = (Path(folder) / "vocab.txt").read_text(encoding="utf-8").splitlines()
    return BertTokenizer(vocab={piece: i for i, piece in enumerate(pieces)})


def fill_by_transformers(folder: str, text: str, count: int) -> list[tuple[str, float]]:
    """The likeliest pieces for the one [MASK] of a text, with their probabilities."""
    model = BertForMaskedLM.from_pretrained(folder)
    fill = pipeline("fill-mask", model=model, tokenizer=tokenizer_of(folder))
    return [(guess["token_str"], guess["score"]) for guess in fill(text, top_k=count)]


@torch.no_grad()
def sort_by_transformers(folder: str, texts: list[str]) -> Tensor:
    """Logits (B, K) of the labels of texts."""
    model = BertForSequenceClassification.from_pretrained(folder).eval()
    batch = tokenizer_of(folder)(texts, padding=True, return_tensors="pt")
    logits = model(**batch).logits  # (B, K)
    return logits


# --8<-- [end:library]
