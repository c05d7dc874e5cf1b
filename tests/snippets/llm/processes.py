"""Real processes on this machine, which talk by gloo: forks, so that they import nothing anew.

They are not forked from the tests' own process, whose threads would be missing in them, but from a copy of it that was
made before the first test and does nothing else. It ends with the tests.
"""

import multiprocessing
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
        found = RuntimeError(f"{type(error).__name__}: {error}")
    Path(folder, f"{rank}.pickle").write_bytes(pickle.dumps(found))
    os._exit(0)  # without waiting for others, which may wait for it


class Forks:
    """A copy of this process, from which others are forked. To be made where a test's module ends."""

    def __init__(self):
        self.end, other = multiprocessing.Pipe()
        if os.fork() == 0:
            self.end.close()
            self.serve(other)
        other.close()

    def serve(self, end) -> None:
        """Fork what is asked for, until nobody can ask."""
        try:
            while True:
                number, folder, *task = end.recv()
                said = ""
                try:
                    torch.multiprocessing.start_processes(joined, (number, folder, *task), number, start_method="fork")
                except Exception as error:
                    said = str(error)
                end.send(said)
        finally:
            os._exit(0)

    def together(self, number: int, folder: Path, function: Callable, *given) -> list:
        """What a function returns in each of some processes. ChildProcessError where one was killed, or raised."""
        folder.mkdir(parents=True, exist_ok=True)
        for old in (folder / "store", *folder.glob("*.pickle")):
            old.unlink(missing_ok=True)
        self.end.send((number, str(folder), function, given))
        if said := self.end.recv():
            raise ChildProcessError(said)
        found = [pickle.loads((folder / f"{rank}.pickle").read_bytes()) for rank in range(number)]
        for one in found:
            if isinstance(one, RuntimeError):
                raise ChildProcessError(str(one))
        return found
