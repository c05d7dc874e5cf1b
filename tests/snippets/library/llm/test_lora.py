"""peft does in few lines what the page does, with the same tensors."""

import copy

import pytest
import torch
from peft import PeftModel

from snippets.library.llm.lora import logits_by_peft, merged_by_peft, with_peft
from snippets.llm import lora
from snippets.llm.decoder_only import Config, Llama, train
from tests.snippets.oracles import perturbed

NAMES = ["to_query", "up"]


@pytest.fixture
def base() -> Llama:
    return perturbed(Llama(Config(29, 13, width=12, hidden=20, num_layers=2, num_heads=3, num_key_heads=1)))


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(29, (5, 9))


def adapted(base: Llama, steps: int = 5) -> Llama:
    model = lora.add_adapters(copy.deepcopy(base).train(), NAMES, 3, 5.0)
    if steps:
        train(model, torch.arange(29).repeat(20), steps, rate=0.1)
    return model.eval()


def test_with_peft_is_add_adapters(base, tokens, agrees):
    """From the same A, the same model after five steps, and the base is left as it was."""
    before = copy.deepcopy(base)
    theirs = with_peft(base.train(), NAMES, 3, 5.0)
    inner, ours = theirs.base_model.model, adapted(base, 0)
    for path, adapter in lora.adapters(ours).items():
        other = inner.get_submodule(path)
        assert other.scaling["default"] == adapter.alpha / adapter.rank
        adapter.A.data.copy_(other.lora_A["default"].weight)
    for one in (ours.train(), inner):
        train(one, torch.arange(29).repeat(20), 5, rate=0.1)
    agrees(ours.eval()(tokens), theirs.eval()(tokens), "peft.LoraModel", 1e-5)
    assert (before(tokens) - theirs(tokens)).abs().max() > 1e-3  # negative control: the base alone
    assert torch.equal(base.eval()(tokens), before(tokens)) and all(p.requires_grad for p in base.parameters())


def test_merged_by_peft_is_ours(base, tokens, tmp_path, agrees):
    ours = adapted(base)
    lora.save_adapter(ours, tmp_path)
    merged = merged_by_peft(base, str(tmp_path))
    again = lora.remove_adapters(lora.merge(lora.load_adapter(copy.deepcopy(base), tmp_path, {})))
    for (name, weight), (other, theirs) in zip(again.named_parameters(), merged.named_parameters(), strict=True):
        assert name == other and (weight - theirs).abs().max() < 1e-6
    agrees(again(tokens), merged(tokens), "peft.PeftModel", 1e-5)
    assert (merged.blocks[1].up.weight - base.blocks[1].up.weight).abs().max() > 1e-3


@pytest.mark.claim("lora-adapter-names")
def test_a_batch_with_several_adapters_is_each_row_by_itself(base, tokens, tmp_path, agrees):
    models = {"code": adapted(base), "other": adapted(base, 9)}
    for name, model in models.items():
        lora.save_adapter(model, tmp_path / name)
    folders = {name: str(tmp_path / name) for name in models}
    names = ["code", "other", "__base__", "code", "code"]
    theirs = logits_by_peft(base.eval(), folders, tokens, names)
    models["__base__"] = base
    expected = torch.cat([models[name](tokens[row : row + 1]) for row, name in enumerate(names)])
    agrees(expected, theirs, "peft.PeftModel", 1e-5)
    assert (expected - logits_by_peft(base, folders, tokens, names[::-1])).abs().max() > 1e-3
    with pytest.raises(ValueError, match="when the model is in training mode"):
        PeftModel.from_pretrained(base, folders["code"]).train()(tokens, adapter_names=["default"] * 5)
