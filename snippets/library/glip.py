"""The GLIP post's fusion with transformers, inside of a Grounding DINO.

Shapes: B pictures of a batch, R regions, T tokens, V width.
"""

# --8<-- [start:fuse]
import torch
from torch import Tensor
from transformers import GroundingDinoConfig
from transformers.models.grounding_dino.modeling_grounding_dino import GroundingDinoFusionLayer

NAMES = {"layer_norm_vision": "region_norm", "layer_norm_text": "token_norm", "attn": "attention"}
NAMES |= {"vision_param": "region_scale", "text_param": "token_scale", "vision_proj": "region_query"}
NAMES |= {"text_proj": "token_query", "values_vision_proj": "region_value", "values_text_proj": "token_value"}
NAMES |= {"out_vision_proj": "region_out", "out_text_proj": "token_out"}


def fuse_by_transformers(
    weights: dict[str, Tensor], regions: Tensor, tokens: Tensor, real: Tensor, num_heads: int
) -> tuple[Tensor, Tensor]:
    """New features of regions (B, R, V) and tokens (B, T, V), of which real (B, T) are no padding.

    By transformers, with the weights of the page's Fusion. Returns (B, R, V), (B, T, V).
    """
    width, inner = regions.shape[-1], weights["attention.region_query.bias"].shape[0]
    sizes = {"d_model": width, "encoder_ffn_dim": 2 * inner, "encoder_attention_heads": 2 * num_heads}
    layer = GroundingDinoFusionLayer(GroundingDinoConfig(**sizes)).eval()  # it halves both numbers
    theirs = {}
    for name in layer.state_dict():
        theirs[name] = weights[".".join(NAMES.get(part, part) for part in name.split("."))]
    layer.load_state_dict(theirs)
    with torch.no_grad():
        (new_regions, _), (new_tokens, _) = layer(regions, tokens, attention_mask_text=~real)
    return new_regions, new_tokens


# --8<-- [end:fuse]
