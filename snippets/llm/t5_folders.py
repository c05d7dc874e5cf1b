"""Folders of transformers for T5 (Raffel et al. 2019, arXiv 1910.10683): reading, refusing, writing.

Shapes: V vocabulary, W width.
"""

# --8<-- [start:imports]
import json
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

# --8<-- [end:imports]
from snippets.blocks.checkpoint import fill, read_weights, renamed
from snippets.llm.t5 import T5, Config

# --8<-- [start:names]
NAMES = {  # parts of paths: in transformers' T5 -> on this page
    "shared.": "token.",
    "lm_head.": "head.",
    ".block.0.layer.0.SelfAttention.relative_attention_bias.": ".bias.table.",
    ".block.": ".layers.",
    ".layer.0.SelfAttention.": ".attention.",
    ".layer.1.EncDecAttention.": ".cross.",
    ".layer.0.layer_norm.weight": ".norm_1.gain",
    ".layer.1.layer_norm.weight": ".norm_2.gain",
    ".layer.2.layer_norm.weight": ".norm_3.gain",
    ".layer.1.DenseReluDense.": ".mlp.",
    ".layer.2.DenseReluDense.": ".mlp.",
    ".final_layer_norm.weight": ".norm.gain",
    ".q.": ".to_query.",
    ".k.": ".to_key.",
    ".v.": ".to_value.",
    ".o.": ".to_out.",
    ".wi.": ".up.",
    ".wi_0.": ".gate.",
    ".wi_1.": ".up.",
    ".wo.": ".down.",
}
EXPECTED = {
    "model_type": ("t5", "mt5"),
    "feed_forward_proj": ("relu", "gated-gelu"),
    "is_encoder_decoder": (True,),
    "is_decoder": (False,),
    "quantization_config": (None,),
}
SIZES = {
    "vocab_size": "vocabulary",
    "d_model": "width",
    "d_kv": "head_width",
    "d_ff": "hidden",
    "num_layers": "num_layers",
    "num_decoder_layers": "decoder_layers",
    "num_heads": "num_heads",
    "relative_attention_num_buckets": "buckets",
    "relative_attention_max_distance": "max_distance",
    "dropout_rate": "dropout",
    "layer_norm_epsilon": "eps",
    "pad_token_id": "pad",
    "eos_token_id": "end",
    "decoder_start_token_id": "start",
}
MT5 = {"feed_forward_proj": "gated-gelu", "d_ff": 1024, "vocab_size": 250112, "num_layers": 8, "num_heads": 6}


# --8<-- [end:names]


# --8<-- [start:settings]
def t5_config(folder: str, tied: bool) -> Config:
    """The settings of a folder, tied if it has no head of its own. Raises ValueError for other models."""
    written = json.loads((Path(folder) / "config.json").read_text())
    if written.get("model_type") == "mt5":
        written = MT5 | {"tie_word_embeddings": False} | written | {"scale_decoder_outputs": False}
    for name, expected in EXPECTED.items():
        if written.get(name, expected[0]) not in expected:
            raise ValueError(
                f"{name} of {expected[0]} is expected, given {written[name]!r:.40} in {Path(folder).name}"
            )
    gated = written.get("feed_forward_proj", "relu") == "gated-gelu"
    for name, right in {"dense_act_fn": "gelu_new" if gated else "relu", "is_gated_act": gated}.items():
        if written.get(name, right) != right:
            raise ValueError(f"{name} {right} is expected, given {written[name]} in {Path(folder).name}")
    given = {ours: written[theirs] for theirs, ours in SIZES.items() if written.get(theirs) is not None}
    given.setdefault("decoder_layers", given.get("num_layers", Config.num_layers))
    given.setdefault("start", given.get("pad", Config.pad))
    scaled = written.get("scale_decoder_outputs", written.get("tie_word_embeddings", True))
    return Config(**given, gated=gated, tied=tied, scaled=scaled)


# --8<-- [end:settings]


# --8<-- [start:load]
def t5_weights(folder: str) -> dict[str, Tensor]:
    """All weights of a folder by their names on this page."""
    weights = read_weights(folder)
    for side in ("encoder", "decoder"):  # copies of the shared embedding, in old folders
        copied = weights.pop(f"{side}.embed_tokens.weight", None)  # (V, W)
        if copied is not None:
            weights.setdefault("shared.weight", copied)
        if copied is not None and not copied.equal(weights["shared.weight"]):
            raise ValueError(f"one embedding for both sides is expected, given another one of the {side}")
    weights.pop("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight", None)  # never used
    return renamed(weights, NAMES)


def load_t5(folder: str) -> T5:
    """The model of a folder in transformers' layout: T5 of v1.0 or v1.1, Flan-T5 or mT5.

    Raises ValueError for a setting or a weight that this page does not have.
    """
    found = t5_weights(folder)
    config = t5_config(folder, tied="head.weight" not in found)
    if config.tied and "token.weight" in found:
        found["head.weight"] = found["token.weight"]
    return fill(T5(config), found, f"the weights of a T5 are expected in {Path(folder).name}")


# --8<-- [end:load]


# --8<-- [start:save]
def save_t5(model: T5, folder: str) -> None:
    """Write a model as transformers reads it."""
    config = model.config
    given = {theirs: getattr(config, ours) for theirs, ours in SIZES.items()}
    given |= {"model_type": "t5", "feed_forward_proj": "gated-gelu" if config.gated else "relu"}
    given |= {"is_encoder_decoder": True, "tie_word_embeddings": config.scaled}  # it decides on the scale
    Path(folder).mkdir(parents=True, exist_ok=True)
    (Path(folder) / "config.json").write_text(json.dumps(given))
    back = {ours: theirs for theirs, ours in NAMES.items()}
    back[".up."] = ".wi_1." if config.gated else ".wi."
    weights = {}
    for name, weight in model.state_dict().items():
        back[".mlp."] = f".layer.{1 if name.startswith('encoder') else 2}.DenseReluDense."
        for ours, theirs in back.items():
            name = name.replace(ours, theirs)
        weights[name] = weight.clone()
    if config.tied:
        del weights["lm_head.weight"]
    save_file(weights, Path(folder) / "model.safetensors", {"format": "pt"})


# --8<-- [end:save]
