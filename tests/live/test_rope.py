"""The live figure of the RoPE post in Python, for the browser's test, and what its caption says."""

import math

import pytest
import torch

from snippets.llm.rope import angles, mean_cosine, rotate_halves
from tools.live import exporter

CASES = [{"Query at": 250, "Key at": 3}, {"Query at": 17, "Key at": 90, "Frequencies": "YaRN"}]
FAULT = "Float32Array.of(query, key)", "Float32Array.of(query, -key)"


def theta(kind: str) -> torch.Tensor:
    return exporter("LLM/ROPE")["thetas"]()[kind]


def reference(values: dict) -> dict:
    """What the figure returns for what its controls say, by the page's other layout."""
    said = {"Query at": 40, "Key at": 34, "Frequencies": "as trained"} | values
    frequencies = theta(said["Frequencies"])
    angle = angles(torch.tensor([said["Query at"], said["Key at"]], dtype=torch.float64), frequencies)
    halves = torch.cat([torch.ones(2, 16), torch.zeros(2, 16)], dim=1).double()
    turned = rotate_halves(halves[None, None], angle)[0, 0]
    pairs = turned.view(2, 2, 16).transpose(1, 2).flatten()
    score = float((turned[0] * turned[1]).sum() / 16)
    curve = mean_cosine(torch.arange(257.0), frequencies)
    return {"turned": pairs.tolist(), "score": score, "curve": curve.tolist()}


@pytest.mark.claim("rope-live")
def test_try_positions_and_frequencies():
    assert math.isclose(reference({})["score"], reference({"Query at": 100, "Key at": 94})["score"], abs_tol=1e-9)
    plain, slow = reference({})["curve"], reference({"Frequencies": "interpolation"})["curve"]
    assert all(math.isclose(slow[8 * at], plain[at], abs_tol=1e-9) for at in range(33))
    yarn, trained = theta("YaRN"), theta("as trained")
    assert yarn[0] == trained[0] and torch.allclose(yarn[-4:], trained[-4:] / 8)
