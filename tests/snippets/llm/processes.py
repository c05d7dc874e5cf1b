"""Real processes on this machine, which talk by gloo: forks of the tests' own, so that they import nothing anew."""

import os
import pickle
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing


def joined(rank: int, number: int, folder: str, function: Callable, given: tuple) -> None:
    """What one of the processes does; what it returned, or what ended it, lies in a file."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    store = dist.FileStore(f"{folder}/store", number)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=number)
    try:
        found = function(*given)
    except Exception as error:
        traceback.print_exc()
        found = error if isinstance(error, ValueError | RuntimeError) else RuntimeError(repr(error))
        Path(folder, f"{rank}.pickle").write_bytes(pickle.dumps(found))
        os._exit(0)  # the others may wait for it
    Path(folder, f"{rank}.pickle").write_bytes(pickle.dumps(found))
    dist.destroy_process_group()


def together(number: int, folder: Path, function: Callable, *given) -> list:
    """What a function returns in each of some processes. An error that one of them raised comes back in its place."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "store").unlink(missing_ok=True)
    arguments = number, str(folder), function, given
    torch.multiprocessing.start_processes(joined, arguments, nprocs=number, start_method="fork")
    return [pickle.loads((folder / f"{rank}.pickle").read_bytes()) for rank in range(number)]
