"""The live figure of the classifier guidance post in Python, for the browser's test, and what its caption says."""

from functools import cache, partial

import pytest
import torch

from snippets.classifier_guidance import guidance, guided_eps
from snippets.data.toy2d import toy2d
from snippets.ddpm import NoiseSchedule, ddim_levels, ddim_step, linear_beta
from tools.live import normal

CASES = [{}, {"Class": "2", "Scale": "s = 4", "Arrows at level": 100, "Seed": 3}]
FAULT = "- noise * scale * gradient", "+ noise * scale * gradient"
SCHEDULE, TOY = NoiseSchedule(linear_beta()), toy2d()
GRID = torch.tensor([[(at % 13) * 0.5 - 3, at // 13 * 0.5 - 3] for at in range(169)], dtype=torch.float64)


def at_level(t: torch.Tensor) -> tuple[float, float]:
    return float(SCHEDULE.signal[t[0]]), float(SCHEDULE.noise[t[0]])


def classifier(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """The exact one: log p(class | x_t), of points (B, 2, 1, 1)."""
    return TOY.log_posterior(x[:, :, 0, 0], *at_level(t))


def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """The exact noise, of points (B, 2, 1, 1)."""
    return TOY.eps(x[:, :, 0, 0], *at_level(t))[:, :, None, None]


@cache
def draw(asked: int, scale: float, seed: int) -> tuple[torch.Tensor, list[float]]:
    """Points (200, 2), and the mean opinion at each step, by the page's gradient of the classifier."""
    xt = torch.from_numpy(normal(seed, 0, 400)).double().view(200, 2, 1, 1)
    guide = partial(guidance, classifier, torch.full((200,), asked), scale)
    levels, opinions = ddim_levels(SCHEDULE, 50), []
    for level, lower in zip(levels[:-1], levels[1:], strict=True):
        t = torch.full((200,), level)
        opinions.append(float(classifier(xt, t)[:, asked].exp().mean()))
        eps = guided_eps(network, guide, SCHEDULE, xt, t)
        xt = ddim_step(SCHEDULE, xt, t, torch.full_like(t, lower), eps, 0.0, torch.zeros_like(xt))
    return xt[:, :, 0, 0], opinions


def reference(values: dict) -> dict:
    """What the figure returns for what its controls say."""
    said = {"Class": "1", "Scale": "s = 1", "Arrows at level": 300, "Seed": 1} | values
    asked, scale = int(said["Class"]), float(said["Scale"].removeprefix("s = "))
    points, opinions = draw(asked, scale, said["Seed"])
    y, t = torch.full((169,), asked), torch.full((169,), said["Arrows at level"])
    field = guidance(classifier, y, 1.0, GRID[:, :, None, None], t)
    return {"points": points.flatten().tolist(), "opinions": opinions, "field": field.flatten().tolist()}


@pytest.mark.claim("cgd-live")
def test_try_scales_and_levels():
    for seed in range(1, 6):
        assert torch.allclose(draw(0, 0.0, seed)[0], draw(1, 0.0, seed)[0])
        plain, once, far = (draw(1, scale, seed)[0] for scale in (0.0, 1.0, 4.0))
        nearest = [(torch.cdist(x, TOY.means).argmin(1) == 1).double().mean() for x in (plain, once, far)]
        assert nearest[0] < 0.5 and nearest[1] > 0.95 and nearest[2] > 0.95
        assert far.std(0).mean() < 0.8 * once.std(0).mean()  # closer together
        others = TOY.means[[0, 2]].mean(0)
        away = [(x.mean(0) - others).norm() for x in (once, far)]
        assert away[1] > away[0] + 0.2
    turns = torch.tensor(reference({"Arrows at level": 999})["field"]).view(-1, 2)
    assert torch.cosine_similarity(turns, turns.mean(0, keepdim=True)).min() > 0.99  # one direction for all
