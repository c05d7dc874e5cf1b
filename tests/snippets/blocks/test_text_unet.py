"""The U-Net that reads a text, and its parts, weight for weight, against diffusers."""

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.transformers.transformer_2d import Transformer2DModel

from snippets.blocks import text_unet as page
from tests.snippets.oracles import perturbed
from tests.snippets.stable_diffusion import their_unet

SIZES = [
    page.UNetConfig(4, (16, 24), (True, False), (2, 4), 20, 1, 4, False),
    page.UNetConfig(3, (8, 16, 24), (False, True, True), (2, 4, 3), 10, 2, 4, True),
    page.UNetConfig(5, (24,), (True,), (4,), 7, 3, 3, False),
]
FULL = {
    "1.5": page.UNetConfig(4, (320, 640, 1280, 1280), (True, True, True, False), (8,) * 4, 768, 2, 32),
    "2.1": page.UNetConfig(4, (320, 640, 1280, 1280), (True, True, True, False), (5, 10, 20, 20), 1024, 2, 32, True),
}


def pair(config):
    """Theirs with random weights, and ours with the same ones."""
    theirs, ours = perturbed(their_unet(config)), page.ConditionedUNet(config).eval()
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def inputs(config, height=8, width=12):
    """Latents, levels, of which one is a fraction, and texts of 7 words."""
    levels = torch.tensor([0, 1, 500.5, 7, 999])
    return torch.randn(5, config.channels, height, width), levels, torch.randn(5, 7, config.text_width)


@torch.no_grad()
@pytest.mark.equation("ldm-attention", of=page.CrossAttention)
def test_attention_is_its_formula(formula):
    """One head, whose queries, keys and values are made beforehand."""
    layer = perturbed(page.CrossAttention(6, 5, heads=1).double())
    pixels, text = torch.randn(1, 7, 6).double(), torch.randn(1, 4, 5).double()
    layer.to_out[0] = torch.nn.Identity()
    query, key, value = layer.to_q(pixels)[0], layer.to_k(text)[0], layer.to_v(text)[0]
    names = {"o": layer(pixels, text)[0, 3], "q": query[3], "k_j": lambda j: key[j], "v_j": lambda j: value[j]}
    formula("ldm-attention").holds(names | {"k_i": lambda i: key[i], "d": 6, "j": range(4), "i": range(4)})


@torch.no_grad()
@pytest.mark.equation("ldm-geglu", of=page.GEGLU)
def test_geglu_is_its_formula_and_has_the_value_first(formula):
    layer = perturbed(page.GEGLU(6, 5).double())
    x = torch.randn(3, 7, 6).double()
    value, gate = (F.linear(x, w, b) for w, b in zip(layer.proj.weight.split(5), layer.proj.bias.split(5), strict=True))
    formula("ldm-geglu").holds({"h": layer(x), "a": value, "g": gate, r"\operatorname{GELU}": F.gelu})
    assert (layer(x) - gate * F.gelu(value)).abs().max() > 0.01


@torch.no_grad()
@pytest.mark.parametrize("width, heads, text_width", [(24, 3, 10), (16, 4, 21)])
def test_transformer_block_equals_diffusers(width, heads, text_width, agrees):
    theirs = perturbed(BasicTransformerBlock(width, heads, width // heads, cross_attention_dim=text_width))
    ours = page.TransformerBlock(width, text_width, heads).eval()
    ours.load_state_dict(theirs.state_dict())
    x, text = torch.randn(5, 9, width), torch.randn(5, 6, text_width)
    wanted = theirs(x, encoder_hidden_states=text)
    agrees(ours(x, text), wanted, "diffusers.models.attention.BasicTransformerBlock", 1e-5)
    ours.ff.net[0].proj.weight.data = ours.ff.net[0].proj.weight.roll(4 * width, 0)  # the gate first
    ours.ff.net[0].proj.bias.data = ours.ff.net[0].proj.bias.roll(4 * width, 0)
    assert (ours(x, text) - wanted).abs().max() > 0.01
    assert (ours(x, text.flip(0)) - ours(x, text)).abs().max() > 0.01  # the text counts


@torch.no_grad()
@pytest.mark.parametrize("linear", [False, True])
def test_transformer_equals_diffusers(linear, agrees):
    sizes = {"in_channels": 24, "num_layers": 1, "cross_attention_dim": 10, "norm_num_groups": 4}
    theirs = perturbed(Transformer2DModel(3, 8, **sizes, use_linear_projection=linear))
    config = page.UNetConfig(4, (24,), (True,), (3,), 10, 1, 4, linear)
    ours = page.Transformer(24, 3, config).eval()
    ours.load_state_dict(theirs.state_dict())
    x, text = torch.randn(5, 24, 2, 7), torch.randn(5, 6, 10)
    wanted = theirs(x, encoder_hidden_states=text).sample
    agrees(ours(x, text), wanted, "diffusers.models.transformers.transformer_2d.Transformer2DModel", 1e-5)
    assert (ours(x, text) - x - wanted).abs().max() > 0.01


@torch.no_grad()
@pytest.mark.parametrize("height, width", [(8, 12), (13, 11)])
@pytest.mark.parametrize("config", SIZES, ids=str)
def test_it_equals_diffusers(config, height, width, agrees):
    theirs, ours = pair(config)
    x, t, text = inputs(config, height, width)
    wanted, found = theirs(x, t, text).sample, ours(x, t, text)
    scale = found.abs().max().item()
    agrees(found / scale, wanted / scale, "diffusers.UNet2DConditionModel", 1e-5)


@torch.no_grad()
@pytest.mark.parametrize(
    "change",
    [
        lambda ours: setattr(ours.mid_block.attentions[0].transformer_blocks[0].attn2, "heads", 3),
        lambda ours: setattr(ours.mid_block.attentions[0].norm, "eps", 10.0),
        lambda ours: setattr(ours.conv_norm_out, "eps", 10.0),
        lambda ours: setattr(ours.time_embedding, "forward", super(page.LevelEmbedding, ours.time_embedding).forward),
        lambda ours: ours.mid_block.attentions[0].proj_in.bias.data.add_(0.5),
    ],
    ids=["heads", "norm", "out", "sines first", "bias"],
)
def test_a_wrong_one_does_not(change):
    theirs, ours = pair(SIZES[0])
    change(ours)
    x, t, text = inputs(SIZES[0])
    wanted = theirs(x, t, text).sample
    assert (ours(x, t, text) - wanted).abs().max() / wanted.abs().max() > 1e-4


@pytest.mark.claim("ldm-parameters")
@pytest.mark.parametrize("version", FULL)
def test_names_and_shapes_are_those_of_stable_diffusion(version):
    with torch.device("meta"):
        theirs, ours = their_unet(FULL[version]).state_dict(), page.ConditionedUNet(FULL[version]).state_dict()
        other = page.ConditionedUNet(FULL["2.1" if version == "1.5" else "1.5"]).state_dict()
    shapes = {name: weight.shape for name, weight in theirs.items()}
    assert {name: weight.shape for name, weight in ours.items()} == shapes and len(shapes) == 686
    assert {name: weight.shape for name, weight in other.items()} != shapes
    count = {"1.5": 859_520_964, "2.1": 865_910_724}[version]
    assert sum(weight.numel() for weight in ours.values()) == count


@pytest.mark.claim("ldm-heads")
def test_the_librarys_attention_head_dim_counts_heads():
    """And where it does not divide the width, the library rounds without a word; ours refuses."""
    heads = [part.heads for name, part in their_unet(SIZES[0]).named_modules() if name.endswith("attn2")]
    assert heads == [2, 2, 2, 4]  # the level down, twice the level up, and the middle
    strange = their_unet(page.UNetConfig(4, (20,), (True,), (4,), 10, 1, 4), attention_head_dim=3)
    assert strange.mid_block.attentions[0].transformer_blocks[0].attn1.to_q.out_features == 18  # not 20
    with pytest.raises(ValueError, match="divisible by their heads"):
        page.UNetConfig(4, (20,), (True,), (3,), 10, 1, 4)


@pytest.mark.claim("ldm-eps-1e-5")
def test_the_normalisations_of_the_librarys_u_net():
    """1e-5, but in the transformers' first one."""

    def found(model):
        kinds = torch.nn.GroupNorm, torch.nn.LayerNorm
        return sorted((name, part.eps) for name, part in model.named_modules() if isinstance(part, kinds))

    theirs = found(their_unet(SIZES[1]))
    assert {eps for name, eps in theirs if name.endswith("attentions.0.norm")} == {1e-6}
    assert {eps for name, eps in theirs if not name.split(".")[-1] == "norm"} == {1e-5}
    assert theirs == found(page.ConditionedUNet(SIZES[1]))


@torch.no_grad()
@pytest.mark.claim("ldm-pads")
def test_every_word_is_looked_at_the_padding_too():
    _, ours = pair(SIZES[0])
    x, t, text = inputs(SIZES[0])
    other = text.clone()
    other[:, -1] += 1  # as if the last token were padding
    assert (ours(x, t, other) - ours(x, t, text)).abs().amax(dim=(1, 2, 3)).min() > 1e-4


small = SIZES[0]


@pytest.mark.parametrize(
    "call, given",
    [
        (lambda: page.UNetConfig(widths=(16, 32), heads=(4,)), r"for each level.*\(16, 32\)"),
        (lambda: page.UNetConfig(widths=(16, 20), groups=8), r"the groups.*\(16, 20\)"),
        (lambda: page.ConditionedUNet(small)(torch.zeros(5, 3, 8, 6), torch.zeros(5), torch.zeros(5, 7, 20)), "4, H"),
        (lambda: page.ConditionedUNet(small)(torch.zeros(5, 4, 8, 6), torch.zeros(4), torch.zeros(5, 7, 20)), r"t \("),
        (lambda: page.ConditionedUNet(small)(torch.zeros(5, 4, 8, 6), torch.zeros(5), torch.zeros(5, 7, 19)), "L, 20"),
        (lambda: page.ConditionedUNet(small)(torch.zeros(5, 4, 8, 6), torch.zeros(5), torch.zeros(1, 7, 20)), "of 5"),
    ],
)
def test_wrong_input_is_refused(call, given):
    with pytest.raises(ValueError, match=given):
        call()
