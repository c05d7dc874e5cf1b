"""The latent diffusion post's lines with diffusers draw the pictures that the page's own code draws."""

import inspect

import pytest
import torch
from diffusers import DDIMScheduler, PNDMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline

from snippets.diffusers_folders import load_stable_diffusion
from snippets.latent_diffusion import draw_ddim, draw_euler, guided_noise
from snippets.library import latent_diffusion
from tests.snippets.stable_diffusion import pipeline


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    torch.manual_seed(0)
    made, folder = pipeline(), tmp_path_factory.mktemp("folder")
    made.save_pretrained(folder)
    return made, str(folder)


@pytest.mark.claim("ldm-library")
def test_the_same_pictures(written, agrees, tmp_path):
    made, folder = written
    prompts, noise = ["a bad cab", "a"], torch.randn(2, 4, 8, 12)
    theirs = latent_diffusion.draw_by_diffusers(folder, prompts, noise.clone(), 5.0, 4)
    model = load_stable_diffusion(folder)
    settings = {"padding": "max_length", "max_length": 9, "return_tensors": "pt"}
    tokens, empty = made.tokenizer(prompts, **settings).input_ids, made.tokenizer([""], **settings).input_ids[0]
    predict = guided_noise(model, tokens, empty, 5.0)
    agrees(draw_ddim(model, predict, noise, 4) / 2 + 0.5, theirs, "diffusers.StableDiffusionPipeline", 1e-3)
    assert (draw_euler(model, predict, noise, 4) / 2 + 0.5 - theirs).abs().max() > 0.01
    assert theirs.shape == (2, 3, 16, 24) and 0 <= theirs.min() < theirs.max() <= 1
    other = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    other.scheduler = PNDMScheduler.from_config(other.scheduler.config, skip_prk_steps=True)
    other.save_pretrained(tmp_path)
    by_pndm = latent_diffusion.draw_by_diffusers(str(tmp_path), prompts, noise.clone(), 5.0, 4)
    assert (by_pndm - theirs).abs().max() > 0.01
    other.scheduler = DDIMScheduler.from_config(other.scheduler.config)
    other.save_pretrained(tmp_path)
    again = latent_diffusion.draw_by_diffusers(str(tmp_path), prompts, noise.clone(), 5.0, 4)
    torch.testing.assert_close(again, theirs, rtol=0, atol=1e-4)


@pytest.mark.claim("ldm-scale-outside")
def test_the_librarys_autoencoder_does_not_scale(written):
    """Only the pipeline does: `encode` and `decode` never read scaling_factor."""
    autoencoder = type(written[0].vae)
    for method in (autoencoder.encode, autoencoder._encode, autoencoder.decode, autoencoder._decode):
        assert "scaling_factor" not in inspect.getsource(method)
    assert "/ self.vae.config.scaling_factor" in inspect.getsource(StableDiffusionPipeline.__call__)
    assert inspect.signature(autoencoder.__init__).parameters["scaling_factor"].default == 0.18215


@pytest.mark.claim("ldm-empty-prompt")
def test_the_pipeline_guides_away_from_the_empty_text(written):
    """Its states without a negative prompt are those of "", which are not 0."""
    made, _ = written
    told, untold = made.encode_prompt(["a bad cab"], "cpu", 1, True)
    settings = {"padding": "max_length", "max_length": 9, "return_tensors": "pt"}
    empty = made.text_encoder(made.tokenizer([""], **settings).input_ids)[0]
    torch.testing.assert_close(untold, empty)
    assert untold.abs().min(dim=-1).values.max() > 1e-3 and (told - untold).abs().max() > 0.1
    theirs = StableDiffusionXLPipeline  # another model: zeros, where no negative prompt is given
    assert inspect.signature(theirs.__init__).parameters["force_zeros_for_empty_prompt"].default is True
    source = inspect.getsource(theirs.encode_prompt)
    assert "negative_prompt is None and self.config.force_zeros_for_empty_prompt" in source
    assert "negative_prompt_embeds = torch.zeros_like(prompt_embeds)" in source
