"""Metrics that compare a text with references, in pure Python, each equal to the library that people use.

BLEU (Papineni et al. 2002) and chrF (Popović 2015, 2017) as in sacreBLEU (Post 2018, arXiv 1804.08771),
ROUGE (Lin 2004) as in rouge-score, exact match and F1 of answers as in SQuAD (Rajpurkar et al. 2016,
arXiv 1606.05250). BLEU and chrF go from 0 to 100, the others from 0 to 1.
"""

# --8<-- [start:imports]
import math
import re
import string
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache, lru_cache, reduce
from itertools import accumulate, chain
from operator import or_

# --8<-- [end:imports]


# --8<-- [start:checks]
def check_corpus(candidates: list[str], references: list[list[str]]) -> None:
    """ValueError unless there are candidates, each with a list of one or more references."""
    if isinstance(candidates, str) or not candidates or len(candidates) != len(references):
        given = f"{len(candidates)} and {len(references)}"
        raise ValueError(f"a list of candidates and as many lists of references are expected, given {given}")
    for number, texts in enumerate(references):
        if isinstance(texts, str) or not texts or not all(isinstance(text, str) for text in texts):
            given = repr(texts)[:60]
            raise ValueError(f"a list of reference texts for candidate {number} is expected, given {given}")


# --8<-- [end:checks]


# --8<-- [start:tokens]
MARKS = re.compile(r"([{-~[-`!-&(-+:-@/])")  # ASCII punctuation without ' , - .
MARK_BEHIND, MARK_BEFORE = re.compile(r"([^0-9])([.,])"), re.compile(r"([.,])([^0-9])")
HYPHEN = re.compile(r"([0-9])(-)")


def split_marks(text: str) -> list[str]:
    """Words and ASCII punctuation; . and , stay in numbers, - stays in words."""
    text = " ".join(MARKS.split(text))
    if "." in text or "," in text:
        text = MARK_BEFORE.sub(r" \1 \2", MARK_BEHIND.sub(r"\1 \2 ", text))
    if "-" in text:
        text = HYPHEN.sub(r"\1 \2 ", text)
    return text.split()


@lru_cache(maxsize=1 << 16)
def split_word(word: str) -> list[str]:
    """The same for a word between spaces; frequent words are split once."""
    return split_marks(f" {word} ")


def tokens_13a(text: str) -> list[str]:
    """sacreBLEU's default, the `13a` of the WMT shared tasks: for languages that write spaces."""
    text = text.rstrip().replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for code, mark in (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")):
        text = text.replace(code, mark)
    return list(chain.from_iterable(map(split_word, text.split())))


# --8<-- [end:tokens]


# --8<-- [start:other-tokens]
@cache
def letters_of(kind: str) -> str:
    """All characters of a Unicode category (N number, P punctuation, S symbol), escaped."""
    points = range(sys.maxunicode + 1)
    return "".join(re.escape(chr(point)) for point in points if unicodedata.category(chr(point))[0] == kind)


@cache
def international_rules() -> tuple[re.Pattern, re.Pattern, re.Pattern]:
    """Punctuation that no number surrounds, from both sides; symbols."""
    number, mark, symbol = letters_of("N"), letters_of("P"), letters_of("S")
    rules = f"([^{number}])([{mark}])", f"([{mark}])([^{number}])", f"([{symbol}])"
    return tuple(re.compile(rule) for rule in rules)


def tokens_intl(text: str) -> list[str]:
    """sacreBLEU's `intl`: punctuation and symbols of all scripts."""
    before, behind, symbols = international_rules()
    text = behind.sub(r" \1 \2", before.sub(r"\1 \2 ", text.rstrip()))
    return symbols.sub(r" \1 ", text).split()


def tokens_char(text: str) -> list[str]:
    """sacreBLEU's `char`: every character but spaces."""
    return [letter for letter in text if not letter.isspace()]


# sacreBLEU's list, which begins at U+2001 where U+20000 was meant: it has curly quotes, arrows, the euro
CHINESE = re.compile(
    "([\u2001-\u2a6d\u2e80-\u2fdf\u2f00-\u303f\u3100-\u312f\u31a0-\u31bf\u31c0-\u31ef\u3200-\u33ff"
    "\u3400-\u4db5\u4e00-\u9fbb\uf900-\ufa2d\ufa30-\ufa6a\ufa70-\ufad9\ufe10-\ufe1f\ufe30-\ufe4f\uff00-\uffef])"
)


def tokens_zh(text: str) -> list[str]:
    """sacreBLEU's `zh`: each Chinese character is a word; the rest is split as by 13a."""
    return split_marks(CHINESE.sub(r" \1 ", text.strip()))


# --8<-- [end:other-tokens]


# --8<-- [start:ngrams]
def ngrams(words: list[str] | str, order: int) -> list:
    """All runs of `order` words, or of letters of a string; single words stay strings, which is faster."""
    if order == 1:
        return list(words)
    if isinstance(words, str):
        return [words[at : at + order] for at in range(len(words) - order + 1)]
    return list(zip(*(words[start:] for start in range(order)), strict=False))


def matches(candidate: list, reference: list) -> int:
    """How many n-grams of the candidate the reference has, each at most as often as the reference has it."""
    ours = set(candidate)
    if len(ours) == len(candidate):  # none repeats: faster, and the same
        return len(ours.intersection(reference))
    left, matched = Counter(reference), 0
    for gram in candidate:
        count = left.get(gram)
        if count:
            left[gram] = count - 1
            matched += 1
    return matched


# --8<-- [end:ngrams]


# --8<-- [start:smoothing]
# Each takes the matched and the possible n-grams of orders 1, 2, …, and gives the precisions (0 to 1)
# of those orders for which there is a possible n-gram at all.
def unsmoothed(matched: list[int], possible: list[int]) -> list[float]:
    """The plain ratio."""
    return [m / p for m, p in zip(matched, possible, strict=True) if p]


def smoothed_exp(matched: list[int], possible: list[int]) -> list[float]:
    """1/2, 1/4, … of a match for the first, second, … order without one: sacreBLEU's default."""
    missing = accumulate(not m for m in matched)
    return [(m or 0.5**gap) / p for m, p, gap in zip(matched, possible, missing, strict=True) if p]


def smoothed_floor(matched: list[int], possible: list[int]) -> list[float]:
    """A tenth of a match for each order without one."""
    return [(m or 0.1) / p for m, p in zip(matched, possible, strict=True) if p]


def smoothed_add(matched: list[int], possible: list[int]) -> list[float]:
    """One more match and one more possible n-gram, from order 2 on: then every order counts."""
    return unsmoothed(
        [m + (order > 0) for order, m in enumerate(matched)],
        [p + (order > 0) for order, p in enumerate(possible)],
    )


# --8<-- [end:smoothing]


# --8<-- [start:bleu]
def bleu_counts(candidate: str, references: list[str], tokenize: Callable = tokens_13a) -> list[int]:
    """Lengths of the candidate and the closest reference; matched n-grams of orders 1 to 4; possible ones."""
    words, others = tokenize(candidate), [tokenize(text) for text in references]
    closest = min((abs(len(words) - len(other)), len(other)) for other in others)[1]  # a tie: the shorter
    matched, possible = [], []
    for order in range(1, 5):
        allowed = ngrams(others[0], order)
        if len(others) > 1:  # the largest count in one reference
            allowed = list(reduce(or_, (Counter(ngrams(other, order)) for other in others)).elements())
        matched.append(matches(ngrams(words, order), allowed))
        possible.append(max(0, len(words) - order + 1))
    return [len(words), closest, *matched, *possible]


def brevity_penalty(length: int, reference: int) -> float:
    """1, or less for a candidate that is shorter than its reference."""
    return 1.0 if length >= reference else math.exp(1 - reference / length) if length else 0.0


def bleu_score(counts: list[int], smoothing: Callable = smoothed_exp, effective_order: bool = False) -> float:
    """BLEU of the sums of `bleu_counts`: the geometric mean of four precisions, with the penalty for brevity.

    With effective_order, orders for which the candidate is too short are left out. Else they make it 0.
    """
    length, reference, matched, possible = counts[0], counts[1], counts[2:6], counts[6:]
    precisions = smoothing(matched, possible)
    if not any(matched) or not all(precisions) or (len(precisions) < 4 and not effective_order):
        return 0.0
    mean_log = sum(map(math.log, precisions)) / len(precisions)
    return 100 * brevity_penalty(length, reference) * math.exp(mean_log)


def bleu(candidates: list[str], references: list[list[str]], tokenize: Callable = tokens_13a) -> float:
    """BLEU of a corpus, as sacreBLEU computes it by default. references: for each candidate its own list."""
    check_corpus(candidates, references)
    counts = [bleu_counts(*pair, tokenize) for pair in zip(candidates, references, strict=True)]
    return bleu_score([sum(column) for column in zip(*counts, strict=True)])


def sentence_bleu(candidate: str, references: list[str], tokenize: Callable = tokens_13a) -> float:
    """BLEU of one sentence, as sacreBLEU's sentence_bleu: the effective order counts."""
    check_corpus([candidate], [references])
    return bleu_score(bleu_counts(candidate, references, tokenize), effective_order=True)


# --8<-- [end:bleu]


# --8<-- [start:chrf]
def words_and_marks(text: str) -> list[str]:
    """Words for chrF++, one ASCII mark split from the end of each, or else from its beginning."""
    words = []
    for word in text.split():
        if len(word) > 1 and word[-1] in string.punctuation:
            words += [word[:-1], word[-1]]
        elif len(word) > 1 and word[0] in string.punctuation:
            words += [word[0], word[1:]]
        else:
            words.append(word)
    return words


def chrf_counts(candidate: str, reference: str, word_order: int = 0) -> list[tuple[int, int, int]]:
    """n-grams of the candidate, of the reference, and matched: of 1 to 6 letters, and of words."""
    letters = ["".join(text.split()) for text in (candidate, reference)]
    words = [words_and_marks(text) for text in (candidate, reference)] if word_order else []
    kinds = [(letters, order) for order in range(1, 7)] + [(words, n) for n in range(1, word_order + 1)]
    counts = []
    for (ours, theirs), order in kinds:
        possible = [max(0, len(one) - order + 1) for one in (ours, theirs)]
        matched = matches(ngrams(ours, order), ngrams(theirs, order)) if all(possible) else 0
        counts.append((possible[0] if possible[1] else 0, possible[1], matched))
    return counts


def chrf_score(counts: list[tuple[int, int, int]], beta: float = 2.0) -> float:
    """F of the mean precision and the mean recall, over orders that both texts have."""
    both = [(matched / ours, matched / theirs) for ours, theirs, matched in counts if ours and theirs]
    precision, recall = (sum(column) / len(both) for column in zip(*both, strict=True)) if both else (0, 0)
    return 100 * f_beta(precision, recall, beta)


def f_beta(precision: float, recall: float, beta: float = 1.0) -> float:
    """The weighted harmonic mean of precision and recall; 0 if both are. Beta > 1: recall weighs more."""
    if not precision + recall:
        return 0.0
    return (1 + beta**2) * precision * recall / (beta**2 * precision + recall)


def chrf(candidates: list[str], references: list[list[str]], word_order: int = 0) -> float:
    """chrF of a corpus; with word_order = 2 it is chrF++. Each sentence takes its best reference."""
    check_corpus(candidates, references)
    sums = [(0, 0, 0)] * (6 + word_order)
    for candidate, texts in zip(candidates, references, strict=True):
        counts = max((chrf_counts(candidate, text, word_order) for text in texts), key=chrf_score)
        sums = [tuple(map(sum, zip(a, b, strict=True))) for a, b in zip(sums, counts, strict=True)]
    return chrf_score(sums)


# --8<-- [end:chrf]


# --8<-- [start:rouge]
# a to z and digits stay, all other bytes become spaces: faster than a regular expression
LATIN = bytes(byte if chr(byte) in string.ascii_lowercase + string.digits else 32 for byte in range(256))


def rouge_tokens(text: str, stem: Callable[[str], str] | None = None) -> list[str]:
    """Words of a to z and digits, in lower case; all else separates. Words above 3 letters are stemmed."""
    words = text.lower().encode(errors="replace").translate(LATIN).decode("ascii").split()
    return [stem(word) if len(word) > 3 else word for word in words] if stem else words


def overlap(matched: int, candidate: int, reference: int) -> tuple[float, float, float]:
    """Precision, recall and F1 of some matches; 0 where there is nothing to match."""
    precision, recall = matched / max(candidate, 1), matched / max(reference, 1)
    return precision, recall, f_beta(precision, recall)


def rouge_n(candidate: str, reference: str, order: int, tokenize: Callable = rouge_tokens):
    """Precision, recall and F1 of n-grams."""
    ours, theirs = (ngrams(tokenize(text), order) for text in (candidate, reference))
    return overlap(matches(ours, theirs), len(ours), len(theirs))


def subsequence_rows(first: list[str], second: list[str]) -> list[int]:
    """The table of longest common subsequences, a row of bits for each prefix of `first`.

    A bit is 0 where the subsequence grows by one along `second`; a row takes a few operations on integers.
    """
    places: dict[str, int] = {}
    bit = 1
    for word in second:
        places[word] = places.get(word, 0) | bit
        bit <<= 1
    full = bit - 1
    row, rows = full, [full]
    for word in first:
        if word in places:
            hits = row & places[word]
            row = row + hits | row - hits  # what is carried beyond the last word touches no bit below
        rows.append(row)
    rows[-1] &= full
    return rows


def rouge_l(candidate: str, reference: str, tokenize: Callable = rouge_tokens):
    """Precision, recall and F1 of the longest common subsequence of words."""
    ours, theirs = tokenize(candidate), tokenize(reference)
    longest = len(ours) - subsequence_rows(theirs, ours)[-1].bit_count()
    return overlap(longest, len(ours), len(theirs))


# --8<-- [end:rouge]


# --8<-- [start:rouge-lsum]
def subsequence(first: list[str], second: list[str]) -> set[int]:
    """Places in `first` of one longest common subsequence: where several exist, that of rouge-score."""
    rows, found = subsequence_rows(first, second), set()
    i, j = len(first), len(second)

    def length(i: int, j: int) -> int:
        return j - (rows[i] & (1 << j) - 1).bit_count()

    while i and j:
        if first[i - 1] == second[j - 1]:
            found.add(i - 1)
            i, j = i - 1, j - 1
        elif length(i, j - 1) > length(i - 1, j):
            j -= 1
        else:
            i -= 1
    return found


def rouge_lsum(candidate: str, reference: str, tokenize: Callable = rouge_tokens):
    """ROUGE-L of a summary, one sentence a line: words of each line that some candidate line has in order."""
    ours, theirs = ([tokenize(line) for line in text.split("\n") if line] for text in (candidate, reference))
    left = Counter(word for line in ours for word in line)  # no word of the candidate matches twice
    hits = 0
    for line in theirs:
        for place in sorted(set().union(*(subsequence(line, other) for other in ours))):
            if left[line[place]]:
                left[line[place]] -= 1
                hits += 1
    return overlap(hits, sum(map(len, ours)), sum(map(len, theirs)))


# --8<-- [end:rouge-lsum]


# --8<-- [start:answers]
ARTICLES = re.compile(r"\b(a|an|the)\b")
NO_MARKS = str.maketrans("", "", string.punctuation)


def normal_answer(text: str) -> list[str]:
    """Words of an answer, in lower case, without ASCII punctuation and articles, as in SQuAD."""
    return ARTICLES.sub(" ", text.lower().translate(NO_MARKS)).split()


def exact_match(candidate: str, answers: Iterable[str]) -> float:
    """1 if the candidate is one of the right answers, else 0."""
    return float(any(normal_answer(candidate) == normal_answer(answer) for answer in answers))


def token_f1(candidate: str, answers: Iterable[str]) -> float:
    """F1 of the words of an answer, with the best right one. Nothing against nothing is 1."""
    ours, scores = normal_answer(candidate), []
    for answer in answers:
        theirs = normal_answer(answer)
        shared = matches(ours, theirs)
        scores.append(overlap(shared, len(ours), len(theirs))[2] if ours or theirs else 1.0)
    return max(scores)


# --8<-- [end:answers]
