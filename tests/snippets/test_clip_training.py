"""CLIP's training: the loop, the gradient over two real processes, and large batches in little memory."""

import math
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from snippets import clip_training as page
from snippets.clip import Clip, VisionConfig, clip_loss
from snippets.clip_text import TextConfig
from tests.snippets.clip_processes import gradients, model_and_batch

# the loop


def small():
    torch.manual_seed(0)
    return Clip(TextConfig(41, 11, 24, 20, 2, 4, 10), VisionConfig(12, 4, 3, 18, 26, 2, 3, 10))


def batches(seed=3):
    generator = torch.Generator().manual_seed(seed)
    pictures = torch.randn(8, 3, 12, 12, generator=generator)
    tokens = torch.randint(1, 40, (8, 9), generator=generator)
    tokens[:, 8] = 40

    def draw():
        rows = torch.randperm(8, generator=generator)[:6]
        return pictures[rows], tokens[torch.cat([rows, rows[:1] - 1])]  # one text more than pictures

    return draw


def test_training_equals_torchs_scheduler():
    """Written again with LambdaLR, on the same batches; at a constant rate, or with decay on all, it is another."""

    def by_torch(fall=0.5, everywhere=False):
        model, draw = small(), batches()
        gains = [p for p in model.parameters() if p.ndim < 2]
        rest = [p for p in model.parameters() if p.ndim > 1]
        groups = [{"params": rest}, {"params": gains, "weight_decay": 0.1 * everywhere}]
        optimizer = torch.optim.AdamW(groups, 2e-3, (0.9, 0.98), 1e-6, weight_decay=0.1)
        rule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: 1 - fall + fall * math.cos(math.pi * i / 6))
        for _ in range(6):
            clip_loss(model(*draw())).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            rule.step()
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    model = small()
    losses = page.train(model, batches(), 6)
    ours = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert len(losses) == 6
    assert (ours - by_torch()).abs().max() < 1e-5
    assert (ours - by_torch(fall=0)).abs().max() > 1e-4
    assert (ours - by_torch(everywhere=True)).abs().max() > 1e-5


def test_the_rate_rises_and_falls():
    rates = [page.portion(step, 40) for step in range(40)]
    assert rates[:4] == pytest.approx([(i + 1) / 4 * (1 + math.cos(math.pi * i / 40)) / 2 for i in range(4)])
    assert max(rates) == rates[3] and rates[39] < 0.01
    assert rates[20] == pytest.approx(0.5)
    assert page.portion(0, 1) == 1


def test_the_loop_clips_the_scale():
    """It begins beyond log 100, and is log 100 after the first step."""
    for first, bound in ((math.log(300), math.log(100)), (math.log(50), math.log(50.5))):
        model = small()
        model.scale.data.fill_(first)
        page.train(model, batches(), 1)
        assert model.scale.item() <= bound + 1e-6
        assert model.scale.item() == pytest.approx(bound, abs=0.02)


def test_gains_biases_and_scale_do_not_decay():
    decayed, free = page.adamw(small(), 1e-3).param_groups
    assert decayed["weight_decay"] > 0 == free["weight_decay"]
    assert all(p.ndim > 1 for p in decayed["params"]) and all(p.ndim < 2 for p in free["params"])
    assert len(decayed["params"]) + len(free["params"]) == len(list(small().parameters()))


# several processes


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """Gradients that two processes found together, by kind of loss; and those of the whole batch in one."""
    file = tmp_path_factory.mktemp("processes") / "gradients.pt"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "tests.snippets.clip_processes", str(file)]
    run = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-3000:]
    found = torch.load(file)
    assert found.pop("processes") == 2
    model, pictures, tokens = model_and_batch()
    loss = clip_loss(model(pictures, tokens))
    loss.backward()
    return found, (*gradients(model), loss.detach())


def cosine(a, b):
    return torch.cosine_similarity(a, b, dim=0).item()


@pytest.mark.parametrize("name", ["page", "whole, gathered"])
def test_two_processes_have_the_gradient_of_the_whole_batch(name, processes):
    found, whole = processes
    for ours, theirs in zip(found[name], whole, strict=True):
        assert (ours - theirs).abs().max() < 1e-6 * theirs.abs().max()
    assert whole[0].abs().max() > 0.01


@pytest.mark.claim("clip-stopped-gradients")
def test_a_gather_that_stops_gradients_has_another_gradient(processes):
    """The page's confusion: the whole loss in each process gives half of it, the local loss another direction."""
    found, (encoders, scale, loss) = processes
    half, half_scale, value = found["whole, stopped"]
    assert (half - encoders / 2).abs().max() < 1e-6 * encoders.abs().max()  # 1 / number of processes
    assert (half_scale - scale).abs() < 1e-6  # the scale's own gradient is whole
    other, other_scale, other_value = found["local, stopped"]
    assert 0 < cosine(other, encoders) < 0.99
    assert (other_scale - scale).abs() < 1e-6
    assert (value - loss).abs() < 1e-9 and (other_value - loss).abs() < 1e-9  # the loss tells nothing
    alone, _, smaller = found["not gathered"]
    assert cosine(alone, encoders) < 0.99 and smaller < loss


class ThreeProcesses:
    """torch.distributed as the second of three sees it: the others hold the same rows, ten and twenty more."""

    def get_world_size(self):
        return 3

    def get_rank(self):
        return 1

    def all_gather(self, parts, rows):
        for part, more in zip(parts, (10, 0, 20), strict=True):
            part.copy_(rows + more)

    def all_reduce(self, total):
        total.mul_(torch.arange(1, 7)[:, None])  # row i is named by i + 1 processes


def test_a_rows_gradient_is_the_sum_over_all_processes(monkeypatch):
    monkeypatch.setattr(page, "dist", ThreeProcesses())
    rows = torch.randn(2, 4, requires_grad=True)
    every = page.Gather.apply(rows)
    assert every.equal(torch.cat([rows + 10, rows, rows + 20]))
    weights = torch.randn(6, 4)
    (every * weights).sum().backward()
    assert rows.grad.equal(weights[2:4] * torch.tensor([[3.0], [4.0]]))


def test_the_right_text_is_counted_from_the_processs_own_rows(monkeypatch):
    monkeypatch.setattr(page, "dist", ThreeProcesses())
    pictures, texts = torch.randn(2, 4), torch.randn(2, 4)
    loss = page.parallel_loss(pictures, texts, torch.tensor(1.0))
    every = [torch.cat([x + 10, x, x + 20]) for x in (pictures, texts)]
    rows = [
        page.similarities(*both, torch.tensor(1.0)).log_softmax(-1)
        for both in ((pictures, every[1]), (texts, every[0]))
    ]
    expected = -sum(row[i, 2 + i] for row in rows for i in range(2)) / 4
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)


# large batches


def batch(count):
    tokens = torch.randint(1, 40, (count, 9))
    tokens[:, 8] = 40
    return torch.randn(count, 3, 12, 12), tokens


def all_at_once(model, pictures, tokens):
    loss = clip_loss(model(pictures, tokens))
    loss.backward()
    return loss.detach()


def accumulated(model, pictures, tokens, chunk):
    """What people write first: the mean of the losses of all chunks."""
    parts = list(zip(pictures.split(chunk), tokens.split(chunk), strict=True))
    return sum(all_at_once(model, *part) / len(parts) for part in parts)


def peak(step):
    """The most bytes that were kept for gradients at one time, weights aside."""
    kept, now, most = {}, 0, 0

    class Kept:
        def __init__(self, tensor):
            self.tensor = tensor

    def forget(place, size):
        nonlocal now
        kept[place] -= 1
        now -= 0 if kept[place] else size

    def pack(tensor):
        nonlocal now, most
        one, storage = Kept(tensor), tensor.untyped_storage()
        if not isinstance(tensor, torch.nn.Parameter) and tensor._base is None or not tensor.is_leaf:
            place, size = storage.data_ptr(), storage.nbytes()
            kept[place] = kept.get(place, 0) + 1
            now += size if kept[place] == 1 else 0
            most = max(most, now)
            weakref.finalize(one, forget, place, size)
        return one

    with saved_tensors_hooks(pack, lambda one: one.tensor):
        step()
    return most


@pytest.mark.parametrize("chunk", [4, 5, 16])
def test_cached_chunks_have_the_gradient_of_the_whole_batch(chunk):
    pictures, tokens = batch(16)
    found = []
    for step in (all_at_once, page.cached_step, accumulated):
        model = small().double()
        loss = step(model, pictures.double(), tokens, *([chunk] if step is not all_at_once else []))
        found.append((*gradients(model), loss))
    whole, cached, plain = found
    for ours, theirs in zip(cached, whole, strict=True):
        assert (ours - theirs).abs().max() < 1e-9 * theirs.abs().max()
    if chunk < 16:  # negative control: plain accumulation
        assert cosine(plain[0], whole[0]) < 0.99 and plain[2] < whole[2]


@pytest.mark.equation("clip-cache", of=page.cached_step)
def test_cached_gradients(formula):
    """For one bias of the picture encoder, and the loss that is returned is that of the whole batch."""
    pictures, tokens = batch(6)
    model = small().double()
    loss = page.cached_step(model, pictures.double(), tokens, 2)
    embeddings = model.vision(pictures.double())
    u = embeddings.detach().requires_grad_()
    whole = clip_loss(page.similarities(u, model.text(tokens), model.scale))
    (given,) = torch.autograd.grad(whole, u)
    weight = model.vision.norm.bias
    jacobian = torch.autograd.functional.jacobian(lambda one: moved(model, one, pictures.double()), weight[7].detach())
    names = {r"\frac{\partial \mathcal{L}}{\partial \theta}": weight.grad[7], "B": 6}
    names |= {"g_i": lambda i: given[i - 1], r"\frac{\partial u_i}{\partial \theta}": lambda i: jacobian[i - 1]}
    formula("clip-cache").holds(names)
    assert loss.item() == pytest.approx(whole.item(), abs=1e-9)


def moved(model, one, pictures):
    """Embeddings with another value of the bias that the test looks at."""
    bias = model.vision.norm.bias.detach().clone()
    bias = torch.cat([bias[:7], one.view(1), bias[8:]])
    return torch.func.functional_call(model.vision, {"norm.bias": bias}, (pictures,))


@pytest.mark.claim("clip-cache-memory")
def test_cached_chunks_keep_a_fraction_of_the_memory():
    """64 pictures in chunks of 4: less than a tenth of what the whole batch keeps."""
    pictures, tokens = batch(64)
    whole = peak(lambda: all_at_once(small(), pictures, tokens))
    cached = peak(lambda: page.cached_step(small(), pictures, tokens, 4))
    assert whole > 1e6
    assert cached < whole / 10
    assert peak(lambda: page.cached_step(small(), pictures, tokens, 64)) > whole / 3  # one chunk saves little


def test_nothing_in_the_model_is_random():
    """Two passes have to be the same: with dropout, the second would need the first one's random numbers."""
    assert not [module for module in small().modules() if isinstance(module, torch.nn.Dropout)]
