"""transformers turns queries and keys as the page does."""

import pytest
import torch

from snippets.library.llm.rope import turn_by_transformers
from snippets.llm import rope

YARN = {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 8.0, "original_max_position_embeddings": 128}


@pytest.mark.claim("rope-library")
def test_yarn_of_the_page(agrees):
    """A head of 32 features and 1,024 positions, as in the program; the library computes angles in float32."""
    query, key = torch.randn(2, 2, 3, 1024, 32)
    theirs = turn_by_transformers(query, key, YARN, 1024)
    angle = rope.angles(torch.arange(1024), rope.yarn(32, 8.0, trained=128))
    for one, other in zip((query, key), theirs, strict=True):
        ours = rope.yarn_magnitude(8.0) * rope.rotate_halves(one, angle)
        name = "transformers.models.llama.modeling_llama.apply_rotary_pos_emb"
        agrees(ours[:, :, :16], other[:, :, :16], name, 1e-5)
        assert 0 < (ours - other).abs().max() < 1e-3  # "by less than a thousandth"
        assert (rope.rotate_halves(one, angle) - other).abs().max() > 0.1  # negative control: no temperature
        assert (rope.yarn_magnitude(8.0) * rope.rotate_pairs(one, angle) - other).abs().max() > 0.1  # other layout
