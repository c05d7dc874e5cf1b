"""Ids by tokenizers and gaps filled by transformers, with the page's merges and weights."""

# --8<-- [start:library]
import json
from pathlib import Path

from tokenizers import AddedToken
from transformers import RobertaForMaskedLM, RobertaTokenizer, pipeline


def roberta_tokenizer(folder: str) -> RobertaTokenizer:
    """The tokenizer of a folder with vocab.json and merges.txt."""
    ids = json.loads((Path(folder) / "vocab.json").read_text(encoding="utf-8"))
    lines = (Path(folder) / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]
    merges = [tuple(line.split(" ")) for line in lines]
    mask = AddedToken("<mask>", lstrip=True, special=True)  # it takes in the space before it
    return RobertaTokenizer(vocab=ids, merges=merges, mask_token=mask)


def fill_by_transformers(folder: str, text: str, count: int) -> list[tuple[str, float]]:
    """The likeliest pieces for the one <mask> of a text, with their probabilities."""
    model = RobertaForMaskedLM.from_pretrained(folder)
    tokenizer = roberta_tokenizer(folder)
    fill = pipeline("fill-mask", model=model, tokenizer=tokenizer)
    guesses = fill(text, top_k=count)
    return [(tokenizer.convert_ids_to_tokens(guess["token"]), guess["score"]) for guess in guesses]


# --8<-- [end:library]
