"""Span corruption, the pre-training task of T5 (Raffel et al. 2019, arXiv 1910.10683, sections 3.1.4, 3.3.4).

Shapes: B windows of a batch, T tokens of a window, S spans, I tokens of an input, O tokens of a target, both
with their end. A window is a piece of text, cut to a fixed number of tokens.
"""

# --8<-- [start:imports]
import itertools
import math
import random
from collections.abc import Iterable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# --8<-- [end:imports]


# --8<-- [start:counts]
def counts(length: int, density: float, mean_span: float) -> tuple[int, int]:
    """How many of a window's tokens are hidden, and in how many spans. Halves go to the even neighbour.

    At least one token is hidden and one stays, and spans have text before each of them.
    """
    if length < 2:
        raise ValueError(f"a window of at least 2 tokens is expected, given {length}")
    if not 0 < density < 1:
        raise ValueError(f"a density between 0 and 1 is expected, given {density}")
    if not 1 <= mean_span < math.inf:
        raise ValueError(f"a mean span of at least 1 token is expected, given {mean_span}")
    hidden = min(max(round(density * length), 1), length - 1)
    spans = min(max(round(hidden / mean_span), 1), length - hidden)
    return hidden, spans


def lengths(length: int, density: float, mean_span: float) -> tuple[int, int]:
    """Tokens of the input and of the target that a window becomes, each with its end."""
    hidden, spans = counts(length, density, mean_span)
    return length - hidden + spans + 1, hidden + spans + 1


# --8<-- [end:counts]


# --8<-- [start:window]
def window_length(room: int, density: float, mean_span: float) -> int:
    """The longest window whose input fits into `room` tokens: 568 for 512, with 15 % and a mean of 3."""
    if lengths(2, density, mean_span)[0] > room:
        raise ValueError(f"room for at least 3 tokens is expected, given {room}")
    length = max(2, round((room - 1) / (1 - density + density / mean_span)))
    while lengths(length, density, mean_span)[0] > room:  # rounding can be off by a few tokens
        length -= 1
    while lengths(length + 1, density, mean_span)[0] <= room:
        length += 1
    return length


# --8<-- [end:window]


# --8<-- [start:mask]
def segment(total: int, parts: int, rng: random.Random) -> list[int]:
    """Lengths of `parts` pieces that make up `total` tokens; all ways to cut are equally likely.

    Each gap between two tokens draws a number, and the gaps with the smallest ones are cut.
    """
    draws = [rng.random() for _ in range(total - 1)]
    cuts = sorted(range(total - 1), key=draws.__getitem__)[: parts - 1]
    ends = [cut + 1 for cut in sorted(cuts)] + [total]
    return [end - start for start, end in itertools.pairwise([0, *ends])]


def noise_mask(length: int, density: float, mean_span: float, rng: random.Random) -> list[bool]:
    """Which tokens of a window are hidden: text, span, text, span, and so on. It ends with a span."""
    hidden, spans = counts(length, density, mean_span)
    hidden_lengths = segment(hidden, spans, rng)
    text_lengths = segment(length - hidden, spans, rng)
    mask = []
    for text, span in zip(text_lengths, hidden_lengths, strict=True):
        mask += [False] * text + [True] * span
    return mask


# --8<-- [end:mask]


# --8<-- [start:corrupt]
def sentinel_ids(size: int, count: int = 100) -> list[int]:
    """The last ids of a vocabulary of `size` tokens, from the highest down: 32099, 32098, … for T5."""
    if not 0 < count <= size:
        raise ValueError(f"at least one sentinel and as many tokens are expected, given {count} and {size}")
    return [size - 1 - k for k in range(count)]


def corrupt(tokens: Sequence, mask: Sequence[bool], sentinels: Sequence) -> tuple[list, list]:
    """Input and target: a sentinel for each hidden span, and each sentinel followed by what it hides.

    Where text ends the window, one more sentinel ends the target. Tokens are ids, or words.
    """
    if len(tokens) != len(mask):
        raise ValueError(f"a mask for each token is expected, given {len(mask)} for {len(tokens)}")
    if taken := set(tokens) & set(sentinels):
        raise ValueError(f"a text without sentinels is expected, given {min(taken)} in it")
    starts = [hidden and not (place and mask[place - 1]) for place, hidden in enumerate(mask)]
    needed = sum(starts) + (len(mask) > 0 and not mask[-1])
    if needed > len(sentinels):
        raise ValueError(f"{needed} sentinels are expected, given {len(sentinels)}: there are too many spans")
    source, target, unused = [], [], iter(sentinels)
    for token, hidden, start in zip(tokens, mask, starts, strict=True):
        if start:
            sentinel = next(unused)
            source.append(sentinel)
            target.append(sentinel)
        (target if hidden else source).append(token)
    if mask and not mask[-1]:
        target.append(next(unused))
    return source, target


# --8<-- [end:corrupt]


# --8<-- [start:rebuild]
def rebuild(source: Sequence, target: Sequence, sentinels: Sequence) -> list:
    """The text that `corrupt` took apart: what follows a sentinel in the target goes back to its place."""
    known, spans, span = set(sentinels), {}, None
    for token in target:
        if token in known:
            if token in spans:
                raise ValueError(f"each sentinel once in the target is expected, given {token} twice")
            spans[token] = span = []
        elif span is None:
            raise ValueError(f"a target that begins with a sentinel is expected, given {token}")
        else:
            span.append(token)
    whole = []
    for token in source:
        if token in known and token not in spans:
            raise ValueError(f"sentinel {token} of the input is expected in the target, given none")
        whole += spans.pop(token) if token in known else [token]
    if lost := [sentinel for sentinel, span in spans.items() if span]:  # an empty one only ends the target
        raise ValueError(f"sentinel {lost[0]} of the target is expected in the input, given none")
    return whole


# --8<-- [end:rebuild]


# --8<-- [start:chances]
def span_length_chances(hidden: int, spans: int) -> list[float]:
    """The chance that a span has 1, 2, 3, … tokens, if `hidden` tokens are cut into `spans` pieces."""
    if not 1 <= spans <= hidden:
        raise ValueError(f"at least one span and a token for each are expected, given {spans} and {hidden}")
    if spans == 1:
        return [0.0] * (hidden - 1) + [1.0]
    ways = math.comb(hidden - 1, spans - 1)
    return [math.comb(hidden - k - 1, spans - 2) / ways for k in range(1, hidden - spans + 2)]


# --8<-- [end:chances]


# --8<-- [start:batch]
def segment_rows(draws: np.ndarray, parts: int) -> Tensor:
    """`segment` for all rows of draws, one for each gap: lengths (B, parts).

    It finds the largest draw that is cut without sorting. (Two equal draws there would raise an error.)
    """
    rows, gaps = draws.shape
    ends = np.ones((rows, gaps + 1), dtype=bool)  # the last token ends a piece
    limit = np.partition(draws, parts - 2, axis=1)[:, parts - 2, None] if parts > 1 else -1.0
    np.less_equal(draws, limit, out=ends[:, :-1])
    place = torch.from_numpy(np.flatnonzero(ends)).view(rows, parts) + 1  # (B, S) through all rows
    first = torch.arange(rows)[:, None] * (gaps + 1)  # (B, 1)
    return place.diff(dim=1, prepend=first)


def corrupt_batch(
    tokens: Tensor,
    density: float,
    mean_span: float,
    sentinels: Sequence[int],
    end: int,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """Inputs (B, I) and targets (B, O) of windows tokens (B, T), each with its end; no row needs padding.

    It gives what `noise_mask` and `corrupt` give, row after row, with the same generator.
    """
    rows, length = tokens.shape
    hidden, spans = counts(length, density, mean_span)
    if spans > len(sentinels):
        raise ValueError(f"{spans} sentinels are expected, given {len(sentinels)}: there are too many spans")
    if tokens.max() >= min(sentinels) and torch.isin(tokens, torch.tensor(sentinels)).any():
        raise ValueError("a text without sentinels is expected, given one in it")
    draws = rng.random((rows, length - 2))
    span = segment_rows(draws[:, : hidden - 1], spans)  # (B, S)
    text = segment_rows(draws[:, hidden - 1 :], spans)  # (B, S)
    ids = torch.tensor(sentinels[:spans], dtype=tokens.dtype)  # (S,)
    begin = (text + span).flatten().cumsum(dim=0).view(rows, spans) - span  # (B, S) where spans begin
    source = spread(tokens, begin - text, text + 1)  # (_,) each text, and one more token, for the sentinel
    place = (text + 1).flatten().cumsum(dim=0).view(rows, spans) - 1  # (B, S) of that token
    source[place] = ids
    target = spread(tokens, begin - 1, span + 1)  # (_,) one token more, and each span
    place = (span + 1).flatten().cumsum(dim=0).view(rows, spans) - span - 1  # (B, S)
    target[place] = ids
    both = [F.pad(part.view(rows, -1), (0, 1), value=end) for part in (source, target)]
    return both[0], both[1]


def spread(tokens: Tensor, begin: Tensor, size: Tensor) -> Tensor:
    """The runs of tokens (B, T) from begin (B, S), counted through all rows, each of size (B, S): (_,)."""
    size = size.flatten()  # (_,)
    shift = begin.flatten() - size.cumsum(dim=0) + size  # (_,) how far each run moves
    at = torch.from_numpy(np.repeat(shift.numpy(), size.numpy()))  # (_,)
    at += torch.arange(len(at))
    return tokens.flatten()[at]


# --8<-- [end:batch]


# --8<-- [start:pack]
def pack(documents: Iterable[Sequence[int]], length: int) -> tuple[list[list[int]], list[int]]:
    """Full windows of `length` tokens, from documents set one behind another, and the tokens left over."""
    if length < 2:
        raise ValueError(f"a window of at least 2 tokens is expected, given {length}")
    joined = [token for document in documents for token in document]
    full = len(joined) - len(joined) % length
    return [joined[at : at + length] for at in range(0, full, length)], joined[full:]


# --8<-- [end:pack]
