"""T5: logits, losses and buckets against transformers, padding, half precision, formulas, export."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from transformers import T5Config, T5ForConditionalGeneration
from transformers.models.t5.modeling_t5 import T5Attention

from snippets.llm import t5 as page
from snippets.llm.t5_folders import load_t5
from tests.formula import Matrix
from tests.snippets.llm.t5_models import KINDS, THEIRS, WIDTHS
from tests.snippets.oracles import perturbed

ATTENTION = "transformers.models.t5.modeling_t5.T5Attention"
LIBRARY = "transformers.T5ForConditionalGeneration"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    paths = {kind: tmp_path_factory.mktemp(kind) for kind in KINDS}
    for kind, path in paths.items():
        THEIRS[kind].save_pretrained(path)
    return paths


@pytest.fixture
def batch():
    """Five sources of 7 tokens, the second and fourth padded; targets of 6, the third padded."""
    source, target = torch.randint(2, 41, (5, 7)), torch.randint(2, 41, (5, 6))
    real = torch.arange(7) < torch.tensor([7, 4, 7, 1, 6])[:, None]
    target = target.masked_fill(torch.arange(6) >= torch.tensor([6, 6, 3, 6, 5])[:, None], -100)
    return {"source": source.masked_fill(~real, 0), "real": real, "target": target}


def theirs(model, batch, **others):
    given = {"input_ids": batch["source"], "attention_mask": batch["real"].long(), "labels": batch["target"]}
    return model(**(given | others))


def small(**others):
    """A small T5 in float64, every weight moved; its sizes all differ."""
    sizes = {"vocabulary": 41, "width": 24, "head_width": 5, "hidden": 20, "num_layers": 2, "decoder_layers": 3}
    sizes |= {"num_heads": 3, "buckets": 8, "max_distance": 20, "gated": True, "tied": False, "scaled": False}
    torch.manual_seed(1)
    return perturbed(page.T5(page.Config(**(sizes | others)))).double()


# logits and losses


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_logits_and_loss_equal_transformers(kind, folders, batch, agrees):
    ours, library_model = (
        load_t5(folders[kind]).double(),
        copy.deepcopy(THEIRS[kind]).double(),
    )  # float32 rounds at 1e-5
    written = page.shift_right(batch["target"], ours.config)
    expected = theirs(library_model, batch)
    logits = ours(batch["source"], written, batch["real"])
    library = "transformers.MT5ForConditionalGeneration" if kind == "mt5" else LIBRARY
    agrees(logits, expected.logits, library)
    agrees(page.loss(ours, **batch), expected.loss, library)
    alone = library_model(input_ids=batch["source"][:1], decoder_input_ids=written[:1]).logits
    agrees(ours(batch["source"][:1], written[:1]), alone, library)


@torch.no_grad()
@pytest.mark.claim("encdec-exchanged")
def test_wrong_t5s_are_rejected(folders, batch, monkeypatch):
    """Divided scores, exact GELU, GELU on the other matrix, the future seen, the other scale, a mean subtracted."""
    expected = theirs(THEIRS["v1.1"], batch).logits
    ours = load_t5(folders["v1.1"])
    written = page.shift_right(batch["target"], ours.config)

    def error(model):
        return (model(batch["source"], written, batch["real"]) - expected).abs().max().item()

    assert error(ours) < 1e-5
    attention, gelu = F.scaled_dot_product_attention, F.gelu
    with monkeypatch.context() as patch:
        patch.setattr(F, "scaled_dot_product_attention", lambda *given, scale: attention(*given))
        assert error(ours) > 0.01
    with monkeypatch.context() as patch:
        patch.setattr(F, "gelu", lambda x, approximate: gelu(x))
        assert 1e-5 < error(ours)
    exchanged = copy.deepcopy(ours)
    for name, part in exchanged.named_modules():
        if name.endswith("mlp"):
            part.gate, part.up = part.up, part.gate
    assert error(exchanged) > 0.01
    both = copy.deepcopy(ours)
    both.decoder.bias.causal = False  # the future seen
    assert error(both) > 0.01
    scaled = copy.deepcopy(ours)
    scaled.config = page.Config(**(vars(ours.config) | {"scaled": True}))
    assert error(scaled) > 0.01
    with monkeypatch.context() as patch:
        norm = page.RMSNorm.forward
        patch.setattr(page.RMSNorm, "forward", lambda self, x: norm(self, x - x.mean(dim=-1, keepdim=True)))
        assert error(ours) > 0.01


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("buckets", "furthest"), [(32, 128), (8, 20), (10, 40), (7, 19)])
def test_buckets_equal_transformers(buckets, furthest, causal, agrees):
    offset = torch.arange(-300, 301)[None]
    expected = T5Attention._relative_position_bucket(offset, not causal, buckets, furthest)
    agrees(
        page.bucket(offset, buckets, furthest, causal).float(),
        expected.float(),
        "transformers.models.t5.modeling_t5.T5Attention",
        0,
    )
    other = page.bucket(-offset, buckets, furthest, causal)  # negative control: query minus key
    assert not other.equal(expected)


@torch.no_grad()
def test_the_bias_of_some_places_is_a_part_of_the_whole():
    for stack in (small().encoder, small().decoder):
        place = torch.arange(11)
        whole = stack.bias(place, place)
        assert stack.bias(place[4:6], place[:9]).equal(whole[:, 4:6, :9])
        hidden = whole[:, 4, 5:].isinf()
        assert hidden.all() if stack.bias.causal else not hidden.any()


def test_buckets_end_where_the_page_says():
    distance = torch.arange(200)
    near = page.bucket(-distance[None], 32, 128, True)[0]
    assert near[:16].equal(torch.arange(16)) and near[16] == 16 and near[18] == 16 and near[19] == 17
    assert (near[113:] == 31).all() and near[112] == 30
    both = page.bucket(torch.stack([-distance, distance]), 32, 128, False)
    assert both[:, :8].tolist() == [[*range(8)], [0, *range(17, 24)]]
    assert (both[0, 91:] == 15).all() and both[0, 90] == 14


# training


def test_shift_right_is_what_the_library_reads(folders, batch):
    target = batch["target"]
    expected = THEIRS["v1.0"]._shift_right(target)
    assert page.shift_right(target, page.Config(vocabulary=41)).equal(expected)
    other = page.shift_right(target, page.Config(vocabulary=41, pad=3, start=7))
    assert (other[:, 0] == 7).all() and other[2].tolist() == [7, *target[2, :3].tolist(), 3, 3]


def test_collate_pads_and_refuses():
    config = page.Config(vocabulary=41, pad=3)
    batch = page.collate([[5, 6, 7], [8]], [[9], [10, 1]], config)
    assert batch["source"].tolist() == [[5, 6, 7], [8, 3, 3]]
    assert batch["real"].tolist() == [[True] * 3, [True, False, False]]
    assert batch["target"].tolist() == [[9, -100], [10, 1]]
    for sources in ([[5], []], [[5], [41]], [[-1], [5]]):
        with pytest.raises(ValueError, match="rows of one token or more, from 0 to 40, are expected, given"):
            page.collate(sources, [[9], [9]], config)
    with pytest.raises(ValueError, match="rows of one token or more"):
        page.collate([], [], config)
    with pytest.raises(ValueError, match="a target for each source is expected, given 1 for 2"):
        page.collate([[5], [6]], [[9]], config)


@torch.no_grad()
def test_padding_changes_no_real_position(batch):
    model = small()
    written = page.shift_right(batch["target"], model.config)
    padded = model(batch["source"], written, batch["real"])
    alone = model(batch["source"][1:2, :4], written[1:2])
    assert (padded[1] - alone[0]).abs().max() < 1e-12
    other = batch["source"].masked_fill(~batch["real"], 7)
    assert model(other, written, batch["real"]).equal(padded)
    assert model(other, written, batch["real"].long()).equal(padded)
    filled = written.clone()
    filled[2, 4:] = 11  # what stands behind the end of a target
    assert (model(batch["source"], filled, batch["real"])[2, :4] - padded[2, :4]).abs().max() < 1e-12
    assert (model(other, written) - padded)[1].abs().max() > 0.01  # negative control: without the mask


@torch.no_grad()
def test_the_decoder_sees_no_future():
    model, source, written = small(), torch.randint(2, 41, (5, 7)), torch.randint(2, 41, (5, 6))
    before = model(source, written)
    written[:, 4] = (written[:, 4] + 1) % 41
    after = model(source, written)
    assert (after - before)[:, :4].abs().max() < 1e-12 and (after - before)[:, 4:].abs().min() > 0
    source[:, 6] = (source[:, 6] + 1) % 41  # the source is seen from everywhere
    assert (model(source, written) - after).abs().amax(dim=-1).min() > 1e-6


@pytest.mark.parametrize("dropout", [0.0, 0.6])
def test_dropout_is_for_training_only(dropout):
    model = small(dropout=dropout)
    source, written = torch.randint(41, (5, 7)), torch.randint(41, (5, 6))
    assert model(source, written).equal(model(source, written))
    model.train()
    assert model(source, written).equal(model(source, written)) == (dropout == 0)


def test_first_weights_are_the_librarys():
    """As the library's, but for the head of an untied model, which the library ties."""
    torch.manual_seed(0)
    sizes = {"width": 64, "head_width": 32, "hidden": 96, "num_layers": 2, "decoder_layers": 2, "num_heads": 6}
    ours = page.T5(page.Config(vocabulary=500, gated=True, **sizes))
    given = {"vocab_size": 500, "d_model": 64, "d_kv": 32, "d_ff": 96, "num_layers": 2, "num_heads": 6}
    other = T5ForConditionalGeneration(T5Config(**given, feed_forward_proj="gated-gelu"))
    names = {"encoder.layers.1.attention.to_query": "encoder.block.1.layer.0.SelfAttention.q"}
    names |= {"decoder.layers.1.cross.to_key": "decoder.block.1.layer.1.EncDecAttention.k"}
    names |= {"decoder.layers.1.cross.to_value": "decoder.block.1.layer.1.EncDecAttention.v"}
    names |= {"decoder.layers.1.cross.to_out": "decoder.block.1.layer.1.EncDecAttention.o"}
    names |= {"decoder.layers.0.mlp.gate": "decoder.block.0.layer.2.DenseReluDense.wi_0"}
    names |= {"encoder.layers.0.mlp.up": "encoder.block.0.layer.1.DenseReluDense.wi_1"}
    names |= {"encoder.layers.0.mlp.down": "encoder.block.0.layer.1.DenseReluDense.wo"}
    names |= {"token": "shared", "encoder.bias.table": "encoder.block.0.layer.0.SelfAttention.relative_attention_bias"}
    for mine, name in names.items():
        std = other.get_submodule(name).weight.std().item()
        assert ours.get_submodule(mine).weight.std().item() == pytest.approx(std, rel=0.15), mine
    assert ours.head.weight is ours.token.weight
    untied = page.T5(page.Config(vocabulary=500, tied=False, **sizes))
    assert untied.head.weight.std().item() == pytest.approx(64**-0.5, rel=0.05)


def test_sizes_that_do_not_work_are_refused():
    for sizes in ((3, 20), (8, 4)):
        with pytest.raises(ValueError, match="4 buckets or more"):
            page.Config(buckets=sizes[0], max_distance=sizes[1])


# half precision


def overflowing(folder):
    """A model of v1.0 whose MLPs give more than float16 holds, 65,504, and the same model of the library."""
    ours, other = load_t5(folder), copy.deepcopy(THEIRS["v1.0"])
    for model, part in ((ours, "mlp.down"), (other, "DenseReluDense.wo")):
        for name, module in model.named_modules():
            if name.endswith(part):
                module.weight.data *= 3e4
    return ours, other


@torch.no_grad()
@pytest.mark.claim("encdec-half")
def test_half_precision_overflows_and_is_mended(folders, batch, tmp_path, agrees):
    ours, other = overflowing(folders["v1.0"])
    batch["real"][:] = True  # a row of padding alone cannot be compared
    written = page.shift_right(batch["target"], ours.config)
    right = ours(batch["source"], written)
    assert right.isfinite().all()
    assert not copy.deepcopy(ours).half()(batch["source"], written).isfinite().all()
    mended = page.halve(copy.deepcopy(ours))
    kinds = {name: weight.dtype for name, weight in mended.named_parameters()}
    assert all((kind == torch.float32) == name.endswith("mlp.down.weight") for name, kind in kinds.items())
    logits = mended(batch["source"], written).float()
    assert (logits - right).abs().max() < 0.02 * right.abs().max()
    other.save_pretrained(tmp_path)
    loaded = T5ForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.float16).eval()
    wo = loaded.decoder.block[1].layer[2].DenseReluDense.wo.weight.dtype
    assert wo == torch.float32 and loaded.shared.weight.dtype == torch.float16
    agrees(logits, loaded(input_ids=batch["source"], decoder_input_ids=written).logits.float(), LIBRARY, 0.05)
    clamped = other.half()(input_ids=batch["source"], decoder_input_ids=written).logits.float()
    assert clamped.isfinite().all()  # infinite numbers become 64,504 there
    assert (clamped - right).abs().max() > 3 * (logits - right).abs().max()


# formulas


@torch.no_grad()
@pytest.mark.equation("encdec-norm", of=page.RMSNorm)
def test_the_norm_is_its_formula(formula):
    model, x = small(), torch.randn(5, 7, 24).double()
    norm = model.encoder.norm
    names = {"N(x)": norm(x)[3, 4], "g": norm.gain, "x": x[3, 4], "W": 24, r"\varepsilon": 1e-6}
    names |= {"x_i": lambda i: x[3, 4, i], "i": range(24)}
    formula("encdec-norm").holds(names)


@torch.no_grad()
@pytest.mark.equation("encdec-attention", of=page.Attention)
def test_attention_is_a_softmax_of_undivided_scores(formula):
    attention = small(width=15).encoder.layers[1].attention  # three heads of five features
    attention.to_out.weight.copy_(torch.eye(15))
    x, bias = torch.randn(5, 7, 15).double(), torch.randn(1, 3, 7, 7).double()
    key, value = attention.read(x)
    ours = attention(x, key, value, bias)
    q, k, v = page.heads(attention.to_query(x), 3)[3, 2, 6], key[3, 2], value[3, 2]
    names = {"o_t": ours[3, 6, 10:15], "q_t": q, "k_s": lambda s: k[s], "k_r": lambda r: k[r], "v_s": lambda s: v[s]}
    names |= {"b_{t,s}": lambda s: bias[0, 2, 6, s], "b_{t,r}": lambda r: bias[0, 2, 6, r]}
    formula("encdec-attention").holds(names | {"s": range(7), "r": range(7)})


@pytest.mark.equation("encdec-bucket", of=page.bucket)
def test_buckets_of_far_distances_are_their_formula(formula):
    for distance in (23, 40, 90):
        ours = page.bucket(torch.tensor([[-distance]]), 32, 128, True).item()
        formula("encdec-bucket").holds({"c": ours, "d": distance, "E": 16, "M": 128})
    for distance in (3, 5, 9):
        ours = page.bucket(torch.tensor([[distance]]), 8, 20, False).item() - 4
        formula("encdec-bucket").holds({"c": ours, "d": distance, "E": 2, "M": 20})


@torch.no_grad()
@pytest.mark.equation("encdec-gate", of=page.Mlp)
def test_the_gated_mlp_is_its_formula(formula):
    mlp, x = small().decoder.layers[1].mlp, torch.randn(5, 7, 24).double()
    names = {"G(x)": mlp(x)[3, 4], "x": x[3, 4], "P": Matrix(mlp.down.weight), "U": Matrix(mlp.up.weight)}
    names |= {"R": Matrix(mlp.gate.weight), r"\phi": lambda z: F.gelu(z, approximate="tanh")}
    formula("encdec-gate").holds(names)


@pytest.mark.equation("encdec-loss", of=page.loss)
def test_the_loss_is_a_mean_over_real_tokens(formula, batch):
    model = small()
    written = page.shift_right(batch["target"], model.config)
    p = model(batch["source"], written, batch["real"]).softmax(dim=-1)
    row, place = (batch["target"] != -100).nonzero(as_tuple=True)
    p = p[row, place, batch["target"][row, place]]
    names = {r"\mathcal{L}": page.loss(model, **batch), "m": len(p), "p_n": lambda n: p[n], "n": range(len(p))}
    formula("encdec-loss").holds(names)


@torch.no_grad()
def test_maps_are_those_of_transformers(folders, batch, agrees):
    eager = T5ForConditionalGeneration.from_pretrained(folders["v1.0"], attn_implementation="eager").eval()
    written = page.shift_right(batch["target"], page.Config())
    given = {"input_ids": batch["source"], "decoder_input_ids": written}
    expected = eager(**given, output_attentions=True).cross_attentions
    ours = page.cross_maps(load_t5(folders["v1.0"]), batch["source"], written)
    assert len(ours) == len(expected) == 3
    for mine, other in zip(ours, expected, strict=True):
        agrees(mine, other, LIBRARY)
        assert (mine[:, [1, 0, 2]] - other).abs().max() > 0.01  # heads exchanged


def test_parameters_of_real_sizes():
    """Counted without making them."""
    with torch.device("meta"):
        model = page.T5(page.Config())
        assert sum(p.numel() for p in model.parameters()) == 60_506_624
        v11 = page.Config(head_width=64, hidden=1024, num_layers=8, decoder_layers=8, num_heads=6)
        v11 = page.T5(page.Config(**(vars(v11) | {"gated": True, "tied": False, "scaled": False})))
        assert sum(p.numel() for p in v11.parameters()) == 76_961_152


def test_the_network_exports():
    model = perturbed(page.T5(page.Config(41, 24, 5, 20, 2, 2, 3, gated=True)))
    source, written = torch.randint(41, (5, 7)), torch.randint(41, (5, 6))
    real = torch.ones(5, 7, dtype=torch.bool)
    texts, length = torch.export.Dim("texts", min=2), torch.export.Dim("length", min=4)
    one, other = {0: texts, 1: length}, {0: texts, 1: torch.export.Dim("new", min=4)}
    program = torch.export.export(model, (source, written, real), dynamic_shapes=(one, other, one)).module()
    fewer, new = torch.randint(41, (3, 9)), torch.randint(41, (3, 4))
    real = torch.arange(9) < torch.tensor([9, 4, 6])[:, None]
    assert (program(fewer, new, real) - model(fewer, new, real)).abs().max() < 1e-5


def test_widths_of_the_oracles_differ():
    assert all(
        math.prod(sizes[name] for name in ("num_heads", "d_kv")) != sizes["d_model"] for sizes in WIDTHS.values()
    )


@torch.no_grad()
@pytest.mark.claim("encdec-by-hand")
def test_numbers_by_hand():
    """The table of the page: each number as printed there, to its last digit."""
    norm = page.RMSNorm(page.Config(width=2, eps=1e-12))
    assert norm(torch.tensor([3.0, 4.0])).tolist() == pytest.approx([0.8485, 1.1314], abs=6e-5)
    assert page.bucket(torch.tensor([[-40]]), 32, 128, True).item() == 23
    assert 16 * math.log(2.5) / math.log(8) == pytest.approx(7.0503, abs=6e-5)
    assert page.bucket(torch.tensor([[40]]), 32, 128, False).item() == 28
    assert 8 * math.log(5) / math.log(16) == pytest.approx(4.6439, abs=1.1e-3)
    attention = page.Attention(page.Config(width=1, head_width=1, num_heads=1)).eval()
    for layer in (attention.to_query, attention.to_out):
        layer.weight.fill_(1.0)
    key, value = torch.tensor([2.0, 0.0]).view(1, 1, 2, 1), torch.tensor([1.0, 3.0]).view(1, 1, 2, 1)
    mixed = attention(torch.ones(1, 1, 1), key, value, torch.tensor([[-1.0, 0.0]]))
    assert mixed.item() == pytest.approx(1.5379, abs=6e-5)
    mlp = page.Mlp(page.Config(width=1, hidden=1, gated=True)).eval()
    for layer, weight in ((mlp.gate, 1.0), (mlp.up, 2.0), (mlp.down, 3.0)):
        layer.weight.fill_(weight)
    assert mlp(torch.ones(1)).item() == pytest.approx(5.0472, abs=2e-4)
    target = torch.tensor([[7, 9, 1], [5, 1, -100]])
    assert page.shift_right(target, page.Config()).tolist() == [[0, 7, 9], [0, 5, 1]]
    logits = torch.tensor([[0.5, 0.25, 0.1]]).log()
    costs = F.cross_entropy(torch.stack([logits, (1 - logits.exp()).log()], dim=-1)[0], torch.tensor([0, 0, -100]))
    assert costs.item() == pytest.approx(1.0397, abs=6e-5)


@pytest.mark.claim("encdec-buckets")
def test_one_table_for_all_layers_and_none_for_cross_attention():
    """Here and in the library: which parts own a table of distances."""
    ours = [name for name, _ in small().named_parameters() if "table" in name]
    assert ours == ["encoder.bias.table.weight", "decoder.bias.table.weight"]
    theirs = [name for name, _ in THEIRS["v1.0"].named_parameters() if "relative_attention_bias" in name]
    assert theirs == [
        f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight" for side in ("encoder", "decoder")
    ]
    dropped = THEIRS["v1.0"]._keys_to_ignore_on_load_unexpected
    assert list(dropped) == ["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"]
    distance = torch.arange(130)
    found = page.bucket(-distance[None], 32, 128, True)[0].tolist()
    ends = {17: (19, 20), 18: (21, 23), 19: (24, 26), 30: (99, 112), 31: (113, 129), 16: (16, 18)}
    for which, (first, last) in ends.items():
        assert [d for d, c in enumerate(found) if c == which] == list(range(first, last + 1))
