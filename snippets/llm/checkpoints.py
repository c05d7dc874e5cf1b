"""GPT-2 and Llama of the decoder-only post from folders in transformers' layout.

Shapes: P turning pairs.
"""

from pathlib import Path

from snippets.blocks.checkpoint import fill, read_config, read_weights, renamed
from snippets.llm.decoder_only import GPT2, LLAMA_NAMES, Config, Llama
from snippets.llm.rope import stretched

# --8<-- [start:gpt2]
GPT2_NEEDS = "vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "layer_norm_epsilon"


def load_gpt2(folder: str | Path) -> GPT2:
    """A GPT-2 from a folder in transformers' layout. Its matrices are (in, out), and q, k, v are one.

    Raises ValueError for settings, files and weights that this page's GPT-2 does not have.
    """
    expected = {"model_type": "gpt2", "activation_function": "gelu_new", "scale_attn_weights": True}
    expected |= {"scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False}
    expected |= {"quantization_config": None}
    given = read_config(folder, expected, GPT2_NEEDS)
    weights = read_weights(folder, buffers=(".attn.bias", ".attn.masked_bias"))  # _ masks of older files
    width, num_heads = given["n_embd"], given["n_head"]
    config = Config(
        vocabulary=given["vocab_size"],
        context=given["n_positions"],
        width=width,
        hidden=given.get("n_inner") or 4 * width,
        num_layers=given["n_layer"],
        num_heads=num_heads,
        num_key_heads=num_heads,
        tied=given.get("tie_word_embeddings", True),
        eps=given["layer_norm_epsilon"],
    )
    names = {"transformer.": "", "wte.": "token.", "wpe.": "position.", "ln_f.": "norm.", "h.": "blocks."}
    names |= {"ln_1.": "norm_1.", "ln_2.": "norm_2.", "attn.c_proj.": "to_out.", "lm_head.": "head."}
    names |= {"mlp.c_fc.": "up.", "mlp.c_proj.": "down."}
    state = {}
    for name, weight in renamed(weights, names).items():
        if name.startswith("blocks.") and weight.ndim == 2:
            weight = weight.T  # _ now (out, in)
        if "attn.c_attn." in name:
            for ours, part in zip(("to_query", "to_key", "to_value"), weight.chunk(3), strict=True):
                state[name.replace("attn.c_attn", ours)] = part
        else:
            state[name] = weight
    return fill(GPT2(config), with_head(state, config))


# --8<-- [end:gpt2]


# --8<-- [start:head]
def with_head(state: dict, config: Config) -> dict:
    """A tied model's weights with the embedding as head. Raises ValueError where a file has another head."""
    if not config.tied or "token.weight" not in state:
        return state
    if not state.get("head.weight", state["token.weight"]).equal(state["token.weight"]):
        raise ValueError("a head equal to the embedding is expected, given tie_word_embeddings and another")
    return state | {"head.weight": state["token.weight"]}


# --8<-- [end:head]


# --8<-- [start:llama]
LLAMA_NEEDS = "model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"
LLAMA_NEEDS += "num_attention_heads", "rms_norm_eps"


def load_llama(folder: str | Path) -> Llama:
    """A Llama 1, 2 or 3, or a Mistral 7B, from a folder in transformers' layout.

    Raises ValueError for settings, files and weights that this page's Llama does not have.
    """
    expected = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "quantization_config": None}
    given = read_config(folder, expected, LLAMA_NEEDS)
    window = given.get("sliding_window", 4096) if given["model_type"] == "mistral" else None
    if given["model_type"] not in ("llama", "mistral"):
        raise ValueError(f"model_type llama or mistral is expected, given {given['model_type']} in {folder}")
    num_heads = given["num_attention_heads"]
    config = Config(
        vocabulary=given["vocab_size"],
        context=given.get("max_position_embeddings") or given.get("max_sequence_length") or 2048,  # Llama 1's
        width=given["hidden_size"],
        hidden=given["intermediate_size"],
        num_layers=given["num_hidden_layers"],
        num_heads=num_heads,
        num_key_heads=given.get("num_key_value_heads") or num_heads,
        tied=given.get("tie_word_embeddings", False),
        eps=given["rms_norm_eps"],
        window=window,
    )
    if (given.get("head_dim") or config.head_dim) != config.head_dim:
        raise ValueError(f"head_dim {config.head_dim} is expected, given {given['head_dim']} in {folder}")
    theta, magnitude = stretched(given)  # (P,), _
    weights = read_weights(folder, buffers=("rotary_emb.inv_freq",))  # _ of older files
    if not any(name.startswith("model.") for name in weights):  # a folder of the stack without its head
        weights = {f"model.{name}": weight for name, weight in weights.items()}
    names = LLAMA_NAMES | {"input_layernorm": "norm_1", "post_attention_layernorm": "norm_2"}
    names |= {"model.embed_tokens": "token", "model.norm": "norm", "lm_head": "head"}
    return fill(Llama(config, theta, magnitude), with_head(renamed(weights, names), config))


# --8<-- [end:llama]
