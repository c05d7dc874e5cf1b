"""What the live figure of the BERT post computes with: the lab's first network, its attention, and its vocabulary."""

import json

import torch
from safetensors.torch import load_model
from torch import nn

from snippets.data.text import documents, is_held_out
from snippets.llm.bert import Config, attention_maps
from snippets.llm.bert_pretraining import new_model
from snippets.llm.wordpiece import train_wordpiece
from tools.live import ROOT, Network

CONFIG = Config(1000, context=64, width=96, hidden=384, num_layers=2, num_heads=4, dropout=0.0)
WRITTEN = ROOT / "docs/live/LLM/BERT/tables.json"


class Filled(nn.Module):
    """The probabilities of all pieces at each place, and where each head looks."""

    def __init__(self, model: nn.ModuleDict):
        super().__init__()
        self.model = model

    def forward(self, tokens, segments):
        bert = self.model["bert"]
        chances = self.model["words"](bert(tokens, segments=segments)).softmax(dim=-1)
        return chances, torch.stack(attention_maps.__wrapped__(bert, tokens, segments), dim=1)


def networks():
    model = new_model(CONFIG)
    load_model(model, ROOT / "docs/weights/LLM/BERT.safetensors")
    inputs = {"tokens": torch.randint(1000, (3, 9)), "segments": torch.randint(2, (3, 9))}
    varies = {name: {0: "batch", 1: "length"} for name in inputs}
    yield Network("bert", Filled(model.eval()), inputs, varies, outputs=("chances", "maps"))


def tables():
    """The pieces, as learnt from the prose of the lab's Python. Another version has other prose: they are kept."""
    if WRITTEN.is_file():
        return json.loads(WRITTEN.read_text(encoding="utf-8"))
    prose = [document for name, document in documents().items() if not is_held_out(name)]
    return {"pieces": train_wordpiece(prose, CONFIG.vocabulary)}
