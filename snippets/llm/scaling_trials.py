"""The lab's experiments with real processes: `python -m snippets.llm.scaling_trials agree out.json` …

They are forks of one process, so that torch is imported once, and talk by gloo.

Shapes: B windows that a process reads at once, T positions, V vocabulary, W weights.
"""

import json
import random
import shutil
import signal
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing
import torch.nn.functional as F
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from snippets.llm.decoder_only import Config, Llama
from snippets.llm.scaling import (
    IGNORED,
    Settings,
    Windows,
    make_optimizer,
    read_log,
    replicated,
    run,
    sharded,
    train_step,
    write_shards,
)
from snippets.llm.scaling_costs import Size, copies_bytes, shards_bytes

CONFIG = Config(context=64, width=64, hidden=176, num_layers=3, num_heads=4)
SETTINGS = Settings(steps=20, a_step=16, each=2, warm_up=4, save_every=8)
KILLED = Settings(steps=30, a_step=16, each=4, warm_up=4, save_every=5)
SECONDS = 1.0  # that a speed is measured


def member(rank: int, number: int, folder: str, function: Callable, given: tuple) -> None:
    """What each process does."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", store=dist.FileStore(f"{folder}/store", number), rank=rank, world_size=number
    )
    found = function(*given)
    if rank == 0:
        torch.save(found, f"{folder}/found")
    dist.destroy_process_group()


def together(number: int, function: Callable, *given):
    """What a function returns in the first of some processes."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = number, folder, function, given
        torch.multiprocessing.start_processes(member, arguments, nprocs=number, start_method="fork")
        return torch.load(f"{folder}/found")


def shards(folder: Path) -> Path:
    """The text of Python's help topics, which is the page's program's too, as shards."""
    write_shards(Path(sysconfig.get_path("stdlib"), "pydoc_data"), folder / "shards", size=100_000)
    return folder / "shards"


def model(way: Callable, seed: int = 0, half: bool = False):
    """A Llama whose first weights are those of a seed, spread over the processes."""
    torch.manual_seed(seed)
    return way(Llama(CONFIG), half)


def train(way: Callable, out: Path, text: Path, settings: Settings) -> tuple[list[float], dict]:
    """Losses and weights."""
    spread = model(way, settings.seed)
    log = run(spread, Windows(text, CONFIG.context), out, settings)
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return [line["loss"] for line in log], get_model_state_dict(spread, options=options)


WAYS = replicated, sharded
SEEDS = range(3)


def trained(folder: Path, text: Path, each: int) -> dict:
    """Losses and weights after twenty steps, for copies and shards and each seed."""
    found = {}
    for way in WAYS:
        for seed in SEEDS:
            settings = Settings(**vars(SETTINGS) | {"seed": seed, "each": each})
            found[way.__name__, seed] = train(way, folder / f"{way.__name__}{seed}", text, settings)
    return found


def agree(folder: Path) -> dict:
    """How far copies and shards of two and four processes are from one after twenty steps; three seeds."""
    text, found = shards(folder), {}
    alone = together(1, trained, folder / "1", text, SETTINGS.a_step)
    for number in (2, 4):
        for (way, seed), (losses, weights) in together(
            number, trained, folder / f"{number}", text, 2
        ).items():
            expected, right = alone["replicated", seed]
            row = found.setdefault(f"{way}.{number}", {"weights": [], "losses": []})
            row["weights"].append(max((weights[k] - right[k]).abs().max().item() for k in right))
            row["losses"].append(max(abs(a - b) for a, b in zip(losses, expected, strict=True)))
    return found


def killed(
    folder: Path, text: Path, number: int, way: Callable, everyone: bool, chance: random.Random
) -> dict:
    """Train, kill -9 one process or all at some moment (chance), look at what is left, and train on."""
    arguments = number, str(folder), train, (way, folder / "out", text, KILLED)
    folder.mkdir()
    context = torch.multiprocessing.start_processes(
        member, arguments, number, join=False, start_method="fork"
    )
    at, log = chance.randrange(6, KILLED.steps - 1), folder / "out/log.jsonl"
    while len(read_log(log)) < at:
        time.sleep(0.002)
    time.sleep(chance.random() * 0.05)
    victims = context.processes if everyone else [chance.choice(context.processes)]
    for victim in victims:
        victim.kill()  # signal 9
    for process in context.processes:
        process.join(20)
        process.kill()  # those that wait for a dead one
        process.join()
    killed_by = [process.exitcode for process in victims]
    done = len(read_log(log))
    names = sorted(path.name for path in (folder / "out").glob("step-*"))
    newest = max((int(name[5:13]) for name in names if not name.endswith(".part")), default=0)
    (folder / "store").unlink()
    losses, _ = together(number, train, way, folder / "out", text, KILLED)
    half = [name for name in names if name.endswith(".part")]
    return {
        "done": done,
        "newest": newest,
        "half": half,
        "killed": killed_by == [-signal.SIGKILL] * len(victims),
    } | {"losses": losses}


def kills(folder: Path) -> dict:
    """Ten kills: of one process and of all, of copies and shards, of two and of four processes."""
    text, chance, rows = shards(folder), random.Random(0), []
    whole = {}
    for trial in range(10):
        number, way = (2, 2, 2, 4, 2)[trial % 5], (sharded, replicated)[trial % 2]
        if (number, way) not in whole:
            whole[number, way] = together(number, train, way, folder / f"whole{trial}", text, KILLED)[0]
        row = killed(folder / f"trial{trial}", text, number, way, trial >= 5, chance)
        losses = row.pop("losses")
        same = losses == whole[number, way]
        rows.append(row | {"processes": number, "way": way.__name__, "everyone": trial >= 5, "same": same})
        print(rows[-1], flush=True)
    return {"rows": rows, "every": KILLED.save_every}


def seeded(folder: Path, text: Path) -> list[list[float]]:
    """Losses of twenty steps in shards, for each seed; what is in the folder goes on."""
    made = [Settings(**vars(KILLED) | {"seed": seed, "steps": 20}) for seed in SEEDS]
    return [train(sharded, folder / f"{settings.seed}", text, settings)[0] for settings in made]


def elsewhere(folder: Path) -> dict:
    """A run of two processes goes on in one and in four: how far its losses are off; three seeds."""
    text, found = shards(folder), {}
    whole = together(2, seeded, folder / "two", text)
    for number in (1, 4):
        shutil.copytree(folder / "two", folder / f"{number}")
        for seed in SEEDS:
            shutil.rmtree(folder / f"{number}/{seed}/step-00000020")
        losses = together(number, seeded, folder / f"{number}", text)
        pairs = zip(whole, losses, strict=True)
        found[f"{number}"] = [max(abs(a - b) for a, b in zip(*pair, strict=True)) for pair in pairs]
    return found


def gradients(text: Path, seed: int) -> dict[str, torch.Tensor]:
    """Of two processes, one of which has short windows: the right gradient and wrong ones, cut to 0.1."""
    windows, found = Windows(text, CONFIG.context), {}
    rows = torch.randint(len(windows), (4,), generator=torch.Generator().manual_seed(seed)).tolist()
    batch = torch.stack([windows[row] for row in rows])  # (B, T + 1)
    batch[2:, 9:] = IGNORED  # 8 targets are left
    mine = batch.chunk(2)[dist.get_rank()]  # (_, T + 1)

    def collect(spread, name):
        found[name] = torch.cat([p.grad.flatten() for p in spread.parameters()])  # (W,)

    right = model(replicated)
    optimizer = torch.optim.SGD(right.parameters(), lr=0.0)
    optimizer.zero_grad = lambda: None
    train_step(right, optimizer, [mine], 0.1)
    collect(right, "right")
    means = model(replicated)
    logits, targets = means(mine[:, :-1].clamp(min=0)).flatten(0, 1), mine[:, 1:].flatten()  # (_, V), (_,)
    F.cross_entropy(logits, targets, ignore_index=IGNORED).backward()
    nn.utils.clip_grad_norm_(means.parameters(), 0.1)
    collect(means, "means")
    early = model(replicated)
    with early.no_sync():
        logits = early(mine[:, :-1].clamp(min=0)).flatten(0, 1)  # (_, V)
        nats = F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")  # ()
        (nats * 2 / (2 * CONFIG.context + 16)).backward()
    nn.utils.clip_grad_norm_(early.parameters(), 0.1)
    for p in early.parameters():
        dist.all_reduce(p.grad)
        p.grad /= 2
    collect(early, "clipped early")
    return found


def all_gradients(text: Path) -> list[dict]:
    """Of five batches."""
    return [gradients(text, seed) for seed in range(5)]


def wrong(folder: Path) -> dict:
    """How far wrong gradients are from the right one, relative to its length; five batches."""
    found = together(2, all_gradients, shards(folder))
    length = [one["right"].norm().item() for one in found]
    return {
        name: [(one[name] - one["right"]).norm().item() / far for one, far in zip(found, length, strict=True)]
        for name in ("means", "clipped early")
    }


def sent() -> int:
    """Bytes that went over the loopback device so far."""
    lines = Path("/proc/net/dev").read_text().splitlines()
    return next(int(line.split(":")[1].split()[8]) for line in lines if "lo:" in line)


def counted(way: Callable, half: bool, rounds: int) -> float:
    """Bytes that a process sends in a step: of three steps, after two others, everything counted."""
    spread = model(way, half=half)
    optimizer, windows = make_optimizer(spread), [torch.randint(256, (2, 33))] * rounds
    marks = []
    for steps in (2, 3):
        for _ in range(steps):
            train_step(spread, optimizer, windows, 1.0)
        dist.barrier()
        time.sleep(0.3)
        marks.append(sent())
        dist.barrier()
    return (marks[1] - marks[0]) / 3 / dist.get_world_size()


CASES = [(sharded, half, rounds) for half in (False, True) for rounds in (1, 2)]
CASES += [(replicated, False, rounds) for rounds in (1, 2)]


def all_counted() -> list[float]:
    """Bytes of a step, case by case."""
    return [counted(*case) for case in CASES]


def traffic(folder: Path) -> dict:
    """Bytes of a step, counted and by the formulas. Runs in a network of its own: unshare -n."""
    weights = sum(p.numel() for p in Llama(CONFIG).parameters())
    size = Size(3, 64, 32, 176, 4, 256, tied=True)
    if size.weights != weights:
        raise ValueError(f"a formula for {weights} weights is expected, given one for {size.weights}")
    rows = []
    for number in (2, 4):
        for (way, half, rounds), count in zip(CASES, together(number, all_counted), strict=True):
            formula = gloo = copies_bytes(weights, number)
            if way is sharded:
                formula = shards_bytes(size, number, rounds, 2 if half else 4)
                gloo = formula + (number - 1) / number * 4 * weights  # sums go to all, as for copies
            row = {"processes": number, "way": way.__name__, "half": half, "rounds": rounds}
            rows.append(row | {"counted": count, "formula": formula, "gloo": gloo})
    return {"rows": rows, "weights": weights}


def speed(way: Callable) -> tuple[float, float]:
    """Tokens a second of all processes together, and CPU seconds for a million tokens."""
    spread = model(way)
    optimizer, windows = make_optimizer(spread), [torch.randint(256, (8, CONFIG.context + 1))]
    train_step(spread, optimizer, windows, 1.0)
    dist.barrier()
    start, used, steps = time.perf_counter(), time.process_time(), 0
    going = torch.ones(())  # ()
    while going:
        train_step(spread, optimizer, windows, 1.0)
        steps += 1
        going.fill_(time.perf_counter() - start < SECONDS)
        dist.broadcast(going, 0)
    seconds, cpu = time.perf_counter() - start, torch.tensor(time.process_time() - used)  # _, ()
    dist.all_reduce(cpu)
    tokens = steps * windows[0][:, 1:].numel() * dist.get_world_size()
    return tokens / seconds, cpu.item() / tokens * 1e6


def all_speeds() -> dict[str, tuple[float, float]]:
    """Of copies and of shards."""
    return {way.__name__: speed(way) for way in WAYS}


def speeds(folder: Path) -> dict:
    """Both speeds by number of processes; three times, taking turns."""
    found = {}
    for _ in range(3):
        for number in (1, 2, 4):
            for name, values in together(number, all_speeds).items():
                found.setdefault(f"{name}.{number}", []).append(values)
    return found


TRIALS = {
    "agree": agree,
    "kills": kills,
    "elsewhere": elsewhere,
    "wrong": wrong,
    "traffic": traffic,
    "speeds": speeds,
}


def main() -> None:
    """One experiment; what it found becomes JSON."""
    with tempfile.TemporaryDirectory() as folder:
        found = TRIALS[sys.argv[1]](Path(folder))
    Path(sys.argv[2]).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
