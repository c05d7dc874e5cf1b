"""Folders of diffusers for a ControlNet (arXiv 2302.05543) of Stable Diffusion 1 and 2: read, or refused."""

# --8<-- [start:imports]
from pathlib import Path

# --8<-- [end:imports]
from snippets.blocks.checkpoint import fill, read_weights
from snippets.blocks.text_unet import UNetConfig
from snippets.controlnet import ControlNet
from snippets.diffusers_folders import UNET_SETTINGS, UNET_SIZES, WEIGHTS, read_part

# --8<-- [start:load]
CONTROL_SETTINGS = {
    name: UNET_SETTINGS[name]
    for name in """flip_sin_to_cos freq_shift mid_block_type only_cross_attention downsample_padding
    mid_block_scale_factor act_fn norm_eps transformer_layers_per_block encoder_hid_dim encoder_hid_dim_type
    num_attention_heads class_embed_type addition_embed_type addition_time_embed_dim num_class_embeds
    resnet_time_scale_shift projection_class_embeddings_input_dim addition_embed_type_num_heads""".split()
} | {"controlnet_conditioning_channel_order": "rgb", "global_pool_conditions": False}
CONTROL_SIZES = {
    name: UNET_SIZES[name]
    for name in """in_channels block_out_channels down_block_types layers_per_block norm_num_groups
    cross_attention_dim attention_head_dim use_linear_projection upcast_attention""".split()
} | {"conditioning_channels": 3, "conditioning_embedding_out_channels": [16, 32, 96, 256]}


def load_controlnet(folder: str | Path) -> ControlNet:
    """The ControlNet of a folder in diffusers' layout, in `eval` mode.

    Raises ValueError for any setting or weight that this page does not implement.
    """
    given = read_part(Path(folder), CONTROL_SETTINGS, CONTROL_SIZES)
    if given.get("_class_name", "ControlNetModel") != "ControlNetModel":
        raise ValueError(f"_class_name ControlNetModel is expected, given {given['_class_name']} in {folder}")
    widths, heads = tuple(given["block_out_channels"]), given["attention_head_dim"]
    attention = tuple(kind == "CrossAttnDownBlock2D" for kind in given["down_block_types"])
    kinds = [("CrossAttn" * flag) + "DownBlock2D" for flag in attention]
    if given["down_block_types"] != kinds:
        raise ValueError(f"blocks {kinds} are expected, given {given['down_block_types']} in {folder}")
    for name in ("layers_per_block", "cross_attention_dim"):
        if not isinstance(given[name], int):
            raise ValueError(f"{name}, one number, is expected, given {given[name]} in {folder}")
    heads = (heads,) * len(widths) if isinstance(heads, int) else tuple(heads)
    sizes = given["cross_attention_dim"], given["layers_per_block"], given["norm_num_groups"]
    config = UNetConfig(
        given["in_channels"], widths, attention, heads, *sizes, given["use_linear_projection"]
    )
    hint = given["conditioning_channels"], tuple(given["conditioning_embedding_out_channels"])
    return fill(ControlNet(config, *hint), read_weights(folder, WEIGHTS))


# --8<-- [end:load]
