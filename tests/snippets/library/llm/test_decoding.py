"""transformers draws the tokens that the page's code draws, and drafts the greedy ones."""

import pytest
import torch
from transformers import GenerationConfig

from snippets.library.llm.decoding import drafted_by_transformers, drawn_by_transformers
from snippets.llm.checkpoints import load_llama
from snippets.llm.decoder_only import generate
from snippets.llm.decoding import Sampling
from tests.snippets.llm.decoders import THEIRS


@pytest.mark.claim("decoding-library")
def test_generate_draws_and_drafts_the_same_tokens(tmp_path):
    for name in ("grouped", "llama3"):
        THEIRS["llama", name].save_pretrained(tmp_path / name)
    ours, prompt = load_llama(tmp_path / "grouped"), torch.randint(41, (5, 4))
    way = Sampling(0.8, 50, 0.95, 0.02).draw
    written = generate(ours, prompt, 11, way, torch.Generator().manual_seed(3))
    assert torch.equal(drawn_by_transformers(str(tmp_path / "grouped"), prompt, 11, 3), written)
    other = generate(ours, prompt, 11, way, torch.Generator().manual_seed(4))
    assert not torch.equal(other, written)
    one, folders = prompt[:1], [str(tmp_path / name) for name in ("grouped", "llama3")]
    assert torch.equal(drafted_by_transformers(*folders, one, 9), generate(ours, one, 9))


@pytest.mark.claim("decoding-library-defaults")
def test_library_defaults_of_generate(tmp_path):
    """Where a folder sets nothing, top_k is 50; a folder's settings are taken; an end token stops."""
    model = THEIRS["llama", "grouped"]
    defaults = model.generation_config._get_default_generation_params()
    assert defaults["top_k"] == 50 and defaults["do_sample"] is False and defaults["temperature"] == 1.0
    GenerationConfig(top_k=7, do_sample=True).save_pretrained(tmp_path)
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "generation_config.json").write_bytes((tmp_path / "generation_config.json").read_bytes())
    assert type(model).from_pretrained(tmp_path / "model").generation_config.top_k == 7
    prompt = torch.randint(41, (1, 4))
    mask = torch.ones_like(prompt)
    long = model.generate(prompt, attention_mask=mask, max_new_tokens=9, do_sample=False, pad_token_id=0)
    end = long[0, 6].item()
    short = model.generate(
        prompt, attention_mask=mask, max_new_tokens=9, do_sample=False, pad_token_id=0, eos_token_id=end
    )
    assert short.shape[1] < long.shape[1] == 13 and short[0, -1] == end
