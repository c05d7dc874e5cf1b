"""Checkpoints that are not whole, or another run's, are refused; the folder at the end is transformers'."""
# ruff: noqa: F811  fixtures come from scaling_cases

import pytest
import torch

from snippets.llm import scaling as page
from snippets.llm.checkpoints import load_llama
from snippets.llm.decoder_only import Config, Llama
from snippets.llm.scaling_checkpoints import Checkpoints, check_whole, export, first_line
from tests.snippets.llm.scaling_cases import CONFIG, alone, shards, train  # noqa: F401  fixtures


def test_what_is_not_whole_or_not_ones_own_is_refused(alone, shards, tmp_path):
    train(page.sharded, tmp_path, shards, page.Settings(steps=3, a_step=16, each=2))
    folder = tmp_path / "step-00000003"
    weights, tokens = sum(p.numel() for p in Llama(CONFIG).parameters()), 1800
    about = {"weights": weights, "tokens": tokens, "a_step": 16, "seed": 0}
    assert check_whole(folder, about) == 1
    for other in ({"weights": 5}, {"seed": 1}, {"a_step": 8}):
        with pytest.raises(ValueError, match=f"{next(iter(other))} .* is expected, given .*another run's"):
            check_whole(folder, about | other)
    with pytest.raises(ValueError, match="seed 1 is expected, given 0 in step-00000003: it is another run's"):
        train(page.sharded, tmp_path, shards, page.Settings(steps=3, a_step=16, each=2, seed=1))
    shard = next(folder.glob("*.distcp"))
    whole_shard = shard.read_bytes()
    shard.write_bytes(whole_shard[:-50])
    with pytest.raises(ValueError, match=f"a shard {shard.name} of .* bytes is expected in step-00000003, given"):
        check_whole(folder, about)
    shard.unlink()
    with pytest.raises(ValueError, match="given no file"):
        check_whole(folder, about)


def test_old_checkpoints_go_and_the_newest_stay(alone, shards, tmp_path):
    train(page.sharded, tmp_path, shards, page.Settings(steps=10, a_step=16, each=4, save_every=2))
    assert sorted(p.name for p in tmp_path.glob("step-*")) == ["step-00000008", "step-00000010"]
    assert Checkpoints(tmp_path, {}, kept=1).complete()[-1].name == "step-00000010"


@pytest.mark.parametrize("tied", [True, False])
def test_the_folder_at_the_end_is_transformers(alone, tied, tmp_path, agrees):
    from transformers import LlamaForCausalLM

    config = Config(41, 16, 24, 40, 3, 6, 2, tied=tied, eps=1e-4)
    model = Llama(config)
    for p in model.parameters():
        p.data += 0.1 * torch.randn_like(p)
    tokens = torch.randint(41, (2, 9))
    ours = model(tokens)
    spread = page.sharded(model)
    export(spread, config, tmp_path)
    theirs = LlamaForCausalLM.from_pretrained(tmp_path)(tokens).logits
    agrees(ours, theirs, "transformers.LlamaForCausalLM", 1e-5)
    assert (load_llama(tmp_path)(tokens) - ours).abs().max() < 1e-6
    assert load_llama(tmp_path).config == config


def test_of_an_error_the_first_cause_is_told_in_a_line():
    inner = RuntimeError("no room\nand more")
    outer = RuntimeError("many")
    outer.failures = {1: (inner, None)}
    assert first_line(outer) == "RuntimeError: no room" and first_line(ValueError("a")) == "ValueError: a"
