"""What the live figure of the NCSN post computes with: the score network of its points, ladder, steps and mixture."""

import torch
from safetensors.torch import load_file
from torch import nn

from snippets.data.toy2d import toy2d
from snippets.ncsn import PointNetwork, ScoreNetwork, choose_epsilon, geometric_ladder, step_sizes
from tools.live import ROOT, Network

SIGMA = geometric_ladder(6.0, 0.05, 20)
STEPS = 5  # of Langevin dynamics at each level


class WithoutChecks(nn.Module):
    """ScoreNetwork.forward, whose `at` looks at the levels before it looks them up."""

    def __init__(self, model: ScoreNetwork):
        super().__init__()
        self.model = model

    def forward(self, x, level):
        eps = self.model.net(self.model.shrink[level][:, None].to(x) * x, level)
        return -eps / self.model.sigma[level][:, None].to(x)


def networks():
    weights = load_file(ROOT / "docs/weights/NCSN.safetensors")
    weights = {name.removeprefix("points."): one for name, one in weights.items() if name.startswith("points.")}
    model = ScoreNetwork(PointNetwork(len(SIGMA)), SIGMA, spread=1.0)
    model.load_state_dict(weights)
    inputs = {"x": torch.randn(3, 2), "level": torch.tensor([0, 7, 19])}
    yield Network("score", model, inputs, {name: {0: "batch"} for name in inputs}, without_checks=WithoutChecks)


def tables():
    toy = toy2d()
    found = {name: getattr(toy, name).tolist() for name in ("weights", "means", "deviations")}
    steps = step_sizes(SIGMA, choose_epsilon(SIGMA, STEPS)).tolist()
    return found | {"sigma": SIGMA.tolist(), "step": steps, "steps": STEPS}
