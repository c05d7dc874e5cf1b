"""One model trained by many processes, with PyTorch's torch.distributed: copies (Li et al. 2020, arXiv
2006.15704), or shards (`fully_shard`, Zhao et al. 2023, 2304.11277, after ZeRO, 1910.02054).

Shapes: B windows that a process reads at once, T positions, V vocabulary.
A step is counted from 0. A window is T + 1 tokens: each of the first T has the one after it as its target.
"""

# --8<-- [start:imports]
import argparse
import bisect
import json
import os
import sys
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import apply_activation_checkpointing
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, DistributedSampler
from tqdm import trange

# --8<-- [end:imports]
from snippets.llm.decoder_only import Config, Llama, LlamaBlock
from snippets.llm.scaling_checkpoints import Checkpoints, export


# --8<-- [start:shards]
def as_bytes(passage: str) -> bytearray:
    """A tokenizer that needs no training: the UTF-8 bytes of a text, tokens from 0 to 255."""
    return bytearray(passage.encode())


def write_shards(
    source: Path, target: Path, encode: Callable[[str], Sequence[int]] = as_bytes, size: int = 2**26
) -> None:
    """Write the tokens of a folder's texts to files of `size` tokens, two bytes each.

    One text is in memory at a time; a 0 ends each. The index comes last: a folder that has one is complete.
    """
    files = sorted(path for path in source.rglob("*") if path.suffix in (".txt", ".md", ".py"))
    if not files:
        raise ValueError(f"a folder with .txt, .md or .py files is expected, given {source} without one")
    target.mkdir(parents=True, exist_ok=True)
    sizes = [0]
    for path in files:
        codes = np.asarray([*encode(path.read_text(encoding="utf-8", errors="replace")), 0], dtype=np.uint16)
        while len(codes):
            if sizes[-1] == size:
                sizes.append(0)
            part, codes = np.split(codes, [size - sizes[-1]])
            with (target / f"{len(sizes) - 1:05}.bin").open("ab" if sizes[-1] else "wb") as shard:
                shard.write(part.tobytes())
            sizes[-1] += len(part)
    (target / "index.tmp").write_text(json.dumps(sizes))
    os.replace(target / "index.tmp", target / "index.json")


class Windows(Dataset):
    """Windows of T + 1 tokens from shards, as if they were one file; in memory is only what is read."""

    def __init__(self, folder: Path, length: int):
        sizes = json.loads((folder / "index.json").read_text())
        self.length, self.shards = length, []
        for number, size in enumerate(sizes):
            path = folder / f"{number:05}.bin"
            if not path.is_file() or path.stat().st_size != 2 * size:
                raise ValueError(f"a shard of {2 * size} bytes is expected, given {path}, which is not")
            self.shards.append(np.memmap(path, dtype=np.uint16, mode="r"))
        self.ends = np.cumsum(sizes).tolist()

    def __len__(self) -> int:
        return max(0, self.ends[-1] - 1) // self.length

    def __getitem__(self, number: int) -> Tensor:
        place, missing, parts = number * self.length, self.length + 1, []
        while missing:  # once, or more often where a window goes on in the next shard
            shard = bisect.bisect(self.ends, place)
            part = self.shards[shard][place - self.ends[shard] :][:missing]
            codes = torch.from_numpy(part.astype(np.int64))  # (_,)
            parts.append(codes)
            place, missing = place + len(part), missing - len(part)
        window = torch.cat(parts)  # (T + 1,)
        return window


# --8<-- [end:shards]


# --8<-- [start:order]
def batches(windows: Windows, each: int, a_step: int, start: int, seed: int) -> Iterator[Tensor]:
    """Without end, what this process reads: windows (B, T + 1), B = each, beginning at step `start`.

    All processes together read a_step windows in a step, the same ones however many they are. Every epoch
    has an order of its own. Raises ValueError where a step cannot be shared out evenly, or text is short.
    """
    processes = dist.get_world_size()
    if a_step % (each * processes) or len(windows) < a_step:
        given = f"{a_step} for {processes} processes that read {each}, and {len(windows)} windows"
        raise ValueError(
            f"windows of a step that are shared out evenly, and enough text, are expected, given {given}"
        )
    own, steps = (
        a_step // processes,
        len(windows) // a_step,
    )  # windows of this process in a step, steps of an epoch
    sampler = DistributedSampler(windows, shuffle=True, seed=seed, drop_last=True)
    epoch, skipped = divmod(start, steps)
    while True:
        sampler.set_epoch(epoch)  # forgotten, each epoch has the order of the first
        order = list(sampler)[skipped * own : steps * own]
        unused = torch.Generator()  # without one, the loader draws from the generator that dropout uses
        yield from DataLoader(windows, batch_size=each, sampler=order, generator=unused)
        epoch, skipped = epoch + 1, 0


# --8<-- [end:order]


# --8<-- [start:spread]
def start() -> torch.device:
    """Join the processes that torchrun started, or be the only one; the device of this process."""
    gpu = torch.cuda.is_available()
    backend = "cpu:gloo,cuda:nccl" if gpu else "gloo"
    if "RANK" in os.environ:  # torchrun sets it
        dist.init_process_group(backend)
    else:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    if not gpu:
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    torch.cuda.set_device(device)
    return device


def recomputing(model: Llama) -> Llama:
    """Of a block, only what went in is kept; the backward pass computes the rest again."""
    apply_activation_checkpointing(model, check_fn=lambda module: isinstance(module, LlamaBlock))
    return model


def replicated(model: Llama, half: bool = False) -> nn.Module:
    """A copy in each process. half: matrix products in bfloat16, weights and sums in float32."""
    device = next(model.parameters()).device
    copy = DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)
    logits = copy(torch.zeros(1, 1, dtype=torch.long, device=device))  # (1, 1, V)
    logits.sum().backward()
    copy.zero_grad()  # after its first pass, it sums in another order: a run that goes on has to do so, too
    if half:
        copy.forward = torch.autocast(device.type, torch.bfloat16)(copy.forward)
    return copy


def sharded(model: Llama, half: bool = False) -> nn.Module:
    """A part of each weight in each process; a block has its whole weights only while it computes."""
    mesh = init_device_mesh(next(model.parameters()).device.type, (dist.get_world_size(),))
    policy = MixedPrecisionPolicy()
    if half:  # weights travel in bfloat16, gradients in float32
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    for block in model.blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    return fully_shard(model, mesh=mesh, mp_policy=policy)  # what is left: embedding, last norm, head


# --8<-- [end:spread]


# --8<-- [start:step]
IGNORED = -100  # a target that does not count


@contextmanager
def accumulating(model: nn.Module, last: bool) -> Iterator[None]:
    """Backward passes in here add to the process's own gradients; the last one exchanges them."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(last)
        yield
    elif last:
        yield
    else:
        with model.no_sync():
            yield


def train_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, windows: list[Tensor], longest: float
) -> tuple[float, float]:
    """One step on this process's windows, (B, T + 1) each.

    The gradient is that of the mean over all tokens of all processes, and is cut to the length `longest`.
    Returns this mean, nats a token, and how long the gradient was.
    """
    counted = sum((window[:, 1:] != IGNORED).sum() for window in windows)  # () of this process
    sums = torch.stack([counted.float(), torch.zeros_like(counted, dtype=torch.float)])  # (2,)
    dist.all_reduce(sums[:1])  # tokens of all processes
    for number, window in enumerate(windows, 1):
        with accumulating(model, last=number == len(windows)):
            logits = model(window[:, :-1].clamp(min=0))  # (B, T, V)
            nats = F.cross_entropy(
                logits.float().flatten(0, 1), window[:, 1:].flatten(), ignore_index=IGNORED, reduction="sum"
            )  # ()
            (nats * dist.get_world_size() / sums[0]).backward()  # the exchange takes the mean over processes
        sums[1] += nats.detach()
    dist.all_reduce(sums[1:])
    length = nn.utils.clip_grad_norm_(model.parameters(), longest)  # _ of all shards together
    optimizer.step()
    optimizer.zero_grad()
    return (sums[1] / sums[0]).item(), float(getattr(length, "full_tensor", lambda: length)())


# --8<-- [end:step]


# --8<-- [start:run]
@dataclass(frozen=True)
class Settings:
    """Of a run. A step reads a_step windows, `each` at once in a process: the rest is accumulated."""

    steps: int
    a_step: int = 16
    each: int = 4
    rate: float = 3e-3
    warm_up: int = 20
    longest: float = 1.0  # gradient
    save_every: int = 20
    seed: int = 0


def rate_at(step: int, settings: Settings) -> float:
    """The learning rate of a step: a straight rise to its peak, then half a cosine down to a tenth of it."""
    if step < settings.warm_up:
        return settings.rate * (step + 1) / settings.warm_up
    progress = (step - settings.warm_up) / max(1, settings.steps - settings.warm_up)
    return settings.rate * (0.1 + 0.9 * (1 + np.cos(np.pi * progress)) / 2)


def make_optimizer(model: nn.Module) -> torch.optim.AdamW:
    """AdamW; only matrices are drawn to 0."""
    matrices = [p for p in model.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if p.ndim != 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.95), fused=True)


def read_log(path: Path) -> list[dict]:
    """The steps of a log; of a line that was cut off, nothing."""
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def run(model: nn.Module, windows: Windows, out: Path, settings: Settings) -> list[dict]:
    """Train, or go on from the newest checkpoint in `out`; the first process gets the log of all steps."""
    first, log = dist.get_rank() == 0, out / "log.jsonl"
    optimizer = make_optimizer(model)
    torch.manual_seed(settings.seed + dist.get_rank())  # another dropout in each process
    about = {"weights": sum(p.numel() for p in model.parameters()), "tokens": windows.ends[-1]}
    checkpoints = Checkpoints(out, about | {name: asdict(settings)[name] for name in ("a_step", "seed")})
    begin = checkpoints.load(model, optimizer)
    source = batches(windows, settings.each, settings.a_step, begin, settings.seed)
    rounds = settings.a_step // settings.each // dist.get_world_size()
    device = next(model.parameters()).device
    if first:
        kept = [json.dumps(line) + "\n" for line in read_log(log)[:begin]]
        log.write_text("".join(kept))
    for step in trange(begin, settings.steps, desc="train", mininterval=2, disable=not first):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, settings)
        parts = [next(source).to(device) for _ in range(rounds)]  # _ (B, T + 1) each
        loss, length = train_step(model, optimizer, parts, settings.longest)
        if first:
            with log.open("a") as opened:
                line = {"step": step, "loss": loss, "length": length, "rate": rate_at(step, settings)}
                opened.write(json.dumps(line) + "\n")
        checkpoints.finish(wait=False)
        if (step + 1) % settings.save_every == 0 or step + 1 == settings.steps:
            checkpoints.save(step + 1, model, optimizer)
    checkpoints.finish()
    return read_log(log) if first else []


# --8<-- [end:run]


# --8<-- [start:main]
STEPS = 80
CONFIG = Config(context=128, width=96, hidden=256, num_layers=3, num_heads=4)


def arguments() -> argparse.Namespace:
    """What stands behind the program's name."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--text", type=Path, default=Path(sysconfig.get_path("stdlib"), "pydoc_data"))
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument(
        "--copies", action="store_true", help="DistributedDataParallel in place of fully_shard"
    )
    parser.add_argument("--half", action="store_true", help="matrix products in bfloat16")
    parser.add_argument("--recompute", action="store_true", help="keep less for the backward pass")
    return parser.parse_known_args()[0]


def main() -> None:
    """Train on a folder of texts, or go on with the training in the folder `out`; draw the loss."""
    given, device = arguments(), start()
    first = dist.get_rank() == 0
    shards = given.out / "shards"
    if first and not (shards / "index.json").is_file():
        write_shards(given.text, shards)
    dist.barrier()
    torch.manual_seed(0)  # the same weights in each process
    model = Llama(CONFIG).to(device)
    model = recomputing(model) if given.recompute else model
    model = (replicated if given.copies else sharded)(model, given.half)
    try:
        log = run(model, Windows(shards, CONFIG.context), given.out, Settings(given.steps))
    except (ValueError, RuntimeError, OSError) as error:
        sys.exit(f"{error}" if first else 1)
    export(model, CONFIG, given.out / "llama")
    if first:
        for line in log[:: max(1, len(log) // 6)]:
            print(f"step {line['step']:4}: {line['loss']:.4f} nats a byte, learning rate {line['rate']:.5f}")
        print(f"processes: {dist.get_world_size()}; {given.out} holds", *sorted(os.listdir(given.out)))
        plt.plot([line["step"] for line in log], [line["loss"] for line in log])
        plt.xlabel("step")
        plt.ylabel("training loss, nats a byte")
        plt.savefig("loss.png")
        plt.close()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
# --8<-- [end:main]
