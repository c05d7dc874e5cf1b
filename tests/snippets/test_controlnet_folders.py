"""Folders of ControlNets that diffusers wrote: the pictures of its pipeline, and refusals in one line."""

import json

import pytest
import torch
from diffusers import ControlNetModel, DDIMScheduler, StableDiffusionControlNetPipeline
from safetensors.torch import load_file, save_file

from snippets import controlnet_folders as page
from snippets.controlnet import Control, controlled_noise, to_both, to_text_alone
from snippets.diffusers_folders import WEIGHTS, load_stable_diffusion
from snippets.latent_diffusion import draw_ddim, draw_euler
from tests.snippets.llm.folders import refused, rewritten
from tests.snippets.oracles import perturbed
from tests.snippets.stable_diffusion import pipeline

PROMPTS = ["a bad cab", "a"]
KINDS = {"1": (False, {}), "2": (True, {"prediction_type": "v_prediction"})}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """For each version the library's pipeline with a ControlNet, and the two folders that it wrote."""
    torch.manual_seed(0)
    made, folders = {}, {}
    for version, (linear, schedule) in KINDS.items():
        plain, place = pipeline(linear, **schedule), tmp_path_factory.mktemp(f"version{version}")
        control = ControlNetModel.from_unet(plain.unet, conditioning_embedding_out_channels=(5, 7))
        perturbed(control, 0.1).save_pretrained(place / "control")
        plain.save_pretrained(place / "model")
        parts = plain.vae, plain.text_encoder, plain.tokenizer, plain.unet, control, plain.scheduler
        made[version] = StableDiffusionControlNetPipeline(*parts, None, None, None, False)
        made[version].set_progress_bar_config(disable=True)
        folders[version] = place
    return made, folders


def numbers(theirs, prompts):
    settings = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
    return theirs.tokenizer(prompts, max_length=9, **settings).input_ids


def ours(place, theirs, hint, noise, guidance, scale, residuals=to_both, draw=draw_ddim):
    model, control = load_stable_diffusion(place / "model"), page.load_controlnet(place / "control")
    given = [Control(control, hint, scale)], numbers(theirs, PROMPTS), numbers(theirs, [""])[0], guidance
    return draw(model, controlled_noise(model, *given, residuals), noise, 7) / 2 + 0.5


@pytest.mark.claim("cn-library-folder")
@pytest.mark.parametrize("guess", [False, True])
@pytest.mark.parametrize("version", KINDS)
def test_a_folder_draws_the_librarys_pictures(version, guess, written, agrees):
    theirs, place = written[0][version], written[1][version]
    theirs.scheduler = DDIMScheduler.from_config(theirs.scheduler.config)
    noise, hint = torch.randn(2, 4, 8, 12), torch.rand(2, 3, 16, 24)
    settings = {"guidance_scale": 5.0, "num_inference_steps": 7, "latents": noise.clone(), "output_type": "pt"}
    settings |= {"controlnet_conditioning_scale": 0.8, "guess_mode": guess}
    wanted = theirs(PROMPTS, image=hint.clone(), **settings).images
    way, other = (to_text_alone, to_both) if guess else (to_both, to_text_alone)
    found = ours(place, theirs, hint, noise, 5.0, 0.8, way)
    agrees(found, wanted, "diffusers.StableDiffusionControlNetPipeline", 1e-3)
    for wrong in (
        ours(place, theirs, hint, noise, 5.0, 0.8, other),
        ours(place, theirs, hint, noise, 5.0, 1.0, way),
        ours(place, theirs, 2 * hint - 1, noise, 5.0, 0.8, way),
        ours(place, theirs, hint, noise, 4.0, 0.8, way),
        ours(place, theirs, hint, noise, 5.0, 0.8, way, draw_euler),
    ):
        assert (wrong - wanted).abs().max() > 0.01


def setting(**settings):
    return lambda folder: rewritten(folder, **settings)


def lacks(name):
    def change(folder):
        weights = load_file(folder / WEIGHTS)
        weights.pop(name)
        save_file(weights, folder / WEIGHTS)

    return change


@pytest.mark.parametrize(
    "change, match",
    [
        (setting(_class_name="ControlNetXSAdapter"), "_class_name ControlNetModel is expected"),
        (setting(global_pool_conditions=True), "global_pool_conditions False is expected, given True"),
        (setting(controlnet_conditioning_channel_order="bgr"), "controlnet_conditioning_channel_order rgb is expected"),
        (setting(addition_embed_type="text_time"), "addition_embed_type None is expected, given 'text_time'"),
        (setting(transformer_layers_per_block=[1, 2]), "transformer_layers_per_block 1 is expected"),
        (setting(mid_block_type="UNetMidBlock2D"), "mid_block_type UNetMidBlock2DCrossAttn"),
        (setting(encoder_hid_dim=12), "encoder_hid_dim None"),
        (setting(class_embed_type="timestep"), "class_embed_type None"),
        (setting(act_fn="gelu"), "act_fn silu is expected, given 'gelu'"),
        (setting(num_attention_heads=4), "num_attention_heads None"),
        (setting(layers_per_block=[1, 1]), r"layers_per_block, one number, is expected, given \[1, 1\]"),
        (setting(cross_attention_dim=[20, 20]), "cross_attention_dim, one number"),
        (setting(down_block_types=["AttnDownBlock2D", "DownBlock2D"]), "blocks .* are expected, given"),
        (setting(attention_head_dim=3), "divisible by their heads"),
        (setting(conditioning_channels=1), r"for controlnet_cond_embedding.conv_in.weight, \(5, 1, 3, 3\) is expected"),
        (setting(novelty=3), "known settings are expected, given novelty 3"),
        (lacks("controlnet_mid_block.weight"), "given controlnet_mid_block.weight: none"),
        (lambda folder: (folder / WEIGHTS).unlink(), "safetensors is expected in"),
        (lambda folder: (folder / "config.json").unlink(), "config.json is expected in"),
    ],
)
def test_what_is_not_implemented_is_refused(change, match, written):
    refused(page.load_controlnet, written[1]["1"] / "control", change, match)


def test_every_setting_of_the_library_is_known_and_those_left_out_are_its_defaults():
    theirs = {name: value for name, value in ControlNetModel().config.items() if name[0] != "_"}
    known = page.CONTROL_SETTINGS | page.CONTROL_SIZES
    assert set(theirs) == set(known)
    same = json.loads(json.dumps(known)) | {"upcast_attention": False}  # in float32 it changes nothing
    assert same == json.loads(json.dumps(theirs))


@pytest.mark.claim("cn-alike-folders")
def test_a_copy_of_a_u_net_needs_no_setting_of_its_own(written):
    """A ControlNet's file names the settings of its U-Net, and of the hint."""
    control = json.loads((written[1]["1"] / "control/config.json").read_text())
    unet = json.loads((written[1]["1"] / "model/unet/config.json").read_text())
    more = {name for name in control if name not in unet}
    hint = {"conditioning_channels", "conditioning_embedding_out_channels", "controlnet_conditioning_channel_order"}
    assert more == hint | {"global_pool_conditions"}
    assert all(control[name] == unet[name] for name in control if name in unet and name[0] != "_")
