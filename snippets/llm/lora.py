"""Low-rank adaptation of linear layers (LoRA, Hu et al. 2021, arXiv 2106.09685), in the files of peft.
Why a low rank may be enough: the intrinsic dimension of fine-tuning (Aghajanyan et al. 2020, 2012.13255).

Shapes: I inputs of a layer, O outputs of a layer, R rank of an adapter, S rank of another one.
A adapter's A is (R, I) and its B is (O, R), whatever the layout of the layer beside it.
"""

# --8<-- [start:imports]
import copy
import json
import math
from collections import Counter
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

# --8<-- [end:imports]
from snippets.blocks.checkpoint import read_config, read_weights, renamed
from snippets.data.code import code
from snippets.data.text import text
from snippets.llm.decoder_only import Config, Llama, bits_per_byte, train


# --8<-- [start:layout]
def is_transposed(layer: nn.Module) -> bool:
    """Whether a weight is (I, O), as in GPT-2's Conv1D of transformers, and not (O, I), as in nn.Linear."""
    kind, linear = type(layer).__name__, isinstance(layer, nn.Linear)
    if not (linear or kind == "Conv1D") or not layer.weight.is_floating_point():
        raise ValueError(f"an nn.Linear or a Conv1D with a float weight is expected, given {kind}")
    return not linear


# --8<-- [end:layout]


# --8<-- [start:lora]
class LoRA(nn.Module):
    """A frozen layer and, beside it, two narrow matrices: W x + alpha / R B A dropout(x) (Eq. 3).

    Raises ValueError for a rank below 1, an alpha of 0 or less, a dropout outside [0, 1), other layers.
    """

    def __init__(self, layer: nn.Module, rank: int, alpha: float, dropout: float = 0.0):
        super().__init__()
        if rank < 1 or alpha <= 0 or not 0 <= dropout < 1:
            given = f"{rank}, {alpha} and {dropout}"
            raise ValueError(f"rank >= 1, alpha > 0 and 0 <= dropout < 1 are expected, given {given}")
        weight = layer.weight.T if is_transposed(layer) else layer.weight  # (O, I)
        self.layer = layer.requires_grad_(False)
        self.rank, self.alpha, self.merged = rank, alpha, False
        self.dropout = nn.Dropout(dropout)
        self.A = nn.Parameter(weight.new_empty(rank, weight.shape[1]))  # (R, I)
        self.B = nn.Parameter(weight.new_zeros(weight.shape[0], rank))  # (O, R) so nothing is added yet
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))  # even between -1 / sqrt(I) and 1 / sqrt(I)
        self.train(layer.training)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (…, O) of inputs x (…, I)."""
        y = self.layer(x)  # _ (…, O)
        if self.merged:
            return y
        low = self.dropout(x) @ self.A.T  # _ (…, R) the layer itself sees all of x
        return y + self.alpha / self.rank * (low @ self.B.T)

    def delta(self) -> Tensor:
        """What the adapter adds to the layer's weight, in the weight's layout."""
        change = self.alpha / self.rank * (self.B @ self.A)  # (O, I)
        return change.T if is_transposed(self.layer) else change

    @torch.no_grad()
    def merge(self) -> None:
        """Add the adapter to the weight, and skip it from now on. ValueError if that has been done."""
        if self.merged:
            raise ValueError("an adapter that is not merged is expected, given one that is")
        self.layer.weight += self.delta()
        self.merged = True

    @torch.no_grad()
    def unmerge(self) -> None:
        """Subtract it again: the weight comes back but for rounding."""
        if not self.merged:
            raise ValueError("a merged adapter is expected, given one that is not")
        self.layer.weight -= self.delta()
        self.merged = False


# --8<-- [end:lora]


# --8<-- [start:add]
def add_adapters(model: nn.Module, names: list[str], rank: int, alpha: float, dropout: float = 0.0):
    """Freeze a model, and put an adapter on each layer whose path ends with one of names; returns it.

    Call it once, with all names: a second call freezes the first adapters. ValueError for unknown names.
    """

    def named(path: str) -> list[str]:
        return [name for name in names if f".{path}".endswith(f".{name}")]

    layers = {path: layer for path, layer in model.named_modules() if named(path)}
    unknown = set(names) - {name for path in layers for name in named(path)}
    if unknown or not names:
        raise ValueError(f"names of the model's layers are expected, given {sorted(unknown)}")
    wrapped = {path: LoRA(layer, rank, alpha, dropout) for path, layer in layers.items()}
    model.requires_grad_(False)
    for path, adapter in wrapped.items():
        model.set_submodule(path, adapter)
    return model


def adapters(model: nn.Module) -> dict[str, LoRA]:
    """A model's adapters by path; ValueError if it has none."""
    found = {path: module for path, module in model.named_modules() if isinstance(module, LoRA)}
    if not found:
        raise ValueError("a model with adapters is expected, given one without")
    return found


def count_trained(model: nn.Module) -> int:
    """How many numbers an optimizer would change."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


# --8<-- [end:add]


# --8<-- [start:merge]
def merge(model: nn.Module) -> nn.Module:
    """Add each adapter to its weight. ValueError if another layer shares one, as a tied head does."""
    users = Counter(map(id, (p for _, p in model.named_parameters(remove_duplicate=False))))
    for path, adapter in adapters(model).items():
        if users[id(adapter.layer.weight)] > 1:
            raise ValueError(f"weights that nothing else uses are expected, given that of {path}")
    for adapter in adapters(model).values():
        adapter.merge()
    return model


def unmerge(model: nn.Module) -> nn.Module:
    """Subtract each adapter from its weight again."""
    for adapter in adapters(model).values():
        adapter.unmerge()
    return model


def remove_adapters(model: nn.Module) -> nn.Module:
    """Put the layers back as they are: with a merged adapter inside, or without. All stay frozen."""
    for path, adapter in adapters(model).items():
        model.set_submodule(path, adapter.layer)
    return model


# --8<-- [end:merge]


# --8<-- [start:fuse]
def fuse(parts: list[LoRA]) -> tuple[Tensor, Tensor]:
    """A (S, I) and B (O, S) of one adapter, with alpha = S, for the layers of parts stacked into one.

    S is the sum of their ranks, O of their outputs. All have the same inputs, as query, key and value do;
    ValueError if they have not.
    """
    if len({part.A.shape[1] for part in parts}) != 1:
        given = [part.A.shape[1] for part in parts]
        raise ValueError(f"adapters with the same number of inputs are expected, given {given}")
    A = torch.cat([part.alpha / part.rank * part.A for part in parts])  # (S, I)
    B = torch.block_diag(*[part.B for part in parts])  # (O, S)
    return A, B


# --8<-- [end:fuse]


# --8<-- [start:similarity]
def similarity(first: Tensor, second: Tensor) -> Tensor:
    """phi(i, j) (R, S) of A's first (R, I) and second (S, I), for i and j from 1 to at most I (section 7.2).

    It is 1 if the directions of one lie in those of the other, and 0 if they are at right angles.
    """
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        given = f"{tuple(first.shape)} and {tuple(second.shape)}"
        raise ValueError(f"matrices (R, I) and (S, I) are expected, given {given}")
    rows = torch.linalg.svd(first.double(), full_matrices=False).Vh  # (R, I) strongest first
    others = torch.linalg.svd(second.double(), full_matrices=False).Vh  # (S, I)
    shared = (rows @ others.T).square().cumsum(dim=0).cumsum(dim=1)  # (R, S) squared norm of each corner
    i, j = torch.arange(1, len(rows) + 1)[:, None], torch.arange(1, len(others) + 1)  # (R, 1), (S,)
    return shared / torch.minimum(i, j)


# --8<-- [end:similarity]


# --8<-- [start:save]
def adapter_state(model: nn.Module) -> dict[str, Tensor]:
    """A and B of each adapter, and nothing else, under peft's names."""
    state = {}
    for path, adapter in adapters(model).items():
        state[f"base_model.model.{path}.lora_A.weight"] = adapter.A.detach()
        state[f"base_model.model.{path}.lora_B.weight"] = adapter.B.detach()
    return state


def save_adapter(model: nn.Module, folder: str) -> None:
    """Write adapter_config.json and adapter_model.safetensors, which peft reads, merged or not.

    Raises ValueError for adapters that differ in rank, alpha, dropout or layout: the file has one of each.
    """
    found = adapters(model)
    sizes = {(one.rank, one.alpha, one.dropout.p, is_transposed(one.layer)) for one in found.values()}
    if len(sizes) != 1:
        raise ValueError(f"adapters of one rank, alpha, dropout and layout are expected, given {sizes}")
    rank, alpha, dropout, transposed = sizes.pop()
    config = {"peft_type": "LORA", "task_type": None, "base_model_name_or_path": None, "bias": "none"}
    config |= {"r": rank, "lora_alpha": alpha, "lora_dropout": dropout, "fan_in_fan_out": transposed}
    config |= {"target_modules": sorted(found), "inference_mode": True}
    Path(folder).mkdir(parents=True, exist_ok=True)
    (Path(folder) / "adapter_config.json").write_text(json.dumps(config, indent=1))
    save_file(adapter_state(model), Path(folder) / "adapter_model.safetensors")


# --8<-- [end:save]


# --8<-- [start:load]
PLAIN = {"peft_type": "LORA", "bias": "none", "rank_pattern": {}, "alpha_pattern": {}, "use_dora": False}
PLAIN |= {"modules_to_save": None, "trainable_token_indices": None, "layer_replication": None}
PLAIN |= {"alora_invocation_tokens": None, "target_parameters": None, "arrow_config": None}
PLAIN |= {"kasa_config": None, "velora_config": None, "monteclora_config": None, "use_bdlora": None}
PLAIN |= {"use_qalora": False, "lora_bias": False}  # what peft 0.21 can do beside plain LoRA


def load_adapter(model: nn.Module, folder: str | Path, names: dict[str, str]) -> nn.Module:
    """Put the adapters of a folder in peft's layout on a model, parts of whose paths have other names there.

    Raises ValueError for what is more than LoRA, for layers that the model lacks, and for other shapes; the
    model is then as it was.
    """
    given = read_config(folder, PLAIN, name="adapter_config.json")
    given = {"r": 8, "lora_alpha": 8, "lora_dropout": 0.0, "init_lora_weights": True} | given  # peft's
    rank, start = given["r"], given["init_lora_weights"]
    if start not in (True, False, "gaussian", "orthogonal", "eva"):  # PiSSA and others change the base
        raise ValueError(f"a start that does not change the base is expected, given {start}")
    weights = renamed(read_weights(folder, "adapter_model.safetensors"), names)
    weights = {key.removeprefix("base_model.model."): weight for key, weight in weights.items()}
    paths = {key.rpartition(".lora_")[0] for key in weights}
    wanted = {f"{path}.lora_{part}.weight" for path in paths for part in "AB"}
    if not paths or weights.keys() != wanted:
        other = sorted(weights.keys() ^ wanted)
        given = f"{len(paths)} layers and {len(other)} weights that are none or lack one {other[:1]}"
        raise ValueError(f"A and B of each layer, and nothing else, are expected, given {given}")
    alpha = given["lora_alpha"] * (math.sqrt(rank) if given.get("use_rslora") else 1)
    layers = dict(model.named_modules())
    for path in sorted(paths):  # before anything is changed
        if path not in layers:
            raise ValueError(f"an adapter of a layer of the model is expected, given one of {path}")
        transposed, (rows, columns) = is_transposed(layers[path]), layers[path].weight.shape
        inputs, outputs = (rows, columns) if transposed else (columns, rows)
        for part, shape in (("A", (rank, inputs)), ("B", (outputs, rank))):
            if (found := tuple(weights[f"{path}.lora_{part}.weight"].shape)) != shape:
                raise ValueError(f"for {part} of {path}, {shape} is expected, given {found}")
    model.requires_grad_(False)
    for path in sorted(paths):
        layer = LoRA(layers[path], rank, alpha, given["lora_dropout"])
        layer.A.data.copy_(weights[f"{path}.lora_A.weight"])
        layer.B.data.copy_(weights[f"{path}.lora_B.weight"])
        model.set_submodule(path, layer)
    return model


# --8<-- [end:load]


# --8<-- [start:main]
TRAIN_STEPS = 240
TUNE_STEPS = 100
SMALL = Config(context=256, width=128, hidden=344, num_layers=3, num_heads=4, num_key_heads=2)


def main() -> None:
    """Train a small model on prose, then adapt it to Python code: by all of its weights, and by LoRA."""
    torch.set_num_threads(1)  # so small a network gains little from more, and loses much on a busy machine
    torch.manual_seed(0)
    base = Llama(SMALL)
    train(base, text(), TRAIN_STEPS)
    held_out = {"prose": text(held_out=True)[:10_000], "code": code(held_out=True)[:10_000]}

    def report(name: str, model: nn.Module) -> None:
        """Print how many bits a byte of each text costs."""
        bits = [f"{bits_per_byte(model.eval(), codes):.3f} on {kind}" for kind, codes in held_out.items()]
        print(f"{name:>22}:", ", ".join(bits), "(bits a byte)")

    report("before", base)
    full = copy.deepcopy(base)
    losses = {"all weights": train(full, code(), TUNE_STEPS, rate=1e-3)}
    report(f"all {count_trained(full):,} weights", full)
    layers = ["to_query", "to_key", "to_value", "to_out", "gate", "up", "down"]
    model = add_adapters(copy.deepcopy(base).train(), layers, rank=8, alpha=16)
    losses["LoRA"] = train(model, code(), TUNE_STEPS, rate=1e-2)
    report(f"LoRA, {count_trained(model):,} weights", model)
    report("merged", merge(model))
    save_adapter(model, "adapter")
    report("unmerged and removed", remove_adapters(unmerge(model)))
    torch.save(base.state_dict(), "base.pt")
    for path in (Path("base.pt"), Path("adapter/adapter_model.safetensors")):
        print(f"{path}: {path.stat().st_size:,} bytes")
    for name, nats in losses.items():
        plt.plot([loss / math.log(2) for loss in nats], label=name)
    plt.xlabel("step")
    plt.ylabel("training loss on code, bits a byte")
    plt.legend()
    plt.savefig("losses.png")
    plt.close()
    print("loss by step: losses.png")


if __name__ == "__main__":
    main()
# --8<-- [end:main]


# --8<-- [start:reload]
def reload() -> None:
    """Read the base and the adapter that main has written, and put them together again."""
    base = Llama(SMALL)
    base.load_state_dict(torch.load("base.pt"))
    model = merge(load_adapter(base, "adapter", names={}))
    bits = bits_per_byte(model.eval(), code(held_out=True)[:10_000])
    print(f"read from disk: {bits:.3f} bits a byte of code")


if __name__ == "__main__":
    reload()
# --8<-- [end:reload]
