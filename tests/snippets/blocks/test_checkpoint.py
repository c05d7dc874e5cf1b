"""Folders of weights: what is read, and what is refused in one line."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from snippets.blocks import checkpoint


@pytest.fixture
def folder(tmp_path):
    """Settings and two weights in one file, a stale file beside it."""
    (tmp_path / "config.json").write_text(json.dumps({"kind": "net", "width": 5}))
    save_file({"weight": torch.ones(3, 5).half(), "bias": torch.ones(3).double()}, tmp_path / "model.safetensors")
    save_file({"weight": torch.zeros(3, 5)}, tmp_path / "old.safetensors")
    return tmp_path


def refuses(call, match):
    """One line, that names what was given."""
    with pytest.raises(ValueError, match=match) as error:
        call()
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_settings_are_read_and_compared(folder):
    assert checkpoint.read_config(folder, {"kind": "net", "depth": 2}, ["width"]) == {"kind": "net", "width": 5}
    refuses(lambda: checkpoint.read_config(folder, {"kind": "other"}), "kind other is expected, given 'net' in")
    refuses(lambda: checkpoint.read_config(folder, {}, ["kind", "depth"]), r"depth is expected .* given \['kind', 'wid")
    refuses(lambda: checkpoint.read_config(folder, {}, name="other.json"), "other.json is expected")
    (folder / "config.json").write_text(json.dumps({"kind": "x" * 9000}))
    refuses(lambda: checkpoint.read_config(folder, {"kind": "net"}), "kind net is expected, given 'xxx")


def test_weights_are_read_from_the_one_file(folder):
    weights = checkpoint.read_weights(folder)
    assert {name: (weight.dtype, weight.sum().item()) for name, weight in weights.items()} == {
        "weight": (torch.float16, 15.0),
        "bias": (torch.float64, 3.0),
    }
    assert list(checkpoint.read_weights(folder, buffers=["bias"])) == ["weight"]


def test_an_index_lists_the_files_unless_there_is_one(folder):
    parts = {"a": "1.safetensors", "b": "2.safetensors", "c": "1.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))
    assert list(checkpoint.read_weights(folder)) == ["bias", "weight"]  # as transformers does
    (folder / "model.safetensors").unlink()
    save_file({"a": torch.ones(2), "c": torch.ones(1)}, folder / "1.safetensors")
    refuses(lambda: checkpoint.read_weights(folder), "2.safetensors is expected in")
    save_file({"b": torch.ones(3)}, folder / "2.safetensors")
    assert sorted(checkpoint.read_weights(folder)) == ["a", "b", "c"]


def test_what_is_no_weight_is_refused(folder):
    file = folder / "model.safetensors"
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4976698672\n")
    refuses(lambda: checkpoint.read_weights(folder), "given a pointer in .*: run git lfs pull")
    for kind in (torch.int8, torch.float8_e4m3fn, torch.uint8, torch.bool):
        save_file({"scale": torch.ones(2), "weight": torch.ones(2).to(kind)}, file)
        refuses(lambda: checkpoint.read_weights(folder), "not quantised are expected, given weight of torch")
    file.unlink()
    refuses(lambda: checkpoint.read_weights(folder), "model.safetensors is expected in")


def test_a_model_is_filled_wholly_or_not_at_all():
    model = nn.Linear(5, 3)
    weights = {"weight": torch.randn(3, 5), "bias": torch.randn(3)}
    filled = checkpoint.fill(model.train(), weights)
    assert filled is model and not model.training and model.bias.dtype == torch.float32
    assert torch.equal(checkpoint.fill(nn.Linear(5, 3), {k: w.double() for k, w in weights.items()}).bias, model.bias)
    assert torch.equal(model.weight, weights["weight"])
    before = model.weight.clone()
    others = {"weight": torch.zeros(3, 5), "bias": torch.zeros(3)}
    refuses(lambda: checkpoint.fill(model, {"weight": others["weight"]}), r"1 missing \['bias'\], 0 more")
    refuses(lambda: checkpoint.fill(model, others | {"scale": torch.ones(1)}), r"0 missing \[\], 1 more \['scale'\]")
    shape = r"for bias, \(3,\) is expected, given \(1, 3\)"
    refuses(lambda: checkpoint.fill(model, others | {"bias": torch.zeros(1, 3)}), shape)
    assert torch.equal(model.weight, before)
