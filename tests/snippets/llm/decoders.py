"""GPT-2 and Llama of transformers and of the page, small, perturbed, for the tests of both decoder-only pages."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from snippets.llm import checkpoints
from snippets.llm import decoder_only as decoder
from tests.snippets.oracles import perturbed

GPT2_SHAPE = {"vocab_size": 41, "n_positions": 17, "n_embd": 24, "n_layer": 3, "n_head": 4, "n_inner": 20}
GPT2_SHAPE |= {"layer_norm_epsilon": 1e-3, "bos_token_id": None, "eos_token_id": None}
LLAMA_SHAPE = {"vocab_size": 41, "max_position_embeddings": 17, "hidden_size": 24, "intermediate_size": 20}
LLAMA_SHAPE |= {"num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-3}
LLAMA_SHAPE |= {"bos_token_id": None, "eos_token_id": None}
BANDS = {"factor": 8.0, "low_freq_factor": 1.5, "high_freq_factor": 5.0, "original_max_position_embeddings": 64}
GPT2S = {"tied": {}, "untied": {"tie_word_embeddings": False, "n_inner": None}}
LLAMAS = {
    "grouped": {"rope_parameters": {"rope_type": "default", "rope_theta": 90.0}},
    "tied": {"tie_word_embeddings": True, "num_key_value_heads": 4},
    "llama3": {"num_key_value_heads": 1, "rope_parameters": {"rope_type": "llama3", "rope_theta": 90.0} | BANDS},
}
NAMES = [("gpt2", name) for name in GPT2S] + [("llama", name) for name in LLAMAS]
CLASSES = {"gpt2": "transformers.GPT2LMHeadModel", "llama": "transformers.LlamaForCausalLM"}
LOADERS = {"gpt2": checkpoints.load_gpt2, "llama": checkpoints.load_llama}


def made(kind, name):
    """A model of transformers, every weight moved away from its first value."""
    if kind == "gpt2":
        return perturbed(GPT2LMHeadModel(GPT2Config(**(GPT2_SHAPE | GPT2S[name]))))
    return perturbed(LlamaForCausalLM(LlamaConfig(**(LLAMA_SHAPE | LLAMAS[name]))))


torch.manual_seed(0)
THEIRS = {key: made(*key) for key in NAMES}  # here, where nothing watches shapes: it takes a while


def small(kind="llama", **others):
    """One of our own models, perturbed, in float64; B = 5 and T = 7 go with it, and no two sizes are equal."""
    sizes = {"vocabulary": 41, "context": 17, "width": 24, "hidden": 20, "num_heads": 4, "num_key_heads": 2}
    config = decoder.Config(**(sizes | {"num_layers": 3, "tied": False} | others))
    return perturbed({"gpt2": decoder.GPT2, "llama": decoder.Llama}[kind](config)).double()


KINDS = pytest.mark.parametrize("kind", ["gpt2", "llama"])
