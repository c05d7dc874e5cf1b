"""Small models of Stable Diffusion's kind, with random weights, built and written by diffusers and transformers."""

from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from snippets.blocks.autoencoder import AutoencoderConfig
from snippets.blocks.text_unet import UNetConfig
from tests.snippets.oracles import perturbed

SCHEDULE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}
SCHEDULE |= {"set_alpha_to_one": False, "clip_sample": False}


def their_autoencoder(config: AutoencoderConfig, **others) -> AutoencoderKL:
    """diffusers' autoencoder with the sizes of ours."""
    levels = len(config.widths)
    kinds = ["DownEncoderBlock2D"] * levels, ["UpDecoderBlock2D"] * levels
    channels, sizes = [config.channels] * 2, (config.widths, config.layers, "silu", config.latent_channels)
    return AutoencoderKL(*channels, *kinds, *sizes, norm_num_groups=config.groups, **others)


def their_unet(config: UNetConfig, **others) -> UNet2DConditionModel:
    """diffusers' U-Net with the sizes of ours."""
    kinds = [["CrossAttn" * flag + f"{way}Block2D" for flag in config.attention] for way in ("Down", "Up")]
    sizes = {"in_channels": config.channels, "out_channels": config.channels, "block_out_channels": config.widths}
    sizes |= {"down_block_types": kinds[0], "up_block_types": kinds[1][::-1], "layers_per_block": config.layers}
    sizes |= {"norm_num_groups": config.groups, "cross_attention_dim": config.text_width}
    sizes |= {"attention_head_dim": config.heads, "use_linear_projection": config.linear}
    return UNet2DConditionModel(**sizes | others)


def pipeline(linear: bool = False, width: int = 20, **schedule) -> StableDiffusionPipeline:
    """A whole small model; with linear, of Stable Diffusion 2's kind."""
    autoencoder = their_autoencoder(AutoencoderConfig(3, 4, (8, 16), 1, 4), scaling_factor=0.7)
    heads = (2, 4) if linear else (4, 4)
    unet = their_unet(UNetConfig(4, (16, 24), (True, False), heads, 20, 1, 4, linear))
    words = {"<|startoftext|>": 0, "<|endoftext|>": 1} | {letter: 2 + i for i, letter in enumerate("abcdefgh")}
    words |= {f"{letter}</w>": 10 + i for i, letter in enumerate("abcdefgh")}
    sizes = {"vocab_size": len(words), "hidden_size": width, "intermediate_size": 28, "max_position_embeddings": 9}
    sizes |= {"num_hidden_layers": 2, "num_attention_heads": 5, "eos_token_id": 1, "bos_token_id": 0}
    text = CLIPTextModel(CLIPTextConfig(**sizes, hidden_act="gelu" if linear else "quick_gelu"))
    tokenizer = CLIPTokenizer(vocab=words, merges=[], model_max_length=9)
    parts = [perturbed(part, 0.1) for part in (autoencoder, text)] + [tokenizer, perturbed(unet, 0.1)]
    made = StableDiffusionPipeline(*parts, DDIMScheduler(**SCHEDULE | schedule), None, None, None, False)
    made.set_progress_bar_config(disable=True)
    return made
