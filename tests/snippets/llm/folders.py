"""Folders in transformers' layout, changed so that a loader has to refuse them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from safetensors.torch import load_file, save_file


def rewritten(folder: Path, **settings) -> None:
    """Change settings of a folder's config.json."""
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


def edited(edit: Callable[[dict], None]) -> Callable[[Path], None]:
    """What edits the weights of a folder, a dict by name."""

    def change(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        edit(weights)
        save_file(weights, folder / "model.safetensors")

    return change


def refused(load: Callable, folder: Path, change: Callable[[Path], None], match: str) -> None:
    """After the change, a copy of the folder is refused by a ValueError of one line."""
    with TemporaryDirectory() as place:
        copy = Path(place) / "copy"
        shutil.copytree(folder, copy)
        change(copy)
        with pytest.raises(ValueError, match=match) as error:
            load(copy)
    assert "\n" not in str(error.value)


def refuses_other_weights(load: Callable, whole: Path, parts: Path, name: str) -> None:
    """A loader refuses a folder whose files or weights are not all there, or others; `name` is layers.1.down.weight."""
    refused(load, parts, lambda path: sorted(path.glob("*.safetensors"))[1].unlink(), "model-00002-of-.* is expected")
    refused(load, whole, lambda path: (path / "model.safetensors").unlink(), "model.safetensors is expected")
    refused(load, whole, edited(lambda w: w.pop(name)), "given bert.layers.1.down.weight: none")
    refused(load, whole, edited(lambda w: w.update({"adapter": torch.ones(2)})), r"given adapter: \[2\]")
    refused(load, whole, edited(lambda w: w.update({name: w[name].T.contiguous()})), "layers.1.down.weight")
    refused(load, whole, edited(lambda w: w.update({name: w[name].to(torch.int8)})), "not quantised are expected")
