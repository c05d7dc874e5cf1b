"""Deep fusion: equal to the layers of transformers' Grounding DINO, all weights moved, with padded prompts."""

import pytest
import torch
from transformers import GroundingDinoConfig
from transformers.models.grounding_dino import modeling_grounding_dino as theirs

from snippets import glip_fusion as page
from tests.snippets.oracles import perturbed

B, R, T, V, A, H = 2, 7, 5, 12, 18, 3
NAMES = {"vision_proj": "region_query", "text_proj": "token_query", "values_vision_proj": "region_value"}
NAMES |= {"values_text_proj": "token_value", "out_vision_proj": "region_out", "out_text_proj": "token_out"}
LAYER = {"layer_norm_vision": "region_norm", "layer_norm_text": "token_norm", "attn": "attention"}
LAYER |= {"vision_param": "region_scale", "text_param": "token_scale"}


@pytest.fixture(scope="module")
def config():
    sizes = {"d_model": V, "encoder_ffn_dim": 2 * A, "encoder_attention_heads": 2 * H}
    return GroundingDinoConfig(**sizes, fusion_droppath=0.0)


def renamed(state):
    """Weights of their layer by our names."""
    result = {}
    for name, weight in state.items():
        result[".".join(LAYER.get(part, NAMES.get(part, part)) for part in name.split("."))] = weight
    return result


@pytest.fixture
def batch():
    """Regions, tokens, and which tokens are real: three of five, and all."""
    real = torch.tensor([[True, True, True, False, False], [True] * 5])
    return torch.randn(B, R, V), torch.randn(B, T, V), real


def test_attention_equals_grounding_dino(config, batch, agrees):
    regions, tokens, real = batch
    them = perturbed(theirs.GroundingDinoBiMultiHeadAttention(config))
    ours = page.BothWays(V, V, A, H)
    ours.load_state_dict(renamed(them.state_dict()))
    (first, shares), (second, back) = them(regions, tokens, text_attention_mask=~real)
    name = "transformers.models.grounding_dino.modeling_grounding_dino.GroundingDinoBiMultiHeadAttention"
    new_regions, new_tokens = ours(regions, tokens, real)
    agrees(new_regions, first, name, 1e-5)
    agrees(new_tokens, second, name, 1e-5)
    to_tokens, to_regions = ours.weights(regions, tokens, real)
    agrees(to_tokens.flatten(0, 1), shares, name, 1e-5)
    agrees(to_regions.flatten(0, 1), back, name, 1e-5)
    assert (ours(regions, tokens, torch.ones_like(real))[0] - first).abs().max() > 1e-3  # padding looked at
    for part in (ours.region_value, ours.token_query, ours.region_out):
        part.weight.data.mul_(1.1)
        assert (ours(regions, tokens, real)[1] - second).abs().max() > 1e-3 or part is ours.region_out


def test_the_layer_equals_grounding_dino(config, batch, agrees):
    regions, tokens, real = batch
    them = perturbed(theirs.GroundingDinoFusionLayer(config))
    ours = page.Fusion(V, V, A, H)
    ours.load_state_dict(renamed(them.state_dict()))
    (first, _), (second, _) = them(regions, tokens, attention_mask_text=~real)
    name = "transformers.models.grounding_dino.modeling_grounding_dino.GroundingDinoFusionLayer"
    agrees(ours(regions, tokens, real)[0], first, name, 1e-5)
    agrees(ours(regions, tokens, real)[1], second, name, 1e-5)
    kept = regions + ours(regions, tokens, real)[0] - ours.region_norm(regions)  # added to what was not normed
    assert (kept - first).abs().max() > 0.1


@pytest.mark.equation("glip-fusion", of=page.BothWays.weights)
def test_one_table_of_scores_serves_both_directions(formula):
    layer = perturbed(page.BothWays(V, 10, A, H)).double()
    regions, tokens = torch.randn(1, R, V).double(), torch.randn(1, T, 10).double()
    real = torch.ones(1, T, dtype=torch.bool)
    to_tokens, to_regions = layer.weights(regions, tokens, real)
    query, key = layer.region_query(regions), layer.token_query(tokens)
    D = A // H
    table = torch.einsum("rd,td->rt", query[0, :, D : 2 * D], key[0, :, D : 2 * D])  # the second head's
    table = table / D**0.5
    names = {"R": R, "T": T, "d": D, "q_r": query[0, 3, D : 2 * D], "u_t": key[0, 4, D : 2 * D]}
    names |= {r"\alpha_{rt}": to_tokens[0, 1, 3, 4], r"\beta_{rt}": to_regions[0, 1, 4, 3], "a_{rt}": table[3, 4]}
    names |= {"a_{rj}": lambda j: table[3, int(j) - 1], "a_{it}": lambda i: table[int(i) - 1, 4]}
    formula("glip-fusion").holds(names, relations=3)
    torch.testing.assert_close(to_tokens.sum(dim=3), torch.ones(1, H, R).double())
    torch.testing.assert_close(to_regions.sum(dim=3), torch.ones(1, H, T).double())


@pytest.mark.claim("glip-fusion-start")
def test_at_first_almost_nothing_is_added(batch, config):
    regions, tokens, real = batch
    them, ours = theirs.GroundingDinoFusionLayer(config), page.Fusion(V, V, A, H)
    for scale in (them.vision_param, them.text_param, ours.region_scale, ours.token_scale):
        assert scale.tolist() == pytest.approx([1e-4] * V)
    for little in (1e-4, 0.3):
        layer = page.Fusion(V, V, A, H, little)
        new, said = layer(regions, tokens, real)
        change = max((new - layer.region_norm(regions)).abs().max(), (said - layer.token_norm(tokens)).abs().max())
        assert 0 < change < 10 * little and change > little / 100


def test_widths_may_differ_and_heads_have_to_divide():
    layer = page.BothWays(V, 10, A, H)
    shapes = [one.shape for one in layer(torch.randn(B, R, V), torch.randn(B, T, 10), torch.ones(B, T).bool())]
    assert shapes == [(B, R, V), (B, T, 10)]
    with pytest.raises(ValueError, match="heads divide is expected, given 18, 4"):
        page.BothWays(V, V, A, 4)
