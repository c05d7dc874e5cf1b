"""The live figure of the decoding post in Python, for the browser's test, and what its caption says."""

import json
from functools import cache

import pytest
import torch

from snippets.data.text import as_bytes, text
from snippets.llm import decoding
from snippets.llm.decoder_only import generate
from snippets.llm.decoding import CountedDraft, Sampling, speculate
from tests.live.test_decoder_only import model, pick
from tools.live import ROOT, uniform

PROMPT, COUNT = "Return a new ", 120
CASES = [
    {"Temperature": 0},
    {"Prompt": "if x:", "Drafted at once": 8, "Bytes that the draft sees": 2, "Temperature": 1, "Seed": 4},
]
CASES += [{"Prompt": ""}, {"Temperature": 0}, {"Seed": 2}]
FAULT = "p - proposals[kept]", "p + proposals[kept]"
TOLERANCE = 0
TABLES = ROOT / "docs/live/LLM/Decoding/tables.json"


class Numbers:
    """torch, but what it draws comes from the figure's numbers, one after the other."""

    def __init__(self, seed: int):
        self.numbers = iter(uniform(seed, 0, 20 * COUNT))

    def __getattr__(self, name):
        return getattr(torch, name)

    def multinomial(self, weights, count, generator=None):
        found = torch.tensor([pick(row, next(self.numbers)) for row in weights.view(-1, weights.shape[-1])])
        return found.view(*weights.shape[:-1], 1)

    def rand(self, count, generator=None, device=None):
        return torch.tensor([next(self.numbers) for _ in range(count)], dtype=torch.float64)


@cache
def codes() -> torch.Tensor:
    return as_bytes(json.loads(TABLES.read_text(encoding="utf-8"))["text"])


@cache
def run(prompt: str, count: int, sees: int, temperature: float, seed: int) -> tuple[list[int], int, int]:
    """What the page's loop writes with the page's draft: bytes, how many were drafted, and how many of these stayed."""
    sampling, drawn = Sampling(temperature), decoding.torch
    draft = CountedDraft(codes(), sampling, sees + 1)
    try:
        decoding.torch = Numbers(seed)
        tokens, drafts, stayed = speculate(
            (model(), draft), as_bytes(prompt)[None, COUNT - 512 :], COUNT, sampling, count
        )
    finally:
        decoding.torch = drawn
    return tokens[0, -COUNT:].tolist(), drafts, stayed


def reference(values: dict) -> dict | None:
    """What the figure returns for what its controls say."""
    said = {
        "Prompt": PROMPT,
        "Drafted at once": 4,
        "Bytes that the draft sees": 4,
        "Temperature": 0.8,
        "Seed": 1,
    } | values
    found = run(*said.values()) if said["Prompt"] else None
    return found and dict(zip(("tokens", "drafts", "stayed"), found, strict=True))


def test_the_drafts_text_is_of_the_training_text():
    parts = [line for line in bytes(codes().tolist()).decode().split("\n") if len(line) > 50]
    known, held_out = (bytes(text(held_out=held).tolist()).decode() for held in (False, True))
    assert sum(line in known for line in parts) > 0.9 * len(parts)  # each version of Python has another text
    assert sum(line in held_out for line in parts) < 0.05 * len(parts)


@pytest.mark.claim("decoding-live")
def test_try_drafts_and_temperatures():
    greedy = generate(model(), as_bytes(PROMPT)[None], COUNT)[0, -COUNT:].tolist()
    for sees in (0, 4):
        assert run(PROMPT, 4, sees, 0.0, 1)[0] == greedy
    for seed in range(1, 6):
        blind, four, one, eight = (
            run(PROMPT, count, sees, 0.8, seed) for count, sees in ((4, 0), (4, 4), (1, 4), (8, 4))
        )
        assert blind[2] / blind[1] < 0.5 * four[2] / four[1]
        assert COUNT - four[2] < COUNT / 2 < COUNT - blind[2]  # readings by the model
        assert eight[2] / eight[1] < 0.8 * one[2] / one[1]
        assert COUNT - eight[2] < 0.7 * (COUNT - one[2])
