"""The lab's experiments measure what they say: here in one process, which is all of them."""
# ruff: noqa: F811  fixtures come from scaling_cases

import pytest
import torch

from snippets.llm import scaling as page
from snippets.llm import scaling_trials as trials
from tests.snippets.llm.processes import Forks
from tests.snippets.llm.scaling_cases import alone, shards  # noqa: F401  fixtures


def test_speeds_are_tokens_over_seconds(alone, monkeypatch):
    monkeypatch.setattr(trials, "SECONDS", 0.1)
    monkeypatch.setattr(trials.time, "perf_counter", iter([0.0, 0.05, 0.2, 0.4]).__next__)  # two steps
    monkeypatch.setattr(trials.time, "process_time", iter([1.0, 1.2]).__next__)
    wall, cpu = trials.speed(page.replicated)
    assert wall == pytest.approx(2 * 8 * 64 / 0.4) and cpu == pytest.approx(0.2 / (2 * 8 * 64) * 1e6, rel=1e-3)


def test_bytes_on_the_loopback_device_are_counted(alone, monkeypatch):
    assert trials.sent() >= 0
    monkeypatch.setattr(trials, "sent", iter([100, 700]).__next__)
    assert trials.counted(page.replicated, False, 1) == pytest.approx(200)  # of three steps


def test_a_run_gives_losses_and_weights(alone, tmp_path):
    text = trials.shards(tmp_path)
    settings = page.Settings(steps=2, a_step=4, each=2)
    losses, weights = trials.train(page.sharded, tmp_path / "out", text, settings)
    assert len(losses) == 2 and "head.weight" in weights


def test_wrong_gradients_are_cut_too_and_are_others(alone, shards):
    found = trials.gradients(shards, seed=0)  # of one process, whose windows are both whole
    assert all(0.02 < gradient.norm() <= 0.1 + 1e-6 for gradient in found.values())
    assert (found["means"] - found["right"]).abs().max() < 1e-6
    assert (found["clipped early"] - found["right"] / 2).abs().max() < 1e-6  # the other process's half is missing


# rounding


def in_float64(folder, text, each):
    """Weights of copies and of shards after the lab's twenty steps, of the seed whose float32 weights differ most."""
    torch.set_default_dtype(torch.float64)
    settings = page.Settings(**vars(trials.SETTINGS) | {"seed": 2, "each": each, "save_every": 100})
    return [trials.train(way, folder / way.__name__, text, settings)[1] for way in trials.WAYS]


@pytest.mark.claim("scaling-rounding")
def test_with_finer_numbers_two_processes_learn_what_one_learns_to_twelve_decimals(tmp_path):
    text = trials.shards(tmp_path)
    alone = FORKS.together(1, tmp_path / "1", in_float64, tmp_path / "1/out", text, 16)[0][0]
    for weights in FORKS.together(2, tmp_path / "2", in_float64, tmp_path / "2/out", text, 2)[0]:
        assert all(one.dtype == torch.float64 for one in weights.values())
        assert 0 < max((weights[name] - alone[name]).abs().max() for name in alone) < 1e-12


FORKS = Forks()  # when all that they do is defined
