"""Folders of diffusers for Stable Diffusion 1 and 2 (arXiv 2112.10752): reading them, and refusing others.

Shapes: T noise levels.
"""

# --8<-- [start:imports]
from pathlib import Path

# --8<-- [end:imports]
from snippets.blocks.autoencoder import AutoencoderConfig, AutoencoderKL
from snippets.blocks.checkpoint import fill, read_config, read_weights, renamed
from snippets.blocks.text_unet import ConditionedUNet, UNetConfig
from snippets.clip_text import load_clip_text
from snippets.ddpm import NoiseSchedule
from snippets.latent_diffusion import (
    LatentDiffusion,
    noise_from_noise,
    noise_from_velocity,
    scaled_linear_beta,
)

# --8<-- [start:settings]
VAE_SETTINGS = {  # what this page's autoencoder has, and no other value
    "act_fn": "silu",
    "shift_factor": None,
    "latents_mean": None,
    "latents_std": None,
    "use_quant_conv": True,
    "use_post_quant_conv": True,
    "mid_block_add_attention": True,
}
VAE_SIZES = {  # what may differ, and what counts if the file does not say it
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": [64],
    "down_block_types": ["DownEncoderBlock2D"],
    "up_block_types": ["UpDecoderBlock2D"],
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "scaling_factor": 0.18215,
    "sample_size": None,  # no part of the network; nor is the next one
    "force_upcast": None,
}
UNET_SETTINGS = {
    "center_input_sample": False,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "only_cross_attention": False,
    "downsample_padding": 1,
    "mid_block_scale_factor": 1,
    "dropout": 0.0,
    "act_fn": "silu",
    "norm_eps": 1e-5,
    "transformer_layers_per_block": 1,
    "dual_cross_attention": False,
    "resnet_time_scale_shift": "default",
    "resnet_skip_time_act": False,
    "resnet_out_scale_factor": 1.0,
    "time_embedding_type": "positional",
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "attention_type": "default",
    "class_embeddings_concat": False,
    "addition_embed_type_num_heads": 64,
} | dict.fromkeys(
    """reverse_transformer_layers_per_block encoder_hid_dim encoder_hid_dim_type num_attention_heads
    class_embed_type addition_embed_type addition_time_embed_dim num_class_embeds time_embedding_dim
    time_embedding_act_fn timestep_post_act time_cond_proj_dim projection_class_embeddings_input_dim
    mid_block_only_cross_attention cross_attention_norm""".split()
)  # SDXL has some of these, other networks other ones
UNET_SIZES = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [320, 640, 1280, 1280],
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "cross_attention_dim": 1280,
    "attention_head_dim": 8,
    "use_linear_projection": False,
    "sample_size": None,  # no part of the network
    "upcast_attention": None,  # in float32, in which this page computes, it changes nothing
}
SCHEDULER_SETTINGS = {
    "beta_schedule": "scaled_linear",
    "thresholding": False,
    "rescale_betas_zero_snr": False,
    "interpolation_type": "linear",
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "timestep_type": "discrete",
    "final_sigmas_type": "zero",
    "trained_betas": None,
    "sigma_min": None,
    "sigma_max": None,
}
SCHEDULER_SIZES = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "prediction_type": "epsilon",
    "set_alpha_to_one": None,  # see below
    "timestep_spacing": None,  # see below
    "steps_offset": 1,  # the pipeline sets the three that follow as this page has them
    "clip_sample": False,
    "clip_sample_range": None,
    "dynamic_thresholding_ratio": None,  # of no use without thresholding
    "sample_max_value": None,
    "skip_prk_steps": None,  # of the sampler PNDM, which this page does not have
}


# --8<-- [end:settings]


# --8<-- [start:parts]
WEIGHTS = "diffusion_pytorch_model.safetensors"


def read_part(folder: Path, settings: dict, sizes: dict, needed=(), name: str = "config.json") -> dict:
    """The sizes of one part. Raises ValueError for other settings, and for any that is not known here."""
    given = read_config(folder, settings, needed, name)
    more = sorted(key for key in given if key[0] != "_" and key not in settings and key not in sizes)
    if more:
        raise ValueError(f"known settings are expected, given {more[0]} {given[more[0]]!r:.80} in {folder}")
    return sizes | given


def load_autoencoder(folder: str | Path) -> tuple[AutoencoderKL, float]:
    """The autoencoder of a folder such as `vae`, in `eval` mode, and its scale factor."""
    given = read_part(Path(folder), VAE_SETTINGS, VAE_SIZES)
    widths = tuple(given["block_out_channels"])
    kinds = ["DownEncoderBlock2D"] * len(widths), ["UpDecoderBlock2D"] * len(widths)
    if (given["down_block_types"], given["up_block_types"]) != kinds:
        raise ValueError(f"blocks {kinds[0][:1]}, {kinds[1][:1]} are expected, given others in {folder}")
    if given["in_channels"] != given["out_channels"]:
        channels = given["in_channels"], given["out_channels"]
        raise ValueError(f"as many channels out as in are expected, given {channels} in {folder}")
    sizes = given["latent_channels"], widths, given["layers_per_block"], given["norm_num_groups"]
    model = AutoencoderKL(AutoencoderConfig(given["in_channels"], *sizes))
    old = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}
    return fill(model, renamed(read_weights(folder, WEIGHTS), old)), given["scaling_factor"]  # old: of 2022


def load_unet(folder: str | Path) -> ConditionedUNet:
    """The U-Net of a folder such as `unet`, in `eval` mode. `attention_head_dim` there counts heads."""
    given = read_part(Path(folder), UNET_SETTINGS, UNET_SIZES)
    widths, heads = tuple(given["block_out_channels"]), given["attention_head_dim"]
    attention = tuple(kind == "CrossAttnDownBlock2D" for kind in given["down_block_types"])
    kinds = [[("CrossAttn" * flag) + f"{way}Block2D" for flag in attention] for way in ("Down", "Up")]
    if [given["down_block_types"], given["up_block_types"][::-1]] != kinds:
        raise ValueError(f"a symmetric U of {kinds[0]} is expected, given {given['up_block_types']}")
    for name, kind in {"layers_per_block": int, "cross_attention_dim": int}.items():
        if not isinstance(given[name], kind):
            raise ValueError(f"{name}, one number, is expected, given {given[name]} in {folder}")
    if given["in_channels"] != given["out_channels"]:
        channels = given["in_channels"], given["out_channels"]
        raise ValueError(f"as many channels out as in are expected, given {channels} in {folder}")
    heads = (heads,) * len(widths) if isinstance(heads, int) else tuple(heads)
    sizes = given["cross_attention_dim"], given["layers_per_block"], given["norm_num_groups"]
    config = UNetConfig(
        given["in_channels"], widths, attention, heads, *sizes, given["use_linear_projection"]
    )
    return fill(ConditionedUNet(config), read_weights(folder, WEIGHTS))


# --8<-- [end:parts]


# --8<-- [start:whole]
def load_stable_diffusion(folder: str | Path) -> LatentDiffusion:
    """A model of Stable Diffusion 1 or 2 from a folder in diffusers' layout.

    The folder's scheduler has to be DDIM, PNDM or Euler as Stable Diffusion sets them: it gives the schedule
    and says what the network predicts. Which sampler draws is up to whoever calls it.
    Raises ValueError for any setting that this page does not implement.
    """
    folder = Path(folder)
    read_config(folder, {"_class_name": "StableDiffusionPipeline"}, ["_class_name"], name="model_index.json")
    place, name = folder / "scheduler", "scheduler_config.json"
    needed = "_class_name", "beta_schedule", "beta_start", "beta_end"  # the library's defaults are others
    given = read_part(place, SCHEDULER_SETTINGS, SCHEDULER_SIZES, needed, name)
    usual = {"DDIMScheduler": "leading", "PNDMScheduler": "leading", "EulerDiscreteScheduler": "linspace"}
    kind = given["_class_name"]
    if kind not in usual or given["timestep_spacing"] not in (None, usual[kind]):
        spacing = f"{kind} with timestep_spacing {given['timestep_spacing']}"
        raise ValueError(f"one of {usual} is expected, given {spacing} in {place}")
    if given["set_alpha_to_one"] and kind != "EulerDiscreteScheduler":  # Euler has no such setting
        raise ValueError(f"set_alpha_to_one False is expected, given {given['set_alpha_to_one']} in {place}")
    predicts = {"epsilon": noise_from_noise, "v_prediction": noise_from_velocity}
    if given["prediction_type"] not in predicts:
        raise ValueError(f"prediction_type {[*predicts]} is expected, given {given['prediction_type']}")
    read_config(folder / "text_encoder", {"use_attention_mask": False})
    text, unet = load_clip_text(folder / "text_encoder"), load_unet(folder / "unet")
    autoencoder, scale = load_autoencoder(folder / "vae")
    widths = text.config.width, unet.config.text_width
    channels = autoencoder.config.latent_channels, unet.config.channels
    if widths[0] != widths[1] or channels[0] != channels[1]:
        raise ValueError(f"parts that fit are expected, given text of {widths} and latents of {channels}")
    beta = scaled_linear_beta(given["num_train_timesteps"], given["beta_start"], given["beta_end"])  # (T,)
    schedule = NoiseSchedule(beta)
    return LatentDiffusion(autoencoder, text, unet, schedule, scale, predicts[given["prediction_type"]])


# --8<-- [end:whole]
