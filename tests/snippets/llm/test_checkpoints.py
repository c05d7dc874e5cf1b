"""GPT-2, Llama and Mistral from folders: public kinds of configurations load and agree, or are refused in one line."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from snippets.llm import checkpoints
from snippets.llm.decoder_only import empty_cache, generate
from snippets.llm.decoding import fast_step, generate_fast
from tests.snippets.llm.folders import edited, refused, rewritten
from tests.snippets.oracles import perturbed

GPT2 = {"vocab_size": 41, "n_positions": 17, "n_embd": 24, "n_layer": 3, "n_head": 4, "n_inner": 20}
LLAMA = {"vocab_size": 41, "max_position_embeddings": 17, "hidden_size": 24, "intermediate_size": 20}
LLAMA |= {"num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-3}
ENDS = {"bos_token_id": None, "eos_token_id": None}
YARN = {"rope_type": "yarn", "rope_theta": 90.0, "factor": 4.0, "original_max_position_embeddings": 16}
ROPES = {
    "linear": {"rope_parameters": {"rope_type": "linear", "rope_theta": 90.0, "factor": 3.0}},
    "yarn": {"rope_parameters": YARN},
    "yarn, cooler": {"rope_parameters": YARN | {"attention_factor": 0.8, "beta_fast": 3.0, "beta_slow": 0.5}},
}


def made(kind, config, **others):
    """A model of transformers, every weight moved away from its first value."""
    return perturbed(kind(config(**(LLAMA | ENDS | others))))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A GPT-2 and an untied and a tied Llama, in one file and in several."""
    torch.manual_seed(0)
    models = {"gpt2": perturbed(GPT2LMHeadModel(GPT2Config(**GPT2, **ENDS)))}
    models |= {"llama": made(LlamaForCausalLM, LlamaConfig)}
    models |= {"tied": made(LlamaForCausalLM, LlamaConfig, tie_word_embeddings=True), "parts": models["llama"]}
    paths = {name: tmp_path_factory.mktemp(name) for name in models}
    for name, model in models.items():
        model.save_pretrained(paths[name], max_shard_size="6KB" if name == "parts" else "5GB")
    return paths


@torch.no_grad()
@pytest.mark.parametrize("name", ROPES)
def test_stretched_llamas_agree_with_transformers(name, tmp_path, agrees):
    theirs = made(LlamaForCausalLM, LlamaConfig, max_position_embeddings=64, **ROPES[name])
    theirs.save_pretrained(tmp_path)
    tokens = torch.randint(41, (5, 64))
    ours = checkpoints.load_llama(tmp_path)
    agrees(ours(tokens), theirs(tokens).logits, "transformers.LlamaForCausalLM", 1e-5)
    plain = {"rope_type": "default", "rope_theta": 90.0}
    rewritten(tmp_path, rope_parameters=plain)
    assert (checkpoints.load_llama(tmp_path)(tokens) - theirs(tokens).logits).abs().max() > 1e-2


@torch.no_grad()
@pytest.mark.parametrize("window", [None, 5, 1, 40])
def test_mistral_agrees_with_transformers(window, tmp_path, agrees):
    """Read at once, in pieces after a cache, and token by token."""
    theirs = made(MistralForCausalLM, MistralConfig, sliding_window=window)
    theirs.save_pretrained(tmp_path)
    tokens = torch.randint(41, (5, 17))
    ours, wanted = checkpoints.load_llama(tmp_path), theirs(tokens).logits
    agrees(ours(tokens), wanted, "transformers.MistralForCausalLM", 1e-5)
    for pieces in ([3, 9, 5], [17], [1] * 17, [8, 1, 8]):
        cache = empty_cache(ours, 5, 17)
        read = [ours(piece, cache) for piece in tokens.split(pieces, dim=1)]
        torch.testing.assert_close(torch.cat(read, dim=1), wanted, rtol=0, atol=1e-5)
    if window == 5:
        rewritten(tmp_path, sliding_window=6)
        assert (checkpoints.load_llama(tmp_path)(tokens) - wanted).abs().max() > 1e-3
        expected = theirs.generate(tokens[:, :4], max_new_tokens=9, do_sample=False)
        assert torch.equal(generate(ours, tokens[:, :4], 9), expected)
        with pytest.raises(ValueError, match="a model without a window"):
            generate_fast(ours, tokens[:1, :4], 9, fast_step)


def test_a_window_that_a_file_leaves_out_is_mistrals_own(tmp_path):
    made(MistralForCausalLM, MistralConfig).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    given = json.loads(file.read_text())
    assert given.pop("sliding_window") == 4096
    file.write_text(json.dumps(given))
    assert checkpoints.load_llama(tmp_path).config.window == 4096 == MistralConfig().sliding_window


@torch.no_grad()
def test_llama_1_names_its_length_otherwise(folders, tmp_path):
    given = json.loads((folders["llama"] / "config.json").read_text())
    for path in folders["llama"].glob("*.safetensors"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    del given["max_position_embeddings"]
    (tmp_path / "config.json").write_text(json.dumps(given | {"max_sequence_length": 13}))
    ours, tokens = checkpoints.load_llama(tmp_path), torch.randint(41, (5, 13))
    assert ours.config.context == 13
    torch.testing.assert_close(ours(tokens), checkpoints.load_llama(folders["llama"])(tokens))


@torch.no_grad()
def test_a_stale_file_beside_the_weights_is_not_read(folders, tmp_path):
    for name in ("llama", "parts"):
        tokens, ours = torch.randint(41, (5, 13)), checkpoints.load_llama(folders[name])
        folder = tmp_path / name
        folder.mkdir()
        for path in folders[name].iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        weights = load_file(folders["llama"] / "model.safetensors")
        save_file({name: 0 * weight for name, weight in weights.items()}, folder / "old.safetensors")
        assert torch.equal(checkpoints.load_llama(folder)(tokens), ours(tokens))


@torch.no_grad()
def test_a_stack_without_a_head_loads_where_the_head_is_the_embedding(folders, tmp_path, agrees):
    """A folder of LlamaModel names its weights without a prefix, and has no head."""
    LlamaForCausalLM.from_pretrained(folders["tied"]).model.save_pretrained(tmp_path)
    tokens = torch.randint(41, (5, 13))
    wanted = LlamaForCausalLM.from_pretrained(folders["tied"])(tokens).logits
    agrees(checkpoints.load_llama(tmp_path)(tokens), wanted, "transformers.LlamaForCausalLM", 1e-5)
    untied = LlamaModel(LlamaConfig(**LLAMA, **ENDS))
    untied.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"1 missing \['head.weight'\]"):
        checkpoints.load_llama(tmp_path)


@torch.no_grad()
def test_half_precision_and_back_leaves_the_angles_exact(folders):
    tokens, ours = torch.randint(41, (5, 13)), checkpoints.load_llama(folders["llama"])
    again = checkpoints.load_llama(folders["llama"]).bfloat16().float()
    assert torch.equal(again.cos, ours.cos) and torch.equal(again.sin, ours.sin)
    again.load_state_dict(ours.state_dict())
    assert torch.equal(again(tokens), ours(tokens))
    half = checkpoints.load_llama(folders["llama"]).bfloat16()
    assert half(tokens).dtype == torch.bfloat16 and (half(tokens).float() - ours(tokens)).abs().max() < 0.2


def setting(**changed):
    return lambda folder: rewritten(folder, **changed)


def quantised(weights):
    """As FP8 folders store it: a scale beside each matrix."""
    for name in [name for name in weights if name.endswith("q_proj.weight")]:
        weights[f"{name}_scale"] = torch.ones(1)
        weights[name] = weights[name].to(torch.float8_e4m3fn)


def packed(weights):
    """As GPTQ and AWQ store it."""
    for name in [name for name in weights if name.endswith("q_proj.weight")]:
        weights[name.replace("weight", "qweight")] = weights.pop(name).to(torch.int32)


def other_head(weights):
    weights["lm_head.weight"] = torch.ones(41, 24)


def a_shard_less(folder):
    sorted(folder.glob("*.safetensors"))[1].unlink()


def without(name):
    def change(folder):
        given = json.loads((folder / "config.json").read_text())
        del given[name]
        (folder / "config.json").write_text(json.dumps(given))

    return change


REFUSED = {
    "llama as gpt2": ("gpt2", setting(model_type="llama"), "model_type gpt2 is expected, given 'llama'"),
    "exact gelu": (
        "gpt2",
        setting(activation_function="gelu"),
        "gelu_new is expected, given 'gelu'",
    ),
    "scores unscaled": ("gpt2", setting(scale_attn_weights=False), "scale_attn_weights True is expected"),
    "scaled by layer": ("gpt2", setting(scale_attn_by_inverse_layer_idx=True), "inverse_layer_idx False is expected"),
    "crossed": ("gpt2", setting(add_cross_attention=True), "add_cross_attention False is expected, given True"),
    "gpt2 without a size": ("gpt2", without("n_embd"), "n_embd is expected in"),
    "gpt2, a weight less": ("gpt2", edited(lambda w: w.pop("transformer.h.1.ln_1.bias")), r"blocks.1.norm_1.bias"),
    "gpt2, a weight more": ("gpt2", edited(lambda w: w.update({"adapter": torch.ones(2)})), r"1 more \['adapter'\]"),
    "gpt2 as llama": ("llama", setting(model_type="gpt2"), "model_type llama or mistral is expected, given gpt2"),
    "qwen 2": ("llama", setting(model_type="qwen2"), "model_type llama or mistral is expected, given qwen2"),
    "gelu": ("llama", setting(hidden_act="gelu"), "hidden_act silu is expected, given 'gelu'"),
    "attention bias": ("llama", setting(attention_bias=True), "attention_bias False is expected, given True"),
    "mlp bias": ("llama", setting(mlp_bias=True), "mlp_bias False is expected, given True"),
    "dynamic": ("llama", setting(rope_parameters={"rope_type": "dynamic", "factor": 2.0}), "a length is expected for"),
    "longrope": ("llama", setting(rope_parameters={"rope_type": "longrope"}), "a rope_type .* given longrope"),
    "part of the features": ("llama", setting(partial_rotary_factor=0.5), "given default and {'partial_rotary"),
    "head_dim": ("llama", setting(head_dim=8), "head_dim 6 is expected, given 8"),
    "no width": ("llama", without("hidden_size"), "hidden_size is expected in"),
    "announced quantisation": (
        "llama",
        setting(quantization_config={"quant_method": "fp8"}),
        "quantization_config None",
    ),
    "FP8": ("llama", edited(quantised), "not quantised are expected, given .*q_proj.weight of torch.float8"),
    "GPTQ": ("llama", edited(packed), "not quantised are expected, given .*q_proj.qweight of torch.int32"),
    "no weights": ("llama", lambda path: (path / "model.safetensors").unlink(), "model.safetensors is expected"),
    "no head": ("llama", edited(lambda w: w.pop("lm_head.weight")), r"1 missing \['head.weight'\]"),
    "another head": (
        "tied",
        edited(lambda w: w.update({"lm_head.weight": torch.ones(41, 24)})),
        "a head equal to the emb",
    ),
    "a shard less": (
        "parts",
        lambda path: sorted(path.glob("*.safetensors"))[1].unlink(),
        "model-00002-of-.* is expected",
    ),
    "other sizes": ("llama", setting(intermediate_size=21), r"for blocks.0.down.weight, \(24, 21\) is expected"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_these_models_do_not_have_is_refused(name, folders):
    kind, change, match = REFUSED[name]
    refused(checkpoints.load_gpt2 if kind == "gpt2" else checkpoints.load_llama, folders[kind], change, match)


@pytest.mark.parametrize("kind, config", [(Qwen2ForCausalLM, Qwen2Config), (Qwen3ForCausalLM, Qwen3Config)])
def test_folders_of_qwen_are_refused(kind, config, tmp_path):
    made(kind, config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="model_type llama or mistral is expected, given qwen"):
        checkpoints.load_llama(tmp_path)


def test_a_head_that_equals_the_embedding_is_no_other(folders, tmp_path):
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in folders["tied"].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    edited(lambda w: w.update({"lm_head.weight": w["model.embed_tokens.weight"].clone()}))(folder)
    ours = checkpoints.load_llama(folder)
    assert ours.head.weight is ours.token.weight
