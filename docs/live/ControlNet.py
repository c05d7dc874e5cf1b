"""What the live figure of the ControlNet post computes with: the frozen model, its control, and the stops of DDIM."""

import json

import torch
from safetensors.torch import load_file
from torch import nn

from snippets.blocks.autoencoder import AutoencoderConfig, AutoencoderKL
from snippets.blocks.text_unet import ConditionedUNet, UNetConfig
from snippets.clip_text import TextConfig, TextEncoder
from snippets.controlnet import Control, ControlNet, controlled, summed
from snippets.data.scenes import ARM, COLOURS, KINDS, MAX_WORDS, PLACES, RADIUS, VOCABULARY, encode_captions
from snippets.ddpm import NoiseSchedule
from snippets.latent_diffusion import ddim_stops, scaled_linear_beta
from tools.live import ROOT, Network

STEPS = 12  # as in the lab
SCALE = json.loads((ROOT / "docs/results/StableDiffusion.json").read_text())["values"]["scale"]["factor"]["seeds"][0]


class States(nn.Module):
    """The text encoder's states (B, L, D) of tokens (B, L)."""

    def __init__(self, text: TextEncoder):
        super().__init__()
        self.text = text

    def forward(self, tokens):
        return self.text.states(tokens)


class Controlled(nn.Module):
    """The frozen U-Net's answer under one control, times a scale ()."""

    def __init__(self, unet: ConditionedUNet, control: ControlNet):
        super().__init__()
        self.unet, self.control = unet, control

    def forward(self, x, t, text, hint, scale):
        added = summed([Control(self.control, hint, scale)], x, t, text)
        return controlled(self.unet, x, t, text, added)


class Pictures(nn.Module):
    """Pictures (B, C, H, W) of latents of standard deviation 1, as LatentDiffusion.to_pictures makes them."""

    def __init__(self, autoencoder: AutoencoderKL):
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, latents):
        return self.autoencoder.decode(latents / SCALE)


def networks():
    coder = AutoencoderKL(AutoencoderConfig(3, 4, (16, 32, 32)))
    text = TextEncoder(TextConfig(len(VOCABULARY), MAX_WORDS, 64, 128, 2, 2, embedding=None))
    unet = ConditionedUNet(UNetConfig(4, (48, 64), (False, True), (2, 2), 64, 1, 16))
    every = nn.ModuleList([coder, nn.ModuleList([unet, text])])
    every.load_state_dict(load_file(ROOT / "docs/weights/StableDiffusion.safetensors"))
    control = ControlNet(unet.config, 3, (8, 16, 32))
    control.load_state_dict(load_file(ROOT / "docs/weights/ControlNet.safetensors"))
    yield Network("text", States(text), {"tokens": encode_captions(["a small red circle at the top left", ""])}, {})
    inputs = {"x": torch.randn(2, 4, 8, 8), "t": torch.tensor([500, 20]), "text": torch.randn(2, MAX_WORDS, 64)}
    inputs |= {"hint": (torch.rand(2, 3, 32, 32) > 0.7).float(), "scale": torch.tensor(0.75)}
    yield Network("controlled", Controlled(unet, control), inputs, {})
    yield Network("decoder", Pictures(coder), {"latents": torch.randn(1, 4, 8, 8)}, {})


def tables():
    levels, ratio = ddim_stops(NoiseSchedule(scaled_linear_beta()), STEPS)
    known = {"kinds": KINDS, "colours": COLOURS, "radius": RADIUS, "places": PLACES, "arm": ARM}
    words = {"vocabulary": VOCABULARY, "length": MAX_WORDS}
    return {"levels": levels.tolist(), "ratio": ratio.tolist(), "scenes": known} | words
