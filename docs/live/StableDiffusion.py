"""What the live figure of the latent diffusion post computes with: its networks, and the stops of DDIM."""

import json

import torch
from safetensors.torch import load_file
from torch import nn

from snippets.blocks.autoencoder import AutoencoderConfig, AutoencoderKL
from snippets.blocks.text_unet import ConditionedUNet, UNetConfig
from snippets.clip_text import TextConfig, TextEncoder
from snippets.data.scenes import MAX_WORDS, VOCABULARY, encode_captions
from snippets.ddpm import NoiseSchedule
from snippets.latent_diffusion import ddim_stops, scaled_linear_beta
from tools.live import ROOT, Network

STEPS = 20
SCALE = json.loads((ROOT / "docs/results/StableDiffusion.json").read_text())["values"]["scale"]["factor"]["seeds"][0]


class States(nn.Module):
    """The text encoder's states (B, L, D) of tokens (B, L)."""

    def __init__(self, text: TextEncoder):
        super().__init__()
        self.text = text

    def forward(self, tokens):
        return self.text.states(tokens)


class Pictures(nn.Module):
    """Pictures (B, C, H, W) of latents of standard deviation 1, as LatentDiffusion.to_pictures makes them."""

    def __init__(self, autoencoder: AutoencoderKL):
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, latents):
        return self.autoencoder.decode(latents / SCALE)


def trained() -> tuple[AutoencoderKL, TextEncoder, ConditionedUNet]:
    """The three networks of the lab, with their weights."""
    coder = AutoencoderKL(AutoencoderConfig(3, 4, (16, 32, 32)))
    text = TextEncoder(TextConfig(len(VOCABULARY), MAX_WORDS, 64, 128, 2, 2, embedding=None))
    unet = ConditionedUNet(UNetConfig(4, (48, 64), (False, True), (2, 2), 64, 1, 16))
    every = nn.ModuleList([coder, nn.ModuleList([unet, text])])
    every.load_state_dict(load_file(ROOT / "docs/weights/StableDiffusion.safetensors"))
    return coder, text, unet


def networks():
    coder, text, unet = trained()
    tokens = encode_captions(["a small red circle at the top left", ""])
    yield Network("text", States(text), {"tokens": tokens}, {})
    inputs = {"x": torch.randn(2, 4, 8, 8), "t": torch.tensor([500, 20]), "text": torch.randn(2, MAX_WORDS, 64)}
    yield Network("unet", unet, inputs, {})
    yield Network("decoder", Pictures(coder), {"latents": torch.randn(2, 4, 8, 8)}, {})


def tables():
    levels, ratio = ddim_stops(NoiseSchedule(scaled_linear_beta()), STEPS)
    return {"levels": levels.tolist(), "ratio": ratio.tolist(), "vocabulary": VOCABULARY, "length": MAX_WORDS}
