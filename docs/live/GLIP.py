"""What the live figure of the GLIP post computes with: the network, its pieces of words and its anchors."""

import torch
from safetensors.torch import load_file
from torch import nn

from snippets.data.scenes import ARM, COLOURS, KINDS, PLACES, RADIUS
from snippets.glip import Glip, GlipConfig
from snippets.glip_scenes import PIECES
from snippets.glip_targets import WEIGHTS
from tools.live import ROOT, Network

LENGTH = 48  # tokens of a prompt, as many as the network can read


class Asked(nn.Module):
    """Probabilities (B, R, T), changes of anchors (B, R, 4) and probabilities of centre-ness (B, R)."""

    def __init__(self, glip: Glip):
        super().__init__()
        self.glip = glip

    def forward(self, pictures, ids, real):
        logits, change, centre = self.glip(pictures, ids, real)
        return logits.sigmoid(), change, centre.sigmoid()


def model() -> Glip:
    glip = Glip(GlipConfig(len(PIECES.ids), fused=True))
    glip.load_state_dict(load_file(ROOT / "docs/weights/GLIP.safetensors"))
    return glip


def networks():
    ids = torch.randint(1, len(PIECES.ids), (1, LENGTH))
    inputs = {"pictures": -torch.rand(1, 3, 32, 32), "ids": ids, "real": torch.arange(LENGTH)[None] < 13}
    yield Network("glip", Asked(model()), inputs, {}, ("probabilities", "change", "centre"))


def tables():
    known = {"kinds": KINDS, "colours": COLOURS, "radius": RADIUS, "places": PLACES, "arm": ARM}
    boxes = {"anchors": model().anchors.tolist(), "weights": WEIGHTS.tolist()}
    return {"scenes": known, "pieces": list(PIECES.ids), "length": LENGTH} | boxes
