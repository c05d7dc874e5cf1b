"""Two processes train the U-Net as one does that draws the noise of both."""

import pytest
import torch
from torch import nn

from snippets.blocks.unet import UNet
from snippets.ddpm import NoiseSchedule, ddpm_loss, linear_beta
from snippets.llm import scaling_unet as page
from tests.snippets.llm.processes import Forks
from tests.snippets.llm.scaling_cases import a_group, apart, whole


def parts() -> tuple:
    torch.manual_seed(0)
    unet, schedule = UNet(2, (8, 16), groups=4), NoiseSchedule(linear_beta(50))
    return unet, schedule, torch.rand(6, 2, 4, 8) * 2 - 1


def generators(same: bool) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(0 if same else seed) for seed in range(2)]


def steps(same: bool) -> tuple:
    """Three steps of a process on its half of the pictures."""
    unet, schedule, pictures = parts()
    rank = page.dist.get_rank()
    spread, generator = page.sharded_unet(unet), generators(same)[rank]
    optimizer = torch.optim.SGD(spread.parameters(), lr=0.1)
    mine = pictures.chunk(2)[rank]
    return [page.picture_step(spread, schedule, optimizer, mine, generator) for _ in range(3)], whole(spread)


def alone(same: bool) -> tuple:
    """The same in one process, without the page's code."""
    unet, schedule, pictures = parts()
    optimizer, losses, drawn = torch.optim.SGD(unet.parameters(), lr=0.1), [], generators(same)
    for _ in range(3):
        halves = zip(pictures.chunk(2), drawn, strict=True)
        loss = sum(ddpm_loss(unet, schedule, half, generator) for half, generator in halves) / 2
        loss.backward()
        nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses, dict(unet.state_dict())


def test_two_processes_train_a_u_net_as_one_with_the_noise_of_both(tmp_path):
    losses, weights = FORKS.together(2, tmp_path, steps, False)[0]
    expected, theirs = alone(False)
    assert losses == pytest.approx(expected, abs=1e-5) and apart(weights, theirs) < 1e-5
    assert apart(weights, alone(True)[1]) > 1e-3  # one seed for both is another training


def test_a_step_in_one_process():
    with a_group():
        unet, schedule, pictures = parts()
        spread = page.sharded_unet(unet)
        optimizer = torch.optim.SGD(spread.parameters(), lr=0.1)
        said = page.picture_step(spread, schedule, optimizer, pictures, torch.Generator().manual_seed(0))
    unet, schedule, _ = parts()
    assert said == pytest.approx(ddpm_loss(unet, schedule, pictures, torch.Generator().manual_seed(0)).item(), abs=1e-5)


FORKS = Forks()  # when all that they do is defined
