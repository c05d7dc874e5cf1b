"""RoBERTa: hidden states, heads and folders against transformers; positions, padding, refusals."""

import dataclasses
import json
import shutil
from functools import partial

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import RobertaConfig

from snippets.llm import roberta as page
from snippets.llm.bert import Bert
from tests.snippets.llm.folders import refused, refuses_other_weights, rewritten
from tests.snippets.oracles import perturbed

SHAPE = {"vocab_size": 41, "max_position_embeddings": 13, "hidden_size": 24, "intermediate_size": 20}
SHAPE |= {"num_hidden_layers": 3, "num_attention_heads": 4, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
CLASSES = {
    "words": transformers.RobertaForMaskedLM,
    "untied": transformers.RobertaForMaskedLM,
    "spans": transformers.RobertaForQuestionAnswering,
    "padded": transformers.RobertaForMaskedLM,
    "model": transformers.RobertaModel,
}
OTHERS = {"untied": {"tie_word_embeddings": False}, "padded": {"pad_token_id": 3, "type_vocab_size": 2}}
NAMED = {kind: f"transformers.{CLASSES[kind].__name__}" for kind in CLASSES}


def made(kind):
    """A model of transformers, every weight moved away from its first value."""
    return perturbed(CLASSES[kind](RobertaConfig(**SHAPE | OTHERS.get(kind, {}))))


torch.manual_seed(0)
THEIRS = {kind: made(kind) for kind in CLASSES}  # here, where nothing watches shapes: it takes a while


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Each model as transformers writes it, one of them in several files."""
    paths = {kind: tmp_path_factory.mktemp(kind) for kind in CLASSES}
    for kind, path in paths.items():
        THEIRS[kind].save_pretrained(path, max_shard_size="8KB" if kind == "words" else "5GB")
        assert (len(list(path.glob("*.safetensors"))) > 3) == (kind == "words")
    return paths


def batch(kind):
    """Five texts of 7 tokens; the second ends in padding, the third has the padding's id inside."""
    pad = OTHERS.get(kind, {}).get("pad_token_id", 1)
    tokens = torch.randint(4, 41, (5, 7))
    tokens[1, 4:] = pad
    return tokens, tokens != pad


def theirs(kind, tokens, real):
    return THEIRS[kind](input_ids=tokens, attention_mask=real.long(), output_hidden_states=True)


# heads and folders


@torch.no_grad()
@pytest.mark.parametrize("kind", CLASSES)
def test_hidden_states_equal_transformers(kind, folders, agrees):
    tokens, real = batch(kind)
    ours = page.load_roberta(folders[kind])
    assert not ours.training
    hidden = theirs(kind, tokens, real).hidden_states[-1]
    agrees(ours["bert"](tokens)[real], hidden[real], NAMED[kind])
    from_0 = Bert.forward(ours["bert"], tokens, real=real)  # negative control: BERT's positions
    assert (from_0 - hidden)[real].abs().max() > 0.01


@torch.no_grad()
@pytest.mark.parametrize("kind", ["words", "untied", "padded"])
def test_word_logits_equal_transformers(kind, folders, agrees):
    tokens, real = batch(kind)
    ours = page.load_roberta(folders[kind])
    expected = theirs(kind, tokens, real).logits
    logits = ours["words"](ours["bert"](tokens))
    agrees(logits[real], expected[real], NAMED[kind])
    tied = ours["words"].decoder.weight is ours["bert"].token.weight
    assert tied == (kind != "untied")
    twice = logits + ours["words"].decoder.bias  # negative control: the bias added by two places
    assert (twice - expected)[real].abs().max() > 0.01
    other = ours["words"].norm(ours["words"].dense(ours["bert"](tokens))) @ ours["bert"].token.weight.T
    assert (other - expected)[real].abs().max() > 0.01  # and a head without GELU and bias


@torch.no_grad()
def test_ends_of_spans_equal_transformers(folders, agrees):
    tokens, real = batch("spans")
    ours, spans = page.load_roberta(folders["spans"]), theirs("spans", tokens, real)
    ends = ours["ends"](ours["bert"](tokens))
    agrees(ends[..., 0][real], spans.start_logits[real], NAMED["spans"])
    agrees(ends[..., 1][real], spans.end_logits[real], NAMED["spans"])
    assert set(ours) == {"bert", "ends"}
    assert (ends[..., 1] - spans.start_logits)[real].abs().max() > 0.01  # the ends exchanged


@torch.no_grad()
def test_the_pooler_of_a_plain_model_loads(folders, agrees):
    tokens, real = batch("model")
    ours, expected = page.load_roberta(folders["model"]), theirs("model", tokens, real).pooler_output
    assert set(ours) == {"bert", "pooler"}
    agrees(ours["pooler"](ours["bert"](tokens)), expected, NAMED["model"])
    assert (ours["pooler"].dense(ours["bert"](tokens)[:, 0]) - expected).abs().max() > 0.01  # without tanh


@pytest.mark.parametrize("kind", ["RobertaForSequenceClassification", "RobertaForTokenClassification"])
def test_heads_that_sort_are_refused(kind, tmp_path):
    getattr(transformers, kind)(RobertaConfig(**SHAPE)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"the weights of a RoBERTa are expected in .*, given label\..*: \["):
        page.load_roberta(tmp_path)


@torch.no_grad()
def test_segments_are_added_where_there_are_two(folders, agrees):
    tokens, real = batch("padded")
    segments = torch.randint(2, (5, 7))
    expected = THEIRS["padded"](input_ids=tokens, token_type_ids=segments, attention_mask=real.long()).logits
    ours = page.load_roberta(folders["padded"])
    logits = ours["words"](ours["bert"](tokens, segments=segments))
    agrees(logits[real], expected[real], NAMED["padded"])
    assert (ours["words"](ours["bert"](tokens)) - expected)[real].abs().max() > 0.01


@pytest.mark.claim("roberta-segments")
def test_the_one_row_of_segments_counts_and_a_second_is_missing(folders):
    """The page's confusion: a RoBERTa has one kind of segments. It is added; asking for another one fails."""
    ours = page.load_roberta(folders["words"])["bert"]
    tokens, _ = batch("words")
    before = ours(tokens)
    ours.segment.weight.data += torch.randn_like(ours.segment.weight)
    assert (ours(tokens) - before).abs().max() > 0.01
    for model in (ours, lambda tokens, segments: THEIRS["words"](tokens, token_type_ids=segments)):
        with pytest.raises(IndexError):
            model(tokens, segments=torch.ones_like(tokens))


@torch.no_grad()
@pytest.mark.parametrize("kind", CLASSES)
def test_saved_folders_are_read_by_transformers(kind, folders, tmp_path, agrees):
    tokens, real = batch(kind)
    ours = page.load_roberta(folders[kind])
    page.save_roberta(ours, tmp_path / "new")
    again, report = CLASSES[kind].from_pretrained(tmp_path / "new", output_loading_info=True)
    assert not any(report.values()), report
    hidden = again.eval()(input_ids=tokens, attention_mask=real.long(), output_hidden_states=True).hidden_states[-1]
    agrees(ours["bert"](tokens)[real], hidden[real], NAMED[kind])
    once = page.load_roberta(tmp_path / "new").state_dict()
    assert all(weight.equal(once[name]) for name, weight in ours.state_dict().items())
    assert len(once) == len(ours.state_dict())


@torch.no_grad()
def test_an_encoder_without_heads_loads(folders, tmp_path, agrees):
    bare = THEIRS["spans"].roberta
    bare.save_pretrained(tmp_path)
    tokens, real = batch("spans")
    expected = bare(input_ids=tokens, attention_mask=real.long()).last_hidden_state
    ours = page.load_roberta(tmp_path)
    assert set(ours) == {"bert"}
    agrees(ours["bert"](tokens)[real], expected[real], "transformers.RobertaModel")
    assert (ours["bert"](tokens, real=torch.ones_like(real)) - expected)[real].abs().max() > 0.01  # padding looked at


WRONG = {
    "model_type": "bert",
    "position_embedding_type": "relative_key",
    "is_decoder": True,
    "add_cross_attention": True,
    "hidden_act": "relu",
    "quantization_config": {"quant_method": "bitsandbytes"},
    "pruned_heads": {"0": [1]},
}


@pytest.mark.claim("roberta-model-type")
def test_a_bert_by_the_name_of_roberta_is_refused(folders, tmp_path):
    shutil.copytree(folders["untied"], tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text()) | {"model_type": "bert"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="model_type roberta is expected, given bert"):
        page.load_roberta(tmp_path)


@pytest.mark.parametrize("name", WRONG)
def test_settings_that_the_page_does_not_have_are_refused(name, folders):
    change = partial(rewritten, **{name: WRONG[name]})
    refused(page.load_roberta, folders["untied"], change, f"^{name} .* is expected, given .*$")


def test_folders_with_other_weights_are_refused(folders):
    name = "roberta.encoder.layer.1.output.dense.weight"
    refuses_other_weights(page.load_roberta, folders["untied"], folders["words"], name)


@torch.no_grad()
def test_old_buffers_and_half_precision_load(folders, tmp_path):
    shutil.copytree(folders["untied"], tmp_path, dirs_exist_ok=True)
    weights = {name: weight.half() for name, weight in load_file(tmp_path / "model.safetensors").items()}
    weights["roberta.embeddings.position_ids"] = torch.arange(13)[None]
    save_file(weights, tmp_path / "model.safetensors")
    ours, tokens = page.load_roberta(tmp_path)["bert"], batch("untied")[0]
    assert ours.token.weight.dtype == torch.float32
    assert (ours(tokens) - page.load_roberta(folders["untied"])["bert"](tokens)).abs().max() < 0.05


def test_settings_that_are_not_written_are_transformers_own(folders, tmp_path):
    """transformers leaves out what equals its defaults."""
    model = transformers.RobertaConfig()
    sizes = page.UNLESS_GIVEN
    assert (model.vocab_size, model.max_position_embeddings) == (sizes["vocabulary"], sizes["context"])
    assert (model.type_vocab_size, model.layer_norm_eps, model.pad_token_id) == (sizes["kinds"], sizes["eps"], 1)


# positions and padding


@pytest.mark.claim("roberta-inner-padding")
@pytest.mark.equation("roberta-positions", of=page.places)
def test_positions_count_real_tokens_from_the_padding_id_plus_one(formula):
    tokens = torch.tensor([[9, 8, 1, 7, 1, 1, 1], [5, 6, 7, 8, 9, 4, 3]])
    place = page.places(tokens, 1)
    real = (tokens != 1).long()
    for t in (3, 5, 7):  # padding in the first row, a real token in the second one
        names = {r"\pi_t": place[:, t - 1], "c": 1, "r_t": real[:, t - 1], "r_s": lambda s: real[:, s - 1]}
        formula("roberta-positions").holds(names | {"t": t})
    assert place.tolist() == [[2, 3, 1, 4, 1, 1, 1], [2, 3, 4, 5, 6, 7, 8]]  # the page's example is the first row


@pytest.mark.parametrize("pad", [0, 1, 5])
def test_positions_equal_transformers(pad):
    tokens = torch.randint(0, 9, (5, 7))
    theirs = transformers.models.roberta.modeling_roberta.RobertaEmbeddings.create_position_ids_from_input_ids
    expected = theirs(tokens, pad)
    assert page.places(tokens, pad).equal(expected)
    assert not (torch.arange(7).expand(5, -1) + pad + 1).equal(expected)  # an inner padding id does not count


@torch.no_grad()
def test_padding_changes_no_real_token():
    roberta = perturbed(page.Roberta(page.Config(41, 13, 24, 20, 2, 4, kinds=1))).double()
    tokens = torch.randint(4, 41, (5, 7))
    alone = roberta(tokens[1:2, :4])
    tokens[1, 4:] = 1
    assert (roberta(tokens)[1, :4] - alone[0]).abs().max() < 1e-12
    left = torch.cat([torch.full((1, 3), 1), tokens[1:2, :4]], dim=1)  # padding on the left changes nothing either
    assert (roberta(left)[0, 3:] - alone[0]).abs().max() < 1e-12
    everything = roberta(tokens, real=torch.ones(5, 7))  # negative control
    assert (everything[1, :4] - alone[0]).abs().max() > 0.01


@pytest.mark.claim("roberta-lengths")
def test_the_table_of_positions_ends_at_its_size_less_padding_id_less_one(folders):
    """The page's confusion: 514 rows, padding 1, 512 tokens. The last length runs, the next one does not."""
    assert page.Roberta(page.Config(41, 514, 24, 20, 1, 4)).longest == 512
    assert page.Roberta(page.Config(41, 514, 24, 20, 1, 4), pad=3).longest == 510
    ours = page.load_roberta(folders["words"])["bert"]
    assert ours.longest == 11
    ours(page.pad_rows([[5] * 11], ours))
    with pytest.raises(ValueError, match="rows of 1 to 11 tokens"):
        page.pad_rows([[5] * 12], ours)
    for model in (ours, THEIRS["words"]):
        with pytest.raises((IndexError, RuntimeError)):
            model(torch.full((1, 12), 5))


def test_rows_are_padded_and_checked():
    model = page.Roberta(page.Config(41, 13, 24, 20, 1, 4), pad=3)
    assert page.pad_rows([[5, 6, 7], [8]], model).tolist() == [[5, 6, 7], [8, 3, 3]]
    for rows in ([], [[]], [[5], []]):
        with pytest.raises(ValueError, match="rows of 1 to 9"):
            page.pad_rows(rows, model)
    for wrong in (41, -1):
        with pytest.raises(ValueError, match="ids from 0 to 40"):
            page.pad_rows([[5], [wrong]], model)


# choices


@pytest.mark.equation("roberta-among", of=page.among)
def test_chances_among_candidates_are_a_softmax_of_theirs(formula):
    logits, candidates = torch.randn(5, 41).double(), torch.tensor([3, 40, 7])
    chances = page.among(logits, candidates)
    names = {"P_w": chances[4, 2], r"\ell_w": logits[4, 7], "v": range(3)}
    formula("roberta-among").holds(names | {r"\ell_v": lambda v: logits[4, candidates[v]]})
    assert chances.sum(dim=1).allclose(torch.ones(5).double())


def test_base_has_the_parameters_that_the_page_says():
    """Of one layer, and of eleven more like it."""
    roberta = page.Roberta(dataclasses.replace(page.BASE, num_layers=1))
    layer = sum(p.numel() for p in roberta.layers.parameters())
    assert sum(p.numel() for p in roberta.parameters()) + 11 * layer == 124_055_040
    assert page.BASE.num_layers == 12 and page.BASE.context == 514
    assert page.BASE.kinds == 1 and (page.BASE.eps, page.Config.eps) == (1e-5, 1e-12)  # what differs from BERT


def test_the_network_exports():
    roberta = perturbed(page.Roberta(page.Config(41, 13, 24, 20, 2, 4)))
    sizes = {0: torch.export.Dim("texts", min=2), 1: torch.export.Dim("length", min=2, max=11)}
    tokens = torch.randint(41, (5, 7))
    program = torch.export.export(roberta, (tokens,), dynamic_shapes={"tokens": sizes}).module()
    fewer = torch.randint(41, (3, 9))
    assert (program(fewer) - roberta(fewer)).abs().max() < 1e-5
