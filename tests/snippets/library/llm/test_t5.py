"""transformers writes the page's tokens from a folder that the page wrote."""

import torch

from snippets.library.llm.t5 import write_by_transformers
from snippets.llm.t5 import T5, Config
from snippets.llm.t5_decoding import beam_search, cut, write
from snippets.llm.t5_folders import save_t5
from tests.snippets.oracles import perturbed


def test_generate_writes_the_same_tokens(tmp_path):
    torch.manual_seed(34)
    model = perturbed(T5(Config(41, 24, 5, 20, 2, 2, 3, gated=True, tied=False, scaled=False, dropout=0.0)))
    save_t5(model, str(tmp_path))
    real = torch.arange(7) < torch.tensor([7, 4, 6, 2, 5])[:, None]
    source = torch.randint(2, 41, (5, 7)).masked_fill(~real, 0)
    ours = write(model, source, real, 11)
    theirs = write_by_transformers(str(tmp_path), source, real, 11, beams=1)
    assert ours == [cut(row, 1) for row in theirs] and len({len(row) for row in ours}) > 1
    found = [row[0][0] for row in beam_search(model, source, real, 11, beams=3)]
    assert found == [cut(row, 1) for row in write_by_transformers(str(tmp_path), source, real, 11, beams=3)]
    assert found != ours  # beams matter here
