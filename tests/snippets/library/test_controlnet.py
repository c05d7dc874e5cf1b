"""The ControlNet post's lines with diffusers draw the pictures that the page's own code draws."""

import inspect

import pytest
import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline

from snippets.controlnet import Control, controlled_noise
from snippets.controlnet_folders import load_controlnet
from snippets.diffusers_folders import load_stable_diffusion
from snippets.latent_diffusion import draw_ddim
from snippets.library import controlnet
from tests.snippets.oracles import perturbed
from tests.snippets.stable_diffusion import pipeline


@pytest.mark.claim("cn-library")
def test_the_same_pictures_under_two_controls(agrees, tmp_path):
    torch.manual_seed(0)
    made, folder = pipeline(), tmp_path / "model"
    made.save_pretrained(folder)
    controls = [tmp_path / name for name in ("first", "second")]
    for place in controls:
        new = ControlNetModel.from_unet(made.unet, conditioning_embedding_out_channels=(5, 7))
        perturbed(new, 0.1).save_pretrained(place)
    prompts, noise, hints = ["a bad cab", "a"], torch.randn(2, 4, 8, 12), list(torch.rand(2, 2, 3, 16, 24))
    scales = [0.6, 1.3]
    names = str(folder), [str(place) for place in controls]
    theirs = controlnet.draw_controlled(*names, [h.clone() for h in hints], scales, prompts, noise.clone())
    settings = {"padding": "max_length", "max_length": 9, "return_tensors": "pt"}
    tokens, empty = made.tokenizer(prompts, **settings).input_ids, made.tokenizer([""], **settings).input_ids[0]
    model, networks = load_stable_diffusion(folder), [load_controlnet(place) for place in controls]
    used = [Control(*one) for one in zip(networks, hints, scales, strict=True)]
    predict = controlled_noise(model, used, tokens, empty, 7.5)
    agrees(draw_ddim(model, predict, noise, 20) / 2 + 0.5, theirs, "diffusers.StableDiffusionControlNetPipeline", 1e-3)
    for wrong in (used[:1], [Control(one.network, one.hint) for one in used]):
        other = draw_ddim(model, controlled_noise(model, wrong, tokens, empty, 7.5), noise, 20) / 2 + 0.5
        assert (other - theirs).abs().max() > 0.01
    assert theirs.shape == (2, 3, 16, 24) and 0 <= theirs.min() < theirs.max() <= 1


@pytest.mark.claim("cn-library-range")
def test_the_pipeline_leaves_hints_between_0_and_1():
    """Its processor of hints does not normalise, where the one of pictures does."""
    source = inspect.getsource(StableDiffusionControlNetPipeline.__init__)
    start = source.index("self.control_image_processor")
    assert "do_normalize=False" in source[start:]
    assert "do_normalize" not in source[:start]


@pytest.mark.claim("cn-window")
def test_the_pipeline_can_leave_steps_without_control():
    source = inspect.getsource(StableDiffusionControlNetPipeline.__call__)
    assert "1.0 - float(i / len(timesteps) < s or (i + 1) / len(timesteps) > e)" in source
    parameters = inspect.signature(StableDiffusionControlNetPipeline.__call__).parameters
    assert parameters["control_guidance_start"].default == 0.0 and parameters["control_guidance_end"].default == 1.0
    assert parameters["controlnet_conditioning_scale"].default == 1.0 and parameters["guess_mode"].default is False
