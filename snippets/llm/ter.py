"""Translation edit rate (TER, Snover et al. 2006) as in sacreBLEU, which follows the program Tercom.

TER is 0 where nothing has to be edited; it has no upper limit. Less is better.
"""

# --8<-- [start:imports]
import math

# --8<-- [end:imports]
from snippets.llm.evaluation import check_corpus

# --8<-- [start:edits]
BEAM, LONGEST_BLOCK, FARTHEST, MOST_TRIES = 25, 10, 50, 1000
INFINITE = 10**9


def edit_rows(candidate: list[str], reference: list[str], rows: list[list[int]]) -> list[list[int]]:
    """The table of edit distances, near its diagonal; the first rows may be given.

    rows[i][j] is the distance of the first i words of the candidate from the first j of the reference.
    """
    width = len(reference) + 1
    ratio = len(reference) / len(candidate) if candidate else 1
    beam = math.ceil(ratio / 2 + BEAM) if ratio / 2 > BEAM else BEAM
    rows = rows or [list(range(width))]
    for i in range(len(rows), len(candidate) + 1):
        word, above, row = candidate[i - 1], rows[-1], [INFINITE] * width
        middle = math.floor(i * ratio)
        first, last = max(0, middle - beam), width if i == len(candidate) else min(width, middle + beam)
        left = INFINITE
        if first == 0:
            row[0] = left = above[0] + 1
            first = 1
        for j in range(first, last):
            best = above[j - 1] + (word != reference[j - 1])
            if above[j] < best:
                best = above[j] + 1
            if left < best:
                best = left + 1
            row[j] = left = best
        rows.append(row)
    return rows


def alignment(rows: list[list[int]], candidate: list[str], reference: list[str]):
    """Where each reference word lies in the candidate, and which words of both are wrong.

    Where several ways cost the same: keep or replace a word, else take one out, else put one in.
    """
    i, j = len(candidate), len(reference)
    places, missed, wrong = [0] * j, [True] * j, [True] * i
    while i or j:
        if i and j and rows[i][j] == rows[i - 1][j - 1] + (candidate[i - 1] != reference[j - 1]):
            i, j = i - 1, j - 1
            missed[j] = wrong[i] = candidate[i] != reference[j]
            places[j] = i
        elif i and rows[i][j] == rows[i - 1][j] + 1:
            i -= 1
        else:
            j -= 1
            places[j] = i - 1
    return places, missed, wrong


# --8<-- [end:edits]


# --8<-- [start:distance]
def edit_distance(candidate: list[str], places: dict[str, int], width: int) -> int:
    """Edit distance from a reference of `width` words, as bits: a row of cells at once (Myers 1999)."""
    full, last = (1 << width) - 1, 1 << width - 1
    up, down, distance = full, 0, width
    for word in candidate:
        match = places.get(word, 0)
        diagonal = ((match & up) + up ^ up) | match | down
        rise, fall = down | ~(diagonal | up) & full, up & diagonal
        distance += bool(rise & last) - bool(fall & last)
        rise = rise << 1 | 1
        up, down = (fall << 1 | ~(diagonal | rise)) & full, rise & diagonal & full
    return distance


# --8<-- [end:distance]


# --8<-- [start:shift]
def moved(words: list[str], start: int, length: int, target: int) -> list[str]:
    """Words with a block taken out and put in before the place `target`."""
    block, end = words[start : start + length], start + length
    if target < start:
        return words[:target] + block + words[target:start] + words[end:]
    if target > end:
        return words[:start] + words[end:target] + block + words[target:]
    return words[:start] + words[end : length + target] + block + words[length + target :]


def blocks(candidate: list[str], reference: list[str]):
    """Runs of words that both texts have: (place in the candidate, place in the reference, length)."""
    places: dict[str, list[int]] = {}
    for j, word in enumerate(reference):
        places.setdefault(word, []).append(j)
    for i, word in enumerate(candidate):
        for j in places.get(word, []):
            if abs(i - j) <= FARTHEST:
                longest = min(LONGEST_BLOCK, len(candidate) - i, len(reference) - j)
                for length in range(longest):
                    if candidate[i + length] != reference[j + length]:
                        break
                    yield i, j, length + 1


def shifts(candidate: list[str], reference: list[str], rows: list[list[int]]):
    """Blocks to move (start, length, target): wrong where they are, and missed where they go."""
    places, missed, wrong = alignment(rows, candidate, reference)
    for start, at, length in blocks(candidate, reference):
        if not any(wrong[start : start + length]) or not any(missed[at : at + length]):
            continue
        if start <= places[at] < start + length:
            continue
        targets = [0 if at == 0 else places[at - 1] + 1] + [place + 1 for place in places[at : at + length]]
        yield start, length, [t for n, t in enumerate(targets) if n == 0 or t != targets[n - 1]]


# --8<-- [end:shift]


# --8<-- [start:ter]
def count_edits(candidate: list[str], reference: list[str]) -> int:
    """The fewest insertions, deletions, replacements and moved blocks that a greedy search finds."""
    if not reference:
        return len(candidate)
    bits: dict[str, int] = {}
    for j, word in enumerate(reference):
        bits[word] = bits.get(word, 0) | 1 << j
    moves = tries = 0
    while True:
        rows, best, known = edit_rows(candidate, reference, []), None, {}
        now = rows[-1][-1]
        for start, length, targets in shifts(candidate, reference, rows):
            for target in targets:
                words = moved(candidate, start, length, target)
                key = tuple(words)
                if key not in known and len(reference) < BEAM:
                    known[key] = edit_distance(words, bits, len(reference))
                elif key not in known:
                    kept = rows[: min(start, target) + 1]
                    known[key] = edit_rows(words, reference, kept.copy())[-1][-1]
                tries += 1
                gain = now - known[key], length, -start, -target
                if best is None or gain > best[0]:
                    best = gain, words
            if tries >= MOST_TRIES:
                break
        if tries >= MOST_TRIES or best is None or best[0][0] <= 0:
            return moves + now
        candidate, moves = best[1], moves + 1


def ter_counts(candidate: str, references: list[str]) -> tuple[int, float]:
    """Edits to the closest reference, and the mean length of all. In lower case; marks stick to words."""
    words, others = candidate.lower().split(), [text.lower().split() for text in references]
    return min(count_edits(words, other) for other in others), sum(map(len, others)) / len(others)


def ter(candidates: list[str], references: list[list[str]]) -> float:
    """Edits for each 100 words of reference in a corpus. Less is better."""
    check_corpus(candidates, references)
    counts = [ter_counts(*pair) for pair in zip(candidates, references, strict=True)]
    edits, length = (sum(column) for column in zip(*counts, strict=True))
    return 100 * edits / length if length else 100.0 * (edits > 0)


# --8<-- [end:ter]
