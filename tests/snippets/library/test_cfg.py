"""The CFG post's lines with diffusers draw the digits that the page's own code draws."""

import pytest
import torch
from diffusers import ClassifierFreeGuidance
from safetensors.torch import load_model

from snippets.cfg import ClassEncoder, ConditionalUNet, guide, guided, scale_from_w
from snippets.ddpm import NoiseSchedule, linear_beta, sample_ddim
from snippets.library.cfg import guided_by_diffusers
from theme.page.pages import ROOT

ASKED = torch.tensor([7, 0, 3, 3, 9])


@pytest.fixture(scope="module")
def model() -> ConditionalUNet:
    """The lab's network."""
    model = ConditionalUNet(ClassEncoder(10, dim=96), channels=1, widths=(24, 48))
    load_model(model, ROOT / "docs/weights/CFG.safetensors")
    return model.eval()


@pytest.mark.claim("cfg-library")
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_the_same_digits(model, agrees, scale):
    noise = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    theirs = guided_by_diffusers(model.state_dict(), ASKED, scale, noise)

    def ours(scale):
        predict = guided(model, NoiseSchedule(linear_beta()), ASKED, scale)
        return sample_ddim(predict, NoiseSchedule(linear_beta()), noise, 50, 0.0, torch.Generator())

    agrees(ours(scale), theirs, "diffusers.ClassifierFreeGuidance", 1e-4)
    assert (ours(scale + 1) - theirs).abs().max() > 0.05  # w taken for s


@pytest.mark.claim("cfg-guider")
def test_the_guider_takes_both_conventions():
    told, untold = torch.randn(2, 3, 2, 4, 5)
    usual = ClassifierFreeGuidance(guidance_scale=2.5).forward(told, untold).pred
    paper = ClassifierFreeGuidance(guidance_scale=2.5, use_original_formulation=True).forward(told, untold).pred
    torch.testing.assert_close(usual, guide(told, untold, 2.5))
    torch.testing.assert_close(paper, guide(told, untold, scale_from_w(2.5)))
    assert (usual - paper).abs().max() > 0.1
