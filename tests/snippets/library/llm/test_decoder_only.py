"""transformers gives the logits and the tokens of the page's Llama, from the same folder."""

import pytest
import torch

from snippets.library.llm.decoder_only import write_by_transformers
from snippets.llm.checkpoints import load_llama
from snippets.llm.decoder_only import generate
from tests.snippets.llm.decoders import THEIRS


@pytest.mark.claim("decoder-library")
def test_the_library_gives_the_same_logits_and_tokens(tmp_path):
    for name in ("grouped", "llama3"):
        THEIRS["llama", name].save_pretrained(tmp_path / name)
    prompt = torch.randint(41, (5, 4))
    logits, written = write_by_transformers(str(tmp_path / "grouped"), prompt, 11)
    ours, other = load_llama(tmp_path / "grouped"), load_llama(tmp_path / "llama3")
    with torch.no_grad():
        torch.testing.assert_close(ours(prompt), logits, rtol=0, atol=1e-5)
        assert (other(prompt) - logits).abs().max() > 1e-2
    assert torch.equal(generate(ours, prompt, 11), written)
