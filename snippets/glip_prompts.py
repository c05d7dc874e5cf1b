"""Phrases in a prompt, and which tokens say which phrase (GLIP, Li et al. 2021, arXiv 2112.03857, 3.1).

Shapes: T tokens, P phrases, B prompts of a batch, R regions.
"""

# --8<-- [start:imports]
import re
from dataclasses import dataclass

import torch
from torch import Tensor

# --8<-- [end:imports]


# --8<-- [start:prompt]
@dataclass(frozen=True)
class Prompt:
    """A text, and where in it each phrase stands: text[start:end]."""

    text: str
    spans: list[tuple[int, int]]


def write_prompt(phrases: list[str], separator: str = ". ") -> Prompt:
    """One prompt of all phrases. Where a phrase stands is noted while it is written, and never searched for:
    "cat" would be found in "caterpillar", too.
    """
    text, spans = "", []
    for phrase in phrases:
        text += separator if spans else ""
        spans.append((len(text), len(text) + len(phrase)))
        text += phrase
    return Prompt(text, spans)


# --8<-- [end:prompt]


# --8<-- [start:tokens]
UNKNOWN, PAD = "[UNK]", "[PAD]"


@dataclass(frozen=True)
class Tokens:
    """The pieces of a text: their ids, and which of its characters each one stands for."""

    ids: list[int]
    offsets: list[tuple[int, int]]


class Pieces:
    """Cuts words into the longest pieces it knows, from the left, as BERT does. ## marks a part that goes on.

    Raises ValueError if [PAD] is not the first piece, or [UNK] is missing, or a piece stands there twice.
    """

    def __init__(self, pieces: list[str]):
        self.ids = {piece: i for i, piece in enumerate(pieces)}
        if pieces[:1] != [PAD] or UNKNOWN not in self.ids or len(self.ids) != len(pieces):
            raise ValueError(f"[PAD] first, [UNK], and each piece once are expected, given {pieces[:3]}")

    def cut(self, word: str) -> list[tuple[str, int, int]]:
        """Pieces of one word, with the characters they stand for; one [UNK] if some part is in no piece."""
        found, start = [], 0
        while start < len(word):
            names = [("##" if start else "") + word[start:end] for end in range(len(word), start, -1)]
            name = next((name for name in names if name in self.ids), None)
            if name is None:
                return [(UNKNOWN, 0, len(word))]
            length = len(name) - 2 * bool(start)
            found.append((name, start, start + length))
            start += length
        return found

    def __call__(self, text: str) -> Tokens:
        """The pieces of all words and marks of a text."""
        ids, offsets = [], []
        for word in re.finditer(r"\w+|[^\w\s]", text):
            for name, start, end in self.cut(word[0].lower()):
                ids.append(self.ids[name])
                offsets.append((word.start() + start, word.start() + end))
        return Tokens(ids, offsets)


# --8<-- [end:tokens]


# --8<-- [start:map]
def token_map(tokens: Tokens, spans: list[tuple[int, int]]) -> Tensor:
    """Which tokens say which phrase, (P, T): those that share a character with its span."""
    offsets = torch.tensor(tokens.offsets).view(-1, 2)  # (T, 2)
    phrases = torch.tensor(spans).view(-1, 2)  # (P, 2)
    said = (offsets[:, 0] < phrases[:, 1:]) & (offsets[:, 1] > phrases[:, :1])  # (P, T)
    return said


def phrase_scores(probabilities: Tensor, said: Tensor) -> Tensor:
    """Of each region the mean (B, R, P) of its probabilities (B, R, T) for a phrase's tokens; said (P, T)."""
    share = said.to(probabilities) / said.sum(dim=1, keepdim=True)  # (P, T)
    return probabilities @ share.T


# --8<-- [end:map]


# --8<-- [start:chunks]
def chunks(pieces: Pieces, phrases: list[str], limit: int, separator: str = ". ") -> list[list[int]]:
    """The phrases' numbers, in parts whose prompts have at most limit tokens each. No phrase is cut in two.

    Raises ValueError for a phrase that is longer than that by itself.
    """
    parts = [[]]
    for i, phrase in enumerate(phrases):
        longer = [*parts[-1], i]
        if len(pieces(write_prompt([phrases[j] for j in longer], separator).text).ids) > limit:
            if len(pieces(write_prompt([phrase], separator).text).ids) > limit:
                raise ValueError(f"phrases of at most {limit} tokens are expected, given {phrase!r}")
            parts.append([i])
        else:
            parts[-1] = longer
    return [part for part in parts if part]


def batch_tokens(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Ids of prompts as one table (B, T), filled up with 0, and what of it is real: (B, T)."""
    longest = max(len(row) for row in rows)
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])  # (B, T)
    real = torch.tensor([[i < len(row) for i in range(longest)] for row in rows])  # (B, T)
    return ids, real


# --8<-- [end:chunks]
