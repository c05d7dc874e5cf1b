"""CLIP's text encoder and its folders against transformers: states of each layer, both ends of text, refusals."""

import json
import shutil
from functools import partial

import pytest
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from snippets import clip_text as page
from tests.snippets.llm.folders import edited, refused, rewritten
from tests.snippets.oracles import perturbed

SHAPE = {"vocab_size": 41, "max_position_embeddings": 11, "hidden_size": 24, "intermediate_size": 20}
SHAPE |= {"num_hidden_layers": 3, "num_attention_heads": 4, "projection_dim": 10, "bos_token_id": 1}
KINDS = {  # both ends of text, both activations, with and without projection
    "plain": (CLIPTextModel, {"eos_token_id": 2}),
    "first": (CLIPTextModel, {"eos_token_id": 7, "hidden_act": "gelu", "layer_norm_eps": 1e-3}),
    "projected": (CLIPTextModelWithProjection, {"eos_token_id": 7}),
    "large": (CLIPTextModelWithProjection, {"eos_token_id": 2, "hidden_act": "gelu", "num_attention_heads": 3}),
}
NAMED = {kind: f"transformers.{model.__name__}" for kind, (model, _) in KINDS.items()}

torch.manual_seed(0)
THEIRS = {kind: perturbed(model(CLIPTextConfig(**SHAPE | other))) for kind, (model, other) in KINDS.items()}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Each model as transformers writes it, one of them in several files."""
    paths = {kind: tmp_path_factory.mktemp(kind) for kind in KINDS}
    for kind, path in paths.items():
        THEIRS[kind].save_pretrained(path, max_shard_size="8KB" if kind == "first" else "5GB")
        assert (len(list(path.glob("*.safetensors"))) > 3) == (kind == "first")
    return paths


def batch(kind):
    """Five texts of 9 tokens, and what is no padding: the end is the largest id, or 7, which fills up rows too."""
    tokens = torch.randint(8, 39, (5, 9))
    ends = torch.tensor([8, 5, 2, 6, 3])
    end, pad = {"plain": (40, 40), "first": (7, 7), "projected": (7, 0), "large": (40, 0)}[kind]
    place = torch.arange(9)
    tokens[place > ends[:, None]] = pad
    tokens[torch.arange(5), ends] = end
    return tokens, (place <= ends[:, None]).long(), ends


def embedding(kind, outputs):
    return outputs.text_embeds if "text_embeds" in outputs else outputs.pooler_output


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_embeddings_equal_transformers(kind, folders, agrees):
    tokens, real, ends = batch(kind)
    ours = page.load_clip_text(folders[kind])
    assert not ours.training
    theirs = embedding(kind, THEIRS[kind](input_ids=tokens, attention_mask=real))
    agrees(ours(tokens), theirs, NAMED[kind])
    assert theirs.shape == (5, 10 if "project" in kind or kind == "large" else 24)
    assert ours.ends(tokens).equal(ends)
    last = ours.project(ours.states(tokens)[:, -1])  # negative control: the last place instead of the end
    assert (last - theirs)[ends < 8].abs().max() > 0.01


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_the_states_of_each_layer_equal_transformers(kind, folders, agrees):
    """What Stable Diffusion reads: all states, those behind the end of text included, without a mask."""
    tokens, _, _ = batch(kind)
    ours = page.load_clip_text(folders[kind])
    theirs = THEIRS[kind](input_ids=tokens, output_hidden_states=True)
    agrees(ours.states(tokens), theirs.last_hidden_state, NAMED[kind])
    states = ours.hidden_states(tokens)
    assert len(states) == len(theirs.hidden_states) == 4
    for mine, their in zip(states, theirs.hidden_states, strict=True):
        agrees(mine, their, NAMED[kind])
    norm = getattr(THEIRS[kind], "text_model", THEIRS[kind]).final_layer_norm
    agrees(ours.norm(states[-2]), norm(theirs.hidden_states[-2]), NAMED[kind])
    assert (ours.norm(states[-1]) - norm(theirs.hidden_states[-2])).abs().max() > 0.01


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_each_part_counts(kind, folders):
    """Negative controls: another activation, other eps, no causal mask."""
    tokens, _, _ = batch(kind)
    ours = page.load_clip_text(folders[kind])
    theirs = embedding(kind, THEIRS[kind](input_ids=tokens))
    for layer in ours.layers:
        layer.activation = F.gelu if ours.config.quick else page.quick_gelu
    assert (ours(tokens) - theirs).abs().max() > 1e-3
    ours = page.load_clip_text(folders[kind])
    for norm in [ours.norm] + [layer.norm_2 for layer in ours.layers]:
        norm.eps *= 100
    assert (ours(tokens) - theirs).abs().max() > 1e-4
    x = torch.randn(5, 9, 24)
    assert (ours.layers[0](x) - ours.layers[0](x, causal=True)).abs().max() > 0.01


@torch.no_grad()
@pytest.mark.claim("clip-padding", "clip-padding-states")
def test_padding_is_harmless_to_the_end_of_text_alone():
    """The page's confusion: other padding leaves the embedding, but changes the states behind the end."""
    config = page.TextConfig(41, 11, 24, 20, 3, 4, 10, end=7)
    ours = perturbed(page.TextEncoder(config)).double()
    tokens, real, _ = batch("projected")
    other = torch.where(real == 1, tokens, 33)
    assert (ours(tokens) - ours(other)).abs().max() < 1e-12
    apart = (ours.states(tokens) - ours.states(other)).abs().amax(dim=-1)
    assert apart[real == 1].max() < 1e-12
    assert apart[real == 0].min() > 0.01
    shown = THEIRS["projected"](input_ids=tokens, attention_mask=real).last_hidden_state
    hidden = THEIRS["projected"](input_ids=tokens).last_hidden_state  # and so do transformers' with and without a mask
    apart = (shown - hidden).abs().amax(dim=-1)
    assert apart[real == 1].max() < 1e-4 < 0.01 < apart[real == 0].min()


@torch.no_grad()
@pytest.mark.claim("clip-end-of-text")
def test_a_new_token_steals_the_end_where_it_is_the_largest_id(folders):
    """The page's confusion: where eos_token_id is 2, an added token of a larger id is taken for the end."""
    for kind, place in (("plain", 1), ("large", 1), ("first", 5), ("projected", 5)):
        tokens, _, ends = batch(kind)
        tokens[tokens == 40] = 39
        tokens[1, 1] = 40  # the new one
        ours, theirs = page.load_clip_text(folders[kind]), THEIRS[kind]
        assert ours.ends(tokens)[1] == place and ends[1] == 5
        outputs = theirs(input_ids=tokens)
        assert (ours(tokens) - embedding(kind, outputs)).abs().max() < 1e-4
        assert (ours.project(ours.states(tokens)[1, place]) - ours(tokens)[1]).abs().max() < 1e-5


@torch.no_grad()
def test_activations_equal_transformers(agrees):
    x = torch.linspace(-6, 6, 101).double()
    theirs = transformers.activations.QuickGELUActivation()(x)
    agrees(page.quick_gelu(x), theirs, "transformers.activations.QuickGELUActivation", 1e-12)
    assert (F.gelu(x) - theirs).abs().max() > 0.01


def test_the_first_weights_are_the_authors():
    """clip/model.py of openai/CLIP, initialize_parameters: deviations by width and number of layers."""
    text = page.TextEncoder(page.TextConfig(3001, 513, 128, 512, 4, 4, 96))
    expected = {"token": 0.02, "position": 0.01, "project": 128**-0.5}
    expected |= {f"layers.{i}.to_{part}": 128**-0.5 for i in range(4) for part in ("query", "key", "value")}
    expected |= {f"layers.{i}.{part}": (128 * 8) ** -0.5 for i in range(4) for part in ("to_out", "down")}
    expected |= {f"layers.{i}.up": 256**-0.5 for i in range(4)}
    for name, module in text.named_modules():
        if name in expected:
            assert module.weight.std().item() == pytest.approx(expected[name], rel=0.03), name
        if getattr(module, "bias", None) is not None:
            assert not module.bias.any(), name


def test_heads_have_to_divide():
    with pytest.raises(ValueError, match="heads divide is expected, given 24, 5"):
        page.Layer(24, 20, 5)


# folders


def test_old_names_and_buffers_load(folders, tmp_path):
    """Files of Stable Diffusion have text_model. before each name, and a table of positions; some are in half."""
    shutil.copytree(folders["plain"], tmp_path, dirs_exist_ok=True)
    weights = {f"text_model.{name}": weight for name, weight in load_file(tmp_path / "model.safetensors").items()}
    weights["text_model.embeddings.position_ids"] = torch.arange(11)[None]
    save_file(weights, tmp_path / "model.safetensors")
    ours, before = page.load_clip_text(tmp_path), page.load_clip_text(folders["plain"])
    assert all(weight.equal(before.state_dict()[name]) for name, weight in ours.state_dict().items())
    edited(lambda w: w.update({name: w[name].half() for name in list(w) if "ids" not in name}))(tmp_path)
    half = page.load_clip_text(tmp_path)
    assert half.token.weight.dtype == torch.float32
    assert 0 < (half.token.weight - before.token.weight).abs().max() < 0.01


WRONG = {
    "model_type": "clip",
    "hidden_act": "gelu_new",
    "attention_dropout": 0.1,
    "quantization_config": {"quant_method": "bitsandbytes"},
    "eos_token_id": [3, 7],
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("kind", ["plain", "projected"])
def test_settings_that_the_page_does_not_have_are_refused(name, kind, folders):
    change = partial(rewritten, **{name: WRONG[name]})
    refused(page.load_clip_text, folders[kind], change, f"^{name}.* is expected, given .*$")


def test_folders_with_other_weights_are_refused(folders):
    load, name = page.load_clip_text, "encoder.layers.1.mlp.fc1.weight"
    sharded, whole = folders["first"], folders["plain"]
    refused(load, sharded, lambda path: sorted(path.glob("*.safetensors"))[1].unlink(), "model-00002-of-.* is expected")
    refused(load, whole, lambda path: (path / "model.safetensors").unlink(), "model.safetensors is expected")
    refused(load, whole, lambda path: (path / "config.json").unlink(), "config.json is expected")
    refused(load, whole, edited(lambda w: w.pop(name)), "given layers.1.up.weight: none")
    refused(load, whole, edited(lambda w: w.update({"adapter": torch.ones(2)})), r"given adapter: \[2\]")
    refused(load, whole, edited(lambda w: w.update({name: w[name].T.contiguous()})), "layers.1.up.weight")
    refused(load, whole, edited(lambda w: w.update({name: w[name].to(torch.int8)})), "not quantised are expected")
    for setting in ("hidden_size", "num_hidden_layers", "max_position_embeddings", "vocab_size", "intermediate_size"):
        refused(load, whole, partial(rewritten, **{setting: 8}), "is expected, given")


@torch.no_grad()
def test_settings_that_are_not_written_are_transformers_own(folders, tmp_path):
    config, sizes = CLIPTextConfig(), page.TEXT_UNLESS_GIVEN
    assert {ours: getattr(config, theirs) for theirs, ours in page.TEXT_SIZES.items()} == sizes
    assert page.is_quick({}) == (config.hidden_act == "quick_gelu")
    shutil.copytree(folders["plain"], tmp_path, dirs_exist_ok=True)
    given = json.loads((tmp_path / "config.json").read_text())
    for name in ("hidden_act", "layer_norm_eps", "attention_dropout"):
        given.pop(name)
    (tmp_path / "config.json").write_text(json.dumps(given))
    tokens, _, _ = batch("plain")
    assert page.load_clip_text(tmp_path)(tokens).equal(page.load_clip_text(folders["plain"])(tokens))


# every layout is exported as it is: no look at a token's value


@torch.no_grad()
@pytest.mark.parametrize("end", [None, 7])
def test_the_encoder_exports(end):
    """torch.export follows tensors without their values, for any number of texts."""
    ours = perturbed(page.TextEncoder(page.TextConfig(41, 11, 24, 20, 2, 4, 10, end=end)))
    tokens, _, _ = batch("large" if end is None else "projected")
    rows = torch.export.Dim("rows", min=2, max=64)
    exported = torch.export.export(ours, (tokens,), dynamic_shapes=({0: rows},)).module()
    other = tokens.flip(0)[:3]
    assert (exported(other) - ours(other)).abs().max() < 1e-6
