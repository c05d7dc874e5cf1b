"""The small model: causal with either attention, trained by its loop; windows and pixels; the page's program."""

import matplotlib.image
import pytest
import torch
import torch.nn.functional as F

from snippets.llm import performer_model as small
from snippets.llm.performer import PerformerAttention


@pytest.fixture
def models():
    """One with exact attention and one with a Performer's, of the same first weights."""
    torch.manual_seed(0)
    exact = small.SmallModel([small.ExactAttention(), small.ExactAttention()], num_symbols=11, length=9, width=24)
    other = small.SmallModel(small.performers(2, 50_000, 6), num_symbols=11, length=9, width=24)
    other.load_state_dict(exact.state_dict(), strict=False)
    return exact.eval(), other.eval()


def test_no_symbol_sees_a_later_one(models):
    torch.manual_seed(0)
    codes = torch.randint(11, (3, 9))
    later = codes.clone()
    later[:, 5:] = (later[:, 5:] + 1) % 11
    for model in models:
        before, after = model(codes), model(later)
        torch.testing.assert_close(before[:, :5], after[:, :5])
        assert (before - after)[:, 5:].abs().amax(dim=(0, 2)).min() > 1e-4  # negative control
    assert models[0](codes[:, :7]).shape == (3, 7, 11)


def test_with_many_features_the_two_agree_and_replacing_makes_one_the_other(models):
    exact, other = models
    codes = torch.randint(11, (3, 9))
    off = (exact(codes) - other(codes)).abs().max()
    assert all(isinstance(layer.attention, PerformerAttention) for layer in other.layers)
    before = exact(codes)
    small.replace_attention(exact, small.performers(2, 50_000, 6))
    torch.testing.assert_close(exact(codes), other(codes))
    small.replace_attention(exact, small.performers(2, 4, 6))
    assert (exact(codes) - before).abs().max() > 5 * off  # negative control: few features differ
    with pytest.raises(ValueError):
        small.replace_attention(exact, small.performers(1, 4, 6))


def test_layers_have_directions_of_their_own():
    first, second = (one.features.omega for one in small.performers(2, 7, 6, seed=3))
    assert (first - second).abs().max() > 0.1
    assert torch.equal(small.performers(2, 7, 6, seed=3)[1].features.omega, second)


def test_loss_and_training(models):
    exact, _ = models
    window = torch.randint(11, (3, 10))
    expected = F.nll_loss(exact(window[:, :-1]).log_softmax(-1).transpose(1, 2), window[:, 1:])
    torch.testing.assert_close(small.loss_of(exact, window), expected)
    repeated = torch.arange(11).repeat(20)
    losses = small.train(exact, small.windows(repeated, 9, 4, seed=0), 60, rate=1e-2)
    assert len(losses) == 60 and losses[0] > 1.5 > 0.5 > losses[-1]


@pytest.mark.claim("performer-beta")
def test_the_schedule_moves_the_first_beta(models, monkeypatch):
    seen = []

    class Watched(torch.optim.AdamW):
        def step(self, *given, **names):
            seen.append(self.param_groups[0]["betas"])
            return super().step(*given, **names)

    monkeypatch.setattr(torch.optim, "AdamW", Watched)
    small.train(models[0], small.windows(torch.arange(11).repeat(5), 9, 2, seed=0), 60, rate=1e-3)
    first = [betas[0] for betas in seen]
    assert first[0] == pytest.approx(0.95) and first[-1] == pytest.approx(0.95, abs=1e-3)
    assert 0.85 <= min(first) < 0.851 and {betas[1] for betas in seen} == {0.98}


def test_windows_are_passages_of_the_codes():
    codes = torch.arange(50)
    batches = small.windows(codes, 7, 4, seed=0)
    first, second = next(batches), next(batches)
    assert first.shape == (4, 8) and not torch.equal(first, second)
    assert torch.equal(first, first[:, :1] + torch.arange(8))
    assert torch.equal(next(small.windows(codes, 7, 4, seed=0)), first)
    with pytest.raises(ValueError, match="given 7"):
        next(small.windows(codes[:7], 7, 4, seed=0))


def test_pixels_are_rows_of_levels():
    images = torch.tensor([-1.0, 1.0, 0.0, 0.125]).repeat(3, 16).view(3, 1, 8, 8)
    rows = small.rows_of_pixels(images)
    assert rows.shape == (3, 65) and rows[0, :5].tolist() == [17, 0, 16, 8, 9]
    drawn = next(small.picked(rows + torch.arange(3)[:, None], 5, seed=0))
    assert drawn.shape == (5, 65) and set((drawn[:, 0] - 17).tolist()) <= {0, 1, 2}


def test_main_draws(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(small, "TRAIN_STEPS", 2)
    monkeypatch.setattr(small, "FEATURES", [16, 64])
    small.main()
    said = capsys.readouterr().out
    assert "nats a byte" in said and "in chunks and one by one agree: True" in said
    assert matplotlib.image.imread(tmp_path / "performer.png").std() > 0.05
