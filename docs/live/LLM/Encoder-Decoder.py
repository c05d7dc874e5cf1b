"""What the live figure of the encoder-decoder post computes with: the lab's first model, one token at a time."""

import torch
from safetensors.torch import load_file
from torch import nn

from snippets.llm.t5 import T5, Config, cross_maps
from snippets.llm.text_to_text import CHARACTERS, END, PIECES
from tools.live import ROOT, Network

CONFIG = Config(len(PIECES), 96, 24, 192, 2, 2, 4, dropout=0.0, gated=True, tied=False, scaled=False)


class Next(nn.Module):
    """Log-probabilities of the next token, and where the last layer looks in the source for it, on average."""

    def __init__(self, model: T5):
        super().__init__()
        self.model = model

    def forward(self, source, written):
        logits = self.model(source, written)[:, -1]
        looks = cross_maps.__wrapped__(self.model, source, written)[-1].mean(dim=1)[:, -1]
        return logits.log_softmax(dim=-1), looks


def networks():
    model = T5(CONFIG)
    model.load_state_dict(load_file(ROOT / "docs/weights/LLM/Encoder-Decoder.safetensors"))
    inputs = {"source": torch.randint(2, 184, (3, 9)), "written": torch.randint(2, 184, (3, 5))}
    varies = {"source": {0: "batch", 1: "source"}, "written": {0: "batch", 1: "written"}}
    yield Network("t5", Next(model.eval()), inputs, varies, outputs=("logs", "looks"))


def tables():
    return {"pieces": PIECES, "characters": CHARACTERS, "start": CONFIG.start, "end": END}
