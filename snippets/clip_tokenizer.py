"""CLIP's tokenizer: byte-pair encoding of lower-cased words (Sennrich et al. 2015, arXiv 1508.07909).

Shapes: N texts, T tokens.
The last letter of a word carries the mark </w>: "my" at the end of "enemy" is another piece than in "myth".
"""

# --8<-- [start:imports]
import functools
import itertools
import json
import re
import unicodedata
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor

# --8<-- [end:imports]
from snippets.llm.byte_bpe import BYTES, LETTERS, ORDER, SPACE, chunks, join_pair, merge, to_bytes

# --8<-- [start:words]
START, END, LAST = "<|startoftext|>", "<|endoftext|>", "</w>"


def plain(text: str) -> str:
    """Letters and their accents made one (NFC), then each letter lower-cased by itself."""
    return "".join(letter.lower() for letter in unicodedata.normalize("NFC", text))


def words(text: str) -> list[str]:
    """Words, single digits, and runs of signs; "'s" and its like are words. Spaces are dropped."""
    found = [chunk for word in re.split(rf"[{SPACE}]+", plain(text)) for chunk in chunks(word)]
    digits = (list(chunk) if unicodedata.category(chunk[0])[0] == "N" else [chunk] for chunk in found)
    return list(itertools.chain.from_iterable(digits))


def letters(word: str) -> tuple[str, ...]:
    """The bytes of a word as files write them, the last one with its mark: ("c", "a", "t</w>")."""
    *first, last = (LETTERS[byte] for byte in to_bytes(word))
    return (*first, last + LAST)


# --8<-- [end:words]


# --8<-- [start:learn]
def learn_merges(texts: list[str], count: int) -> list[tuple[str, str]]:
    """The first `count` merges: again and again the most frequent pair of neighbours inside of words.

    Of pairs that are as frequent, the first by their letters. Fewer merges where nothing is left to join.
    """
    found = Counter(letters(word) for text in texts for word in words(text))
    merges = []
    while len(merges) < count:
        pairs = Counter()
        for word, number in found.items():
            for pair in itertools.pairwise(word):
                pairs[pair] += number
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        joined = Counter()
        for word, number in found.items():
            joined[tuple(join_pair(list(word), best, "".join(best)))] += number
        found = joined
    return merges


# --8<-- [end:learn]


# --8<-- [start:tokenizer]
class ClipTokenizer:
    """Text to ids and back. merges: pairs of pieces, in the order in which they are joined.

    ids: of every piece and both marks; unless given, they count 256 bytes, 256 bytes at the end of a word,
    what the merges make, and the two marks, so that the end of text is the largest id.
    Raises ValueError where a piece or mark has no id.
    """

    def __init__(self, merges: list[tuple[str, str]], ids: dict[str, int] | None = None):
        every = [LETTERS[byte] for byte in ORDER]
        pieces = [*every, *(letter + LAST for letter in every), *(a + b for a, b in merges)]
        if ids is None:
            ids = {piece: i for i, piece in enumerate(dict.fromkeys([*pieces, START, END]))}
        missing = [piece for piece in (START, END, *pieces) if piece not in ids]
        if missing:
            raise ValueError(f"an id for each piece and mark is expected, given none for {missing[:3]}")
        self.merges, self.ids, self.names = merges, ids, {i: piece for piece, i in ids.items()}
        self.start, self.end = ids[START], ids[END]
        split = [tuple(re.findall(rf".(?:{LAST}$)?", piece, re.S) for piece in pair) for pair in merges]
        ranks = reversed(list(enumerate(split)))  # of two that are the same, the first counts
        self.ranks = {(tuple(a), tuple(b)): rank for rank, (a, b) in ranks}
        self.pieces = functools.lru_cache(100_000)(self.pieces)  # the same words come again and again

    def pieces(self, word: str) -> list[str]:
        """A word's pieces, as files write them."""
        return ["".join(piece) for piece in merge(letters(word), self.ranks)]

    def encode(self, text: str) -> list[int]:
        """Ids between the start and the end. The two marks inside of a text are marks."""
        ids = [self.start]
        for part in re.split(f"({re.escape(START)}|{re.escape(END)})", text):
            pieces = (
                [part] if part in (START, END) else [p for word in words(part) for p in self.pieces(word)]
            )
            ids += [self.ids[piece] for piece in pieces]
        return [*ids, self.end]

    def __call__(self, texts: list[str], context: int = 77) -> Tensor:
        """Ids (N, T), as long as the longest text, filled up with the end of text.

        Raises ValueError for a text of more ids than the context.
        """
        rows = [self.encode(text) for text in texts]
        longest = max((len(row) for row in rows), default=0)
        if not 0 < longest <= context:
            raise ValueError(f"texts of 1 to {context} tokens are expected, given one of {longest}, or none")
        tokens = torch.tensor([row + [self.end] * (longest - len(row)) for row in rows])  # (N, T)
        return tokens

    def decode(self, ids: list[int]) -> str:
        """The text of ids without marks, a space behind each word."""
        written = "".join(self.names[i] for i in ids if i not in (self.start, self.end))
        parts = (bytes(BYTES[letter] for letter in word) for word in written.split(LAST))
        return b" ".join(parts).decode("utf-8", "replace").strip()


# --8<-- [end:tokenizer]


# --8<-- [start:files]
def load_clip_tokenizer(folder: str | Path) -> ClipTokenizer:
    """The tokenizer of a folder: of tokenizer.json, or else of vocab.json and merges.txt.

    Raises ValueError where the files hold another kind of tokenizer.
    """
    folder = Path(folder)
    if (folder / "tokenizer.json").is_file():
        model = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
        kind = model.get("type", "BPE" if "merges" in model else None)  # older files do not name it
        suffix = model.get("end_of_word_suffix")
        if kind != "BPE" or suffix != LAST:
            raise ValueError(f"BPE with {LAST} is expected, given {kind} with {suffix} in {folder}")
        ids, lines = model["vocab"], model["merges"]
    else:
        ids = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
        lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
    pairs = [line.split(" ") if isinstance(line, str) else line for line in lines]
    pairs = [pair for pair in pairs if pair != [""] and pair[0] != "#version:"]
    odd = [pair for pair in pairs if len(pair) != 2]
    if odd:
        raise ValueError(f"two pieces in each merge are expected, given {odd[0]} in {folder}")
    return ClipTokenizer([(a, b) for a, b in pairs], ids)


def save_clip_tokenizer(tokenizer: ClipTokenizer, folder: str | Path) -> None:
    """Write vocab.json and merges.txt, as transformers' CLIPTokenizer reads them."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    (Path(folder) / "vocab.json").write_text(json.dumps(tokenizer.ids), encoding="utf-8")
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in tokenizer.merges)]
    (Path(folder) / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


# --8<-- [end:files]
