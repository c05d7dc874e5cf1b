"""The live figure of the decoder-only post in Python, for the browser's test, and what its caption says."""

from functools import cache

import numpy as np
import pytest
import torch

from snippets.data.text import as_bytes
from snippets.llm.decoder_only import Llama, generate
from snippets.llm.decoding import Sampling
from tools.live import networks, uniform

PROMPT, COUNT = "Return a new ", 120
CASES = [
    {"Temperature": 0},
    {"Prompt": "Naïve ", "Temperature": 1.5, "Top-k": 20, "Top-p": 0.9, "Min-p": 0.05, "Seed": 4},
]
CASES += [{"Prompt": ""}, {"Temperature": 0.7, "Seed": 2}]
FAULT = "logit / temperature", "logit * temperature"


@cache
def model() -> Llama:
    """The page's model with the weights of the figure."""
    return next(networks("LLM/Decoder-Only")).rounded().model


def pick(weights: torch.Tensor, chance: float) -> int:
    """What a number between 0 and 1 draws from weights (V,)."""
    sums = weights.double().cumsum(0)
    return int((sums <= chance * sums[-1]).sum())


@cache
def write(prompt: str, sampling: Sampling, seed: int) -> tuple[list[int], torch.Tensor]:
    """The bytes that the page's loop writes by its samplers, and the logits (COUNT, V) before each."""
    chances, seen = iter(uniform(seed, 0, COUNT)), []

    def choose(logits, generator):
        seen.append(logits[0])
        return torch.tensor([[pick(sampling.probabilities(logits)[0], next(chances))]])

    begun = as_bytes(prompt)[None, COUNT - 512 :]
    with torch.no_grad():
        found = generate(model(), begun, COUNT, choose)
    return found[0, -COUNT:].tolist(), torch.stack(seen)


def costs(found: tuple[list[int], torch.Tensor]) -> torch.Tensor:
    """Bits (COUNT,) of each byte, by the model's own probabilities."""
    written, logits = found
    return -logits.log_softmax(-1)[torch.arange(COUNT), written] / np.log(2)


def reference(values: dict) -> dict | None:
    """What the figure returns for what its controls say."""
    said = {"Prompt": PROMPT, "Temperature": 1, "Top-k": "all", "Top-p": 1, "Min-p": 0, "Seed": 1} | values
    if not said["Prompt"]:
        return None
    top_k = None if said["Top-k"] == "all" else said["Top-k"]
    found = write(said["Prompt"], Sampling(said["Temperature"], top_k, said["Top-p"], said["Min-p"]), said["Seed"])
    return {"written": found[0], "costs": costs(found).tolist()}


def again(written: list[int], length: int = 20) -> float:
    """The share of runs of so many bytes that have stood in a text before."""
    runs = [tuple(written[at : at + length]) for at in range(len(written) - length + 1)]
    return 1 - len(set(runs)) / len(runs)


def letters(written: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Which bytes (COUNT,) are the first letter of a word, and which a later one."""
    is_letter = torch.tensor([bytes([byte]).isalpha() for byte in [*PROMPT.encode()[-1:], *written]])
    return is_letter[1:] & ~is_letter[:-1], is_letter[1:] & is_letter[:-1]


@pytest.mark.claim("decoder-live")
def test_try_temperatures_and_places():
    greedy, other = (write(PROMPT, Sampling(0.0), seed)[0] for seed in (1, 2))
    assert greedy == other and again(greedy) > 0.5
    for seed in range(1, 6):
        plain = write(PROMPT, Sampling(), seed)
        hot, cut = (write(PROMPT, Sampling(1.5, min_p=share), seed) for share in (0.0, 0.1))
        assert costs(hot).mean() > 1.5 * costs(plain).mean()
        assert costs(cut).mean() < 2 / 3 * costs(hot).mean()
        logs = plain[1].log_softmax(-1)
        expected = -(logs.exp() * logs).sum(-1)
        first, later = letters(plain[0])
        assert expected[first].mean() > 2 * expected[later].mean()
