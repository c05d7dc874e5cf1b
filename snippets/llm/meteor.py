"""METEOR (Lavie and Agarwal 2007) as in NLTK, and its stemmer (Porter 1980, with NLTK's additions)."""

# --8<-- [start:imports]
from collections.abc import Callable
from functools import cache

# --8<-- [end:imports]


# --8<-- [start:stem]
IRREGULAR = {"skies": "sky", "dying": "die", "lying": "lie", "tying": "tie", "innings": "inning"}
IRREGULAR |= {"outings": "outing", "cannings": "canning"}
KEPT = "sky news inning outing canning howe proceed exceed succeed".split()
IRREGULAR |= {word: word for word in KEPT}
LONG = """ational ate|tional tion|enci ence|anci ance|izer ize|bli ble|alli al|entli ent|eli e|ousli ous
ization ize|ation ate|ator ate|alism al|iveness ive|fulness ful|ousness ous|aliti al|iviti ive|biliti ble
fulli ful"""
SHORT = "icate ic|ative |alize al|iciti ic|ical ic|ful |ness "
LAST = "al ance ence er ic able ible ant ement ment ent ion ou ism ate iti ous ive ize".split()


def shape(word: str) -> str:
    """A word as consonants c and vowels v; y is a vowel behind a consonant."""
    found = ""
    for letter in word:
        found += "v" if letter in "aeiou" or (letter == "y" and found[-1:] == "c") else "c"
    return found


def syllables(word: str) -> int:
    """Porter's measure m: how often a consonant follows a vowel."""
    return shape(word).count("vc")


def is_short(word: str) -> bool:
    """Whether a word ends as `hop` does, or is like `at`."""
    return shape(word)[-3:] == "cvc" and word[-1] not in "wxy" or shape(word) == "vc"


def replaced(word: str, rules: str) -> str:
    """A word with the first ending of some rules that it has replaced, if a syllable is left before it."""
    for rule in rules.replace("\n", "|").split("|"):
        ending, other = rule.split(" ")
        if word.endswith(ending):
            start = word.removesuffix(ending)
            return start + other if syllables(start) else word
    return word


def without_ed_and_ing(word: str) -> str:
    """agreed, agree; hopping, hop; hoping, hope; sing, sing."""
    if word.endswith("ied"):
        return word[:-1] if len(word) == 4 else word[:-2]
    if word.endswith("eed"):
        return word[:-1] if syllables(word[:-3]) else word
    start = word.removesuffix("ed") if word.endswith("ed") else word.removesuffix("ing")
    if start == word or "v" not in shape(start):
        return word
    if start.endswith(("at", "bl", "iz")):
        return start + "e"
    if start[-1:] == start[-2:-1] and shape(start)[-1] == "c":
        return start if start[-1] in "lsz" else start[:-1]
    return start + "e" if syllables(start) == 1 and is_short(start) else start


@cache
def stem(word: str) -> str:
    """The stem of an English word: connected, connecting and connections are all `connect`."""
    word = word.lower()
    if word in IRREGULAR or len(word) <= 2:
        return IRREGULAR.get(word, word)
    if word.endswith("ies"):
        word = word[:-1] if len(word) == 4 else word[:-2]
    elif word.endswith("sses") or (word.endswith("s") and not word.endswith("ss")):
        word = word[:-2] if word.endswith("sses") else word[:-1]
    word = without_ed_and_ing(word)
    if word.endswith("y") and len(word) > 2 and shape(word[:-1])[-1] == "c":
        word = word[:-1] + "i"
    if word.endswith("alli") and syllables(word[:-4]):
        word = word[:-2]
    if word.endswith("logi"):
        word = word[:-1] if syllables(word[:-3]) else word
    else:
        word = replaced(word, LONG)
    word = replaced(word, SHORT)
    ending = next((one for one in LAST if word.endswith(one)), None)
    if ending and syllables(word.removesuffix(ending)) > 1:
        if ending != "ion" or word[-4] in "st":
            word = word.removesuffix(ending)
    if word.endswith("e") and (
        syllables(word[:-1]) > 1 or syllables(word[:-1]) == 1 and not is_short(word[:-1])
    ):
        word = word[:-1]
    return word[:-1] if word.endswith("ll") and syllables(word[:-1]) > 1 else word


# --8<-- [end:stem]


# --8<-- [start:meteor]
def pair_words(candidate: list[str], reference: list[str]) -> list[tuple[int, int]]:
    """Pairs (place, place) of equal words: each from the right, with the last equal one that is free."""
    free: dict[str, list[int]] = {}
    for place, word in enumerate(reference):
        free.setdefault(word, []).append(place)
    found = ((at, free.get(candidate[at])) for at in reversed(range(len(candidate))))
    return [(at, places.pop()) for at, places in found if places]


def align(candidate: list[str], reference: list[str], stem: Callable[[str], str]) -> list[tuple[int, int]]:
    """Pairs of equal words first, then of equal stems among the rest, in the candidate's order."""
    pairs = pair_words(candidate, reference)
    used = [{pair[side] for pair in pairs} for side in (0, 1)]
    rest = [
        [at for at in range(len(w)) if at not in u] for w, u in zip((candidate, reference), used, strict=True)
    ]
    stems = [[stem(w[at]) for at in ats] for w, ats in zip((candidate, reference), rest, strict=True)]
    return sorted(pairs + [(rest[0][i], rest[1][j]) for i, j in pair_words(*stems)])


def count_chunks(pairs: list[tuple[int, int]]) -> int:
    """Runs of pairs that are adjacent in both texts."""
    follows = [(b[0] - a[0], b[1] - a[1]) == (1, 1) for a, b in zip(pairs, pairs[1:], strict=False)]
    return len(pairs) - sum(follows)


def meteor_score(matched: int, candidate: int, reference: int, chunks: int) -> float:
    """METEOR of counts: recall weighs nine times precision; disorder takes up to half away."""
    if not matched:
        return 0.0
    precision, recall = matched / candidate, matched / reference
    mean = precision * recall / (0.9 * precision + 0.1 * recall)
    return mean * (1 - 0.5 * (chunks / matched) ** 3)


def meteor(candidate: list[str], references: list[list[str]], stem: Callable[[str], str]) -> float:
    """METEOR of the words of a candidate with the best of some references, without synonyms."""
    if isinstance(candidate, str) or not references or any(isinstance(words, str) for words in references):
        raise ValueError(f"lists of words are expected, given {candidate!r:.40} and {references!r:.40}")
    ours, scores = [word.lower() for word in candidate], []
    for words in references:
        pairs = align(ours, [word.lower() for word in words], stem)
        scores.append(meteor_score(len(pairs), len(ours), len(words), count_chunks(pairs)))
    return max(scores)


# --8<-- [end:meteor]
