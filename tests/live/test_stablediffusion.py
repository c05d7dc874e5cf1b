"""The live figure of the latent diffusion post in Python, for the browser's test, and what its caption says."""

from functools import cache
from types import SimpleNamespace

import pytest
import torch

from snippets.data.scenes import HELD_OUT, encode_captions
from snippets.ddpm import NoiseSchedule
from snippets.latent_diffusion import ddim_stops, guided_noise, noise_from_velocity, sample_latents, scaled_linear_beta
from tools.live import networks, normal

CAPTION = "a large red circle at the top left and a small blue cross at the bottom right"
OTHER, UNSEEN = "a large purple triangle at the bottom left", "a large blue circle at the bottom right"
CASES = [{}, {"Caption": "a wild circle"}, {"Caption": "a green square", "Guidance": 5, "Seed": 4}]
FAULT = "+ (there - here) *", "- (there - here) *"


@cache
def parts() -> dict:
    return {network.name: network.rounded() for network in networks("StableDiffusion")}


@cache
@torch.no_grad()
def draw(caption: str, guidance: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Latent and picture."""
    model = SimpleNamespace(text=parts()["text"].text, unet=parts()["unet"], as_noise=noise_from_velocity)
    predict = guided_noise(model, encode_captions([caption]), encode_captions([""])[0], guidance)
    noise = torch.from_numpy(normal(seed, 0, 256)).view(1, 4, 8, 8)
    latent = sample_latents(predict, noise, *ddim_stops(NoiseSchedule(scaled_linear_beta()), 20))
    return latent, parts()["decoder"](latent)


def reference(values: dict) -> dict | None:
    """What the figure returns for what its controls say; nothing for a word that the network does not know."""
    said = {"Caption": CAPTION, "Guidance": 3, "Seed": 1} | values
    try:
        latent, picture = draw(said["Caption"], said["Guidance"], said["Seed"])
    except ValueError:
        return None
    return {"latent": latent.flatten().tolist(), "picture": picture.flatten().tolist()}


def quarters(picture: torch.Tensor) -> torch.Tensor:
    """How much ink (3, 2, 2) of red, green and blue is missing from white in each quarter."""
    return (1 - picture[0].clamp(-1, 1)).unflatten(1, (2, 16)).unflatten(3, (2, 16)).mean((2, 4))


@pytest.mark.claim("ldm-live")
def test_try_guidance_and_captions():
    assert ("blue", "circle") in HELD_OUT
    for seed in range(1, 6):
        assert torch.equal(draw(CAPTION, 0, seed)[0], draw(OTHER, 0, seed)[0])
        other, unseen = quarters(draw(OTHER, 3, seed)[1]), quarters(draw(UNSEEN, 3, seed)[1])
        assert other.sum(0)[1, 0] > 0.9 * other.sum() and other[:, 1, 0].argmax() == 1  # of purple, green is missing
        assert unseen.sum(0)[1, 1] > 0.7 * unseen.sum() and unseen[:, 1, 1].argmin() == 2  # blue stays
