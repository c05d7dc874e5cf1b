"""Folders that diffusers wrote: the same pictures as StableDiffusionPipeline's, and refusals in one line."""

import json
import shutil

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, PNDMScheduler
from safetensors.torch import load_file, save_file

from snippets import diffusers_folders as page
from snippets.latent_diffusion import draw_ddim, draw_euler, guided_noise, noise_from_noise, noise_from_velocity
from tests.snippets.llm.folders import refused, rewritten
from tests.snippets.stable_diffusion import pipeline

PROMPTS = ["a bad cab", "a"]
KINDS = {"1": (False, {}), "2": (True, {"prediction_type": "v_prediction"})}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """For each version the library's pipeline, and the folder that it wrote."""
    torch.manual_seed(0)
    made = {version: pipeline(linear, **schedule) for version, (linear, schedule) in KINDS.items()}
    folders = {version: tmp_path_factory.mktemp(f"version{version}") for version in KINDS}
    for version, folder in folders.items():
        made[version].save_pretrained(folder)
    return made, folders


def numbers(theirs, prompts):
    """The ids (B, L) that the library's tokenizer makes of prompts."""
    settings = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
    return theirs.tokenizer(prompts, max_length=9, **settings).input_ids


def ours(model, theirs, draw, noise, guidance, steps, negative=""):
    predict = guided_noise(model, numbers(theirs, PROMPTS), numbers(theirs, [negative])[0], guidance)
    return draw(model, predict, noise, steps) / 2 + 0.5


def pictures(theirs, kind, noise, guidance, steps, **others):
    theirs.scheduler = kind.from_config(theirs.scheduler.config)
    size = {"height": 2 * noise.shape[2], "width": 2 * noise.shape[3], "output_type": "pt"}
    settings = {"guidance_scale": guidance, "num_inference_steps": steps, "latents": noise.clone()}
    return theirs(PROMPTS, **settings, **size, **others).images


@pytest.mark.claim("ldm-library-folder")
@pytest.mark.parametrize("draw, kind", [(draw_ddim, DDIMScheduler), (draw_euler, EulerDiscreteScheduler)])
@pytest.mark.parametrize("version", KINDS)
def test_a_folder_draws_the_librarys_pictures(version, draw, kind, written, agrees):
    theirs, folder = written[0][version], written[1][version]
    model, noise = page.load_stable_diffusion(folder), torch.randn(2, 4, 8, 12)
    wanted = pictures(theirs, kind, noise, 7.5, 7)
    agrees(ours(model, theirs, draw, noise, 7.5, 7), wanted, "diffusers.StableDiffusionPipeline", 1e-3)
    other = draw_euler if draw is draw_ddim else draw_ddim
    for wrong in (
        ours(model, theirs, other, noise, 7.5, 7),
        ours(model, theirs, draw, noise, 6.5, 7),
        ours(model, theirs, draw, noise, 7.5, 7, negative="bad"),
    ):
        assert (wrong - wanted).abs().max() > 0.01
    model.scale = 1.0  # as if it were forgotten
    assert (ours(model, theirs, draw, noise, 7.5, 7) - wanted).abs().max() > 0.02


def test_a_negative_prompt_is_another_empty_text(written, agrees):
    theirs, folder = written[0]["1"], written[1]["1"]
    model, noise = page.load_stable_diffusion(folder), torch.randn(2, 4, 8, 12)
    wanted = pictures(theirs, DDIMScheduler, noise, 4.0, 3, negative_prompt=["bad", "bad"])
    agrees(ours(model, theirs, draw_ddim, noise, 4.0, 3, "bad"), wanted, "diffusers.StableDiffusionPipeline", 1e-3)


def test_what_the_schedulers_file_says(written, tmp_path):
    for version, as_noise in {"1": noise_from_noise, "2": noise_from_velocity}.items():
        model = page.load_stable_diffusion(written[1][version])
        assert model.as_noise is as_noise and model.scale == 0.7 and model.schedule.num_steps == 1000
    folder = tmp_path / "copy"
    shutil.copytree(written[1]["1"], folder)
    for kind in (PNDMScheduler, EulerDiscreteScheduler):
        kind.from_config(written[0]["1"].scheduler.config, beta_end=0.011).save_pretrained(folder / "scheduler")
        schedule = page.load_stable_diffusion(folder).schedule
        assert abs(schedule.beta[-1].item() - 0.011) < 1e-12


def test_names_of_attention_as_of_2022(written, tmp_path):
    folder = tmp_path / "vae"
    shutil.copytree(written[1]["1"] / "vae", folder)
    weights = load_file(folder / page.WEIGHTS)
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    renamed = {}
    for name, weight in weights.items():
        for new, before in old.items():
            name = name.replace(new, before)
        renamed[name] = weight
    assert renamed.keys() != weights.keys()
    save_file(renamed, folder / page.WEIGHTS)
    model, scale = page.load_autoencoder(folder)
    assert scale == 0.7 and all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())


def test_sizes_that_a_file_leaves_out_are_the_librarys(written, tmp_path):
    shutil.copytree(written[1]["1"] / "vae", tmp_path / "vae")
    file = tmp_path / "vae/config.json"
    settings = json.loads(file.read_text())
    del settings["scaling_factor"], settings["latent_channels"], settings["in_channels"]
    file.write_text(json.dumps(settings))
    assert page.load_autoencoder(tmp_path / "vae")[1] == 0.18215


def setting(part, **settings):
    return lambda folder: rewritten(folder / part, **settings)


def scheduler(**settings):
    def change(folder):
        file = folder / "scheduler/scheduler_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | settings))

    return change


def index(**settings):
    def change(folder):
        file = folder / "model_index.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | settings))

    return change


def lacks(name):
    def change(folder):
        weights = load_file(folder / "unet" / page.WEIGHTS)
        weights.pop(name)
        save_file(weights, folder / "unet" / page.WEIGHTS)

    return change


@pytest.mark.parametrize(
    "change, match",
    [
        (index(_class_name="StableDiffusionXLPipeline"), "_class_name StableDiffusionPipeline is expected"),
        (setting("unet", addition_embed_type="text_time"), "addition_embed_type None is expected, given 'text_time'"),
        (setting("unet", addition_time_embed_dim=256), "addition_time_embed_dim None"),
        (setting("unet", transformer_layers_per_block=[1, 2]), "transformer_layers_per_block 1 is expected"),
        (setting("unet", dual_cross_attention=True), "dual_cross_attention False"),
        (setting("unet", act_fn="gelu"), "act_fn silu is expected, given 'gelu'"),
        (setting("unet", class_embed_type="projection"), "class_embed_type None"),
        (setting("unet", num_attention_heads=4), "num_attention_heads None"),
        (setting("unet", mid_block_type=None), "mid_block_type UNetMidBlock2DCrossAttn"),
        (setting("unet", norm_eps=1e-6), "norm_eps 1e-05"),
        (setting("unet", in_channels=9), r"as many channels out as in are expected, given \(9, 4\)"),
        (setting("unet", layers_per_block=[1, 1]), r"layers_per_block, one number, is expected, given \[1, 1\]"),
        (setting("unet", cross_attention_dim=[20, 20]), "cross_attention_dim, one number"),
        (setting("unet", up_block_types=["CrossAttnUpBlock2D", "UpBlock2D"]), "a symmetric U of"),
        (setting("unet", down_block_types=["AttnDownBlock2D", "DownBlock2D"]), "a symmetric U of"),
        (setting("unet", attention_head_dim=3), "divisible by their heads"),
        (setting("unet", novelty=3), "known settings are expected, given novelty 3"),
        (setting("vae", act_fn="relu"), "act_fn silu"),
        (setting("vae", shift_factor=0.1), "shift_factor None"),
        (setting("vae", use_quant_conv=False), "use_quant_conv True"),
        (setting("vae", mid_block_add_attention=False), "mid_block_add_attention True"),
        (setting("vae", out_channels=4), r"as many channels out as in are expected, given \(3, 4\)"),
        (setting("vae", down_block_types=["DownEncoderBlock2D"]), "blocks .* are expected, given others"),
        (setting("vae", latents_mean=[0.1] * 4), "latents_mean None"),
        (setting("text_encoder", use_attention_mask=True), "use_attention_mask False"),
        (setting("text_encoder", hidden_act="relu"), "hidden_act quick_gelu or gelu is expected"),
        (scheduler(beta_schedule="linear"), "beta_schedule scaled_linear is expected, given 'linear'"),
        (scheduler(prediction_type="sample"), r"prediction_type \['epsilon', 'v_prediction'\] is expected"),
        (scheduler(rescale_betas_zero_snr=True), "rescale_betas_zero_snr False"),
        (scheduler(thresholding=True), "thresholding False"),
        (scheduler(set_alpha_to_one=True), "set_alpha_to_one False"),
        (scheduler(timestep_spacing="trailing"), "DDIMScheduler with timestep_spacing trailing"),
        (scheduler(_class_name="EulerDiscreteScheduler"), "EulerDiscreteScheduler with timestep_spacing leading"),
        (scheduler(_class_name="UniPCMultistepScheduler"), "UniPCMultistepScheduler"),
        (scheduler(use_karras_sigmas=True), "use_karras_sigmas False"),
        (scheduler(trained_betas=[0.1, 0.2]), "trained_betas None"),
        (lacks("conv_in.bias"), "given conv_in.bias: none"),
        (lambda folder: (folder / "unet" / page.WEIGHTS).unlink(), "safetensors is expected in"),
        (lambda folder: shutil.rmtree(folder / "scheduler"), "scheduler_config.json is expected in"),
    ],
)
def test_what_is_not_implemented_is_refused(change, match, written):
    refused(page.load_stable_diffusion, written[1]["1"], change, match)


def test_parts_that_do_not_fit_are_refused(written, tmp_path):
    """Each part is whole, but one is of another model."""
    folder = tmp_path / "mixed"
    shutil.copytree(written[1]["1"], folder)
    torch.manual_seed(1)
    other = pipeline(width=15)
    shutil.rmtree(folder / "text_encoder")
    other.text_encoder.save_pretrained(folder / "text_encoder")
    with pytest.raises(ValueError, match=r"parts that fit are expected, given text of \(15, 20\)"):
        page.load_stable_diffusion(folder)


def test_every_setting_of_the_library_is_known(written):
    """None of its classes has a setting that this page leaves out."""
    theirs = written[0]["1"]
    for part, known in {
        theirs.vae: page.VAE_SETTINGS | page.VAE_SIZES,
        theirs.unet: page.UNET_SETTINGS | page.UNET_SIZES,
    }.items():
        assert {name for name in part.config if name[0] != "_"} == set(known)
    for kind in (DDIMScheduler, EulerDiscreteScheduler, PNDMScheduler):
        found = {name for name in kind().config if name[0] != "_"}
        assert found <= set(page.SCHEDULER_SETTINGS | page.SCHEDULER_SIZES), kind
