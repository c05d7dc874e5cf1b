"""Folders of weights as transformers, diffusers and peft write them: JSON and safetensors files.

What a page's network does not have is refused in one line, before a weight is used.
"""

# --8<-- [start:read-config]
import json
from pathlib import Path

import torch
from torch import Tensor, nn


def read_config(folder: str | Path, expected: dict, needed=(), name: str = "config.json") -> dict:
    """The settings of a folder. A setting that the file leaves out counts as expected, unless it is needed.

    Raises ValueError without the file, for other settings than expected, and where a needed one is missing.
    """
    path = Path(folder) / name
    if not path.is_file():
        raise ValueError(f"{name} is expected in {folder}, given a folder without it")
    given = json.loads(path.read_text(encoding="utf-8"))
    for setting, wanted in expected.items():
        if given.get(setting, wanted) != wanted:
            raise ValueError(f"{setting} {wanted} is expected, given {given[setting]!r:.80} in {folder}")
    missing = [setting for setting in needed if setting not in given]
    if missing:
        raise ValueError(f"{missing[0]} is expected in {path}, given {sorted(given)}")
    return given


# --8<-- [end:read-config]


# --8<-- [start:read-weights]
def read_weights(folder: str | Path, name: str = "model.safetensors", buffers=()) -> dict[str, Tensor]:
    """All weights of a folder, from one file or from those that its index lists.

    Names that end with one of buffers are left out: older files hold tables that are no weights.
    Raises ValueError for a missing file, for one that git-lfs has not fetched, and for quantised weights.
    """
    from safetensors.torch import load_file  # only this function needs: pip install safetensors

    index = Path(folder) / f"{name}.index.json"
    files = [name]
    if index.is_file() and not (Path(folder) / name).is_file():
        files = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    weights = {}
    for file in files:
        path = Path(folder) / file
        if not path.is_file():
            raise ValueError(f"{file} is expected in {folder}, given a folder without it")
        with path.open("rb") as opened:
            if opened.read(7) == b"version":
                raise ValueError(f"weights are expected, given a pointer in {path}: run git lfs pull")
        weights |= load_file(path)
    weights = {name: weight for name, weight in weights.items() if not name.endswith(tuple(buffers))}
    plain = torch.float64, torch.float32, torch.float16, torch.bfloat16
    for name, weight in weights.items():
        if weight.dtype not in plain:
            raise ValueError(f"weights that are not quantised are expected, given {name} of {weight.dtype}")
    return weights


# --8<-- [end:read-weights]


# --8<-- [start:renamed]
def renamed(weights: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    """The same weights under other names, in which parts are replaced."""
    for theirs, ours in names.items():
        weights = {name.replace(theirs, ours): weight for name, weight in weights.items()}
    return weights


# --8<-- [end:renamed]


# --8<-- [start:fill]
EACH = "each weight of the model and no other is expected"


def fill(model: nn.Module, weights: dict[str, Tensor], wanted: str = EACH) -> nn.Module:
    """Give a model all its weights, by its own names and in its own type, and put it in `eval` mode.

    Raises ValueError where one is missing or left over (it begins with what is wanted) or has another shape.
    """
    own = model.state_dict()
    missing, more = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    if missing or more:
        first = min(missing + more)
        given = f"{first}: {list(weights[first].shape) if first in weights else 'none'}"
        counts = f"{len(missing)} missing {missing[:1]}, {len(more)} more {more[:1]}"
        raise ValueError(f"{wanted}, given {given} ({counts})")
    for name, weight in weights.items():
        if weight.shape != own[name].shape:
            shapes = f"{tuple(own[name].shape)} is expected, given {tuple(weight.shape)}"
            raise ValueError(f"for {name}, {shapes}")
    model.load_state_dict(weights)
    return model.eval()


# --8<-- [end:fill]
