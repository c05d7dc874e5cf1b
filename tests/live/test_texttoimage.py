"""The live figure of the text-to-image post in Python, for the browser's test, and what its caption says."""

from functools import cache

import pytest
import torch

from snippets.blocks.scene_reader import read_scene
from snippets.data.scenes import HELD_OUT, PLACES, encode_captions
from snippets.flow_matching import draw_flow, guided_flow
from tools.live import networks, normal

FIRST = {"Caption": "large red circle", "at the": "top left", "Guidance": "4", "Seed": "1"}
CASES = [{"Caption": "small green square", "at the": "bottom right", "Guidance": "2", "Seed": "3"}]
FAULT = "untold + scale *", "untold - scale *"
STEPS, SCALES, SEEDS = (1, 2, 5, 20), (1.0, 4.0, 8.0), (1, 2, 3, 4, 5)


@cache
def parts() -> dict:
    return {network.name: network.rounded() for network in networks("TextToImage")}


@cache
@torch.no_grad()
def drawn(caption: str, scale: float, steps: int, seeds: tuple[int, ...] = SEEDS) -> torch.Tensor:
    """Pictures (B, 3, 32, 32), one of each seed."""
    told = encode_captions([caption])[:, :8].expand(len(seeds), -1)
    noise = torch.stack([torch.from_numpy(normal(seed, 0, 256)).view(4, 8, 8) for seed in seeds])
    return parts()["decoder"](draw_flow(guided_flow(parts()["flow"], told, scale), noise, steps)).clamp(-1, 1)


def reference(values: dict) -> list:
    """What the figure returns for what its controls say."""
    said = FIRST | values
    caption = f"a {said['Caption']} at the {said['at the']}"
    each = (drawn(caption, float(said["Guidance"]), steps, (int(said["Seed"]),)) for steps in STEPS)
    return [picture.flatten().tolist() for picture in each]


def right(shape: str, place: str, scale: float, steps: int) -> int:
    """For how many of the five seeds the reader's largest shape has the colour and kind asked for, at its place."""
    _, colour, kind = shape.split()
    each = [read_scene(picture) for picture in drawn(f"a {shape} at the {place}", scale, steps)]
    return sum(bool(read) and (read[0].colour, read[0].kind, read[0].place) == (colour, kind, place) for read in each)


@pytest.mark.claim("tti-live")
def test_try_steps_guidance_and_an_unseen_pair():
    for place in PLACES:
        circle = {(scale, steps): right("large red circle", place, scale, steps) for scale in SCALES for steps in STEPS}
        assert [circle[4.0, steps] for steps in (1, 2, 20)] == [0, 0, 5]
        assert [circle[1.0, steps] for steps in STEPS] == [5, 5, 5, 5]
        assert [circle[8.0, steps] for steps in (1, 2, 5, 20)] == [0, 0, 0, 5]
        assert right("large red square", place, 4.0, 20) == 5
    assert ("red", "square") in HELD_OUT
