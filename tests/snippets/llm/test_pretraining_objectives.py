"""Objectives of pre-training: what they hide and ask for, what they cost, and the page's program."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from snippets.llm import pretraining_objectives as page
from snippets.llm.span_corruption import rebuild
from snippets.llm.t5 import T5, Config, loss
from tests.snippets.oracles import perturbed

SMALL = Config(page.VOCABULARY, 24, 5, 20, 2, 1, 3, dropout=0.0, gated=True, tied=False, scaled=False)
TEXT = torch.tensor(list(b"Return the sum of all numbers in the list. " * 30))
RNG = 11


def windows(rows=5, length=37, seed=0):
    """Windows of bytes, as ids."""
    return torch.from_numpy(np.random.default_rng(seed).integers(3, 259, (rows, length)))


def test_the_vocabulary_has_a_place_for_each_token():
    assert page.SENTINELS[0] == 383 and page.SENTINELS[-1] == 262 and len(page.SENTINELS) == 122
    assert sorted([*page.MODES.values(), *page.SENTINELS]) == list(range(259, 384))
    assert page.decode([*(b + 3 for b in "naïve".encode()), 383, 381, page.END, page.PAD]) == "naïve⟨0⟩⟨2⟩"


def test_span_corruption_rebuilds_every_window():
    tokens = windows()
    for density, mean_span in ((0.15, 3.0), (0.5, 8.0)):
        source, target = page.span_corruption(tokens, np.random.default_rng(RNG), density, mean_span)
        for row, read, asked in zip(tokens.tolist(), source.tolist(), target.tolist(), strict=True):
            assert read[-1] == asked[-1] == page.END
            assert rebuild(read[:-1], asked[:-1], page.SENTINELS) == row


def test_bert_style_hides_fifteen_per_cent_nine_tenths_of_them_by_the_mask():
    tokens = windows(200, 101)
    source, target = page.bert_style(tokens, np.random.default_rng(RNG))
    assert source.shape == target.shape == (200, 102)
    assert target[:, :-1].equal(tokens) and target[:, -1].eq(1).all() and source[:, -1].eq(1).all()
    masked = source[:, :-1] == page.SENTINELS[0]
    changed = (source[:, :-1] != tokens) & ~masked
    other = 0.15 * 0.1 * 255 / 256  # a byte drawn at random can be the same
    counted = [masked.sum().item(), changed.sum().item(), (~masked & ~changed).sum().item()]
    wanted = [tokens.numel() * share for share in (0.15 * 0.9, other, 1 - 0.15 * 0.9 - other)]
    assert stats.chisquare(counted, wanted).pvalue > 1e-3
    eighty = [tokens.numel() * share for share in (0.12, 0.03, 0.85)]  # negative control: BERT's own 80 %
    assert stats.chisquare(counted, eighty).pvalue < 1e-9


def test_a_prefix_and_the_rest_are_the_window():
    tokens, rng, cuts = windows(3, 9), np.random.default_rng(RNG), []
    for _ in range(200):
        source, target = page.prefix_lm(tokens, rng)
        cuts.append(source.shape[1] - 1)
        assert torch.cat([source[:, :-1], target[:, :-1]], dim=1).equal(tokens)
        assert source[:, -1].eq(1).all() and target[:, -1].eq(1).all()
    assert set(cuts) == set(range(1, 9))  # each part has a token at least
    assert stats.chisquare(np.bincount(cuts)[1:]).pvalue > 1e-3


def test_deshuffling_asks_for_the_order():
    tokens = windows(7, 40)
    source, target = page.deshuffle(tokens, np.random.default_rng(RNG))
    assert target[:, :-1].equal(tokens) and source[:, :-1].sort(dim=1).values.equal(tokens.sort(dim=1).values)
    assert not source.equal(target) and source[:, -1].eq(1).all()
    places = torch.arange(40).repeat(500, 1) + 3
    shuffled, _ = page.deshuffle(places, np.random.default_rng(RNG))
    assert stats.chisquare(np.bincount(shuffled[:, 0] - 3, minlength=40)).pvalue > 1e-3


def test_the_mixture_names_its_mode_and_rebuilds_the_window():
    tokens, rng, modes, shapes = windows(2, 128), np.random.default_rng(RNG), [], set()
    for _ in range(150):
        source, target = page.ul2(tokens, rng)
        mode = {i: name for name, i in page.MODES.items()}[int(source[0, 0])]
        assert source[:, 0].eq(source[0, 0]).all()
        modes.append(mode)
        if mode == "[S]":
            assert torch.cat([source[:, 1:-1], target[:, :-1]], dim=1).equal(tokens)
            continue
        for row, read, asked in zip(tokens.tolist(), source.tolist(), target.tolist(), strict=True):
            assert rebuild(read[1:-1], asked[:-1], page.SENTINELS) == row
        spans = int((target[0] >= page.SENTINELS[-1]).sum())
        shapes.add((mode, target.shape[1] - 1 - spans, spans))
    assert stats.chisquare([modes.count(name) for name in page.MODES]).pvalue > 1e-3
    regular = {("[R]", 19, 6), ("[R]", 19, 2)}
    extreme = {("[X]", 64, 21), ("[X]", 64, 8), ("[X]", 19, 1), ("[X]", 64, 2)}
    assert shapes == regular | extreme


# cost


@torch.no_grad()
@pytest.mark.equation("span-cost", of=page.multiplications)
@pytest.mark.parametrize("gated", [True, False])
def test_multiplications_are_those_that_torch_counts(gated, formula, agrees):
    sizes = {"width": 24, "head_width": 5, "hidden": 20, "num_heads": 3}
    config = Config(41, **sizes, num_layers=2, decoder_layers=4, gated=gated)
    model, source, written = T5(config).eval(), torch.randint(2, 41, (1, 11)), torch.randint(2, 41, (1, 7))
    counter = FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH):
        model(source, written)
    ours = page.multiplications(config, 11, 7)
    agrees(ours, counter.get_total_flops() / 2, "torch.utils.flop_counter.FlopCounterMode", 0)
    assert page.multiplications(config, 11, 8) != ours  # negative control
    names = {"M": torch.tensor(ours, dtype=torch.float64), "I": 11, "O": 7, "W": 24, "A": 15, "F": 20, "V": 41}
    formula("span-cost").holds(names | {"L_e": 2, "L_d": 4, "m": 3 if gated else 2})


def test_rates_rise_for_a_tenth_and_fall_to_zero():
    found = [page.rate_factor(share) for share in (0, 0.05, 0.1, 0.55, 1)]
    assert found == pytest.approx([0, 0.5, 1, 0.5, 0])


def test_a_training_spends_its_budget_and_no_step_more():
    torch.manual_seed(0)
    model = T5(SMALL)
    batch = page.batches(TEXT, 24, 6, page.span_corruption, np.random.default_rng(0))
    source, _, target = batch()
    cost = 6 * page.multiplications(SMALL, source.shape[1], target.shape[1])
    history = page.fit(model, batch, 3.5 * cost, 1e-3)
    assert [spent for spent, _ in history] == [cost, 2 * cost, 3 * cost, 4 * cost] and not model.training
    assert history[0][1] == pytest.approx(math.log(384), abs=0.8)


def test_training_lowers_the_loss():
    torch.manual_seed(0)
    model = T5(SMALL)
    batch = page.batches(TEXT, 24, 8, page.span_corruption, np.random.default_rng(0))
    history = page.fit(model, batch, 6e7, 1e-2)
    assert np.mean([v for _, v in history[-10:]]) < 0.7 * history[0][1]


def test_gains_do_not_decay_and_matrices_do():
    """Rows of the embedding that no token uses have no gradient: only decay moves them. Gains have one of zero."""
    model = perturbed(T5(SMALL))
    model.decoder.norm.gain.data[:], model.head.weight.data[:] = 1.0, 0.0  # no gradient reaches the network then
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    batch = page.batches(TEXT, 24, 2, page.span_corruption, np.random.default_rng(0))
    source, _, target = batch()
    page.fit(model, batch, 2 * page.multiplications(SMALL, source.shape[1], target.shape[1]), 0.1)  # one step
    for name, p in model.named_parameters():
        if name.endswith("gain"):
            assert p.equal(before[name]), name
        elif name != "head.weight":
            assert torch.allclose(p, before[name] * (p.norm() / before[name].norm())) and p.norm() < before[name].norm()


def test_batches_are_windows_of_the_text():
    codes = torch.arange(200)
    batch = page.batches(codes, 10, 4, lambda tokens, rng: (tokens, tokens), np.random.default_rng(0))
    starts = set()
    for _ in range(300):
        source, real, target = batch()
        assert source.equal(target) and real.all() and source.shape == (4, 10)
        assert source.diff(dim=1).eq(1).all() and 3 <= source.min() and source.max() <= 202
        starts |= set(source[:, 0].tolist())
    assert {3, 192} <= starts and max(starts) == 192
    with pytest.raises(ValueError, match="text of more than 10 tokens is expected, given 10"):
        page.batches(torch.arange(10), 10, 4, page.prefix_lm, np.random.default_rng(0))


@torch.no_grad()
def test_the_loss_counts_sentinels_and_the_end():
    model = perturbed(T5(SMALL))
    batch = page.batches(TEXT, 24, 3, page.span_corruption, np.random.default_rng(0))
    source, real, target = batch()
    whole = loss(model, source, real, target)
    for ignored in (target >= page.SENTINELS[-1], target == page.END):
        assert abs(loss(model, source, real, target.masked_fill(ignored, -100)) - whole) > 1e-4


@torch.no_grad()
def test_training_asks_for_sentinels_too(monkeypatch):
    """What `fit` gives to the loss is the whole target."""
    seen = []

    def watched(model, source, real, target):
        seen.append(target.clone())
        return loss(model, source, real, target)

    monkeypatch.setattr(page, "loss", watched)
    batch = page.batches(TEXT, 24, 3, page.span_corruption, np.random.default_rng(0))
    with torch.enable_grad():
        page.fit(T5(SMALL), batch, 1, 1e-3)
    assert (seen[0] >= page.SENTINELS[-1]).any() and not (seen[0] == -100).any()


@torch.no_grad()
def test_writing_takes_the_likeliest_and_stops_at_the_end():
    torch.manual_seed(3)
    model = perturbed(T5(SMALL), 0.5)
    source = torch.tensor([[5, 9, 70, 1], [80, 1, 0, 0]])
    found = page.write(model, source, 12)
    for row, alone in zip(source, found, strict=True):
        real = row[row != 0][None]
        written = [0]
        while len(written) <= 12:
            best = model(real, torch.tensor([written]))[0, -1].argmax().item()
            written.append(best)
            if best == page.END:
                break
        wanted = written[1:-1] if written[-1] == page.END else written[1:]
        assert alone == wanted
    assert page.write(model, source, 2)[0] == found[0][:2]
    model.head.weight.data[:] = 0  # all logits are equal: the first token, padding, for ever
    model.head.weight.data[page.END] = 0
    assert page.write(model, source, 5) == [[0] * 5] * 2


def test_the_program_runs(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(page, "BUDGET", 1e6)
    monkeypatch.setattr(page, "text", lambda held_out=False: TEXT)
    page.main()
    printed = capsys.readouterr().out
    assert "loss.png" in printed and printed.count("rebuilt") == 3 and (tmp_path / "loss.png").stat().st_size > 1000
