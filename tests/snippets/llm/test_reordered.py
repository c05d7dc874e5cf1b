"""Reordered weights give what the layers give, and are refused where there is no library to order them."""

import pytest
import torch
from transformers import BertConfig, BertModel

import snippets.llm.reordered as page
from snippets.llm.bert import Bert, Config, encode_packed, load_bert

SIZES = {"vocab_size": 41, "hidden_size": 24, "intermediate_size": 56, "num_hidden_layers": 2}
SIZES |= {"num_attention_heads": 3, "max_position_embeddings": 17, "type_vocab_size": 2}


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    real = torch.ones(5, 11, dtype=torch.bool)
    real[2, 7:] = False
    tokens = torch.randint(41, real.shape, generator=generator)
    return {"tokens": tokens, "segments": (torch.arange(11) > 4).long().expand(5, 11), "real": real}


def perturbed(model: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(1)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


@pytest.mark.parametrize("rows", [1, 55, 1000])
@torch.no_grad()
def test_reordered_weights_give_what_transformers_gives(rows, batch, tmp_path, agrees):
    """Whatever number of rows they were ordered for."""
    theirs = perturbed(BertModel(BertConfig(**SIZES)))
    theirs.save_pretrained(tmp_path)
    bert = load_bert(str(tmp_path))["bert"]
    expected = theirs(batch["tokens"], batch["real"].long(), batch["segments"]).last_hidden_state[batch["real"]]
    fast = page.reordered(bert, rows)
    agrees(fast(**batch)[batch["real"]], expected, "transformers.BertModel", 1e-5)
    with torch.inference_mode():
        agrees(encode_packed(fast, **batch), expected, "transformers.BertModel", 1e-5)
    fast.layers[0].up.bias = torch.nn.Parameter(fast.layers[0].up.bias + 0.01)
    assert (fast(**batch)[batch["real"]] - expected).abs().max() > 1e-3  # negative control


@torch.no_grad()
def test_the_copy_leaves_the_original_as_it_is(batch):
    bert = perturbed(Bert(Config(vocabulary=41, context=17, width=24, hidden=56, num_layers=2, num_heads=3)))
    before, out = {name: p.clone() for name, p in bert.state_dict().items()}, bert(**batch)
    bert.train()
    fast = page.reordered(bert, 55)
    assert not fast.training and bert.training  # a copy for reading has no dropout
    assert sum(isinstance(module, page.ReorderedLinear) for module in fast.modules()) == 12
    for parameter in fast.parameters():
        parameter.zero_()
    assert all(torch.equal(before[name], p) for name, p in bert.state_dict().items())
    assert torch.equal(bert.eval()(**batch), out)


def test_what_cannot_be_ordered_is_refused(monkeypatch):
    bert = Bert(Config(vocabulary=41, context=17, width=24, hidden=56, num_layers=1, num_heads=3))
    with pytest.raises(ValueError, match="given torch.float64, cpu"):
        page.reordered(bert.double(), 8)
    with pytest.raises(ValueError, match="given torch.float32, meta"):
        page.reordered(bert.float().to("meta"), 8)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    with pytest.raises(ValueError, match="with oneDNN are expected"):
        page.reordered(Bert(Config(41, 17, 24, 56, 1, 3)), 8)
