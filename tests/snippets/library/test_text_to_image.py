"""The text-to-image post's lines with diffusers draw what the page's own code draws."""

import pytest
import torch
from diffusers import DiTTransformer2DModel

from snippets.blocks.dit import load_dit
from snippets.flow_matching import draw_flow, guided_flow
from snippets.library import text_to_image
from tests.snippets.blocks.test_dit import MORE, SIZES, theirs_of


@pytest.mark.claim("tti-library-draws")
@pytest.mark.parametrize("guidance, steps", [(1.0, 3), (3.0, 7)])
def test_the_same_draws(guidance, steps, tmp_path, agrees):
    theirs_of(SIZES[0] | MORE[0], tmp_path)
    noise, classes = torch.randn(4, 3, 8, 8), torch.tensor([2, 0, 6, 1])
    theirs = text_to_image.draw_by_diffusers(str(tmp_path), classes, noise, guidance, steps)
    with torch.no_grad():
        ours = draw_flow(guided_flow(load_dit(tmp_path), classes, guidance), noise, steps)
        backwards = draw_flow(lambda x, t: guided_flow(load_dit(tmp_path), classes, guidance)(x, 1 - t), noise, steps)
    agrees(ours, theirs, "diffusers.FlowMatchEulerDiscreteScheduler", 1e-4)
    assert (backwards - theirs).abs().max() > 0.01


@pytest.mark.claim("tti-parameters")
def test_the_full_size_has_675_million_parameters():
    """And eight channels out for four in."""
    with torch.device("meta"):
        full = DiTTransformer2DModel(out_channels=8)
    ours = full.config
    assert (ours.num_layers, ours.num_attention_heads * ours.attention_head_dim, ours.sample_size) == (28, 1152, 32)
    copies = sum(p.numel() for block in full.transformer_blocks[1:] for p in block.norm1.emb.parameters())
    assert 674e6 < sum(p.numel() for p in full.parameters()) - copies < 676e6
