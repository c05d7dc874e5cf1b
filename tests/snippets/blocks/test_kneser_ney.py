"""Kneser-Ney n-grams against a second implementation, in dictionaries and without arrays."""

from collections import Counter, defaultdict

import pytest
import torch

from snippets.blocks.kneser_ney import KneserNey

PHRASE = "return the list of names that the list returns, or none of the names in the list; "


def by_hand(train: bytes, context: bytes) -> list[float]:
    """The distribution of the next byte after context (up to 4 bytes), by the definition."""
    counts = {5: Counter(train[i : i + 5] for i in range(len(train) - 4))}
    for n in (1, 2, 3, 4):
        before = defaultdict(set)
        for i in range(1, len(train) - n + 1):
            before[train[i : i + n]].add(train[i - 1])
        counts[n] = {gram: len(kinds) for gram, kinds in before.items()}

    def discount(n: int, count: int) -> float:
        of = Counter(counts[n].values())
        one, two = max(1, of[1]), max(1, of[2])
        k = min(count, 3)
        share = k - (k + 1) * one / (one + 2 * two) * max(1, of[k + 1]) / max(1, of[k])
        return min(max(share, 0), k)

    def probability(history: bytes, byte: int) -> float:
        n = len(history) + 1
        shorter = 1 / 256 if n == 1 else probability(history[1:], byte)
        following = {gram[-1]: count for gram, count in counts[n].items() if gram[:-1] == history}
        if not following:
            return shorter
        taken = sum(discount(n, count) for count in following.values())
        own = following.get(byte, 0)
        kept = own - (discount(n, own) if own else 0)
        return (kept + taken * shorter) / sum(following.values())

    return [probability(context, byte) for byte in range(256)]


@pytest.mark.parametrize("context", [b"list", b" the", b"zzzz", b"qlis", b"e li"])
def test_equals_the_definition_and_sums_to_one(context, agrees):
    train = PHRASE.encode() * 2 + b"the last of the lists"
    model = KneserNey(torch.tensor(list(train)))
    ours = [model.probabilities(torch.tensor([*context, byte]))[-1].item() for byte in range(256)]
    expected = by_hand(train, context)
    agrees(ours, expected, "Kneser-Ney by its definition, in dictionaries", 1e-12)
    assert sum(ours) == pytest.approx(1, abs=1e-12)
    raw = by_hand(train + train, context)  # other counts: the comparison could fail
    assert max(abs(a - b) for a, b in zip(ours, raw, strict=True)) > 1e-4


def test_first_bytes_have_shorter_contexts():
    train = PHRASE.encode()
    model = KneserNey(torch.tensor(list(train)))
    found = model.probabilities(torch.tensor(list(b"list of")))
    for end in range(4):
        assert found[end].item() == pytest.approx(by_hand(train, b"list"[:end])[b"list"[end]], abs=1e-12)
    bits = -found[1:].log2().mean().item()
    assert model.bits_per_byte(torch.tensor(list(b"list of"))) == pytest.approx(bits)


def test_predicts_what_it_counted_better_than_anything_else():
    model = KneserNey(torch.tensor(list(PHRASE.encode() * 3)))
    assert model.bits_per_byte(torch.tensor(list(PHRASE.encode()))) < 2
    assert model.bits_per_byte(torch.tensor(list(PHRASE.upper().encode()))) > 6


@pytest.mark.parametrize("codes", [[1, 2, 3], [1, 2, 3, 4, 256], [-1, 2, 3, 4, 5], [[1, 2, 3, 4, 5]]])
def test_wrong_input_is_refused(codes):
    with pytest.raises(ValueError, match="bytes .* expected, given"):
        KneserNey(torch.tensor(codes))
