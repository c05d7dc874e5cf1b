"""TODO: what is proved here, in one sentence."""

import math

import pytest
import torch
import torch.nn.functional as F

from snippets.llm import span_corruption


@pytest.fixture
def batch():
    """query, key and value in float64. All sizes differ, so that no shape comment is right by chance."""
    return (
        torch.randn(2, 3, 7, dtype=torch.float64),  # B, Q, D
        torch.randn(2, 4, 7, dtype=torch.float64),  # B, K, D
        torch.randn(2, 4, 5, dtype=torch.float64),  # B, K, V
    )


# one test for each numbered equation of the page: it takes the formula as the page prints it
@pytest.mark.equation("span-corruption-attention", of=span_corruption.attention)
def test_attention_is_its_equation(batch, formula):
    query, key, value = (rows[1] for rows in batch)  # the second of the batch
    mixed = span_corruption.attention(*batch)[1]
    names = {"k_j": lambda j: key[j], "v_j": lambda j: value[j], "j": range(4), "D": 7}
    for row, ours in zip(query, mixed, strict=True):
        formula("span-corruption-attention").holds({"o_i": ours, "q_i": row} | names)


# an independent implementation, and a wrong variant that the same comparison rejects
def test_attention_equals_torch(batch, agrees):
    query, key, value = batch
    theirs = F.scaled_dot_product_attention(query, key, value)
    agrees(span_corruption.attention(query, key, value), theirs, "torch.nn.functional.scaled_dot_product_attention", 1e-10)
    unscaled = (query @ key.transpose(1, 2)).softmax(dim=-1) @ value
    assert (unscaled - theirs).abs().max() > 1e-3  # negative control


def test_entropy_of_even_and_of_certain_weights():
    weights = torch.tensor([[[0.25, 0.25, 0.25, 0.25], [0, 1, 0, 0]]]).repeat(3, 1, 1)
    nats = span_corruption.entropy(weights)
    torch.testing.assert_close(nats, torch.tensor([[math.log(4), 0.0]]).expand(3, 2))


@pytest.mark.parametrize("shape", [(4, 7), (2, 4, 6), (3, 4, 7)])
def test_wrong_keys_are_refused(batch, shape):
    with pytest.raises(ValueError, match="given"):
        span_corruption.attention_weights(batch[0], torch.zeros(shape))


@pytest.mark.parametrize("shape", [(4, 5), (2, 3, 5)])
def test_wrong_values_are_refused(batch, shape):
    with pytest.raises(ValueError, match="given"):
        span_corruption.attention(*batch[:2], torch.zeros(shape))


def test_main_draws(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(span_corruption, "BATCH", 2)
    span_corruption.main()
    assert (tmp_path / "weights.png").stat().st_size > 1000
    assert "nats" in capsys.readouterr().out
