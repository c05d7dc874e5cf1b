"""Folders of T5: what loads, what is refused, what the library does with tied embeddings, what is written."""

import json
import shutil
from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import T5Config, T5ForConditionalGeneration, UMT5Config, UMT5ForConditionalGeneration

from snippets.llm import t5
from snippets.llm.t5_folders import load_t5, save_t5
from tests.snippets.llm.folders import edited, refused, rewritten
from tests.snippets.llm.t5_models import BASE, KINDS, THEIRS, UNTIED, WIDTHS
from tests.snippets.oracles import perturbed

LIBRARY = "transformers.T5ForConditionalGeneration"
SOURCE, WRITTEN = torch.randint(41, (5, 7)), torch.randint(41, (5, 6))
UMT5 = perturbed(UMT5ForConditionalGeneration(UMT5Config(**BASE, **WIDTHS["mt5"])))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Each model as transformers writes it, one of them in several files."""
    paths = {kind: tmp_path_factory.mktemp(kind.replace(" ", "-")) for kind in KINDS}
    for kind, path in paths.items():
        THEIRS[kind].save_pretrained(path, max_shard_size="8KB" if kind == "flan" else "5GB")
        assert (len(list(path.glob("*.safetensors"))) > 3) == (kind == "flan")
    return paths


def logits(model):
    return model(input_ids=SOURCE, decoder_input_ids=WRITTEN).logits


@torch.no_grad()
def test_settings_are_those_of_the_folder(folders):
    for kind, path in folders.items():
        config, sizes = load_t5(path).config, WIDTHS[kind]
        assert config.tied == (kind not in UNTIED) and config.scaled == (kind in ("v1.0", "untied v1.0"))
        assert config.gated == (kind not in ("v1.0", "untied v1.0"))
        assert (config.width, config.head_width, config.hidden) == (sizes["d_model"], sizes["d_kv"], sizes["d_ff"])
        assert (config.num_layers, config.decoder_layers) == (sizes["num_layers"], sizes["num_decoder_layers"])


@torch.no_grad()
def test_old_folders_load(folders, tmp_path):
    """Settings as t5-small has them, copies of the embedding, a table that cross-attention never used, half floats."""
    shutil.copytree(folders["untied v1.0"], tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    new = ("feed_forward_proj", "dense_act_fn", "is_gated_act", "scale_decoder_outputs", "tie_word_embeddings")
    for name in new:
        del config[name]
    (tmp_path / "config.json").write_text(json.dumps(config | {"n_positions": 512}))
    weights = load_file(tmp_path / "model.safetensors")
    unused = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    weights |= {unused: torch.randn(8, 2)}
    weights |= {f"{side}.embed_tokens.weight": weights["shared.weight"].clone() for side in ("encoder", "decoder")}
    save_file(weights, tmp_path / "model.safetensors")
    expected = load_t5(folders["untied v1.0"])(SOURCE, WRITTEN)
    assert load_t5(tmp_path)(SOURCE, WRITTEN).equal(expected)
    del weights["shared.weight"]
    save_file(weights, tmp_path / "model.safetensors")
    assert load_t5(tmp_path)(SOURCE, WRITTEN).equal(expected)
    save_file({name: weight.half() for name, weight in weights.items()}, tmp_path / "model.safetensors")
    ours = load_t5(tmp_path)
    assert ours.token.weight.dtype == torch.float32 and (ours(SOURCE, WRITTEN) - expected).abs().max() < 0.05


WRONG = {
    "model_type": "umt5",
    "feed_forward_proj": "gated-silu",
    "is_encoder_decoder": False,
    "is_decoder": True,
    "quantization_config": {"quant_method": "bitsandbytes"},
    "dense_act_fn": "gelu",
    "is_gated_act": True,
}


@pytest.mark.parametrize("name", WRONG)
def test_settings_that_the_page_does_not_have_are_refused(name, folders):
    change = partial(rewritten, **{name: WRONG[name]})
    refused(load_t5, folders["v1.0"], change, rf"^{name} .*is expected, given .*$")


def test_folders_with_other_weights_are_refused(folders):
    whole, parts = folders["v1.0"], folders["flan"]
    name = "encoder.block.1.layer.1.DenseReluDense.wo.weight"
    refused(
        load_t5, parts, lambda path: sorted(path.glob("*.safetensors"))[1].unlink(), "model-00002-of-.* is expected"
    )
    refused(load_t5, whole, lambda path: (path / "model.safetensors").unlink(), "model.safetensors is expected")
    refused(load_t5, whole, edited(lambda w: w.pop(name)), "given encoder.layers.1.mlp.down.weight: none")
    refused(load_t5, whole, edited(lambda w: w.update({"adapter": torch.ones(2)})), r"given adapter: \[2\]")
    refused(load_t5, whole, edited(lambda w: w.update({name: w[name].T.contiguous()})), "layers.1.mlp.down.weight")
    refused(load_t5, whole, edited(lambda w: w.update({name: w[name].to(torch.int8)})), "not quantised are expected")
    other = {"decoder.embed_tokens.weight": torch.randn(41, 24)}
    refused(load_t5, whole, edited(lambda w: w.update(other)), "one embedding for both sides")
    refused(load_t5, whole, edited(lambda w: w.pop("shared.weight")), "given head.weight: none")


@pytest.mark.claim("encdec-relatives")
@torch.no_grad()
def test_umt5_is_not_mistaken_for_t5(folders, tmp_path):
    """It has a table of distances in each layer, and the library scales its logits whatever the folder says."""
    UMT5.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="model_type of t5 is expected, given 'umt5'"):
        load_t5(tmp_path)
    rewritten(tmp_path, model_type="t5")  # named wrongly, its weights give it away
    with pytest.raises(ValueError, match="the weights of a T5 are expected"):
        load_t5(tmp_path)
    assert not hasattr(THEIRS["mt5"].config, "scale_decoder_outputs") and THEIRS["mt5"].config.tie_word_embeddings
    assert not load_t5(folders["mt5"]).config.scaled


# tied embeddings


def config_of(**given):
    return T5Config(**BASE, **WIDTHS["flan"], **given)


@pytest.mark.claim("encdec-tied")
@torch.no_grad()
def test_library_ties_whatever_the_settings_say(folders, tmp_path):
    """What tie_word_embeddings does in transformers 5: it reads True, and False only takes the scale away."""
    asked = {given: config_of(tie_word_embeddings=given) for given in (True, False)}
    assert all(config.tie_word_embeddings for config in asked.values())
    assert asked[True].scale_decoder_outputs and not asked[False].scale_decoder_outputs
    fresh = T5ForConditionalGeneration(asked[False])
    assert fresh.lm_head.weight is fresh.shared.weight  # a new model of v1.1 has no head of its own
    loaded = T5ForConditionalGeneration.from_pretrained(folders["v1.1"])
    assert loaded.lm_head.weight is not loaded.shared.weight  # a folder with a head of its own keeps it
    tied = T5ForConditionalGeneration.from_pretrained(folders["tied v1.1"])
    assert tied.lm_head.weight is tied.shared.weight
    written = json.loads((folders["v1.1"] / "config.json").read_text())
    assert written["tie_word_embeddings"] is True and written["scale_decoder_outputs"] is False
    shutil.copytree(folders["v1.1"], tmp_path, dirs_exist_ok=True)  # as the hub has it
    del written["scale_decoder_outputs"]
    (tmp_path / "config.json").write_text(json.dumps(written | {"tie_word_embeddings": False}))
    ours, theirs = load_t5(tmp_path), T5ForConditionalGeneration.from_pretrained(tmp_path).eval()
    assert not ours.config.scaled and not ours.config.tied
    assert (ours(SOURCE, WRITTEN) - logits(theirs)).abs().max() < 1e-5


@pytest.mark.claim("encdec-scale")
@torch.no_grad()
def test_greedy_cannot_see_the_scale(folders):
    ours = load_t5(folders["v1.0"])
    right, config = ours(SOURCE, WRITTEN), ours.config
    ours.config = t5.Config(**(vars(config) | {"scaled": False}))
    wrong = ours(SOURCE, WRITTEN)
    assert wrong.argmax(dim=-1).equal(right.argmax(dim=-1))
    target = torch.randint(41, (5, 6))
    real = torch.ones(5, 7, dtype=torch.bool)
    assert t5.loss(ours, SOURCE, real, target) > 2 * torch.nn.functional.cross_entropy(
        right.flatten(0, 1), target.flatten()
    )


# writing


@torch.no_grad()
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "mt5"])
def test_written_folders_are_read_by_transformers(kind, folders, tmp_path, agrees):
    ours = load_t5(folders[kind])
    save_t5(ours, tmp_path / "new")
    again, report = T5ForConditionalGeneration.from_pretrained(tmp_path / "new", output_loading_info=True)
    assert not any(report.values()), report
    agrees(ours(SOURCE, WRITTEN), logits(again.eval()), LIBRARY)
    once = load_t5(tmp_path / "new")
    assert once.config == ours.config
    assert all(weight.equal(once.state_dict()[name]) for name, weight in ours.state_dict().items())
