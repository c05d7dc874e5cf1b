"""Small T5s of transformers, every weight moved away from its first value, that several tests compare ours with."""

import torch
from torch import nn
from transformers import MT5Config, MT5ForConditionalGeneration, T5Config, T5ForConditionalGeneration

from tests.snippets.oracles import perturbed

BASE = {"vocab_size": 41, "decoder_start_token_id": 0, "relative_attention_num_buckets": 8}
BASE |= {"relative_attention_max_distance": 20}
GATED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
WIDTHS = {
    "v1.0": {"d_model": 24, "d_kv": 5, "d_ff": 20, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 3},
    "v1.1": {"d_model": 18, "d_kv": 4, "d_ff": 27, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 6},
    "flan": {"d_model": 32, "d_kv": 8, "d_ff": 40, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 3},
    "tied v1.1": {"d_model": 22, "d_kv": 3, "d_ff": 26, "num_layers": 1, "num_decoder_layers": 1, "num_heads": 5},
    "untied v1.0": {"d_model": 26, "d_kv": 7, "d_ff": 30, "num_layers": 1, "num_decoder_layers": 2, "num_heads": 2},
    "mt5": {"d_model": 20, "d_kv": 6, "d_ff": 28, "num_layers": 2, "num_decoder_layers": 1, "num_heads": 4},
}
OTHERS = {"v1.0": {}, "v1.1": GATED, "flan": GATED | {"relative_attention_num_buckets": 32}, "tied v1.1": GATED}
OTHERS |= {"untied v1.0": {}, "mt5": {}}
OTHERS["flan"]["relative_attention_max_distance"] = 128
UNTIED = ("v1.1", "flan", "untied v1.0", "mt5")
KINDS = tuple(WIDTHS)


def made(kind):
    """A model in evaluation mode; those that are untied have a head of their own, as the folders of v1.1 do."""
    config, model = (
        (MT5Config, MT5ForConditionalGeneration) if kind == "mt5" else (T5Config, T5ForConditionalGeneration)
    )
    network = model(config(**BASE | WIDTHS[kind] | OTHERS[kind]))
    if kind in UNTIED:
        network.lm_head.weight = nn.Parameter(torch.randn(41, WIDTHS[kind]["d_model"]) / WIDTHS[kind]["d_model"] ** 0.5)
    return perturbed(network)


torch.manual_seed(0)
THEIRS = {kind: made(kind) for kind in KINDS}  # at import, where nothing watches shapes: it takes a while
