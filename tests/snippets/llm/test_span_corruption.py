"""Span corruption: counts, lengths, masks, the round trip, the distribution of span lengths, and whole batches."""

import math
import random
import re
from collections import Counter
from itertools import combinations, groupby

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from transformers import T5Tokenizer

from snippets.llm import span_corruption as page
from theme.page.pages import ROOT

T5 = page.sentinel_ids(32100)
settings.register_profile("span", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("span")
WINDOWS = st.integers(2, 2000)
DENSITIES = st.floats(0.01, 0.99)
MEANS = st.floats(1, 50)


def spans_of(mask):
    """Lengths of the hidden runs of a mask."""
    return [len(list(run)) for hidden, run in groupby(mask) if hidden]


# counts and lengths


@pytest.mark.equation("span-counts", of=page.counts)
def test_counts_are_their_formula(formula):
    cases = [
        (568, 0.15, 3),
        (350, 0.15, 3),
        (2, 0.4, 3),
        (3, 0.1, 1),
        (40, 0.9, 1),
        (9, 0.97, 2),
        (500, 0.15, 7.5),
        (38, 0.15, 3),
    ]
    n, rho, mu = (torch.tensor(column, dtype=torch.float64) for column in zip(*cases, strict=True))
    found = torch.tensor([page.counts(*case) for case in cases], dtype=torch.float64)
    names = {"n": n, r"\rho": rho, r"\mu": mu, "N": found[:, 0], "S": found[:, 1]}
    formula("span-counts").holds(names | {r"\operatorname{round}": lambda x: x.round()}, relations=2)


@pytest.mark.equation("span-lengths", of=page.lengths)
def test_lengths_are_their_formula(formula):
    for case in ((568, 0.15, 3), (100, 0.5, 3), (21, 0.3, 1.5)):
        hidden, spans = page.counts(*case)
        source, target = page.lengths(*case)
        formula("span-lengths").holds({"n": case[0], "N": hidden, "S": spans, "I": source, "O": target}, relations=2)
    assert page.lengths(568, 0.15, 3) == (512, 114)


def t5_helper(room, density, mean_span):
    """T5's random_spans_helper, from its definition: add tokens to a window while its input fits."""

    def lengths(n):
        noise = round(n * density)
        spans = round(noise / mean_span)
        return n - noise + spans + 1, noise + spans + 1

    n = room - 1
    while lengths(n + 1)[0] <= room:
        n += 1
    source, target = lengths(n)
    shorter = density == 0.5 and target > source  # there it makes both equally long
    return n - shorter, target - shorter


@pytest.mark.equation("span-window", of=page.window_length)
def test_windows_are_near_their_estimate(formula):
    """Equal to it where nothing is rounded, within three tokens elsewhere."""
    for density, mean_span, rooms in ((0.15, 3, (19, 181, 541)), (0.5, 3, (9, 81, 401)), (0.25, 5, (17, 161, 401))):
        n = torch.tensor([page.window_length(room, density, mean_span) for room in rooms], dtype=torch.float64)
        names = {"n": n, "I": torch.tensor(rooms, dtype=torch.float64), r"\rho": density, r"\mu": mean_span}
        formula("span-window").holds(names)
    for density, mean_span in ((0.15, 3), (0.5, 3), (0.25, 8), (0.1, 20)):
        for room in range(20, 2000, 17):
            estimate = (room - 1) / (1 - density + density / mean_span)
            assert abs(page.window_length(room, density, mean_span) - estimate) < 3


@pytest.mark.claim("span-helper")
def test_the_window_is_the_one_of_t5_s_helper():
    """But where it forgets that there is always a span, and its window does not fit; and where half is hidden."""
    for density, mean_span in ((0.15, 3), (0.15, 2), (0.15, 5), (0.15, 10), (0.25, 3), (0.1, 3), (0.3, 8)):
        for room in [*range(10, 60), *range(61, 1100, 13)]:
            window = page.window_length(room, density, mean_span)
            theirs, target = t5_helper(room, density, mean_span)
            if round(round(theirs * density) / mean_span) == 0:
                assert page.lengths(theirs, density, mean_span)[0] >= room and room < 50
            else:
                assert window == theirs and page.lengths(window, density, mean_span)[1] == target
    assert page.window_length(512, 0.15, 3) == 568 and t5_helper(512, 0.15, 3) == (568, 114)
    assert page.lengths(t5_helper(20, 0.15, 10)[0], 0.15, 10)[0] == 21
    longer = [page.window_length(room, 0.5, 3) - t5_helper(room, 0.5, 3)[0] for room in range(20, 500, 7)]
    assert set(longer) == {0, 1}


@given(st.integers(3, 3000), DENSITIES, MEANS)
def test_a_window_is_the_longest_that_fits(room, density, mean_span):
    window = page.window_length(room, density, mean_span)
    assert page.lengths(window, density, mean_span)[0] <= room < page.lengths(window + 1, density, mean_span)[0]


@pytest.mark.claim("span-rounding")
def test_halves_go_to_the_even_number_and_float32_rounds_another_way():
    assert page.counts(110, 0.15, 3)[0] == 16 and round(110 * 0.15, 6) == 16.5
    assert page.counts(350, 0.15, 3)[0] == 52 and 350 * 0.15 == 52.5
    single = np.float32(350) * np.float32(0.15)
    assert single > 52.5 and round(float(single)) == 53


# masks


@given(WINDOWS, DENSITIES, MEANS, st.integers(0, 2**32))
def test_masks_have_the_counts_and_begin_with_text(length, density, mean_span, seed):
    hidden, spans = page.counts(length, density, mean_span)
    mask = page.noise_mask(length, density, mean_span, random.Random(seed))
    assert len(mask) == length and sum(mask) == hidden and len(spans_of(mask)) == spans
    assert not mask[0] and mask[-1]
    assert 1 <= hidden < length and abs(hidden - density * length) <= 1


@given(st.integers(1, 200), st.data())
def test_segments_are_not_empty_and_add_up(total, data):
    parts = data.draw(st.integers(1, total))
    found = page.segment(total, parts, random.Random(0))
    assert len(found) == parts and sum(found) == total and min(found) > 0


def test_all_ways_to_cut_are_equally_likely():
    """Seven tokens in three pieces: fifteen ways, by chi-square."""
    rng, drawn = random.Random(0), Counter()
    for _ in range(6_000):
        drawn[tuple(page.segment(7, 3, rng))] += 1
    assert len(drawn) == math.comb(6, 2)
    assert stats.chisquare(list(drawn.values())).pvalue > 1e-3
    rounded = Counter()  # negative control: sizes by independent draws, cut to fit
    for _ in range(6_000):
        first = rng.randint(1, 5)
        rounded[first, second := rng.randint(1, 6 - first), 7 - first - second] += 1
    assert stats.chisquare(list(rounded.values())).pvalue < 1e-6


@pytest.mark.equation("span-chances", of=page.span_length_chances)
def test_chances_of_lengths_are_their_formula(formula):
    for hidden, spans in ((9, 4), (13, 2), (30, 11)):
        chances = page.span_length_chances(hidden, spans)
        for k, chance in enumerate(chances, 1):
            ways = {"C": lambda a, b: torch.tensor(math.comb(int(a), int(b)), dtype=torch.float64)}
            names = ways | {"N": hidden, "S": spans, "k": k, "p_k": torch.tensor(chance, dtype=torch.float64)}
            formula("span-chances").holds(names)


def test_chances_are_those_of_all_ways_to_cut():
    """Counted one by one, for every number of tokens up to ten."""
    for hidden in range(1, 11):
        for spans in range(1, hidden + 1):
            seen, ways = Counter(), 0
            for cuts in combinations(range(1, hidden), spans - 1):
                ends = [*cuts, hidden]
                seen.update(b - a for a, b in zip([0, *ends], ends, strict=False))
                ways += spans
            chances = page.span_length_chances(hidden, spans)
            assert chances == pytest.approx([seen[k] / ways for k in range(1, len(chances) + 1)])
            assert sum(chances) == pytest.approx(1)
            assert sum(k * p for k, p in enumerate(chances, 1)) == pytest.approx(hidden / spans)
    for hidden, spans in ((3, 4), (3, 0)):
        with pytest.raises(ValueError, match="at least one span"):
            page.span_length_chances(hidden, spans)


@pytest.mark.claim("span-distribution")
def test_drawn_lengths_have_the_exact_distribution():
    """One span of each of 8,000 windows of 568 tokens, so that draws are independent; the last one to be hard."""
    rng, lengths = random.Random(1), Counter()
    for _ in range(8_000):
        lengths[page.segment(85, 28, rng)[-1]] += 1
    chances = page.span_length_chances(85, 28)
    wanted = [8_000 * p for p in chances]
    last = next(k for k, number in enumerate(wanted) if sum(wanted[k:]) < 20)
    seen = [lengths[k] for k in range(1, last + 1)] + [sum(n for k, n in lengths.items() if k > last)]
    assert stats.chisquare(seen, [*wanted[:last], sum(wanted[last:])]).pvalue > 1e-3
    poisson = [8_000 * p for p in stats.poisson(85 / 28 - 1).pmf(range(last))]  # negative control: lengths about 3
    assert stats.chisquare(seen, [*poisson, 8_000 - sum(poisson)]).pvalue < 1e-9
    assert chances[0] == pytest.approx(27 / 84) and chances[0] == max(chances)  # one token is the commonest length


# corruption


def t5_rule(tokens, mask, size):
    """T5's way, from its definition: sentinels by running sums, the target from the mask turned over."""

    def replaced(noise):
        before = np.concatenate([[False], noise[:-1]])
        first, later = noise & ~before, noise & before
        ids = np.where(first, size - np.cumsum(first), tokens)
        return ids[~later]

    return replaced(mask), replaced(~mask)


@pytest.mark.claim("span-closing")
def test_ids_are_those_of_t5_s_rule(agrees):
    """For masks that begin with text, the last of which end with text."""
    rng = np.random.default_rng(0)
    for end in (True, False):
        for _ in range(50):
            tokens, mask = rng.integers(3, 900, 60), rng.random(60) < 0.4
            mask[0], mask[-1] = False, end
            source, target = page.corrupt(tokens.tolist(), mask.tolist(), page.sentinel_ids(1000, 40))
            theirs = t5_rule(tokens, mask, 1000)
            agrees([float(i) for i in source], torch.tensor(theirs[0]).double(), "T5's rule in running sums", 0)
            agrees([float(i) for i in target], torch.tensor(theirs[1]).double(), "T5's rule in running sums", 0)
            if end:
                assert source != page.corrupt(tokens.tolist(), mask.tolist(), [*range(960, 1000)])[0]


@given(WINDOWS, DENSITIES, MEANS, st.integers(0, 2**32))
def test_input_and_target_rebuild_the_text(length, density, mean_span, seed):
    rng = random.Random(seed)
    tokens = [rng.randrange(3000) for _ in range(length)]
    sentinels = page.sentinel_ids(6000, 2000)
    mask = page.noise_mask(length, density, mean_span, rng)
    source, target = page.corrupt(tokens, mask, sentinels)
    assert page.rebuild(source, target, sentinels) == tokens
    assert (len(source) + 1, len(target) + 1) == page.lengths(length, density, mean_span)
    used = sentinels[: len(spans_of(mask))]
    assert [t for t in source if t >= 4000] == [t for t in target if t >= 4000] == used


@given(st.lists(st.booleans(), max_size=60))
def test_any_mask_rebuilds_the_text(mask):
    """Also masks that begin with a span, hide all or nothing, or are empty."""
    tokens = [f"w{i}" for i in range(len(mask))]
    sentinels = [f"<{k}>" for k in range(40)]
    source, target = page.corrupt(tokens, mask, sentinels)
    assert page.rebuild(source, target, sentinels) == tokens
    assert (target[-1] in sentinels if target else False) == bool(mask and not mask[-1])


def test_sentinels_descend_from_the_size():
    assert T5[:2] == [32099, 32098] and T5[-1] == 32000 and len(T5) == 100
    assert page.sentinel_ids(384, 3) == [383, 382, 381]
    for size, count in ((32100, 0), (3, 4)):
        with pytest.raises(ValueError, match="at least one sentinel"):
            page.sentinel_ids(size, count)


@pytest.mark.claim("span-sentinel-names")
def test_a_tokenizer_s_sentinels_go_by_name():
    """With T5's own list of pieces they descend from its size. Made by transformers, they ascend."""
    words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((f"▁w{i}", -1.0) for i in range(50))]
    as_in_t5 = [(f"<extra_id_{k}>", 0.0) for k in reversed(range(100))]
    names = [f"<extra_id_{k}>" for k in range(100)]
    own = T5Tokenizer(vocab=[*words, *as_in_t5], extra_ids=100)
    assert own.convert_tokens_to_ids(names) == page.sentinel_ids(len(own)) and len(own) == 153
    own.add_tokens(["<new>"])
    assert page.sentinel_ids(len(own))[0] == own.convert_tokens_to_ids("<new>")  # one too many
    assert own.convert_tokens_to_ids(names) == page.sentinel_ids(len(own) - 1)
    made = T5Tokenizer(vocab=words, extra_ids=100)
    assert made.convert_tokens_to_ids(names) == page.sentinel_ids(len(made))[::-1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: page.counts(1, 0.15, 3), "window of at least 2 tokens is expected, given 1"),
        (lambda: page.counts(9, 0, 3), "density between 0 and 1 is expected, given 0"),
        (lambda: page.counts(9, 1.0, 3), "density between 0 and 1 is expected, given 1.0"),
        (lambda: page.counts(9, math.nan, 3), "density between 0 and 1"),
        (lambda: page.counts(9, 0.5, 0.5), "mean span of at least 1 token is expected, given 0.5"),
        (lambda: page.counts(9, 0.5, math.nan), "mean span of at least 1"),
        (lambda: page.counts(9, 0.5, math.inf), "mean span of at least 1"),
        (lambda: page.window_length(2, 0.5, 1), "room for at least 3 tokens is expected, given 2"),
        (lambda: page.corrupt([1, 2, 3], [False, True], [9]), "a mask for each token is expected, given 2 for 3"),
        (lambda: page.corrupt([1, 9, 3], [False, True, True], [9]), "text without sentinels is expected, given 9"),
        (lambda: page.corrupt([1, 2, 3, 4], [False, True] * 2, [9]), "2 sentinels are expected, given 1: there are"),
        (lambda: page.corrupt([1, 2, 3], [False, True, False], [9]), "2 sentinels are expected, given 1"),
        (lambda: page.rebuild([1, 9], [5, 9], [9]), "begins with a sentinel is expected, given 5"),
        (
            lambda: page.rebuild([1, 9], [9, 5, 9, 6], [9]),
            "each sentinel once in the target",
        ),
        (lambda: page.rebuild([1, 9, 8], [9, 5], [9, 8]), "sentinel 8 of the input is expected in the target"),
        (lambda: page.rebuild([1, 9, 9], [9, 5], [9]), "sentinel 9 of the input is expected in the target"),
        (lambda: page.rebuild([1, 9], [9, 5, 8, 6], [9, 8]), "sentinel 8 of the target is expected in the input"),
        (lambda: page.pack([[1, 2]], 1), "window of at least 2 tokens is expected, given 1"),
    ],
)
def test_wrong_input_is_refused_with_what_was_given(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.claim("span-many")
def test_a_window_of_two_thousand_tokens_needs_as_many_sentinels_as_t5_has():
    """Beyond a hundred spans, ids would be those of words: both versions refuse."""
    assert page.counts(2000, 0.15, 3)[1] == 100 and page.counts(2004, 0.15, 3)[1] == 100
    assert page.counts(2010, 0.15, 3)[1] > 100
    tokens = torch.randint(3, 30000, (2, 2010))
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="101 sentinels are expected, given 100"):
        page.corrupt_batch(tokens, 0.15, 3, T5, 1, rng)
    with pytest.raises(ValueError, match="101 sentinels are expected, given 100"):
        page.corrupt(tokens[0].tolist(), page.noise_mask(2010, 0.15, 3, random.Random(0)), T5)


@pytest.mark.claim("span-ends")
def test_windows_of_up_to_thirty_tokens_always_lose_their_end():
    """One span of all hidden tokens: there is a single mask. From 31 on there are several."""
    for length in range(2, 31):
        hidden, spans = page.counts(length, 0.15, 3)
        masks = {tuple(page.noise_mask(length, 0.15, 3, random.Random(seed))) for seed in range(20)}
        assert spans == 1 and masks == {(False,) * (length - hidden) + (True,) * hidden}
    assert page.counts(31, 0.15, 3) == (5, 2)
    assert len({tuple(page.noise_mask(31, 0.15, 3, random.Random(seed))) for seed in range(20)}) > 10


# batches


def plain(tokens, density, mean_span, sentinels, end, rng):
    """Row after row, as the page explains it."""
    sources, targets = [], []
    for row in tokens.tolist():
        mask = page.noise_mask(len(row), density, mean_span, rng)
        source, target = page.corrupt(row, mask, sentinels)
        sources.append([*source, end])
        targets.append([*target, end])
    return sources, targets


@given(st.integers(1, 5), WINDOWS, DENSITIES, MEANS, st.integers(0, 2**32))
def test_a_batch_is_what_the_plain_version_gives_row_by_row(rows, length, density, mean_span, seed):
    tokens = torch.from_numpy(np.random.default_rng(seed).integers(3, 4000, (rows, length)))
    case = density, mean_span, page.sentinel_ids(8000, 2000), 1
    source, target = page.corrupt_batch(tokens, *case, np.random.default_rng(seed))
    assert (source.tolist(), target.tolist()) == plain(tokens, *case, np.random.default_rng(seed))
    assert source.dtype == target.dtype == tokens.dtype


def test_the_generator_stands_where_the_plain_version_leaves_it():
    tokens = torch.randint(3, 900, (4, 51))
    one, other = np.random.default_rng(5), np.random.default_rng(5)
    page.corrupt_batch(tokens, 0.3, 2.0, T5, 1, one)
    plain(tokens, 0.3, 2.0, T5, 1, other)
    assert one.random() == other.random()
    again = page.corrupt_batch(tokens, 0.3, 2.0, T5, 1, one)
    assert not again[0].equal(page.corrupt_batch(tokens, 0.3, 2.0, T5, 1, one)[0])  # masks are drawn afresh


def test_shapes_of_a_batch():
    tokens = torch.randint(3, 900, (7, 51))
    source, target = page.corrupt_batch(tokens, 0.3, 2.0, T5, 1, np.random.default_rng(0))
    assert source.shape == (7, 45) and target.shape == (7, 24) and page.lengths(51, 0.3, 2.0) == (45, 24)
    assert source[:, -1].eq(1).all() and target[:, -1].eq(1).all()


def test_a_batch_with_a_sentinel_in_it_is_refused():
    tokens = torch.randint(3, 900, (3, 40))
    tokens[1, 7] = T5[2]
    with pytest.raises(ValueError, match="without sentinels"):
        page.corrupt_batch(tokens, 0.15, 3, T5, 1, np.random.default_rng(0))
    tokens[1, 7] = 32100  # above them all, such as a token that was added
    page.corrupt_batch(tokens, 0.15, 3, T5, 1, np.random.default_rng(0))


# packing


@given(st.lists(st.lists(st.integers(3, 99), max_size=40), max_size=12), st.integers(2, 30))
def test_packing_loses_nothing_and_pads_nothing(documents, length):
    windows, rest = page.pack(documents, length)
    assert [token for window in [*windows, rest] for token in window] == [t for document in documents for t in document]
    assert all(len(window) == length for window in windows) and len(rest) < length


# by hand


SECTION = re.compile(r"^## By hand\n(.*?)^## ", re.M | re.S)


class Draws:
    """Stands for a generator: gives the draws of the worked example, one after the other."""

    def __init__(self, *draws):
        self.draws = iter(draws)

    def random(self):
        return next(self.draws)


@pytest.mark.claim("span-by-hand")
def test_the_worked_example_is_what_the_code_computes():
    text = SECTION.search((ROOT / "docs/posts/LLM/SpanCorruption.md").read_text(encoding="utf-8"))[1]
    words = "Return the sum of all numbers in the list".split()
    assert " ".join(words) in text and len(words) == 9
    assert page.counts(9, 0.35, 1.5) == (3, 2)
    assert 9 * 0.35 == pytest.approx(3.15) and "= 3.15$" in text
    draws = [0.62, 0.31, 0.48, 0.90, 0.17, 0.55, 0.73]
    assert all(f"${draw:.2f}$" in text for draw in draws)
    rng = Draws(*draws)
    mask = page.noise_mask(9, 0.35, 1.5, rng)
    assert next(rng.draws, None) is None
    source, target = page.corrupt(words, mask, ["⟨0⟩", "⟨1⟩"])
    assert f"`{' '.join(source)}`" in text and f"`{' '.join(target)}`" in text
    assert page.rebuild(source, target, ["⟨0⟩", "⟨1⟩"]) == words
    print(mask, source, target)
    assert page.lengths(9, 0.35, 1.5) == (len(source) + 1, len(target) + 1)
    assert page.span_length_chances(3, 2) == [0.5, 0.5]
