"""Byte-level BPE, the tokenizer of GPT-2 and RoBERTa (Sennrich et al. 2015, arXiv 1508.07909).

Pieces are bytes. No tensors here: text in, pieces or ids out.
"""

# --8<-- [start:imports]
import functools
import heapq
import itertools
import json
import re
import sys
import unicodedata
from collections import Counter, defaultdict
from pathlib import Path

# --8<-- [end:imports]


# --8<-- [start:split]
SPACE = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"  # without \x1c-\x1f, unlike \s
SPACES = "".join(filter(re.compile(f"[{SPACE}]").match, map(chr, range(0x3001))))  # each of them


@functools.cache
def splitter() -> re.Pattern:
    r"""GPT-2's rule: 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+.

    `re` has neither \p{L} nor \p{N}: its \w takes in all letters and numbers and _, its \d decimal digits.
    """
    every = map(chr, range(sys.maxunicode + 1))
    other = "".join(c for c in every if unicodedata.category(c) in ("Nl", "No"))  # such as ² and Ⅷ
    # ASCII stands first and by itself, for speed: `re` is slow in large classes
    letters = rf"(?:[A-Za-z]+|[^\x00-\x7f\W\d{other}]+)+"
    numbers = rf"(?:[0-9]+|(?![\x00-\x7f])[\d{other}]+)+"
    signs = rf"(?:[!-/:-@\[-`{{-~]+|[^\w{SPACE}]+)+"
    contractions = "'(?:[stmd]|re|ve|ll)"
    spaces = rf"[{SPACE}]+(?![^{SPACE}])|[{SPACE}]+"
    return re.compile(rf"{contractions}| ?{letters}| ?{numbers}| ?{signs}|{spaces}")


def chunks(text: str) -> list[str]:
    """A text cut into words, numbers, signs and spaces; no piece crosses a cut. Joined, they are the text."""
    return splitter().findall(text)


# --8<-- [end:split]


# --8<-- [start:bytes]
PRINTED = [*range(33, 127), *range(161, 173), *range(174, 256)]  # bytes that are written as they are
ORDER = PRINTED + [byte for byte in range(256) if byte not in PRINTED]
LETTERS = {byte: chr(byte) if byte in PRINTED else chr(256 + i - 188) for i, byte in enumerate(ORDER)}
BYTES = {letter: byte for byte, letter in LETTERS.items()}


def to_bytes(text: str) -> bytes:
    """UTF-8; bytes that are none of it come through as Python's surrogate escapes."""
    return text.encode("utf-8", "surrogateescape")


def written(piece: bytes) -> str:
    """A piece as files show it: a letter for each byte, none of them a space. " is" is written Ġis."""
    return "".join(LETTERS[byte] for byte in piece)


def read(letters: str) -> bytes:
    """The inverse of `written`. Raises ValueError for a letter that stands for no byte."""
    try:
        return bytes([BYTES[letter] for letter in letters])
    except KeyError as error:
        raise ValueError(f"letters that stand for bytes are expected, given {error} in {letters!r}") from None


# --8<-- [end:bytes]


# --8<-- [start:train]
def join_pair(word: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """A word with a pair made one piece, wherever it stands, from the left."""
    joined, i = [], 0
    while i < len(word):
        both = i + 1 < len(word) and word[i] == pair[0] and word[i + 1] == pair[1]
        joined.append(new if both else word[i])
        i += 2 if both else 1
    return joined


def train_merges(texts: list[str], count: int) -> list[tuple[bytes, bytes]]:
    """The first `count` merges: again and again the pair of neighbours that occurs most often.

    Of pairs that are as frequent, the one whose first piece is older, then whose second is; bytes are in the
    order ORDER. Fewer merges where nothing is left to join.
    """
    if count < 0:
        raise ValueError(f"a number of merges is expected, given {count}")
    age = {byte: i for i, byte in enumerate(ORDER)}
    found = Counter(chunk for text in texts for chunk in chunks(text))
    words = [([age[byte] for byte in to_bytes(chunk)], number) for chunk, number in found.items()]
    pieces = [bytes([byte]) for byte in ORDER]
    totals, places = Counter(), defaultdict(set)  # how often a pair occurs, and in which words
    for place, (word, number) in enumerate(words):
        for pair in itertools.pairwise(word):
            totals[pair] += number
            places[pair].add(place)
    queue = [(-total, pair) for pair, total in totals.items()]
    heapq.heapify(queue)
    merges = []
    while len(merges) < count and queue:
        total, pair = heapq.heappop(queue)
        if -total != totals[pair]:  # it fell since; a pair of total 0 is gone
            if totals[pair]:
                heapq.heappush(queue, (-totals[pair], pair))
            continue
        new = len(pieces)
        pieces.append(pieces[pair[0]] + pieces[pair[1]])
        merges.append((pieces[pair[0]], pieces[pair[1]]))
        risen = set()
        for place in places.pop(pair):
            word, number = words[place]
            joined = join_pair(word, pair, new)
            for old in itertools.pairwise(word):
                totals[old] -= number
            for now in itertools.pairwise(joined):
                totals[now] += number
                if new in now:
                    places[now].add(place)
                    risen.add(now)
            words[place] = joined, number
        for other in risen:  # all others fell or stayed
            heapq.heappush(queue, (-totals[other], other))
    return merges


# --8<-- [end:train]


# --8<-- [start:merge]
def merge(chunk: bytes, ranks: dict[tuple[bytes, bytes], int]) -> list[bytes]:
    """The pieces of a chunk: again and again, the leftmost pair of neighbours of the lowest rank is joined.

    A queue holds the pairs that can be joined, so that n bytes take about n log n steps, for large n too.
    """
    pieces = [chunk[i : i + 1] for i in range(len(chunk))]
    after, before = list(range(1, len(pieces) + 1)), list(range(-1, len(pieces)))
    queue = [
        (ranks[pair], i, i + 1, *pair) for i, pair in enumerate(itertools.pairwise(pieces)) if pair in ranks
    ]
    heapq.heapify(queue)
    while queue:
        _, left, right, first, second = heapq.heappop(queue)
        if pieces[left] != first or after[left] != right or pieces[right] != second:
            continue  # one of the two was joined to another
        pieces[left], pieces[right] = first + second, b""
        after[left] = after[right]
        before[after[right]] = left
        for one, two in ((before[left], left), (left, after[left])):
            if one >= 0 and two < len(pieces) and (pieces[one], pieces[two]) in ranks:
                pair = pieces[one], pieces[two]
                heapq.heappush(queue, (ranks[pair], one, two, *pair))
    return [piece for piece in pieces if piece]


# --8<-- [end:merge]


# --8<-- [start:bpe]
BEGIN, PAD, END, UNKNOWN, MASK = "<s>", "<pad>", "</s>", "<unk>", "<mask>"
KEPT = 100_000  # chunks whose ids are remembered


class Memo(dict):
    """What a function returned, by its argument. Looking up costs less than a function's call."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def __missing__(self, key):
        value = self.function(key)
        if len(self) < KEPT:
            self[key] = value
        return value


class ByteBPE:
    """Text to ids and back. merges: pairs of pieces, in the order in which they are joined.

    ids: an id for each piece and each of the five marks, by their written form. Unless given, they count
    <s>, <pad>, </s>, <unk>, the 256 bytes, what the merges make, and <mask>.
    """

    def __init__(self, merges: list[tuple[bytes, bytes]], ids: dict[str, int] | None = None):
        self.merges = merges
        self.ranks = {
            pair: rank for rank, pair in reversed(list(enumerate(merges)))
        }  # of two, the first counts
        pieces = [written(piece) for piece in ([bytes([b]) for b in ORDER] + [a + b for a, b in merges])]
        if ids is None:
            names = dict.fromkeys([BEGIN, PAD, END, UNKNOWN, *pieces, MASK])
            ids = {name: i for i, name in enumerate(names)}
        missing = [name for name in (BEGIN, PAD, END, MASK, *pieces) if name not in ids]
        if missing or len(set(ids.values())) != len(ids):
            raise ValueError(
                f"an id of its own for each piece and mark is expected, given none for {missing[:3]}"
            )
        self.ids, self.names = ids, {i: name for name, i in ids.items()}
        self.marks = {ids[name] for name in (BEGIN, PAD, END, UNKNOWN, MASK) if name in ids}
        self.memo = Memo(lambda chunk: [ids[written(piece)] for piece in merge(to_bytes(chunk), self.ranks)])

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without <s> and </s>. What looks like a mark is text here."""
        return list(itertools.chain.from_iterable(map(self.memo.__getitem__, chunks(text))))

    def encode_marked(self, text: str) -> list[int]:
        """Ids of a text in which marks such as <mask> are marks. <mask> takes in the spaces before it."""
        parts = re.split(f"({BEGIN}|{PAD}|{END}|{UNKNOWN}|{MASK})", text)
        ids = []
        for part, after in itertools.zip_longest(parts, parts[1:]):
            if self.ids.get(part) in self.marks:
                ids.append(self.ids[part])
            else:
                ids += self.encode(part.rstrip(SPACES) if after == MASK else part)
        return ids

    def bytes_of(self, ids: list[int]) -> bytes:
        """The bytes of all pieces, one after the other; marks have none."""
        return b"".join(read(self.names[i]) for i in ids if i not in self.marks)

    def decode(self, ids: list[int]) -> str:
        """The text of ids. Pieces can end within a letter: the bytes are joined first, and read once."""
        return self.bytes_of(ids).decode("utf-8", "replace")


# --8<-- [end:bpe]


# --8<-- [start:files]
def save_bpe(bpe: ByteBPE, folder: str) -> None:
    """Write vocab.json and merges.txt, as transformers and tokenizers read them."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    (Path(folder) / "vocab.json").write_text(json.dumps(bpe.ids), encoding="utf-8")
    lines = ["#version: 0.2", *(f"{written(a)} {written(b)}" for a, b in bpe.merges)]
    (Path(folder) / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def load_bpe(folder: str) -> ByteBPE:
    """The tokenizer of a folder with vocab.json and merges.txt, such as RoBERTa's or GPT-2's."""
    ids = json.loads((Path(folder) / "vocab.json").read_text(encoding="utf-8"))
    lines = (Path(folder) / "merges.txt").read_text(encoding="utf-8").split("\n")
    pairs = [line.split(" ") for line in lines if line and not line.startswith("#version")]
    odd = [pair for pair in pairs if len(pair) != 2]
    if odd:
        raise ValueError(f"two pieces in each line of merges.txt are expected, given {odd[0]} in {folder}")
    return ByteBPE([(read(a), read(b)) for a, b in pairs], ids)


# --8<-- [end:files]
