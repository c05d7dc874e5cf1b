"""What the live figure of the DDPM post computes with: the U-Net of its figures, and its schedule."""

import torch
from safetensors.torch import load_file

from snippets.blocks.unet import UNet
from snippets.ddpm import NoiseSchedule, ddim_levels, linear_beta
from tools.live import ROOT, Network


def networks():
    model = UNet(channels=1, widths=(24, 48))
    model.load_state_dict(load_file(ROOT / "docs/weights/Diffusion.safetensors"))
    inputs = {"x": torch.randn(3, 1, 8, 8), "t": torch.tensor([0, 500, 999])}
    yield Network("unet", model, inputs, {"x": {0: "batch"}, "t": {0: "batch"}})


def tables():
    schedule = NoiseSchedule(linear_beta())
    levels = {steps: ddim_levels(schedule, steps) for steps in (1, 2, 3, 5, 10, 20, 50, 100, 250, 1000)}
    return {"alpha_bar": schedule.alpha_bar.tolist(), "levels": levels}
