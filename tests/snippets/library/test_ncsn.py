"""The NCSN post's lines with diffusers draw the digits that the page's own code draws."""

import inspect
from collections import deque

import pytest
import torch
from diffusers import EDMEulerScheduler
from safetensors.torch import load_file

from snippets import ncsn
from snippets.data.toy2d import toy2d
from snippets.library.ncsn import sample_by_diffusers
from theme.page.pages import ROOT


def last(steps):
    return deque(steps, maxlen=1)[0]


@pytest.fixture(scope="module")
def model() -> ncsn.ScoreNetwork:
    """The lab's network for digits."""
    weights = load_file(ROOT / "docs/weights/NCSN.safetensors")
    mine = {key.removeprefix("digits."): value for key, value in weights.items() if key.startswith("digits.")}
    model = ncsn.ScoreNetwork(ncsn.ImageNetwork((1, 8, 8)), mine["sigma"], spread=1.0)
    model.load_state_dict(mine)
    return model.eval()


@pytest.mark.claim("ncsn-library")
def test_the_same_digits(model, agrees):
    start = float(model.sigma[0]) * torch.randn(5, 64, generator=torch.Generator().manual_seed(1))
    theirs = sample_by_diffusers(model, model.sigma, start, torch.Generator().manual_seed(2))
    steps = ncsn.sample_sde(model, model.sigma, start, torch.Generator().manual_seed(2), ncsn.reverse_step)
    agrees(last(steps), theirs, "diffusers.ScoreSdeVeScheduler", 1e-3)
    other = ncsn.sample_sde(model, model.sigma, start, torch.Generator().manual_seed(2), ncsn.ancestral_step)
    assert (last(other) - theirs).abs().max() > 0.5  # the other rule, other digits


@pytest.mark.claim("ncsn-library")
def test_the_same_points_from_the_exact_score(agrees):
    toy, sigma = toy2d(), ncsn.geometric_ladder(6.0, 0.05, 20)
    score = lambda x, level: toy.score(x, 1.0, float(sigma[level[0]])).to(x.dtype)  # noqa: E731
    start = 6 * torch.randn(7, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    theirs = sample_by_diffusers(score, sigma, start, torch.Generator().manual_seed(2))
    steps = ncsn.sample_sde(score, sigma, start, torch.Generator().manual_seed(2), ncsn.reverse_step)
    agrees(last(steps), theirs, "diffusers.ScoreSdeVeScheduler", 1e-4)


@pytest.mark.claim("ncsn-library-karras")
def test_the_library_has_the_settings_of_karras_and_others():
    settings = inspect.signature(EDMEulerScheduler).parameters
    assert [settings[name].default for name in ("sigma_min", "sigma_max", "rho")] == [0.002, 80.0, 7.0]
    scheduler = EDMEulerScheduler()
    assert scheduler.config.sigma_data == 0.5
