"""The live figure of the CLIP post in Python, for the browser's test, and what its caption says."""

import json
from functools import cache

import pytest
import torch

from snippets.clip import similarities
from snippets.data.scenes import COLOURS, HELD_OUT, KINDS, PLACES, RADIUS, SEEN
from tests.live.drawn import drawn
from tools.live import ROOT, networks

TABLES = json.loads((ROOT / "docs/live/CLIP/tables.json").read_text(encoding="utf-8"))
FIRST = {"Top left": "large red circle", "Top right": "small blue cross", "Temperature": "0.06, as learnt"}
FIRST |= {"Captions, one a line": "a red circle left of a blue cross\na blue cross left of a red circle"}
FIRST["Captions, one a line"] += "\na blue circle left of a red cross\na red circle\na green square"
ODD = "a small GREEN triangle  at the bottom left\n\na blue circle and a red square\na yellow square above a cross"
CASES = [
    {"Captions, one a line": "a wild circle"},
    {"Top left": "", "Bottom left": "small green triangle", "Captions, one a line": ODD, "Temperature": "0.3"},
]
FAULT = "(one - most) / temperature", "(most - one) / temperature"


@cache
def parts() -> dict:
    return {network.name: network.rounded() for network in networks("CLIP")}


@torch.no_grad()
def cosines(pictures: torch.Tensor, texts: list[str]) -> torch.Tensor:
    """Of pictures (B, 3, 32, 32) with texts (B, M)."""
    rows = [[TABLES["start"], *(TABLES["vocabulary"][word] for word in text.split()), TABLES["end"]] for text in texts]
    longest = max(map(len, rows))
    tokens = torch.tensor([row + [TABLES["end"]] * (longest - len(row)) for row in rows])
    return similarities(parts()["vision"](pictures), parts()["text"](tokens), torch.zeros(()))


def reference(values: dict) -> dict | None:
    """What the figure returns for what its controls say; nothing for a word that no caption had."""
    said = FIRST | values
    texts = [line.lower() for line in said["Captions, one a line"].split("\n") if line.strip()]
    if {word for text in texts for word in text.split()} - set(TABLES["vocabulary"]):
        return None
    picture = drawn({place: said[place.capitalize()] for place in PLACES if said.get(place.capitalize())})
    near = cosines(picture, texts)[0]
    chosen = said["Temperature"]
    temperature = TABLES["temperature"] if "learnt" in chosen else float(chosen)
    return {
        "picture": picture.flatten().tolist(),
        "cosines": near.tolist(),
        "shares": (near / temperature).softmax(0).tolist(),
    }


ROWS = [("top left", "top right"), ("bottom left", "bottom right")]
SIZES = [(a, b) for a in RADIUS for b in RADIUS]


@pytest.mark.claim("clip-live")
def test_try_order_temperature_and_unseen_pairs():
    near, far, right = [], [], []  # of scenes of two shapes in a row
    for colour, kind in SEEN:
        for other, form in SEEN:
            if colour != other and kind != form:
                row = ROWS[len(right) // 4 % 2]
                drawings = [{row[0]: f"{a} {colour} {kind}", row[1]: f"{b} {other} {form}"} for a, b in SIZES]
                absent = next(one for one in COLOURS if one not in (colour, other))
                shapes = f"a {colour} {kind}", f"a {other} {form}"
                texts = [f"{shapes[0]} left of {shapes[1]}", f"{shapes[1]} left of {shapes[0]}"]
                found = cosines(torch.cat([drawn(one) for one in drawings]), [*texts, f"a {absent} {kind}"])
                near += (found[:, 0] - found[:, 1]).abs().tolist()
                far += (found[:, 0] - found[:, 2]).tolist()
                right += (found[:, 0] > found[:, 1]).tolist()
    assert len(right) == 4 * 156
    share = sum(right) / len(right)
    assert abs(share - 0.5) < 2 * 0.5 / len(right) ** 0.5 and sum(near) < 0.05 * sum(far)

    said = FIRST["Captions, one a line"].split("\n")
    for row in ROWS:
        for sizes in SIZES:
            scene = drawn({row[0]: f"{sizes[0]} red circle", row[1]: f"{sizes[1]} blue cross"})
            found = cosines(scene, said)[0]
            even, learnt = ((found / t).softmax(0) for t in (1.0, TABLES["temperature"]))
            assert even[-1] > 0.02 and learnt[-1] < 1e-4 and even.argsort().tolist() == learnt.argsort().tolist()

    names = [f"a {colour} {kind}" for colour in COLOURS for kind in KINDS]
    assert {("red", "square"), ("blue", "circle")} <= set(HELD_OUT)
    taken = {
        name: {names[int(cosines(drawn({place: name}), names).argmax())] for place in PLACES}
        for name in ("small red square", "large red square", "small blue circle")
    }
    assert taken["small red square"] == taken["large red square"] == {"a red square"}
    assert taken["small blue circle"] == {"a blue cross"}
