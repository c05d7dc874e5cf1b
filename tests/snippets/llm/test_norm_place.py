"""Layers with post-LN: against torch's own post-LN arithmetic, what is causal, and whose gradients are counted."""

import pytest
import torch

from snippets.llm import norm_place as page
from snippets.llm.t5 import T5, Config, loss
from tests.snippets.oracles import perturbed

CONFIG = Config(41, 24, 5, 20, 2, 3, 4, gated=True, tied=False, scaled=False, dropout=0.0)


def batch():
    torch.manual_seed(5)
    source, target = torch.randint(2, 41, (5, 7)), torch.randint(2, 41, (5, 6))
    real = torch.arange(7) < torch.tensor([7, 4, 7, 2, 6])[:, None]
    return {"source": source, "real": real, "target": target}


@torch.no_grad()
@pytest.mark.equation("encdec-post", of=page.PostEncoderLayer)
def test_norms_stand_on_the_stream(formula):
    layer = perturbed(page.post_norm(CONFIG)).double().encoder.layers[1]
    x, bias = torch.randn(5, 7, 24).double(), torch.randn(1, 4, 7, 7).double()

    def attention(x):
        return layer.attention(x, *layer.attention.read(x), bias)

    names = {"x": x, "y": layer(x, bias), "N_1": layer.norm_1, "N_2": layer.norm_2, "A": attention, "G": layer.mlp}
    formula("encdec-post").holds(names | {"u": layer.norm_1(x + attention(x))}, relations=2)


@torch.no_grad()
@pytest.mark.equation("encdec-pre", of=page.EncoderLayer)
def test_norms_stand_on_the_branches(formula):
    layer = perturbed(T5(CONFIG)).double().encoder.layers[1]
    x, bias = torch.randn(5, 7, 24).double(), torch.randn(1, 4, 7, 7).double()

    def attention(x):
        return layer.attention(x, *layer.attention.read(x), bias)

    u = x + attention(layer.norm_1(x))
    names = {"x": x, "y": layer(x, bias), "N_1": layer.norm_1, "N_2": layer.norm_2, "A": attention, "G": layer.mlp}
    formula("encdec-pre").holds(names | {"u": u}, relations=2)


@torch.no_grad()
def test_the_decoder_norms_after_each_of_three_sums():
    model = perturbed(page.post_norm(CONFIG)).double()
    layer, x, memory = model.decoder.layers[1], torch.randn(5, 6, 24).double(), torch.randn(5, 7, 24).double()
    place = torch.arange(6)
    bias, real = model.decoder.bias(place, place)[None], batch()["real"][:, None, None, :]
    u = layer.norm_1(x + layer.attention(x, *layer.attention.read(x), bias))
    u = layer.norm_2(u + layer.cross(u, *layer.cross.read(memory), real))
    right = layer.norm_3(u + layer.mlp(u))
    assert (layer(x, bias, memory, real) - right).abs().max() < 1e-12
    assert isinstance(model.encoder.norm, torch.nn.Identity) and isinstance(model.decoder.norm, torch.nn.Identity)


def test_gradients_are_those_of_the_last_matrices():
    torch.manual_seed(0)
    for make in (T5, page.post_norm):
        model, given = make(CONFIG), batch()
        norms = page.gradient_norms(model, given)
        assert [len(norms[side]) for side in ("encoder", "decoder")] == [2, 3]
        weight = model.decoder.layers[2].mlp.down.weight
        (right,) = torch.autograd.grad(loss(model, **given), weight)
        assert norms["decoder"][2] == pytest.approx(right.norm().item(), rel=1e-5)
        assert page.gradient_norms(model, given) == norms  # nothing is left from the time before
