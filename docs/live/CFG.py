"""What the live figure of the CFG post computes with: the network of its digits, and the schedule."""

import torch
from safetensors.torch import load_file
from torch import nn

from snippets.cfg import ClassEncoder, ConditionalUNet
from snippets.ddpm import NoiseSchedule, ddim_levels, linear_beta
from tools.live import ROOT, Network


class WithoutChecks(nn.Module):
    """ConditionalUNet.forward, whose encoder looks at the classes before it looks them up."""

    def __init__(self, model: ConditionalUNet):
        super().__init__()
        self.model = model

    def forward(self, x, t, condition):
        return self.model.denoise(x, self.model.time_embedding(t) + self.model.encoder.embedding(condition))


def networks():
    model = ConditionalUNet(ClassEncoder(10, dim=96), channels=1, widths=(24, 48))
    model.load_state_dict(load_file(ROOT / "docs/weights/CFG.safetensors"))
    inputs = {"x": torch.randn(3, 1, 8, 8), "t": torch.tensor([0, 500, 999]), "condition": torch.tensor([3, 10, 7])}
    yield Network("unet", model, inputs, {name: {0: "batch"} for name in inputs}, without_checks=WithoutChecks)


def tables():
    schedule = NoiseSchedule(linear_beta())
    return {"alpha_bar": schedule.alpha_bar.tolist(), "levels": ddim_levels(schedule, 20)}
