"""The live figure of the ControlNet post in Python, for the browser's test, and what its caption says."""

import re
from functools import cache

import pytest
import torch

from snippets.cfg import guide
from snippets.controlnet import overlap, painted
from snippets.data.scenes import COLOURS, PLACES, Shape, coverage, encode_captions
from snippets.ddpm import NoiseSchedule
from snippets.latent_diffusion import ddim_stops, noise_from_velocity, sample_latents, scaled_linear_beta
from tools.live import networks, normal

FIRST = {"Caption": "small red square", "at the": "top left", "Mask": "small square in the top left corner"}
FIRST |= {"Control scale": "1", "Seed": "1"}
CASES = [
    {"Control scale": "0", "Caption": "", "Mask": ""},
    {"Caption": "small green triangle", "at the": "bottom right", "Mask": "large cross at the bottom left"}
    | {"Control scale": "1.5", "Seed": "7"},
]
FAULT = "+ (there - here) *", "- (there - here) *"
GUIDANCE, SEEDS = 3.0, (1, 2, 3, 4, 5)


@cache
def parts() -> dict:
    return {network.name: network.rounded() for network in networks("ControlNet")}


def mask_of(name: str) -> torch.Tensor:
    """The mask (32, 32) of a shape, such as large circle at the top left; without a name, an empty one."""
    if not name:
        return torch.zeros(32, 32)
    shape, where = re.split(" (?:at|in) the ", name)
    place = where.removesuffix(" corner")
    size, kind = shape.split()
    out = 2.5 if where != place else 0  # small shapes can stand in the corner
    centre = tuple(c + out * (1 if c > 16 else -1) for c in PLACES[place])
    return (coverage(Shape(kind, "red", size, place, centre)) > 0.5).float()


@torch.no_grad()
def drawn(caption: str, mask: torch.Tensor, scale: float, seeds: tuple[int, ...] = SEEDS) -> torch.Tensor:
    """Pictures (B, 3, 32, 32), one of each seed."""
    states = parts()["text"](encode_captions([caption, ""]))
    both = states.repeat_interleave(len(seeds), 0)
    hint = mask.expand(2 * len(seeds), 3, -1, -1)

    def predict(x, t, alpha_bar):
        twice = torch.cat([x, x]), torch.cat([t, t])
        told, untold = parts()["controlled"](*twice, both, hint, torch.tensor(scale)).chunk(2)
        return noise_from_velocity(guide(told, untold, GUIDANCE), x, alpha_bar)

    noise = torch.stack([torch.from_numpy(normal(seed, 0, 256)).view(4, 8, 8) for seed in seeds])
    latents = sample_latents(predict, noise, *ddim_stops(NoiseSchedule(scaled_linear_beta()), 12))
    return parts()["decoder"](latents).clamp(-1, 1)


def from_mask(values: dict, mask: torch.Tensor) -> dict:
    """What the figure returns for a mask and what its other controls say."""
    said = FIRST | values
    caption = f"a {said['Caption']} at the {said['at the']}" if said["Caption"] else ""
    picture = drawn(caption, mask, float(said["Control scale"]), (int(said["Seed"]),))
    share = float(overlap(mask[None], painted(picture))) if mask.any() else None
    return {"mask": mask.flatten().tolist(), "picture": picture.flatten().tolist(), "overlap": share}


def reference(values: dict) -> dict:
    """What the figure returns for what its controls say."""
    return from_mask(values, mask_of((FIRST | values)["Mask"]))


CAPTION = "a small red square at the top left"
CORNER, ELSEWHERE = "small square in the top left corner", "large circle at the bottom right"


def obeyed(asked: str, pictures: torch.Tensor) -> torch.Tensor:
    """The overlap (B,) of pictures with a mask."""
    return overlap(mask_of(asked).expand(len(pictures), -1, -1), painted(pictures))


def colours(asked: str, pictures: torch.Tensor) -> set[str]:
    """The colours that are nearest to what is inside of a mask, in any of the pictures."""
    inside = (pictures * mask_of(asked)).sum((2, 3)) / mask_of(asked).sum()
    known = torch.tensor(list(COLOURS.values())) * 2 - 1
    return {list(COLOURS)[k] for k in torch.cdist(inside, known).argmin(1).tolist()}


@pytest.mark.claim("cn-live")
def test_try_scales_masks_and_no_caption():
    free, bound = (drawn(CAPTION, mask_of(CORNER), scale) for scale in (0.0, 1.0))
    assert torch.equal(free, drawn(CAPTION, mask_of(ELSEWHERE), 0.0))
    assert obeyed(CORNER, free).max() < 0.6 and obeyed(CORNER, bound).min() > 0.7

    one, two = (drawn(CAPTION, mask_of(ELSEWHERE), scale) for scale in (1.0, 2.0))
    top_left = painted(one)[:, :16, :16].sum((1, 2)) / painted(one).sum((1, 2))
    assert obeyed(ELSEWHERE, one).max() < 0.05 and top_left.min() > 0.95
    assert obeyed(ELSEWHERE, two).min() > 0.5 and colours(ELSEWHERE, two) == {"yellow"}

    silent = drawn("", mask_of(CORNER), 1.0)
    assert obeyed(CORNER, silent).min() > 0.6 and len(colours(CORNER, silent)) > 1 and colours(CORNER, bound) == {"red"}
