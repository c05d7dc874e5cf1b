"""The transformer that denoises, weight for weight, against diffusers."""

import inspect
import json

import pytest
import torch
import torch.nn.functional as F
from diffusers import DiTTransformer2DModel
from diffusers.models.embeddings import get_2d_sincos_pos_embed
from safetensors.torch import load_file, save_file
from torch import nn

from snippets.blocks import dit as page
from snippets.cfg import ClassEncoder
from tests.snippets.oracles import perturbed

SIZES = [
    {"in_channels": 3, "sample_size": 8, "patch_size": 2, "num_attention_heads": 3, "attention_head_dim": 8},
    {"in_channels": 4, "sample_size": 6, "patch_size": 1, "num_attention_heads": 2, "attention_head_dim": 10},
    {"in_channels": 5, "sample_size": 9, "patch_size": 3, "num_attention_heads": 4, "attention_head_dim": 5},
]
MORE = [
    {"num_layers": 2, "num_embeds_ada_norm": 7},
    {"num_layers": 3, "num_embeds_ada_norm": 9, "out_channels": 8, "norm_eps": 1e-6},
    {"num_layers": 1, "num_embeds_ada_norm": 6, "norm_eps": 1e-3},
]
CONFIG = page.DiTConfig(3, 8, 2, 24, 2, 3, 16)


def theirs_of(sizes, folder=None):
    """The library's network with random weights, whose blocks share the embeddings of time and class."""
    theirs = perturbed(DiTTransformer2DModel(**sizes))
    for block in theirs.transformer_blocks[1:]:
        block.norm1.emb.load_state_dict(theirs.transformer_blocks[0].norm1.emb.state_dict())
    if folder:
        theirs.save_pretrained(folder)
    return theirs


def inputs(sizes, count=5):
    side = sizes["sample_size"]
    classes = torch.arange(count) % (sizes["num_embeds_ada_norm"] + 1)  # the last one is the empty class
    return torch.randn(count, sizes["in_channels"], side, side), torch.tensor([0, 999, 500, 7, 31])[:count], classes


@torch.no_grad()
@pytest.mark.parametrize("case", range(3))
def test_network_equals_diffusers(case, tmp_path, agrees):
    sizes = SIZES[case] | MORE[case]
    theirs = theirs_of(sizes, tmp_path)
    ours = page.load_dit(tmp_path)
    x, t, classes = inputs(sizes)
    wanted = theirs(x, timestep=t, class_labels=classes).sample
    agrees(ours(x, t, classes), wanted, "diffusers.DiTTransformer2DModel", 1e-5)
    assert wanted.std() > 0.1 and ours(x, t, classes).shape[1] == sizes.get("out_channels", sizes["in_channels"])
    others = ours(x.flip(3), t, classes), ours(x, t.flip(0), classes), ours(x, t, classes.flip(0))
    assert all((other - wanted).abs().max() > 1e-2 for other in others)
    ours.position = ours.position.roll(1, 0)
    assert (ours(x, t, classes) - wanted).abs().max() > 1e-3


@pytest.mark.claim("tti-dit-eps")
def test_the_librarys_second_norm_has_another_eps(tmp_path):
    """1e-5 unless it is set, where the other norms have 1e-6."""
    theirs = theirs_of(SIZES[0] | MORE[0], tmp_path)
    block = theirs.transformer_blocks[0]
    assert (block.norm1.norm.eps, block.norm3.eps, theirs.norm_out.eps) == (1e-6, 1e-5, 1e-6)
    assert page.load_dit(tmp_path).blocks[0].eps == 1e-5


@torch.no_grad()
def test_positions_are_the_librarys(agrees):
    for side, width in ((5, 24), (4, 8)):
        theirs = get_2d_sincos_pos_embed(width, side, base_size=side, output_type="pt").float()
        agrees(page.grid_positions(side, width), theirs, "diffusers.models.embeddings.get_2d_sincos_pos_embed", 1e-6)
        flipped = page.grid_positions(side, width).unflatten(0, (side, side)).transpose(0, 1).flatten(0, 1)
        assert (flipped - theirs).abs().max() > 0.1  # rows and columns are not alike


@torch.no_grad()
def test_a_block_is_the_identity_at_first_and_the_answer_is_0():
    network = page.DiT(CONFIG, ClassEncoder(5, 24))
    x, told = torch.randn(2, 16, 24), torch.randn(2, 24)
    assert torch.equal(network.blocks[1](x, told), x)
    answer = network(torch.randn(2, 3, 8, 8), torch.tensor([3, 700]), torch.tensor([1, 4]))
    assert torch.equal(answer, torch.zeros(2, 3, 8, 8))
    assert (perturbed(network).blocks[1](x, told) - x).abs().max() > 0.1


def test_at_first_only_gates_and_the_last_layer_learn():
    """Gates are 0, and the last layer too: nothing before it gets a gradient. Then the gates, then the rest."""
    torch.manual_seed(0)
    network = page.DiT(CONFIG, ClassEncoder(5, 24))
    optimizer, moved = torch.optim.SGD(network.parameters(), 0.1), []
    for _ in range(4):
        optimizer.zero_grad()
        x = torch.randn(6, 3, 8, 8)
        F.mse_loss(network(x, torch.arange(6) * 100, torch.arange(6) % 5), torch.randn(6, 3, 8, 8)).backward()
        moved.append({name for name, p in network.named_parameters() if p.grad is not None and p.grad.any()})
        optimizer.step()
    assert moved[0] == {"out.weight", "out.bias"}
    assert "blocks.0.condition.weight" in moved[1] and "blocks.0.to_out.weight" not in moved[1]
    assert "blocks.0.to_out.weight" in moved[2] and "blocks.0.up.weight" in moved[2]


@torch.no_grad()
@pytest.mark.equation("tti-adaln", of=page.modulate)
def test_modulation_is_its_formula(formula):
    x, shift, scale = torch.randn(3, 7, 10).double(), *torch.randn(2, 3, 1, 10).double()
    names = {"h": page.modulate(x, shift, scale), "x": x, r"\beta": shift, r"\gamma": scale}
    formula("tti-adaln").holds(names | {r"\operatorname{LN}": lambda x: nn.LayerNorm(10, 1e-6).double()(x)})


@torch.no_grad()
@pytest.mark.equation("tti-gate", of=page.DiTBlock)
def test_a_block_adds_what_its_gates_let_through(formula):
    """Of a block whose second half is shut."""
    block = perturbed(page.DiTBlock(24, 3, 1e-6).double())
    block.down.weight.zero_(), block.down.bias.zero_()
    x, told = torch.randn(2, 7, 24).double(), torch.randn(2, 24).double()
    shift, scale, gate = block.condition(F.silu(told))[:, None].chunk(6, dim=2)[:3]

    def attention(h):
        query, key, value = (
            to(h).view(2, 7, 3, 8).transpose(1, 2) for to in (block.to_query, block.to_key, block.to_value)
        )
        mixed = (query @ key.transpose(2, 3) / 8**0.5).softmax(dim=3) @ value
        return block.to_out(mixed.transpose(1, 2).reshape(2, 7, 24))

    names = {"x'": block(x, told), "x": x, r"\alpha": gate, "f": attention}
    formula("tti-gate").holds(names | {"h": page.modulate(x, shift, scale)})


def test_pictures_do_not_see_each_other_and_wrong_ones_are_refused():
    network = perturbed(page.DiT(CONFIG, ClassEncoder(5, 24)))
    x, t, classes = torch.randn(4, 3, 8, 8), torch.tensor([3, 700, 20, 9]), torch.tensor([1, 4, 0, 5])
    alone = network(x[2:3], t[2:3], classes[2:3])
    torch.testing.assert_close(network(x, t, classes)[2:3], alone, rtol=1e-4, atol=1e-5)
    for wrong in ((x[:, :2], t, classes), (x, t[:2], classes), (x[..., :6], t, classes), (x, t, classes[:3])):
        with pytest.raises(ValueError, match=r"x \(B, \*\(3, 8, 8\)\), t and condition for each are expected, given"):
            network(*wrong)
    for sizes in ((3, 8, 3, 24, 2, 3), (3, 8, 2, 26, 2, 2), (3, 8, 2, 24, 2, 5)):
        with pytest.raises(ValueError, match="patches that fill the side, and a width"):
            page.DiTConfig(*sizes)


def changed(folder, **settings):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def test_folders_with_other_networks_are_refused(tmp_path):
    theirs_of(SIZES[0] | MORE[0], tmp_path)
    page.load_dit(tmp_path)
    changed(tmp_path, activation_fn="geglu")
    with pytest.raises(ValueError, match="activation_fn gelu-approximate is expected, given 'geglu'"):
        page.load_dit(tmp_path)
    changed(tmp_path, activation_fn="gelu-approximate")
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights["transformer_blocks.1.norm1.emb.timestep_embedder.linear_1.weight"][0] += 1
    save_file(weights, path)
    with pytest.raises(ValueError, match="one embedding for all blocks is expected, given another one in"):
        page.load_dit(tmp_path)


def test_a_folder_that_is_silent_has_the_librarys_sizes(tmp_path):

    given = {name: p.default for name, p in inspect.signature(DiTTransformer2DModel.__init__).parameters.items()}
    assert {name: given[name] for name in page.DIT_SIZES} == page.DIT_SIZES
    assert all(given[name] == value for name, value in page.DIT_PLAIN.items() if name in given)
