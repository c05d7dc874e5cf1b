"""Many processes train as one does: real ones, by gloo, against one; with wrong ways beside the right ones."""
# ruff: noqa: F811  fixtures come from scaling_cases

import json
import resource
import shutil
import signal
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.testing._internal.distributed.fake_pg import FakeStore

from snippets.llm import scaling as page
from snippets.llm.checkpoints import load_llama
from snippets.llm.decoder_only import Llama
from snippets.llm.scaling_checkpoints import export
from tests.snippets.llm.processes import Forks
from tests.snippets.llm.scaling_cases import (  # noqa: F401
    CONFIG,
    SETTINGS,
    a_group,
    alone,
    apart,
    shards,
    train,
    whole,
    whole_of_the_start,
)

# the text


def test_shards_hold_every_text_and_windows_cross_them(shards):
    folder = shards.parent
    texts = [(folder / name).read_bytes() for name in ("b/two.md", "one.txt", "three.py")]
    tokens = torch.tensor(list(b"\0".join(texts) + b"\0"))
    assert json.loads((shards / "index.json").read_text()) == [700, 700, 400] and len(tokens) == 1800
    windows = page.Windows(shards, 11)
    assert len(windows) == 1799 // 11
    for number in (0, 62, 63, 127, 162):  # 63 and 127 lie in two shards
        assert windows[number].equal(tokens[number * 11 :][:12]) and windows[number].dtype == torch.int64
    long = page.Windows(shards, 1799)
    assert long[0].equal(tokens) and len(long) == 1


def test_shards_of_another_tokenizer(tmp_path):
    (tmp_path / "a.txt").write_text("one two one")
    page.write_shards(tmp_path, tmp_path / "s", encode=lambda text: [40_000 + len(word) for word in text.split()])
    assert page.Windows(tmp_path / "s", 3)[0].tolist() == [40_003, 40_003, 40_003, 0]
    with pytest.raises(ValueError, match="a folder with .txt, .md or .py files is expected"):
        page.write_shards(tmp_path / "s", tmp_path / "t")
    (tmp_path / "s" / "00000.bin").write_bytes(b"abc")
    with pytest.raises(ValueError, match="a shard of 8 bytes is expected"):
        page.Windows(tmp_path / "s", 3)


def read(windows, processes: int, each: int, steps: int, start: int = 0) -> list[list[bytes]]:
    """For each step, the windows that all processes read, in the order of processes."""
    found = [[] for _ in range(steps)]
    for rank in range(processes):
        dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=processes)
        source = page.batches(windows, each, 16, start, seed=3)
        for step in found:
            for _ in range(16 // processes // each):
                step += [bytes(window.tolist()) for window in next(source)]
        dist.destroy_process_group()
    return found


def test_a_step_reads_the_same_windows_with_any_number_of_processes(shards):
    windows = page.Windows(shards, 11)  # 163 windows: ten steps an epoch, three are left out
    one = read(windows, 1, 4, 25)
    for processes, each in ((2, 8), (2, 2), (4, 1)):
        assert [sorted(step) for step in read(windows, processes, each, 25)] == [sorted(step) for step in one]
    epochs = [sum(one[start : start + 10], []) for start in (0, 10)]
    assert all(len({*epoch}) == 160 for epoch in epochs)  # nothing twice in an epoch
    assert epochs[0] != epochs[1]
    assert read(windows, 2, 2, 13, start=12) == read(windows, 2, 2, 25)[12:]


def test_what_cannot_be_shared_out_is_refused(alone, shards):
    with pytest.raises(ValueError, match="shared out evenly"):
        next(page.batches(page.Windows(shards, 11), 3, 16, 0, 0))
    with pytest.raises(ValueError, match="enough text, are expected, given 16 .* and 8 windows"):
        next(page.batches(page.Windows(shards, 200), 4, 16, 0, 0))


def test_the_loader_leaves_the_generator_of_dropout_alone(alone, shards):
    before = torch.get_rng_state()
    next(page.batches(page.Windows(shards, 11), 4, 16, 0, 0))
    assert torch.get_rng_state().equal(before)


# the step


@pytest.fixture(scope="module")
def one(tmp_path_factory, shards):
    """What one process learns in twenty steps of one round, and its steps on uneven batches."""
    folder = tmp_path_factory.mktemp("one")
    with a_group():
        long = train(page.replicated, folder / "out", shards, page.Settings(20, 16, 16, warm_up=4))
        return long, a_step(page.replicated, [uneven()], 0.05, page.train_step)


def in_two(folder, shards) -> dict:
    """All that two processes are asked to do."""
    halves = [[window] for window in uneven()]
    found = {way.__name__: train(way, folder / way.__name__, shards) for way in WAYS}
    found |= {f"uneven {way.__name__}": a_step(way, halves, 0.05, page.train_step) for way in WAYS}
    found |= {wrong.__name__: a_step(page.replicated, halves, 0.05, wrong) for wrong in (mean_of_means, clipped_before)}
    found["cut short"] = cut_short(page.sharded, folder / "cut", shards)
    torch.manual_seed(0)
    export(page.sharded(Llama(CONFIG)), CONFIG, folder / "llama")
    return found


@pytest.fixture(scope="module")
def two(tmp_path_factory, shards):
    """What each of two real processes found, and where they wrote."""
    folder = tmp_path_factory.mktemp("two")
    found = FORKS.together(2, folder, in_two, folder, shards)
    return found, folder


WAYS = page.replicated, page.sharded


@pytest.mark.parametrize("way", ["replicated", "sharded"])
def test_two_processes_with_accumulation_and_clipping_train_as_one(way, one, two):
    """Four rounds of two windows each; each gradient is cut."""
    found, folder = two
    losses, weights = found[0][way]
    assert len(losses) == 20 and losses == pytest.approx(one[0][0], abs=1e-5)
    assert apart(weights, one[0][1]) < 1e-5
    lengths = [line["length"] for line in page.read_log(folder / way / "log.jsonl")]
    assert min(lengths) > 1  # each is cut
    assert apart(weights, whole_of_the_start()) > 1e-2  # it learnt something


def uneven() -> list[torch.Tensor]:
    """Four windows of which a half has few targets."""
    windows = torch.randint(256, (4, 13), generator=torch.Generator().manual_seed(1))
    windows[2:, 4:] = page.IGNORED
    return list(windows.split(2))


def a_step(way, parts: list[list[torch.Tensor]], longest: float, step) -> tuple:
    """Loss, length and weights after one step of SGD, this process's part of the windows."""
    torch.manual_seed(0)
    model = way(Llama(CONFIG))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    said = step(model, optimizer, parts[dist.get_rank()], longest)
    return *said, whole(model)


def mean_of_means(model, optimizer, windows, longest):
    """The first confusion: each process takes the mean over its own tokens."""
    window = windows[0]
    logits = model(window[:, :-1].clamp(min=0))
    loss = F.cross_entropy(logits.flatten(0, 1), window[:, 1:].flatten(), ignore_index=page.IGNORED)
    loss.backward()
    length = nn.utils.clip_grad_norm_(model.parameters(), longest)
    optimizer.step()
    return loss.item(), float(length)


def clipped_before(model, optimizer, windows, longest):
    """The second one: each process cuts its own gradient, and the cut ones are averaged."""
    counted = sum((window[:, 1:] != page.IGNORED).sum() for window in windows).float()
    total = counted.clone()
    dist.all_reduce(total)
    with model.no_sync():
        logits = model(windows[0][:, :-1].clamp(min=0))
        nats = F.cross_entropy(
            logits.flatten(0, 1), windows[0][:, 1:].flatten(), ignore_index=page.IGNORED, reduction="sum"
        )
        (nats * 2 / total).backward()
    length = nn.utils.clip_grad_norm_(model.parameters(), longest)
    for p in model.parameters():
        dist.all_reduce(p.grad)
        p.grad /= 2
    optimizer.step()
    return 0.0, float(length)


@pytest.mark.parametrize("way", ["replicated", "sharded"])
def test_uneven_batches_count_by_tokens_and_clipping_sees_the_whole_gradient(way, one, two):
    found, _ = two
    alone, mine, other = one[1], found[0][f"uneven {way}"], found[1][f"uneven {way}"]
    assert mine[:2] == pytest.approx(alone[:2], abs=1e-6) and mine[:2] == other[:2]
    assert mine[1] > 0.05 and apart(mine[2], alone[2]) < 1e-6  # it was cut
    moved = apart(whole_of_the_start(), alone[2])
    for wrong in ("mean_of_means", "clipped_before"):
        assert apart(found[0][wrong][2], alone[2]) > 0.05 * moved


@pytest.mark.equation("scaling-loss", of=page.train_step)
def test_the_loss_is_all_nats_over_all_tokens(alone, formula):
    torch.manual_seed(0)
    model, parts = page.replicated(Llama(CONFIG)), uneven()
    with torch.no_grad():
        logits = [model(window[:, :-1].clamp(min=0)) for window in parts]
    targets = [window[:, 1:] for window in parts]
    nats = [
        F.cross_entropy(one.flatten(0, 1), two.flatten(), ignore_index=page.IGNORED, reduction="none").view(2, 12)
        for one, two in zip(logits, targets, strict=True)
    ]
    loss, _ = page.train_step(model, torch.optim.SGD(model.parameters(), lr=0.1), parts, 1.0)
    names = {"p": range(2), "u_p": lambda p: nats[p].sum(), "m_p": lambda p: (nats[p] != 0).sum()}
    formula("scaling-loss").holds(names | {r"\mathcal{L}": loss}, tolerance=1e-6)


def test_one_process_takes_the_step_that_autograd_says(alone):
    torch.manual_seed(0)
    plain = Llama(CONFIG)
    window = torch.randint(256, (3, 13))
    loss = F.cross_entropy(plain(window[:, :-1]).flatten(0, 1), window[:, 1:].flatten())
    loss.backward()
    norm = nn.utils.clip_grad_norm_(plain.parameters(), 0.1)
    torch.manual_seed(0)
    model = page.sharded(Llama(CONFIG))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    said = page.train_step(model, optimizer, list(window.split(1)), 0.1)
    assert said == pytest.approx((loss.item(), norm.item()), abs=1e-5)
    expected = {name: p - 0.5 * p.grad for name, p in plain.named_parameters()}
    assert apart({name: w for name, w in whole(model).items() if name in expected}, expected) < 1e-6


def test_blocks_that_are_computed_again_give_the_same_gradients(alone):
    torch.manual_seed(0)
    tokens, found = torch.randint(256, (2, 9)), []
    for change in (lambda model: model, page.recomputing):
        torch.manual_seed(0)
        model = page.sharded(change(Llama(CONFIG)))
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t.numel()) or t, lambda t: t):
            loss = model(tokens).square().sum()
        loss.backward()
        gradients = [p.grad.full_tensor() for p in model.parameters()]
        found.append((gradients, sum(kept)))
    assert all(a.equal(b) for a, b in zip(found[0][0], found[1][0], strict=True))
    assert found[1][1] < found[0][1] / 2


@pytest.mark.parametrize("way", [page.replicated, page.sharded])
def test_half_rounds_products_and_keeps_weights_whole(way, alone):
    torch.manual_seed(0)
    plain, tokens = Llama(CONFIG), torch.randint(256, (2, 9))
    torch.manual_seed(0)
    model = way(Llama(CONFIG), half=True)
    logits = model(tokens)
    assert logits.dtype == torch.bfloat16
    error = (logits.float() - plain(tokens)).abs().max() / plain(tokens).abs().max()
    assert 1e-4 < error < 2e-2
    logits.float().square().sum().backward()
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in model.parameters())


def test_the_rate_rises_and_falls():
    settings = page.Settings(steps=100, rate=2.0, warm_up=20)
    assert page.rate_at(0, settings) == pytest.approx(0.1) and page.rate_at(19, settings) == 2.0
    assert page.rate_at(60, settings) == pytest.approx(2.0 * 0.55) and page.rate_at(100, settings) == pytest.approx(0.2)


# checkpoints


class Dropping(Llama):
    """A Llama with dropout, which draws from the generator of its process."""

    def forward(self, tokens, cache=None):
        return super().forward(tokens, cache) * F.dropout(torch.ones(256), 0.2)


def dropping(model: Llama) -> Llama:
    model.__class__ = Dropping
    return model


def cut_short(way, folder, shards):
    """Run, lose what came after the newest checkpoint but one, run again; both times losses and weights."""
    whole_run = train(way, folder, shards, change=dropping)
    dist.barrier()
    if dist.get_rank() == 0:
        shutil.rmtree(folder / "step-00000020")
        with (folder / "log.jsonl").open("a") as log:
            log.write('{"step": 20, "lo')  # cut off
    dist.barrier()
    state = torch.get_rng_state()
    return whole_run, train(way, folder, shards, change=dropping), state


def goes_on(found: list, folder: Path) -> None:
    """After a cut, the losses and weights have the same bits; dropout differs between processes."""
    (losses, weights), (again, resumed), _ = found[0]
    assert len(losses) == 20 and again == losses  # dropout and all
    assert all(weights[name].equal(resumed[name]) for name in weights)
    assert sorted(p.name for p in folder.glob("step-*")) == ["step-00000018", "step-00000020"]
    states = [one[2] for one in found]
    assert not any(states[0].equal(other) for other in states[1:])


def test_two_processes_go_on_with_the_same_bits(two):
    goes_on([one["cut short"] for one in two[0]], two[1] / "cut")


def test_four_copies_go_on_with_the_same_bits(shards, tmp_path):
    goes_on(FORKS.together(4, tmp_path, cut_short, page.replicated, tmp_path / "out", shards), tmp_path / "out")


def test_a_run_goes_on_with_another_number_of_processes_and_as_copies(alone, one, two, shards, tmp_path):
    shutil.copytree(two[1] / "sharded", tmp_path / "out")
    shutil.rmtree(tmp_path / "out/step-00000020")
    losses, weights = train(page.replicated, tmp_path / "out", shards)
    assert losses == pytest.approx(one[0][0], abs=1e-5) and apart(weights, one[0][1]) < 1e-5


def dying(folder, shards):
    """Rank 0 is killed, as by kill -9, when the newest checkpoint is written and has no name yet."""
    rename = page.os.rename

    def die(part, name):
        if name.name == "step-00000012":
            page.os.kill(page.os.getpid(), signal.SIGKILL)
        rename(part, name)

    page.os.rename = die
    train(page.sharded, folder, shards)


def test_a_killed_run_leaves_no_half_checkpoint_and_goes_on(two, shards, tmp_path):
    expected = two[0][0]["sharded"][0]
    with pytest.raises(ChildProcessError, match="SIGKILL"):
        FORKS.together(2, tmp_path, dying, tmp_path / "out", shards)
    left = sorted(p.name for p in (tmp_path / "out").glob("step-*"))
    assert left == ["step-00000006", "step-00000012.part"]
    assert FORKS.together(2, tmp_path, train, page.sharded, tmp_path / "out", shards)[0][0] == expected
    assert not list((tmp_path / "out").glob("*.part"))


def full(folder, shards):
    """No file may grow beyond 20,000 bytes, as on a disk without room."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    return train(page.sharded, folder, shards)


def test_a_full_disk_is_told_in_a_line_and_costs_no_checkpoint(shards, tmp_path):
    short = page.Settings(steps=6, a_step=16, each=2, warm_up=4, save_every=6)
    with a_group():
        train(page.sharded, tmp_path / "out", shards, short)
    with pytest.raises(ChildProcessError, match="RuntimeError: step-00000012 was not written: ") as error:
        FORKS.together(1, tmp_path, full, tmp_path / "out", shards)
    assert "File too large" in str(error.value) and "\n" not in str(error.value)
    assert (tmp_path / "out/step-00000006").is_dir() and not (tmp_path / "out/step-00000012").exists()


def test_shards_of_two_processes_make_one_folder(two):
    assert apart(dict(load_llama(two[1] / "llama").state_dict()), whole_of_the_start()) == 0


def test_copies_are_pytorch_s_own(alone):
    assert isinstance(page.replicated(Llama(CONFIG)), DistributedDataParallel)


FORKS = Forks()  # when all that they do is defined
