"""What the live figure of the ControlNet post computes with: the frozen model, its control, and the stops of DDIM."""

import torch
from safetensors.torch import load_file
from torch import nn

from snippets.blocks.text_unet import ConditionedUNet
from snippets.controlnet import Control, ControlNet, controlled, summed
from snippets.data.scenes import ARM, COLOURS, KINDS, MAX_WORDS, PLACES, RADIUS, VOCABULARY, encode_captions
from snippets.ddpm import NoiseSchedule
from snippets.latent_diffusion import ddim_stops, scaled_linear_beta
from tools.live import ROOT, Network, exporter

STEPS = 12  # as in the lab


class Controlled(nn.Module):
    """The frozen U-Net's answer under one control, times a scale ()."""

    def __init__(self, unet: ConditionedUNet, control: ControlNet):
        super().__init__()
        self.unet, self.control = unet, control

    def forward(self, x, t, text, hint, scale):
        added = summed([Control(self.control, hint, scale)], x, t, text)
        return controlled(self.unet, x, t, text, added)


def networks():
    diffusion = exporter("StableDiffusion")
    coder, text, unet = diffusion["trained"]()
    control = ControlNet(unet.config, 3, (8, 16, 32))
    control.load_state_dict(load_file(ROOT / "docs/weights/ControlNet.safetensors"))
    yield Network(
        "text", diffusion["States"](text), {"tokens": encode_captions(["a small red circle at the top left", ""])}, {}
    )
    inputs = {"x": torch.randn(2, 4, 8, 8), "t": torch.tensor([500, 20]), "text": torch.randn(2, MAX_WORDS, 64)}
    inputs |= {"hint": (torch.rand(2, 3, 32, 32) > 0.7).float(), "scale": torch.tensor(0.75)}
    yield Network("controlled", Controlled(unet, control), inputs, {})
    yield Network("decoder", diffusion["Pictures"](coder), {"latents": torch.randn(1, 4, 8, 8)}, {})


def tables():
    levels, ratio = ddim_stops(NoiseSchedule(scaled_linear_beta()), STEPS)
    known = {"kinds": KINDS, "colours": COLOURS, "radius": RADIUS, "places": PLACES, "arm": ARM}
    words = {"vocabulary": VOCABULARY, "length": MAX_WORDS}
    return {"levels": levels.tolist(), "ratio": ratio.tolist(), "scenes": known} | words
