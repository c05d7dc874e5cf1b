"""What the tests of scaling and of its checkpoints share: a small model, some text, and one process that is all."""

from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from snippets.llm import scaling as page
from snippets.llm.decoder_only import Config, Llama

CONFIG = Config(context=16, width=24, hidden=40, num_layers=2, num_heads=4)
SETTINGS = page.Settings(steps=20, a_step=16, each=2, warm_up=4, save_every=6)


@contextmanager
def a_group():
    """One process that is all of them."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


@pytest.fixture
def alone():
    """One process that is all of them."""
    with a_group():
        yield


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    """Three texts of other bytes, in shards of 700 tokens: 1,800 with the ends of the texts."""
    folder = tmp_path_factory.mktemp("text")
    generator = torch.Generator().manual_seed(0)
    for name, size in (("b/two.md", 1000), ("one.txt", 300), ("three.py", 497)):
        (folder / name).parent.mkdir(exist_ok=True)
        letters = torch.randint(97, 101, (size,), generator=generator).tolist()
        (folder / name).write_bytes(bytes(letters))
    (folder / "no.bin").write_bytes(b"x" * 50)
    page.write_shards(folder, folder / "shards", size=700)
    return folder / "shards"


def whole(model: nn.Module) -> dict[str, torch.Tensor]:
    """All weights, in the first process."""
    return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def apart(one: dict, other: dict) -> float:
    """The largest difference of two models' weights."""
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)


def train(way, folder: Path, shards: Path, settings=SETTINGS, change=lambda model: model) -> tuple[list, dict]:
    """Losses and weights of a run from the first weights that all share."""
    torch.manual_seed(0)
    model = way(change(Llama(CONFIG)))
    log = page.run(model, page.Windows(shards, 16), folder, settings)
    return [line["loss"] for line in log], whole(model)


def whole_of_the_start() -> dict[str, torch.Tensor]:
    """The first weights."""
    torch.manual_seed(0)
    return dict(Llama(CONFIG).state_dict())
