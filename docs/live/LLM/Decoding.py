"""What the live figure of the decoding post computes with, beside the decoder-only post's network: a draft's text."""

import json

import torch

from snippets.data.text import text
from tools.live import ROOT

PARTS, LENGTH = 20, 10_000
FOLDER = "docs/live/LLM/Decoding"


def tables():
    """Passages spread over the training text, whose bytes the draft counts. Once written they stay: another version
    of Python has another text."""
    written = ROOT / FOLDER / "tables.json"
    if written.is_file():
        return json.loads(written.read_text(encoding="utf-8"))
    passages = torch.cat([part[:LENGTH] for part in text().chunk(PARTS)])
    source = (
        "Docstrings and topics of help() of Python 3.11, copyright Python Software Foundation, PSF licence version 2"
    )
    return {"source": source, "text": bytes(passages.tolist()).decode("ascii", errors="ignore")}
