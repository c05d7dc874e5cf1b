"""The live figure of the LoRA post in Python, for the browser's test, and what its caption says."""

from functools import cache

import pytest
import torch

from snippets.data.text import as_bytes
from snippets.llm.decoder_only import Llama, generate
from snippets.llm.decoding import Sampling
from snippets.llm.lora import adapters, remove_adapters
from tests.live.test_decoder_only import pick
from tools.live import networks, uniform

COUNT, TRAINED = 120, 16
CODE = "    def close(self):\n        if self._file is not None:\n            self._file."
PROSE = "Return the number of bytes that were written, or raise an error if the file "
CASES = [{"Prompt": PROSE, "Alpha": "8, 0.5 of the trained change", "Temperature": 1, "Seed": 3}, {"Prompt": ""}]
CASES += [{"Alpha": "32, 2 of the trained change", "Temperature": 0}]
FAULT = "-Math.log2(", "+Math.log2("
TOLERANCE = 3e-5  # the fault is in one matrix of one adapter


@cache
def model(alpha: float | None) -> Llama:
    """The base, or the model with the lab's adapters and another alpha: the page's own, with the figure's weights."""
    found = next(networks("LLM/LORA")).rounded().step.model
    if alpha is None:
        return remove_adapters(found)
    for adapter in adapters(found).values():
        adapter.alpha = alpha
    return found


@cache
@torch.no_grad()
def cost(prompt: str, alpha: float | None) -> float:
    """Mean bits of a prompt's bytes but the first."""
    codes = as_bytes(prompt)
    if len(codes) < 2:
        return 0.0
    logs = model(alpha)(codes[None])[0].log_softmax(-1)
    return float(-logs[torch.arange(len(codes) - 1), codes[1:]].mean() / torch.log(torch.tensor(2.0)))


@cache
def write(prompt: str, alpha: float | None, temperature: float, seed: int) -> list[int]:
    """The bytes that the page's loop writes."""
    chances, sampling = iter(uniform(seed, 0, COUNT)), Sampling(temperature)

    def choose(logits, generator):
        return torch.tensor([[pick(sampling.probabilities(logits)[0], next(chances))]])

    return generate(model(alpha), as_bytes(prompt)[None, COUNT - 512 :], COUNT, choose)[0, -COUNT:].tolist()


def reference(values: dict) -> dict | None:
    """What the figure returns for what its controls say."""
    said = {"Prompt": CODE, "Alpha": f"{TRAINED}, 1", "Temperature": 0.8, "Seed": 1} | values
    alpha, prompt = float(said["Alpha"].split(",")[0]), said["Prompt"]
    if not prompt:
        return None
    base, adapted = (write(prompt, one, said["Temperature"], said["Seed"]) for one in (None, alpha))
    return {"base": base, "adapted": adapted, "bits": [cost(prompt, None), cost(prompt, alpha)]}


@pytest.mark.claim("lora-live")
def test_try_alphas_and_prompts():
    for seed in (1, 2):
        assert write(CODE, 0.0, 0.8, seed) == write(CODE, None, 0.8, seed) != write(CODE, 16.0, 0.8, seed)
    base, half, whole, far, away = (cost(CODE, alpha) for alpha in (None, 8.0, 16.0, 64.0, -16.0))
    assert base - half > 0.5 * (base - whole) > 0
    assert far > 2 * base and away > 2 * base
    base, whole, far = (cost(PROSE, alpha) for alpha in (None, 16.0, 64.0))
    assert base < whole < far and far > 2 * base
