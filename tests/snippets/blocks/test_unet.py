"""The U-Net and its parts, weight for weight, against diffusers."""

import pytest
import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.models.resnet import ResnetBlock2D

from snippets.blocks import unet
from tests.snippets.oracles import diffusers_unet, perturbed


@pytest.mark.equation("ddpm-time", of=unet.timestep_embedding)
def test_timestep_embedding_is_its_formula(formula):
    t, i = torch.tensor([0, 1, 7, 50]), torch.arange(5)
    omega = 10 ** (-4 * i.double() / 4)
    waves = {
        r"\sin \omega_0 t, \dots, \sin \omega_{D/2-1} t": (t[:, None] * omega).sin(),
        r"\cos \omega_0 t, \dots, \cos \omega_{D/2-1} t": (t[:, None] * omega).cos(),
    }
    names = {r"\mathrm{emb}(t)": unet.timestep_embedding(t, 10), r"\omega_i": omega, "i": i, "D": 10}
    formula("ddpm-time").holds(names | waves, tolerance=1e-5, relations=2)


@pytest.mark.parametrize("dim", [4, 6, 32])
def test_timestep_embedding_equals_diffusers(dim, agrees):
    t = torch.tensor([0, 1, 7, 500, 999])
    theirs = get_timestep_embedding(t, dim, flip_sin_to_cos=False, downscale_freq_shift=1)
    agrees(unet.timestep_embedding(t, dim), theirs, "diffusers.models.embeddings.get_timestep_embedding", 1e-5)
    swapped = get_timestep_embedding(t, dim, flip_sin_to_cos=True, downscale_freq_shift=1)
    assert (unet.timestep_embedding(t, dim) - swapped).abs().max() > 0.1


@pytest.mark.parametrize("width_in, width_out", [(12, 20), (16, 16)])
def test_resblock_equals_diffusers(width_in, width_out, agrees):
    theirs = perturbed(
        ResnetBlock2D(in_channels=width_in, out_channels=width_out, temb_channels=10, groups=4, eps=1e-6)
    )
    ours = unet.ResBlock(width_in, width_out, 10, groups=4)
    ours.load_state_dict(theirs.state_dict())
    x, time = torch.randn(5, width_in, 6, 8), torch.randn(5, 10)
    with torch.no_grad():
        out = theirs(x, time)
        agrees(ours(x, torch.nn.functional.silu(time)), out, "diffusers.models.resnet.ResnetBlock2D", 1e-5)
        assert (ours(x, time) - out).abs().max() > 1e-3  # the non-linearity before the projection matters


def test_attention_equals_diffusers(agrees):
    theirs = perturbed(
        Attention(12, heads=1, dim_head=12, bias=True, norm_num_groups=4, eps=1e-6, residual_connection=True)
    )
    ours = unet.Attention(12, groups=4)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(5, 12, 6, 8)
    with torch.no_grad():
        agrees(ours(x), theirs(x), "diffusers.models.attention_processor.Attention", 1e-5)
        assert (ours(x) - x - theirs(x)).abs().max() > 1e-3  # without the residual connection


@pytest.mark.parametrize(
    "sizes",
    [
        (1, (8, 16), (False, True), 1, 4),
        (3, (16, 24, 40), (True, False, True), 2, 8),
        (2, (12,), (True,), 3, 4),
    ],
    ids=str,
)
def test_unet_equals_diffusers_unet2dmodel(sizes, agrees):
    theirs = perturbed(diffusers_unet(*sizes))
    ours = unet.UNet(*sizes).eval()
    ours.load_state_dict(theirs.state_dict())
    x, t = torch.randn(5, sizes[0], 8, 12), torch.tensor([0, 1, 7, 500, 999])
    with torch.no_grad():
        out = theirs(x, t).sample
        scale = ours(x, t).abs().max()
        agrees(ours(x, t) / scale, out / scale, "diffusers.UNet2DModel", 1e-5)
        assert ((ours(x, t.flip(0)) - out) / scale).abs().max() > 1e-3
        ours.mid_block.attentions[0].to_v.bias.data += 0.5
        assert ((ours(x, t) - out) / scale).abs().max() > 1e-3


def test_images_do_not_see_each_other():
    model = perturbed(unet.UNet(2, (8, 16), groups=4))
    x, t = torch.randn(5, 2, 4, 6), torch.tensor([3, 1, 4, 1, 5])
    with torch.no_grad():
        torch.testing.assert_close(model(x, t)[1:2], model(x[1:2], t[1:2]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "call, given",
    [
        (lambda: unet.timestep_embedding(torch.zeros(3), 5), "even number.*given 5"),
        (lambda: unet.timestep_embedding(torch.zeros(3), 2), "at least 4, given 2"),
        (lambda: unet.UNet(1, (8, 12), groups=8), "divisible by 8"),
        (lambda: unet.UNet(1, (8, 16, 24), (True, False)), "one attention flag for each width"),
        (lambda: unet.UNet(1)(torch.zeros(5, 3, 8, 8), torch.zeros(5)), "given \\(5, 3, 8, 8\\)"),
        (lambda: unet.UNet(1)(torch.zeros(5, 1, 8, 7), torch.zeros(5)), "multiples of 2.*given \\(5, 1, 8, 7\\)"),
        (lambda: unet.UNet(1)(torch.zeros(5, 1, 8, 8), torch.zeros(4)), "one t for each.*given.*\\(4,\\)"),
        (lambda: unet.UNet(1)(torch.zeros(5, 1, 8, 8).int(), torch.zeros(5)), "float images.*given torch.int32"),
    ],
)
def test_wrong_input_is_refused(call, given):
    with pytest.raises(ValueError, match=given):
        call()
