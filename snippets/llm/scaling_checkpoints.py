"""Checkpoints of many processes by torch.distributed.checkpoint, written while training goes on; what is
refused; a folder in transformers' layout at the end.
"""

# --8<-- [start:imports]
import json
import os
import shutil
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_state_dict,
)

# --8<-- [end:imports]
from snippets.llm.decoder_only import Config


# --8<-- [start:checkpoints]
class Checkpoints:
    """Folders step-00000020 and so on, each complete; until then they have another name."""

    def __init__(self, folder: Path, settings: dict, kept: int = 2):
        self.folder, self.settings, self.kept, self.pending = folder, settings, kept, None
        self.group = dist.new_group(
            backend="gloo"
        )  # the messages of the writing thread, apart from training's
        folder.mkdir(parents=True, exist_ok=True)
        if dist.get_rank() == 0:
            for part in folder.glob("step-*.part"):  # of a run that was killed
                shutil.rmtree(part)
        dist.barrier(self.group)

    def complete(self) -> list[Path]:
        """The checkpoints that can be loaded, the newest last."""
        return sorted(path for path in self.folder.glob("step-*") if path.suffix != ".part")

    def save(self, step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Copy the state after so many steps, and begin to write it. Every process has to call this."""
        self.finish()
        weights, moments = get_state_dict(model, optimizer)
        state = {
            "model": weights,
            "optimizer": moments,
            f"generator.{dist.get_rank()}": torch.get_rng_state(),
        }
        part = self.folder / f"step-{step:08}.part"
        if dist.get_rank() == 0:
            part.mkdir(exist_ok=True)  # another process may have come first
            about = self.settings | {"processes": dist.get_world_size()}
            (part / "settings.json").write_text(json.dumps(about))
        self.pending = part, dcp.async_save(state, checkpoint_id=part, process_group=self.group)

    def finish(self, wait: bool = True) -> None:
        """Give the checkpoint its name, once it is written. Raises RuntimeError if it could not be."""
        if self.pending is None or not (wait or self.pending[1].done()):
            return
        (part, written), self.pending = self.pending, None
        if error := written.exception():
            raise RuntimeError(
                f"{part.stem} was not written: {first_line(error)}; the ones before it are kept"
            )
        if dist.get_rank() == 0:  # its part of the writing ends after everyone's
            os.rename(part, part.with_suffix(""))
            for old in self.complete()[: -self.kept]:
                shutil.rmtree(old)

    def load(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
        """Continue with the newest checkpoint, if there is one; how many steps it has behind it.

        Raises ValueError for one of other settings, and for one of which a file is missing or cut off.
        """
        if not self.complete():
            return 0
        newest = self.complete()[-1]
        processes = check_whole(newest, self.settings)
        weights, moments = get_state_dict(model, optimizer)
        state = {"model": weights, "optimizer": moments}
        own = f"generator.{dist.get_rank()}"
        if processes == dist.get_world_size():  # for other numbers of processes there is no such thing
            state[own] = torch.get_rng_state()
        dcp.load(state, checkpoint_id=newest, process_group=self.group)
        set_state_dict(model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
        if own in state:
            torch.set_rng_state(state[own])
        return int(newest.name.removeprefix("step-"))


# --8<-- [end:checkpoints]


# --8<-- [start:whole]
def first_line(error: BaseException) -> str:
    """What went wrong first, in one line. An error of several processes holds theirs by rank."""
    causes = getattr(error, "failures", None)
    while causes:
        error = next(iter(causes.values()))[0]
        causes = getattr(error, "failures", None)
    return f"{type(error).__name__}: {error}".splitlines()[0]


def check_whole(folder: Path, settings: dict) -> int:
    """How many processes wrote a checkpoint. Raises ValueError where it is another run's, or lacks a part."""
    given = json.loads((folder / "settings.json").read_text())
    processes = given.pop("processes")
    other = [name for name in settings if given.get(name) != settings[name]]
    if other:
        values = f"{given.get(other[0])} in {folder.name}"
        raise ValueError(f"{other[0]} {settings[other[0]]} is expected, given {values}: it is another run's")
    parts = dcp.FileSystemReader(folder).read_metadata().storage_data.values()
    for name in sorted({part.relative_path for part in parts}):
        size = max(part.offset + part.length for part in parts if part.relative_path == name)
        path = folder / name
        if not path.is_file() or path.stat().st_size < size:
            given = path.stat().st_size if path.is_file() else "no file"
            raise ValueError(f"a shard {name} of {size} bytes is expected in {folder.name}, given {given}")
    return processes


# --8<-- [end:whole]


# --8<-- [start:export]
NAMES = {  # parts of the paths of weights: on this page -> in transformers' Llama
    "blocks": "model.layers",
    "norm_1": "input_layernorm",
    "norm_2": "post_attention_layernorm",
    "to_query": "self_attn.q_proj",
    "to_key": "self_attn.k_proj",
    "to_value": "self_attn.v_proj",
    "to_out": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
    "token": "model.embed_tokens",
    "norm": "model.norm",
    "head": "lm_head",
}


def export(model: nn.Module, config: Config, folder: Path) -> None:
    """Write whole weights and settings in the layout of transformers' LlamaForCausalLM.

    Every process has to call this, since each has a part of the weights; the first one writes.
    """
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights = get_model_state_dict(model, options=options)  # _ empty, but in the first process
    if dist.get_rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        if config.tied:
            del weights["head.weight"]  # transformers ties it again
        theirs = {
            ".".join(NAMES.get(part, part) for part in name.split(".")): w for name, w in weights.items()
        }
        save_file(
            {name: w.contiguous() for name, w in theirs.items()},
            folder / "model.safetensors",
            {"format": "pt"},
        )
        settings = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "float32"}
        settings |= {"vocab_size": config.vocabulary, "hidden_size": config.width, "hidden_act": "silu"}
        settings |= {"intermediate_size": config.hidden, "num_hidden_layers": config.num_layers}
        settings |= {"num_attention_heads": config.num_heads, "num_key_value_heads": config.num_key_heads}
        settings |= {"max_position_embeddings": config.context, "rms_norm_eps": config.eps}
        settings |= {"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0}}
        settings |= {"tie_word_embeddings": config.tied, "bos_token_id": None, "eos_token_id": 0}
        (folder / "config.json").write_text(json.dumps(settings, indent=2))
    dist.barrier()


# --8<-- [end:export]
