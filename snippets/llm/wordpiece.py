"""WordPiece, BERT's tokenizer (Wu et al. 2016, arXiv 1609.08144, 4.1; Devlin et al. 2018, 1810.04805).

Pieces that continue a word begin with ##. No tensors here: text in, lists of pieces or ids out.
"""

# --8<-- [start:imports]
import heapq
import re
import unicodedata
from collections import Counter, defaultdict

# --8<-- [end:imports]

# --8<-- [start:basic]
PAD = "[PAD]"
UNKNOWN = "[UNK]"
CLS = "[CLS]"
SEP = "[SEP]"
MASK = "[MASK]"
SPECIAL = (PAD, UNKNOWN, CLS, SEP, MASK)
IDEOGRAPHS = [  # first and last, as in tokenizers
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
]


def clean(text: str) -> str:
    """Drop control characters, and make every kind of space a plain one. What is dropped splits no word."""
    kept = []
    for character in text:
        if character in "\t\n\r" or unicodedata.category(character).startswith("Z"):
            kept.append(" ")
        elif unicodedata.category(character) not in ("Cc", "Cf", "Co") and character != "\ufffd":
            kept.append(character)
    return "".join(kept)


def stands_alone(character: str) -> bool:
    """Whether a character is a word of its own: punctuation, any symbol of ASCII, an ideograph (no kana)."""
    if character.isascii():
        return character.isprintable() and not character.isalnum() and character != " "
    ideograph = any(first <= ord(character) <= last for first, last in IDEOGRAPHS)
    return ideograph or unicodedata.category(character).startswith("P")


def basic_words(text: str, lowercase: bool = True, strip_accents: bool | None = None) -> list[str]:
    """Words and lone characters of a text. Accents go where capitals go, or as strip_accents says."""
    text = clean(text)
    if lowercase if strip_accents is None else strip_accents:
        apart = unicodedata.normalize("NFD", text)  # a letter, then its accents
        text = "".join(c for c in apart if unicodedata.category(c) != "Mn")
    if lowercase:  # each character by itself: str.lower() knows the last sigma of a word, BERT does not
        text = "".join(character.lower() for character in text)
    return "".join(f" {c} " if stands_alone(c) else c for c in text).split()


# --8<-- [end:basic]


# --8<-- [start:longest]
def longest_pieces(word: str, vocabulary: dict[str, int]) -> list[str]:
    """The longest piece that the word begins with, then the longest that goes on, and so forth.

    [UNK] for the whole word if it has over 100 characters, or if some part is in no piece.
    """
    pieces, start = [], 0
    while start < len(word) <= 100:
        for end in range(len(word), start, -1):
            piece = ("##" if start else "") + word[start:end]
            if piece in vocabulary:
                break
        else:
            return [UNKNOWN]
        pieces.append(piece)
        start = end
    return pieces or [UNKNOWN]


# --8<-- [end:longest]


# --8<-- [start:wordpiece]
class WordPiece:
    """Text to ids and back. pieces: the vocabulary in the order of its ids, with the five special ones.

    What stands in never_split is taken out of the text first, as it is written there; with (), nothing is.
    """

    def __init__(
        self,
        pieces: list[str],
        lowercase: bool = True,
        strip_accents: bool | None = None,
        never_split: tuple[str, ...] = SPECIAL,
    ):
        self.pieces, self.ids = pieces, {piece: i for i, piece in enumerate(pieces)}
        missing = [piece for piece in (*SPECIAL, *never_split) if piece not in self.ids]
        if missing or len(self.ids) != len(pieces):
            raise ValueError(f"each piece once, and {missing} too, are expected, given {len(pieces)} pieces")
        self.lowercase, self.strip_accents, self.never_split = lowercase, strip_accents, never_split
        longest_first = sorted(never_split, key=len, reverse=True)
        either = "|".join(map(re.escape, longest_first)) or "(?!)"  # which is found nowhere
        self.whole = re.compile(f"({either})")

    def tokenize(self, text: str) -> list[str]:
        """Pieces of a text."""
        pieces = []
        for part in self.whole.split(text):
            if part in self.never_split:
                pieces.append(part)
                continue
            for word in basic_words(part, self.lowercase, self.strip_accents):
                pieces += longest_pieces(word, self.ids)
        return pieces

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without [CLS] and [SEP]."""
        return [self.ids[piece] for piece in self.tokenize(text)]

    def decode(self, ids: list[int]) -> str:
        """Pieces put together again. Spaces around punctuation, capitals and accents are lost."""
        return " ".join(self.pieces[i] for i in ids).replace(" ##", "")


# --8<-- [end:wordpiece]


# --8<-- [start:train]
def spelled(word: str) -> list[str]:
    """A word as pieces of one character."""
    return [word[0], *("##" + character for character in word[1:])]


def train_wordpiece(texts: list[str], size: int) -> list[str]:
    """A vocabulary of `size` pieces: all characters, then again and again the most frequent pair, made one.

    Of pairs that are as frequent, the first by characters. Smaller where nothing is left to join.
    """
    counts = Counter(word for text in texts for word in basic_words(text) if len(word) <= 100)
    words = [(spelled(word), count) for word, count in sorted(counts.items())]
    pieces = [*SPECIAL, *sorted({piece for word, _ in words for piece in word})]
    if size < len(pieces):
        raise ValueError(f"a size of at least {len(pieces)}, for all characters, is expected, given {size}")
    totals, places = Counter(), defaultdict(set)  # how often a pair occurs, and in which words
    for place, (word, count) in enumerate(words):
        for pair in zip(word, word[1:], strict=False):
            totals[pair] += count
            places[pair].add(place)
    queue = [(-total, pair) for pair, total in totals.items()]
    heapq.heapify(queue)
    known = set(pieces)
    while len(pieces) < size and queue:
        total, pair = heapq.heappop(queue)
        if -total != totals[pair] or not total:  # an old entry: a newer one is in the queue
            continue
        joined = pair[0] + pair[1].removeprefix("##")
        if joined not in known:  # another pair may have made it before
            known.add(joined)
            pieces.append(joined)
        changed = set()
        for place in places.pop(pair):
            word, count = words[place]
            new, i = [], 0
            while i < len(word):
                both = tuple(word[i : i + 2]) == pair
                new.append(joined if both else word[i])
                i += 2 if both else 1
            for sign, part in ((-1, word), (1, new)):
                for other in zip(part, part[1:], strict=False):
                    totals[other] += sign * count
                    places[other].add(place)
                    changed.add(other)
            words[place] = new, count
        for other in changed:
            heapq.heappush(queue, (-totals[other], other))
    return pieces


# --8<-- [end:train]
