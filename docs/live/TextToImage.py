"""What the live figure of the text-to-image post computes with: the flow of its lab, and the decoder of its latents."""

import copy
import json

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from snippets.blocks.autoencoder import AutoencoderConfig, AutoencoderKL
from snippets.blocks.dit import DiTConfig
from snippets.cfg import CaptionEncoder
from snippets.data.scenes import COLOURS, KINDS, PLACES, RADIUS, VOCABULARY, encode_captions
from snippets.text_to_image import CaptionDiT
from tools.live import ROOT, Network

WORDS = 8  # of a caption of one shape
SCALE = json.loads((ROOT / "docs/results/TextToImage.json").read_text())["values"]["coders"]["scale"]


class Unchecked(nn.Module):
    """CaptionEncoder.forward, which looks at the words before it looks them up."""

    def __init__(self, encoder: CaptionEncoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, condition):
        there = (condition > 0)[:, None]
        word = self.encoder.embedding(condition).transpose(1, 2) * there
        for conv in (self.encoder.conv_1, self.encoder.conv_2):
            word = F.silu(conv(word)) * there
        return self.encoder.out(word.sum(dim=2))


def without_checks(flow: CaptionDiT) -> CaptionDiT:
    flow = copy.deepcopy(flow)
    flow.encoder = Unchecked(flow.encoder)
    return flow


class Pictures(nn.Module):
    """Pictures (B, C, H, W) of the flow's latents (B, Z, H, W)."""

    def __init__(self, coder: AutoencoderKL):
        super().__init__()
        self.coder = coder

    def forward(self, latents):
        return self.coder.decode(latents / SCALE)


def networks():
    flow = CaptionDiT(DiTConfig(4, 8, 2, 96, 4, 4), CaptionEncoder(len(VOCABULARY), WORDS, 96))
    flow.load_state_dict(load_file(ROOT / "docs/weights/TextToImage.safetensors"))
    told = encode_captions(["a small red circle at the top left", ""])[:, :WORDS]
    inputs = {"x": torch.randn(2, 4, 8, 8), "t": torch.tensor([250.0, 250.0]), "condition": told}
    yield Network("flow", flow, inputs, {}, without_checks=without_checks)
    stored = load_file(ROOT / "docs/weights/StableDiffusion.safetensors")
    coder = AutoencoderKL(AutoencoderConfig(3, 4, (16, 32, 32)))
    coder.load_state_dict({name: stored.get(f"0.{name}", stored.get(name)) for name in coder.state_dict()})
    yield Network("decoder", Pictures(coder), {"latents": torch.randn(1, 4, 8, 8)}, {})


def tables():
    known = {"kinds": KINDS, "colours": COLOURS, "radius": RADIUS, "places": list(PLACES)}
    return {"scenes": known, "vocabulary": VOCABULARY, "words": WORDS}
