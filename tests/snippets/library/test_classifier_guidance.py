"""The classifier guidance post's lines with diffusers draw the digits that the page's own code draws."""

import inspect
from functools import partial
from pathlib import Path

import diffusers
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from snippets import classifier_guidance as cg
from snippets.blocks.unet import UNet
from snippets.ddpm import NoiseSchedule, linear_beta, sample_ddim
from snippets.library import classifier_guidance as library
from tests.snippets.oracles import diffusers_unet
from theme.page.pages import ROOT

Y = torch.tensor([7, 0, 3, 7, 9])


def weights(name):
    return load_file(ROOT / f"docs/weights/{name}.safetensors")


@pytest.fixture(scope="module")
def classifier() -> cg.NoisyClassifier:
    """The lab's."""
    classifier = cg.NoisyClassifier().eval()
    classifier.load_state_dict(weights("Classifier_Guided_Diffusion"))
    return classifier


@pytest.fixture(scope="module")
def unet() -> diffusers.UNet2DModel:
    unet = diffusers_unet(1, (24, 48), (False, True), 1, 8).eval()
    unet.load_state_dict(weights("Diffusion"))
    return unet


def ours(classifier, scale):
    model, schedule = UNet(1, widths=(24, 48)).eval(), NoiseSchedule(linear_beta())
    model.load_state_dict(weights("Diffusion"))
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(5, 1, 8, 8, generator=generator)
    guided = partial(cg.guided_eps, model, partial(cg.guidance, classifier, Y, scale), schedule)
    return sample_ddim(guided, schedule, noise, 10, 0.0, generator)


@pytest.mark.claim("cgd-library")
def test_the_same_digits(unet, classifier, agrees):
    theirs = library.guided_by_diffusers(unet, classifier, Y, 4.0, 10, seed=3)
    agrees(ours(classifier, 4.0), theirs, "diffusers.DDIMScheduler", 1e-4)
    assert (ours(classifier, 0.0) - theirs).abs().max() > 0.5  # unguided, they are others


def test_with_the_mean_of_the_losses_they_are_others(unet, classifier, monkeypatch):
    """What the page says of reduction="sum"."""
    mean = lambda logits, y, reduction: F.cross_entropy(logits, y)  # noqa: E731
    monkeypatch.setattr(library, "F", type("F", (), {"cross_entropy": staticmethod(mean)}))
    theirs = library.guided_by_diffusers(unet, classifier, Y, 4.0, 10, seed=3)
    assert (ours(classifier, 4.0) - theirs).abs().max() > 0.5


SOURCES = [p for p in Path(diffusers.__file__).parent.rglob("*.py") if "hub" not in p.parts]


@pytest.mark.claim("cgd-library-none")
def test_no_pipeline_of_diffusers_takes_a_classifier():
    """Of all its files, three call for a gradient while they draw or attend, and none of them has a classifier."""
    texts = {path.name: path.read_text(encoding="utf-8") for path in SOURCES}
    assert len(texts) > 300
    calls = {name for name, text in texts.items() if "autograd.grad(" in text}
    names = {"pipeline_stable_diffusion_attend_and_excite.py", "value_guided_sampling.py", "attention_dispatch.py"}
    assert calls == names
    assert not any("classifier_scale" in text or "cond_fn" in text for text in texts.values())
    assert "value_function" in texts["value_guided_sampling.py"]  # a planner's steps, not pictures


@pytest.mark.claim("cgd-auto-library")
def test_diffusers_autoguidance_leaves_layers_out_of_the_same_model():
    """It takes no second model: the weak one is the model itself, with layers dropped."""
    names = set(inspect.signature(diffusers.AutoGuidance.__init__).parameters)
    assert {"auto_guidance_layers", "auto_guidance_config", "dropout", "guidance_scale"} < names
    assert not any("model" in name or "unet" in name or "transformer" in name for name in names)
    with pytest.raises(ValueError, match="auto_guidance_layers"):
        diffusers.AutoGuidance()
    weak, model = torch.full((5, 3, 4, 6), 1.0), torch.full((5, 3, 4, 6), 3.0)
    guider = diffusers.AutoGuidance(guidance_scale=2.0, auto_guidance_layers=0, dropout=1.0)
    guider.set_state(step=0, num_inference_steps=10, timestep=torch.tensor(0))
    theirs = guider.forward(model, weak).pred
    assert torch.equal(theirs, weak + 2.0 * (model - weak))
    assert theirs.unique().item() == 5.0
