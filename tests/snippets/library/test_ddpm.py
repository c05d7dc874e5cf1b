"""The DDPM post's lines with diffusers draw the digits that the page's own code draws."""

import inspect

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler
from safetensors.torch import load_file

from snippets.blocks.unet import UNet
from snippets.ddpm import NoiseSchedule, linear_beta, sample_ddim
from snippets.library import ddpm
from theme.page.pages import ROOT


@pytest.fixture(scope="module")
def model() -> UNet:
    """The lab's network."""
    model = UNet(1, widths=(24, 48)).eval()
    model.load_state_dict(load_file(ROOT / "docs/weights/Diffusion.safetensors"))
    return model


def ours(model, count, num_steps, seed):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, 1, 8, 8, generator=generator)
    drawn = sample_ddim(model, NoiseSchedule(linear_beta()), noise, num_steps, 0.0, generator)
    return (drawn / 2 + 0.5).clamp(0, 1)


@pytest.mark.claim("ddpm-library")
@pytest.mark.parametrize("count, num_steps, seed", [(5, 10, 3), (60, 50, 0)])  # the second: the program's picture
def test_the_same_digits(model, agrees, count, num_steps, seed):
    theirs = ddpm.sample_by_diffusers(model.state_dict(), count, num_steps, seed)
    agrees(ours(model, count, num_steps, seed), theirs, "diffusers.DDIMPipeline", 1e-4)
    assert (ours(model, count, num_steps, seed + 1) - theirs).abs().max() > 0.5  # other noise, other digits


@pytest.mark.parametrize("settings", [{}, {"clip_sample": False}, {"timestep_spacing": "trailing"}], ids=str)
def test_with_the_librarys_defaults_they_are_others(model, monkeypatch, settings):
    """What the comment in the code says: both settings are needed."""

    def scheduler(**given):
        assert given == {"clip_sample": False, "timestep_spacing": "trailing"}
        return DDIMScheduler(**settings)

    monkeypatch.setattr(ddpm, "DDIMScheduler", scheduler)
    theirs = ddpm.sample_by_diffusers(model.state_dict(), 5, 10, seed=3)
    assert (ours(model, 5, 10, 3) - theirs).abs().max() > 0.02


@pytest.mark.claim("ddpm-library-steps")
def test_a_number_of_steps_that_does_not_divide_1000_makes_a_difference(model):
    """diffusers asks the network at the levels of the list, but each step goes 1000 // 7 = 142 levels down."""
    theirs = ddpm.sample_by_diffusers(model.state_dict(), 5, 7, seed=3)
    assert 1e-3 < (ours(model, 5, 7, 3) - theirs).abs().max() < 0.1
    scheduler = DDIMScheduler(timestep_spacing="trailing")
    scheduler.set_timesteps(7)
    assert (scheduler.timesteps[:-1] - scheduler.timesteps[1:]).tolist() == [143, 143, 143, 142, 143, 143]
    source = inspect.getsource(DDIMScheduler.step)
    assert "prev_timestep = timestep - self.config.num_train_timesteps // self.num_inference_steps" in source


def test_the_installed_diffusers_has_these_defaults():
    config = diffusers.DDIMScheduler().config
    assert config.clip_sample and config.timestep_spacing == "leading"
    assert (config.num_train_timesteps, config.beta_start, config.beta_end) == (1000, 1e-4, 0.02)
    unet = diffusers.UNet2DModel().config
    paper = {"norm_eps": 1e-6, "attention_head_dim": None, "downsample_padding": 0, "freq_shift": 1}
    assert all(unet[name] != value for name, value in paper.items()) and unet.flip_sin_to_cos
