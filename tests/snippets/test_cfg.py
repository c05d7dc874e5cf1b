"""Classifier-free guidance: equations on the toy mixture, where all is known; diffusers; the tasks; wrong input."""

import ast
import inspect
import math
import re
from pathlib import Path

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg
from safetensors.torch import load_model
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from snippets import cfg, ddpm
from snippets.data import scenes as scene_data
from snippets.data.digits import digits
from snippets.data.scenes import scenes
from snippets.data.toy2d import Toy2D, toy2d
from tests.formula import Matrix
from tests.snippets.oracles import diffusers_unet, perturbed
from theme.page.pages import ROOT

LEVELS = [(0.999, 0.045), (0.8, 0.6), (0.1, 0.995)]  # signal, noise


@pytest.fixture
def model() -> cfg.ConditionalUNet:
    """A class-conditional network of 3 channels, all weights away from their start."""
    model = cfg.ConditionalUNet(cfg.ClassEncoder(7, dim=32), channels=3, widths=(8, 16))
    return perturbed(model, 0.1).double()


@pytest.fixture
def batch():
    """x (5, 3, 8, 12), t (5,) and classes (5,), float64."""
    x = torch.randn(5, 3, 8, 12, dtype=torch.float64)
    return x, torch.tensor([0, 1, 17, 500, 999]), torch.tensor([0, 6, 3, 3, 1])


# the guided prediction


def exact(signal: float, noise: float, count: int = 9):
    """Points of the plane, the exact noise given each of the 3 components, and the exact noise, as pictures."""
    toy, x = toy2d(), 2 * torch.randn(count, 2, dtype=torch.float64)
    told = -noise * toy.component_score(x, signal, noise).transpose(0, 1)
    return toy, x, told[..., None, None], toy.eps(x, signal, noise)[..., None, None]


@pytest.mark.equation("cfg-guided", of=cfg.guide)
@pytest.mark.equation("cfg-tilted", of=cfg.guide)
@pytest.mark.equation("cfg-implicit", of=None)
def test_guidance_is_its_formulas(formula):
    """For one class of the mixture, where log densities can be differentiated; s = 2.5."""
    signal, noise = LEVELS[1]
    toy, x, told, untold = exact(signal, noise)
    x.requires_grad_()
    names = {r"\epsilon(x_t)": untold[:, :, 0, 0], r"\epsilon(x_t, y)": told[1, :, :, 0, 0]}
    ours = {r"\tilde\epsilon": cfg.guide(told[1], untold, 2.5)[:, :, 0, 0], "s": 2.5}
    formula("cfg-guided").holds(names | ours)
    log_class = toy.log_posterior(x, signal, noise)[:, 1]
    gradient = torch.autograd.grad(log_class.sum(), x, retain_graph=True)[0]
    level = {r"\bar\alpha_t": torch.full_like(gradient, signal**2)}
    formula("cfg-implicit").holds(names | level | {r"\nabla \log p_t(y \mid x_t)": gradient})
    nabla = {r"\nabla": lambda value: torch.autograd.grad(value.sum(), x, retain_graph=True)[0]}
    densities = {"p_t(x_t)": toy.log_density(x, signal, noise).exp(), r"p_t(y \mid x_t)": log_class.exp()}
    formula("cfg-tilted").holds(ours | level | nabla | densities)


@pytest.mark.parametrize("signal, noise", LEVELS)
def test_guidance_is_linear_in_the_scale(signal, noise):
    _, _, told, untold = exact(signal, noise)
    told = told[1]
    assert torch.equal(cfg.guide(told, untold, 0.0), untold)
    torch.testing.assert_close(cfg.guide(told, untold, 1.0), told)
    slope = cfg.guide(told, untold, 3.5) - cfg.guide(told, untold, 2.5)
    torch.testing.assert_close(slope, told - untold)
    torch.testing.assert_close(cfg.guide(told, untold, 8.0), 8 * told - 7 * untold)
    assert (cfg.guide(untold, told, 8.0) - cfg.guide(told, untold, 8.0)).abs().max() > 0.1  # halves swapped


@pytest.mark.claim("cfg-one-answer")
def test_at_two_scales_one_answer_does_not_count():
    told, untold, other = torch.randn(3, 4, 3, 5, 6, dtype=torch.float64)
    assert torch.equal(cfg.guide(told, untold, 0.0), cfg.guide(other, untold, 0.0))
    torch.testing.assert_close(cfg.guide(told, untold, 1.0), cfg.guide(told, other, 1.0))
    for scale in (-1.0, 0.5, 2.0):  # at others both do
        assert (cfg.guide(told, untold, scale) - cfg.guide(other, untold, scale)).abs().max() > 0.1
        assert (cfg.guide(told, untold, scale) - cfg.guide(told, other, scale)).abs().max() > 0.1


@pytest.mark.parametrize("signal, noise", LEVELS)
def test_the_difference_of_the_predictions_is_a_classifiers_gradient(signal, noise, agrees):
    toy, x, told, untold = exact(signal, noise)
    x.requires_grad_()
    for k in range(3):
        log_p = toy.log_posterior(x, signal, noise)[:, k].sum()
        gradient = torch.autograd.grad(log_p, x)[0][..., None, None]
        agrees((untold - told[k]) / noise, gradient, "the gradient of toy2d's exact class posterior", 1e-10)
        assert ((told[k] - untold) / noise - gradient).abs().max() > 1e-3  # the sign


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0, 8.0])
def test_guided_noise_is_the_score_of_the_tilted_density_at_its_level(scale, agrees):
    """eps of p_t(x) p_t(y | x)^s, by automatic differentiation of the exact log densities."""
    for signal, noise in LEVELS:
        toy, x, told, untold = exact(signal, noise)
        x.requires_grad_()
        for k in range(3):
            tilted = toy.log_density(x, signal, noise) + scale * toy.log_posterior(x, signal, noise)[:, k]
            wanted = -noise * torch.autograd.grad(tilted.sum(), x)[0][..., None, None]
            ours = cfg.guide(told[k], untold, scale)
            agrees(ours, wanted, "the gradient of toy2d's exact tilted density", 1e-10)
            other = cfg.guide(told[k], untold, scale + 1)  # w taken for s
            assert (other - wanted).abs().max() > 1e-3


@pytest.mark.equation("cfg-scale", of=cfg.scale_from_w)
def test_both_conventions_give_the_same_prediction(formula):
    """The paper: (1 + w) told - w untold. Libraries: untold + s (told - untold)."""
    formula("cfg-scale").holds({"s": cfg.scale_from_w(2.5), "w": 2.5})
    told, untold = torch.randn(2, 4, 3, 5, 6, dtype=torch.float64)
    for w in (-1.0, 0.0, 0.3, 2.0, 7.5):
        paper = (1 + w) * told - w * untold
        torch.testing.assert_close(cfg.guide(told, untold, cfg.scale_from_w(w)), paper)
    assert cfg.scale_from_w(-1.0) == 0 and cfg.scale_from_w(0.0) == 1
    assert (cfg.guide(told, untold, 2.0) - (3 * told - 2 * untold)).abs().max() > 0.1  # s taken for w


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
def test_one_pass_for_both_halves_equals_two(model, batch, scale):
    x, t, y = batch
    schedule = ddpm.NoiseSchedule(ddpm.linear_beta())
    with torch.no_grad():
        told, untold = (
            ddpm.eps_from_x0(schedule, x, t, model(x, t, c)) for c in (y, torch.full_like(y, 7))
        )  # combined in the noise, where guided combines pictures: at a given x_t the two differ by a linear map
        ours = cfg.guided(model, schedule, y, scale)(x, t)
        torch.testing.assert_close(ours, untold + scale * (told - untold), rtol=0, atol=1e-10)
        swapped = told + scale * (untold - told)
        assert (ours - swapped).abs().max() > 1e-3
        rows = [slice(i, i + 1) for i in range(5)]
        alone = torch.cat([cfg.guided(model, schedule, y[i], scale)(x[i], t[i]) for i in rows])
    torch.testing.assert_close(ours, alone, rtol=0, atol=1e-10)  # whatever else is in the batch


def test_whole_guided_runs_equal_diffusers(model, batch, agrees):
    x, _, y = batch
    schedule = ddpm.NoiseSchedule(ddpm.linear_beta(40, 2e-3, 0.3))
    theirs = DDIMScheduler(40, 2e-3, 0.3, clip_sample=False, timestep_spacing="trailing", prediction_type="sample")
    theirs.alphas_cumprod = schedule.alpha_bar.clone()
    theirs.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    theirs.set_timesteps(8)
    for phi in (0.0, 0.7):
        out = x
        with torch.no_grad():
            for level in theirs.timesteps:
                untold, told = (model(out, level.expand(5), c) for c in (torch.full_like(y, 7), y))
                x0 = rescale_noise_cfg(untold + 3.0 * (told - untold), told, phi)
                out = theirs.step(x0, level, out).prev_sample
        predict = cfg.guided(model, schedule, y, 3.0, phi)
        ours = ddpm.sample_ddim(predict, schedule, x, 8, 0.0, torch.Generator())
        agrees(ours, out, "diffusers.DDIMScheduler", 1e-10)
        other = ddpm.sample_ddim(cfg.guided(model, schedule, y, 2.0, phi), schedule, x, 8, 0.0, torch.Generator())
        assert (other - out).abs().max() > 1e-3


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_the_guided_sampler_does_not_draw_the_tilted_density(scale):
    """Exact predictions, one component asked for: at scale 1 its mean is drawn, at scale 4 far from the tilted mean."""
    toy, schedule = toy2d(), ddpm.NoiseSchedule(ddpm.linear_beta())

    def predict(x, t):
        signal, noise = float(schedule.signal[t[0]]), float(schedule.noise[t[0]])
        told = -noise * toy.component_score(x[:, :, 0, 0], signal, noise)[:, 1]
        untold = toy.eps(x[:, :, 0, 0], signal, noise)
        return cfg.guide(told[..., None, None], untold[..., None, None], scale)

    line = torch.linspace(-4, 4, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)
    log_p = toy.log_density(grid, 1.0, 0.0) + scale * toy.log_posterior(grid, 1.0, 0.0)[:, 1]
    tilted = log_p.softmax(dim=0) @ grid
    start = torch.randn(2000, 2, 1, 1, dtype=torch.float64)
    drawn = ddpm.sample_ddim(predict, schedule, start, 250, 0.0, torch.Generator())[:, :, 0, 0]
    apart = (drawn.mean(0) - tilted).norm()
    assert apart < 0.05 if scale == 1 else apart > 0.4


# the network


@pytest.mark.claim("cfg-unet-class")
def test_the_conditional_network_equals_diffusers(model, batch, agrees):
    x, t, y = batch
    theirs = diffusers_unet(3, (8, 16), (False, True), 1, 8, num_class_embeds=8).double()
    names = {"encoder.embedding.weight": "class_embedding.weight"}
    weights = {names.get(name, name): w for name, w in model.state_dict().items() if name != "encoder.null"}
    theirs.load_state_dict(weights)
    with torch.no_grad():
        ours, out = model(x, t, y), theirs.eval()(x, t, class_labels=y).sample
        agrees(ours, out, "diffusers.UNet2DModel", 1e-6)  # theirs embeds t in float32
        assert (model(x, t, y.flip(0)) - out).abs().amax(dim=(1, 2, 3))[[0, 1]].min() > 1e-3


@pytest.fixture
def painter() -> cfg.SceneUNet:
    model = cfg.SceneUNet(cfg.CaptionEncoder(9, 6, dim=32), channels=3, widths=(8, 16))
    return perturbed(model, 0.1).double()


def test_the_scene_network_places_its_layout(painter):
    """The cells are the squares of pixels, and below them stands the layout, enlarged."""
    x, t = torch.randn(5, 3, 8, 16, dtype=torch.float64), torch.tensor([0, 1, 17, 500, 999])
    y = torch.randint(1, 9, (5, 6))
    inputs = []
    hook = painter.conv_in.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    with torch.no_grad():
        out = painter(x, t, y)
        assert out.shape == x.shape
        assert (painter(x, t, y.flip(1)) - out).abs().amax(dim=(1, 2, 3)).min() > 1e-3  # the order of words matters
    cells, layout = inputs[0].split([12, 16], dim=1)
    hook.remove()
    assert torch.equal(cells, torch.nn.functional.pixel_unshuffle(x, 2))
    wanted = painter.layout(painter.encoder(y)).view(5, 16, 4, 4)
    torch.testing.assert_close(layout, wanted.repeat_interleave(2, dim=3))  # cells are 4 x 8, the layout is 4 x 4
    assert (layout - wanted.flip(3).repeat_interleave(2, dim=3)).abs().max() > 0.1


def test_the_scene_network_without_layout_is_the_conditional_one(painter):
    x, t, y = torch.randn(5, 3, 8, 16, dtype=torch.float64), torch.arange(5), torch.randint(0, 9, (5, 6))
    plain = cfg.ConditionalUNet(painter.encoder, channels=12, widths=(8, 16)).double().eval()
    with torch.no_grad():
        painter.conv_in.weight[:, 12:] = 0
        weights = {k: v for k, v in painter.state_dict().items() if not k.startswith("layout")}
        weights["conv_in.weight"] = weights["conv_in.weight"][:, :12]
        plain.load_state_dict(weights)
        cells = plain(torch.nn.functional.pixel_unshuffle(x, 2), t, y)
        torch.testing.assert_close(painter(x, t, y), torch.nn.functional.pixel_shuffle(cells, 2))


@pytest.mark.claim("cfg-quarter")
def test_squares_of_pixels_cost_about_a_quarter():
    """Multiplications for one picture, by the networks of the lab's widths on squares and on pixels."""
    x, t, y = torch.randn(1, 3, 32, 32), torch.tensor([500]), torch.ones(1, 6, dtype=torch.long)
    counted = []
    for network in (cfg.SceneUNet, cfg.ConditionalUNet):
        model = network(cfg.CaptionEncoder(9, 6, dim=128), channels=3, widths=(32, 64)).eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(x, t, y)
        counted.append(counter.get_total_flops())
    assert 0.22 < counted[0] / counted[1] < 0.28


def test_captions_ignore_padding_and_heed_the_order_of_words():
    torch.manual_seed(1)
    encoder = cfg.CaptionEncoder(20, 26, dim=12).double().eval()
    captions = torch.randint(1, 20, (3, 26))
    captions[0, 11:], captions[1, 5:] = 0, 0
    longer = cfg.CaptionEncoder(20, 30, dim=12).double().eval()
    longer.load_state_dict(encoder.state_dict() | {"null": longer.null})
    with torch.no_grad():
        short = encoder(captions)
        torch.testing.assert_close(longer(nn.functional.pad(captions, (0, 4))), short)  # more padding, same vector
        swapped = captions.clone()
        swapped[2, [3, 20]] = captions[2, [20, 3]]
        assert (encoder(swapped) - short)[2].abs().max() > 1e-3 or captions[2, 3] == captions[2, 20]
        assert torch.equal(encoder(swapped)[:2], short[:2])
        empty = encoder(encoder.null.expand(2, -1))
        assert torch.equal(empty, encoder.out.bias.expand(2, -1))  # "" holds no word
    assert not model_parameters_without_gradient(encoder, captions)


def model_parameters_without_gradient(encoder: nn.Module, captions) -> list[str]:
    encoder(captions).square().sum().backward()
    return [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.abs().sum()]


# training


@pytest.mark.parametrize("trailing", [(), (6,)])
def test_conditions_are_dropped_one_by_one(trailing):
    condition = torch.arange(1, 4001).view(-1, *[1] * len(trailing)).expand(4000, *trailing)
    null = torch.zeros(trailing, dtype=torch.long)
    out = cfg.drop_condition(condition, null, 0.3, torch.Generator().manual_seed(0))
    flat = out.view(4000, -1)
    dropped = (flat == 0).all(dim=1)
    assert ((flat == 0).any(dim=1) == dropped).all()  # a caption is dropped whole
    assert torch.equal(out[~dropped], condition[~dropped])
    assert abs(dropped.float().mean() - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 4000)
    runs = (dropped[1:] != dropped[:-1]).float().mean()
    assert abs(runs - 2 * 0.3 * 0.7) < 0.04  # independent of the neighbour, so not by batch
    kept = cfg.drop_condition(condition, null, 0.0, torch.Generator())
    gone = cfg.drop_condition(condition, null, 1.0, torch.Generator())
    assert torch.equal(kept, condition) and not gone.any()


@pytest.mark.equation("cfg-loss", of=(cfg.guided_loss, cfg.drop_condition))
def test_the_loss_is_its_formula(formula):
    """Expectation: the mean over a batch. The code takes the mean over the 3 * 4 * 8 numbers, not their sum."""
    asked = []

    class Network(nn.Module):
        encoder = cfg.ClassEncoder(3, dim=4)

        def forward(self, x, t, condition):
            asked[:] = x, t, condition
            return x.sin() + (0.1 * t.double() + condition)[:, None, None, None]

    schedule = ddpm.NoiseSchedule(ddpm.linear_beta(40, 2e-3, 0.3))
    model, y = Network(), torch.arange(3).repeat(30)
    x0 = torch.rand(90, 3, 4, 8, dtype=torch.float64) * 2 - 1
    loss = cfg.guided_loss(model, schedule, x0, y, 0.1, torch.Generator().manual_seed(0))
    xt, t, told = asked
    bar = torch.stack([torch.prod(1 - schedule.beta[: level + 1]) for level in t])
    names = {
        "L": 3 * 4 * 8 * loss,
        r"\mathbb{E}_{x_0, y, t, \epsilon}": torch.mean,
        r"\lambda_t": (1 / (1 - bar)).clamp(max=10)[:, None],
        "x_0": x0.flatten(1),
        r"x_\theta": lambda x, t, y: model(x.view(xt.shape), t, y).flatten(1),
        "x_t": xt.flatten(1),
        "t": t,
        "y'": told,
        r"\varnothing": 3,
        r"\text{with probability } 0.1": told == 3,
        "y": y,
    }
    formula("cfg-loss").holds(names, relations=2)
    assert 2 <= (told == 3).sum() <= 20


@pytest.mark.claim("cfg-velocity-loss")
def test_with_the_uncut_weight_the_error_is_the_velocitys(batch):
    """At each level; and the cut leaves the weight of noisy levels as it is."""
    x, t, _ = batch
    schedule = ddpm.NoiseSchedule(ddpm.linear_beta())
    x0, guess = torch.randn(2, *x.shape, dtype=torch.float64)
    implied = [ddpm.velocity(schedule, one, t, ddpm.eps_from_x0(schedule, x, t, one)) for one in (x0, guess)]
    weight = schedule.at(1 / schedule.noise**2, t, x)
    torch.testing.assert_close(weight * (guess - x0).square(), (implied[1] - implied[0]).square())
    assert ((weight.flatten() > 10) == torch.tensor([True, True, True, False, False])).all()


def test_the_loss_is_the_error_of_x0_with_a_share_of_the_conditions_dropped():
    """What the network is asked, and that the images of the batch and their conditions stay pairs."""
    asked = []

    class Zero(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = cfg.ClassEncoder(3, dim=4)

        def forward(self, x, t, condition):
            asked.append((x, t, condition))
            return torch.zeros_like(x)

    schedule = ddpm.NoiseSchedule(ddpm.linear_beta(40, 2e-3, 0.3))
    x0 = torch.tensor([0.9, -0.9, 0.3])[:, None, None, None].expand(3, 1, 4, 8)
    y = torch.arange(3).repeat(300)
    loss = cfg.guided_loss(Zero(), schedule, x0[y], y, 0.2, torch.Generator().manual_seed(0))
    ((xt, t, told),) = asked
    assert abs((told == 3).float().mean() - 0.2) < 4 * math.sqrt(0.2 * 0.8 / 900)
    assert torch.equal(told[told < 3], y[told < 3])
    noise = ddpm.eps_from_x0(schedule, xt, t, x0[y])
    assert abs(noise.mean()) < 0.03 and abs(noise.std() - 1) < 0.03
    weight = [min(1 / (1 - math.prod(1 - b for b in schedule.beta[: level + 1].tolist())), 10) for level in t.tolist()]
    wanted = (torch.tensor(weight)[:, None, None, None] * x0[y].square()).mean()
    torch.testing.assert_close(loss, wanted)
    for other in (x0[y].square().mean(), noise.square().mean()):  # without the weight; the error of eps
        assert abs(loss - other) > 0.05
    assert t.min() == 0 and t.max() == 39


def test_one_network_learns_both_predictions_and_training_repeats(monkeypatch):
    x0 = torch.tensor([0.6, -0.6])[:, None, None, None].expand(2, 1, 4, 8).repeat(20, 1, 1, 1)
    y = torch.arange(2).repeat(20)
    schedule = ddpm.NoiseSchedule(ddpm.linear_beta(40, 2e-3, 0.3))

    def trained(num_steps):
        torch.manual_seed(0)
        model = cfg.ConditionalUNet(cfg.ClassEncoder(2, dim=32), channels=1, widths=(8, 16))
        return cfg.train_guided(model, schedule, x0, y, num_steps, batch_size=32)

    model = trained(150)
    assert not model.training
    noise = torch.randn(40, 1, 4, 8, generator=torch.Generator().manual_seed(3))
    predict = cfg.with_x0(schedule, cfg.guided(model, schedule, y, 1.0), lambda x0: x0.clamp(-1, 1))
    mean = ddpm.sample_ddim(predict, schedule, noise, 20, 0.0, torch.Generator()).mean(dim=(1, 2, 3))
    assert (mean[y == 0] > 0.2).all() and (mean[y == 1] < -0.2).all()
    level = torch.full((40,), 20)
    untold = [cfg.guided(model, schedule, told, 0.0)(noise, level) for told in (y, 1 - y)]
    assert torch.equal(*untold)  # deaf to the class
    shares, loss = [], cfg.guided_loss
    monkeypatch.setattr(cfg, "guided_loss", lambda *args: shares.append(args[4]) or loss(*args))
    short = [trained(3)(noise, torch.full((40,), 20), y) for _ in range(2)]
    assert torch.equal(*short)
    assert shares == [0.1] * 6  # one in ten


# remedies

RESCALE = "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion.rescale_noise_cfg"


@pytest.mark.equation("cfg-rescale", of=cfg.rescale)
def test_rescale_equals_diffusers_and_restores_the_deviation(agrees, formula):
    told = 1.3 * torch.randn(4, 3, 5, 6, dtype=torch.float64)
    eps = 5 * torch.randn_like(told) + 0.2
    names = {r"\tilde x \leftarrow": cfg.rescale(eps, told, 0.3), r"\tilde x": eps, r"x_\theta(x_t, t, y)": told}
    deviation = {r"\sigma": lambda x: x.std(dim=(1, 2, 3), keepdim=True)}
    formula("cfg-rescale").holds(names | deviation | {r"\phi": 0.3})
    for phi in (0.0, 0.3, 1.0):
        agrees(cfg.rescale(eps, told, phi), rescale_noise_cfg(eps, told, phi), RESCALE, 1e-10)
    torch.testing.assert_close(cfg.rescale(eps, told, 1.0).std(dim=(1, 2, 3)), told.std(dim=(1, 2, 3)))
    assert torch.equal(cfg.rescale(eps, told, 0.0), eps)
    assert (cfg.rescale(told, eps, 0.3) - rescale_noise_cfg(eps, told, 0.3)).abs().max() > 0.1


@pytest.mark.claim("cfg-apg")
@pytest.mark.equation("cfg-across", of=None)
def test_adaptive_projected_guidance_is_its_formula(formula):
    """The library's, without the part along the conditional picture, its limit and its momentum; then its defaults."""
    told, untold = torch.randn(2, 4, 3, 5, 6, dtype=torch.float64)
    settings = {"eta": 0.0, "use_original_formulation": True, "adaptive_projected_guidance_rescale": 0.0}
    found = diffusers.AdaptiveProjectedGuidance(guidance_scale=2.5, **settings).forward(told, untold).pred
    names = {r"\tilde x": found.flatten(1), "x_y": told.flatten(1), r"x_\varnothing": untold.flatten(1), "s": 3.5}
    names[r"\Delta"] = (told - untold).flatten(1)
    products = {
        r"\langle \Delta, x_y \rangle": ((told - untold) * told).sum((1, 2, 3))[:, None],
        r"\langle x_y, x_y \rangle": told.square().sum((1, 2, 3))[:, None],
    }
    formula("cfg-across").holds(names | products, relations=2)
    assert ((found - told) * told).sum((1, 2, 3)).abs().max() < 1e-10  # nothing along the conditional picture
    assert (cfg.guide(told, untold, 3.5) - found).abs().max() > 0.1
    default = diffusers.AdaptiveProjectedGuidance(guidance_scale=3.5)
    assert default.eta == 1.0 and default.adaptive_projected_guidance_momentum is None
    short = told[:, :, :1, :1], untold[:, :, :1, :1]  # the default limit on the length, 15, is not reached
    torch.testing.assert_close(default.forward(*short).pred, cfg.guide(*short, 3.5))


@pytest.mark.claim("cfg-plusplus")
@pytest.mark.equation("cfg-plusplus", of=cfg.guide)
def test_a_step_of_cfg_plus_plus_is_a_guided_step_at_another_scale(formula):
    """The step written out; then the scale at which a guided DDIM step, linear in it, arrives at the same point."""
    schedule = ddpm.NoiseSchedule(ddpm.linear_beta())
    x, told, untold = torch.randn(3, 7, 3, 4, 6, dtype=torch.float64)
    levels, strength = ddpm.ddim_levels(schedule, 50), 0.6
    bar = lambda level: schedule.alpha_bar[level] if level >= 0 else torch.tensor(1.0, dtype=torch.float64)  # noqa: E731
    scales = []
    for level, lower in zip(levels[:-1], levels[1:], strict=True):
        t, target = torch.full((7,), level), torch.full((7,), lower)
        here, there = bar(level), bar(lower)
        guided = untold + strength * (told - untold)
        wanted = there.sqrt() * (x - (1 - here).sqrt() * guided) / here.sqrt() + (1 - there).sqrt() * untold
        plain, more = (
            ddpm.ddim_step(schedule, x, t, target, cfg.guide(told, untold, s), 0.0, torch.zeros_like(x))
            for s in (0.0, 1.0)
        )
        found = (wanted - plain) / (more - plain)
        torch.testing.assert_close(found, torch.full_like(found, found.mean().item()))
        scales.append(found.mean().item())
        if level == 499:
            names = {"s_t": found.mean(), r"\lambda": strength, r"\bar\alpha_t": here}
            noisy = {
                r"\varsigma_t": (1 - here).sqrt() / here.sqrt(),
                r"\varsigma_{t'}": (1 - there).sqrt() / there.sqrt(),
            }
            formula("cfg-plusplus").holds(names | noisy, relations=2)
    assert scales[0] == pytest.approx(3.3, abs=0.05) and max(scales) == pytest.approx(6.4, abs=0.05)
    assert scales[-1] == pytest.approx(strength) and scales.index(max(scales)) > 25
    sigma = [((1 - bar(level)) / bar(level)).sqrt().item() for level in ddpm.ddim_levels(schedule, 25)]
    half = [strength * a / (a - b) for a, b in zip(sigma[:-1], sigma[1:], strict=True)]
    assert half[0] == pytest.approx(scales[0] / 2, rel=0.12) and max(half) == pytest.approx(max(scales) / 2, rel=0.06)
    assert half[-1] == pytest.approx(strength)


@pytest.mark.claim("cfg-by-hand")
def test_the_worked_example():
    """Each number of the page's table, by the printed functions."""
    beta = torch.tensor([0.1, 0.2, 0.4], dtype=torch.float64)
    schedule, one = ddpm.NoiseSchedule(beta), torch.tensor([1])
    pair = lambda a, b: torch.tensor([a, b], dtype=torch.float64).view(1, 1, 1, 2)  # noqa: E731
    x, told, untold = pair(0.5, 0), pair(0.9, -0.5), pair(0.3, -0.4)
    near = lambda ours, a, b: torch.testing.assert_close(ours, pair(a, b), rtol=0, atol=6e-5)  # noqa: E731
    near(schedule.signal[:2].view(1, 1, 1, 2), 0.9487, 0.8485)
    near(schedule.noise[:2].view(1, 1, 1, 2), 0.3162, 0.5292)
    beyond = cfg.guide(told, untold, 3.0)
    near(told - untold, 0.6, -0.1)
    near(beyond, 2.1, -0.7)
    near(cfg.guide(told, untold, cfg.scale_from_w(2.0)), 2.1, -0.7)
    eps = ddpm.eps_from_x0(schedule, x, one, beyond)
    near(eps, -2.4226, 1.1225)
    quiet = torch.zeros_like(x)
    near(ddpm.ddim_step(schedule, x, one, one - 1, eps, 0.0, quiet), 1.2261, -0.3091)
    clipped = cfg.with_x0(schedule, lambda xt, t: eps, lambda x0: x0.clamp(-1, 1))(x, one)
    near(clipped, -0.6587, 1.1225)
    near(ddpm.ddim_step(schedule, x, one, one - 1, clipped, 0.0, quiet), 0.7404, -0.3091)
    assert told.std().item() == pytest.approx(0.9899, abs=6e-5)
    assert beyond.std().item() == pytest.approx(1.9799, abs=6e-5)
    near(cfg.rescale(beyond, told, 0.7), 1.3650, -0.4550)
    near(cfg.dynamic_threshold(beyond, 1.0), 1, -0.3333)


@pytest.mark.claim("cfg-what-is-guided")
def test_what_is_guided_makes_no_difference_unless_the_halves_are_changed_first(batch):
    x, t, _ = batch
    schedule = ddpm.NoiseSchedule(ddpm.linear_beta())
    told, untold = 1.5 * torch.randn(2, *x.shape, dtype=torch.float64)  # clean pictures
    in_noise = lambda a, b, combine: combine(*(ddpm.eps_from_x0(schedule, x, t, one) for one in (a, b)))  # noqa: E731
    in_pictures = lambda a, b, combine: ddpm.eps_from_x0(schedule, x, t, combine(a, b))  # noqa: E731
    plain = lambda a, b: cfg.guide(a, b, 3.0)  # noqa: E731
    torch.testing.assert_close(in_noise(told, untold, plain), in_pictures(told, untold, plain))
    after = in_pictures(told, untold, lambda a, b: plain(a, b).clamp(-1, 1))
    before = in_pictures(told.clamp(-1, 1), untold.clamp(-1, 1), plain)
    assert (after - before).abs().max() > 0.1
    rescaled = lambda a, b: cfg.rescale(plain(a, b), a, 0.7)  # noqa: E731
    assert (in_noise(told, untold, rescaled) - in_pictures(told, untold, rescaled)).abs().max() > 0.1


@pytest.mark.claim("cfg-fault-mask")
def test_with_the_mask_the_wrong_way_round_the_hole_is_filled_perfectly(batch):
    """What the page says of that fault: the hole is the real picture, and only the pixels around it tell."""
    x, _, _ = batch
    pictures, known = torch.rand_like(x) * 2 - 1, torch.rand(8, 12) < 0.5
    exchanged = cfg.keep_pixels(pictures, ~known)(x.clamp(-1, 1))
    assert torch.equal(exchanged[..., ~known], pictures[..., ~known])
    assert (exchanged - pictures)[..., known].abs().max() > 0.1


@pytest.mark.equation("cfg-threshold", of=cfg.dynamic_threshold)
def test_dynamic_threshold_equals_diffusers(agrees, formula):
    theirs = DDIMScheduler(thresholding=True, dynamic_thresholding_ratio=0.8, sample_max_value=1e6)
    x0 = torch.randn(5, 3, 4, 6, dtype=torch.float64) * torch.tensor([0.1, 0.5, 1, 3, 9])[:, None, None, None]
    ours = cfg.dynamic_threshold(x0, 0.8)
    quantile = lambda x: x.flatten(1).quantile(0.8, dim=1)[:, None, None, None]  # noqa: E731
    names = {r"\hat x_0 \leftarrow": ours, r"\hat x_0": x0, "q": quantile(x0.abs()).clamp(min=1)}
    formula("cfg-threshold").holds(names | {r"\mathrm{quantile}": quantile}, relations=2)
    agrees(ours, theirs._threshold_sample(x0), "diffusers.DDIMScheduler", 1e-10)
    assert ours.abs().max() <= 1
    assert torch.equal(ours[0], x0[0])  # small pictures stay as they are
    assert (ours[4] - x0[4].clamp(-1, 1)).abs().max() > 0.3  # not the same as clipping
    assert (cfg.dynamic_threshold(x0, 0.9) - ours).abs().max() > 1e-2


@pytest.mark.equation("cfg-adjust", of=cfg.with_x0)
def test_with_x0_changes_the_implied_picture_and_nothing_else(batch, formula):
    x, t, _ = batch
    schedule = ddpm.NoiseSchedule(ddpm.linear_beta())
    eps = torch.randn_like(x)
    bar = torch.cumprod(1 - ddpm.linear_beta(), 0)[t][:, None, None, None]
    names = {
        r"\epsilon'": cfg.with_x0(schedule, lambda xt, t: eps, lambda x0: x0.sin())(x, t),
        "x_t": x,
        r"\bar\alpha_t": bar,
        r"\mathrm{adjust}": torch.sin,
        r"\hat x_0(x_t, \tilde\epsilon)": (x - (1 - bar).sqrt() * eps) / bar.sqrt(),
    }
    formula("cfg-adjust").holds(names)
    same = cfg.with_x0(schedule, lambda xt, t: eps, lambda x0: x0)(x, t)
    torch.testing.assert_close(same, eps)
    half = cfg.with_x0(schedule, lambda xt, t: eps, lambda x0: x0 / 2)(x, t)
    implied = ddpm.x0_from_eps(schedule, x, t, half)
    torch.testing.assert_close(implied, ddpm.x0_from_eps(schedule, x, t, eps) / 2)
    clipped = cfg.with_x0(schedule, lambda xt, t: eps, lambda x0: x0.clamp(-1, 1))
    one = torch.full((5,), 30)
    quiet = torch.zeros_like(x)
    theirs = ddpm.ddpm_step_clipped(schedule, x, one, eps, quiet)  # DDPM's clipped step, through the same picture
    torch.testing.assert_close(ddpm.ddim_step(schedule, x, one, one - 1, clipped(x, one), 1.0, quiet), theirs)


# what is known is kept


@pytest.mark.claim("cfg-smallest")
@pytest.mark.equation("cfg-keep", of=(cfg.keep_pixels, cfg.keep_small))
def test_corrections_are_the_nearest_pictures_that_agree(formula):
    """A least-squares solver gives the nearest x with A x = y; so does the correction, for both A."""
    x0 = (torch.rand(2, 1, 4, 6, dtype=torch.float64) - 0.5) * 0.4  # well inside [-1, 1]
    real = (torch.rand(2, 1, 4, 6, dtype=torch.float64) - 0.5) * 0.4
    known = torch.rand(4, 6, generator=torch.Generator().manual_seed(1)) < 0.4
    eye = torch.eye(24, dtype=torch.float64)
    squares = torch.stack([cfg.shrink(row.view(1, 1, 4, 6)).flatten() for row in eye], dim=1)  # (6, 24)
    for matrix, keep in (
        (eye[known.flatten()], cfg.keep_pixels(real, known)),
        (squares, cfg.keep_small(cfg.shrink(real), rounds=1)),
    ):
        y = real.flatten(1) @ matrix.T
        nearest = x0.flatten(1) + (y - x0.flatten(1) @ matrix.T) @ torch.linalg.pinv(matrix).T
        ours = keep(x0).flatten(1)
        torch.testing.assert_close(ours, nearest)
        names = {r"\hat x_0 \leftarrow": ours, r"\hat x_0": x0.flatten(1), "x_0": real.flatten(1)}
        formula("cfg-keep").holds(names | {"A": Matrix(matrix), "A^{+}": Matrix(torch.linalg.pinv(matrix))})
        torch.testing.assert_close(ours @ matrix.T, y)
        assert (keep(real) - real).abs().max() < 1e-12
        assert (ours - real.flatten(1)).abs().max() > 0.05  # the rest is the guess's own


@pytest.mark.claim("cfg-turns")
def test_enlarged_pictures_agree_inside_the_range():
    """Squares at the edge of [-1, 1], from a wild guess: they agree, and clipping them changes next to nothing."""
    small = torch.tensor([-1.0, -0.97, 0.0, 0.6, 0.99, 1.0]).view(1, 1, 2, 3).repeat(4, 2, 1, 1)
    wild = 5 * torch.randn(4, 2, 4, 6)
    for rounds, bar in ((1, 10.0), (20, 1e-2)):
        out = cfg.keep_small(small, rounds)(wild)
        torch.testing.assert_close(cfg.shrink(out), small, rtol=0, atol=1e-5)
        error = (cfg.shrink(out.clamp(-1, 1)) - small).abs().max()
        assert error < bar
        assert rounds > 1 or error > 0.1


@pytest.mark.parametrize("task", ["fill", "enlarge"])
def test_restored_pictures_agree_with_what_is_known(model, batch, task):
    x, _, y = batch
    pictures = torch.rand_like(x) * 2 - 1
    known = torch.rand(8, 12) < 0.5
    keep = cfg.keep_pixels(pictures, known) if task == "fill" else cfg.keep_small(cfg.shrink(pictures))
    schedule = ddpm.NoiseSchedule(ddpm.linear_beta(40, 2e-3, 0.3))
    out = cfg.restore(cfg.guided(model, schedule, y, 2.0), schedule, keep, x, 8, torch.Generator().manual_seed(0))
    if task == "fill":
        assert torch.equal(out[..., known], pictures[..., known])  # exactly
        assert (out - pictures)[..., ~known].abs().max() > 0.1
    else:
        torch.testing.assert_close(cfg.shrink(out), cfg.shrink(pictures), rtol=0, atol=1e-6)
    again = cfg.restore(cfg.guided(model, schedule, y, 2.0), schedule, keep, x, 8, torch.Generator().manual_seed(1))
    assert (again - out).abs().max() > 1e-3  # another noise, another completion


@pytest.mark.parametrize("known_first", [True, False])
def test_restoring_leaves_an_independent_coordinate_as_it_was(known_first):
    """One round Gaussian, so that nothing known of one coordinate says anything of the other."""
    toy = Toy2D(torch.ones(1), torch.tensor([[0.1, -0.2]]), torch.tensor([0.15]))
    schedule = ddpm.NoiseSchedule(ddpm.linear_beta(1000))

    def predict(x, t):
        signal, noise = float(schedule.signal[t[0]]), float(schedule.noise[t[0]])
        return toy.eps(x[:, :, 0, 0], signal, noise)[:, :, None, None]

    known = torch.tensor([known_first, not known_first]).view(2, 1, 1)
    pictures = torch.full((2000, 2, 1, 1), 0.4, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(2000, 2, 1, 1, generator=generator, dtype=torch.float64)
    out = cfg.restore(predict, schedule, cfg.keep_pixels(pictures, known), start, 1000, generator)[:, :, 0, 0]
    kept, free = (0, 1) if known_first else (1, 0)
    assert (out[:, kept] == 0.4).all()
    assert out[:, free].mean() == pytest.approx(toy.means[0, free].item(), abs=0.02)
    assert out[:, free].std() == pytest.approx(0.15, rel=0.06)


def resampled(predict, schedule, known: float, x: torch.Tensor, times: int, generator) -> torch.Tensor:
    """RePaint (Lugmayr et al. 2022, Algorithm 1): 50 steps of DDIM at eta = 1, each taken `times` times."""
    levels = ddpm.ddim_levels(schedule, 50)
    for level, lower in zip(levels[:-1], levels[1:], strict=True):
        t, target, here = torch.full((len(x),), level), torch.full((len(x),), lower), schedule.alpha_bar[level]
        there = schedule.alpha_bar[lower] if lower >= 0 else torch.ones_like(here)
        for turn in range(times):
            fresh = torch.randn(3, *x.shape, generator=generator, dtype=torch.float64)
            below = ddpm.ddim_step(schedule, x, t, target, predict(x, t), 1.0, fresh[0])
            below[:, 0] = there.sqrt() * known + (1 - there).sqrt() * fresh[1][:, 0]
            if turn < times - 1:
                x = (here / there).sqrt() * below + (1 - here / there).sqrt() * fresh[2]
        x = below
    return x


def followed(predict, schedule, known: float, x: torch.Tensor, generator) -> torch.Tensor:
    """DPS (Chung et al. 2023, Algorithm 1): 200 steps of DDIM at eta = 1, less 0.3 times the gradient of the error."""
    levels = ddpm.ddim_levels(schedule, 200)
    for level, lower in zip(levels[:-1], levels[1:], strict=True):
        t, target = torch.full((len(x),), level), torch.full((len(x),), lower)
        x = x.detach().requires_grad_()
        eps = predict(x, t)
        error = (known - ddpm.x0_from_eps(schedule, x, t, eps)[:, 0]).square().sum()
        slope = torch.autograd.grad(error, x)[0]
        fresh = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        x = ddpm.ddim_step(schedule, x, t, target, eps, 1.0, fresh).detach() - 0.3 * slope
    return x


@pytest.mark.claim("cfg-repaint-dps")
def test_repaint_and_dps_do_not_draw_the_conditional_density_either():
    """The lab's toy of which the first coordinate is known; three draws of 1,500 points."""
    toy, schedule, known = toy2d(), ddpm.NoiseSchedule(ddpm.linear_beta()), 0.25
    toy = Toy2D(toy.weights, toy.means / 3, toy.deviations / 3)
    line = torch.linspace(-1, 1, 4001, dtype=torch.float64)
    p = toy.log_density(torch.stack([torch.full_like(line, known), line], dim=1), 1.0, 0.0).exp()
    exact = (p[line > 0.1].sum() / p.sum()).item()

    def predict(x, t):
        signal, noise = float(schedule.signal[t[0]]), float(schedule.noise[t[0]])
        return toy.eps(x[:, :, 0, 0], signal, noise)[:, :, None, None]

    once, often, dps = [], [], []
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        start = torch.randn(1500, 2, 1, 1, generator=generator, dtype=torch.float64)
        for times, shares in ((1, once), (10, often)):
            points = resampled(predict, schedule, known, start, times, generator)
            assert (points[:, 0] == known).all()
            shares.append((points[:, 1] > 0.1).double().mean().item())
        points = followed(predict, schedule, known, start, generator)
        dps.append((points[:, 1] > 0.1).double().mean().item())
        assert 0.003 < (points[:, 0] - known).abs().mean() < 0.05  # "off by a little"
    error = (exact * (1 - exact) / 1500) ** 0.5
    assert min(once + often + dps) > exact + 3 * error
    assert min(often) > max(once)


@pytest.mark.claim("cfg-fault-drop")
def test_a_row_that_was_never_told_does_not_learn():
    """The empty condition's row of the table gets no gradient where nothing is dropped, so it stays as it began."""
    torch.manual_seed(0)
    model = cfg.ConditionalUNet(cfg.ClassEncoder(3, dim=32), channels=1, widths=(8, 16))
    schedule, x0, y = ddpm.NoiseSchedule(ddpm.linear_beta()), torch.rand(40, 1, 4, 8) * 2 - 1, torch.arange(40) % 3
    moved = {}
    for drop in (0.0, 0.5):
        model.zero_grad()
        cfg.guided_loss(model, schedule, x0, y, drop, torch.Generator().manual_seed(0)).backward()
        moved[drop] = model.encoder.embedding.weight.grad.abs().amax(dim=1)
    assert moved[0.0][3] == 0 and (moved[0.0][:3] > 0).all() and (moved[0.5] > 0).all()


@pytest.mark.claim("cfg-fault-batch")
def test_the_share_that_is_dropped_of_a_batch():
    """Its deviation: 0.3 with one draw for all of a batch, 0.04 with one for each of 64."""
    generator, null = torch.Generator().manual_seed(0), torch.tensor(0)
    each = [(cfg.drop_condition(torch.ones(64).long(), null, 0.1, generator) == 0).double().mean() for _ in range(2000)]
    whole = [(cfg.drop_condition(torch.ones(1).long(), null, 0.1, generator) == 0).double().mean() for _ in range(2000)]
    assert torch.stack(each).std().item() == pytest.approx(0.0375, rel=0.06)
    assert torch.stack(whole).std().item() == pytest.approx(0.3, rel=0.06)


@pytest.fixture(scope="module")
def trained() -> cfg.ConditionalUNet:
    """The lab's network for digits."""
    model = cfg.ConditionalUNet(cfg.ClassEncoder(10, dim=96), channels=1, widths=(24, 48))
    load_model(model, ROOT / "docs/weights/CFG.safetensors")
    return model.eval()


@pytest.mark.claim("cfg-rescale-where")
def test_rescale_shrinks_at_noisy_levels_and_hardly_in_the_last_steps(trained):
    """The ratio of deviations at scale 8, along guided runs; five draws of ten digits."""
    schedule, y = ddpm.NoiseSchedule(ddpm.linear_beta()), torch.arange(10)

    def ratios(seed):
        found, generator = [], torch.Generator().manual_seed(seed)

        def predict(xt, t):
            told, untold = (trained(xt, t, c) for c in (y, torch.full_like(y, 10)))
            beyond = cfg.guide(told, untold, 8.0)
            found.append((told.std(dim=(1, 2, 3)) / beyond.std(dim=(1, 2, 3))).mean())
            return ddpm.eps_from_x0(schedule, xt, t, cfg.rescale(beyond, told, 0.7))

        ddpm.sample_ddim(predict, schedule, torch.randn(10, 1, 8, 8, generator=generator), 20, 0.0, generator)
        return torch.stack(found)

    found = torch.stack([ratios(seed) for seed in range(5)])
    assert ((found[:, :6] > 0.2) & (found[:, :6] < 0.28)).all() and (found[:, -2:] > 0.93).all()
    assert (found[:, :-1] < 1).all() and (found.mean(0).diff()[6:] > 0).all()


@pytest.mark.claim("cfg-eta")
def test_completions_differ_no_less_without_fresh_noise(trained):
    """Deviation over five completions of a lower half, of four held-out digits; five draws, paired by their noise."""
    pictures, labels = (part[:4] for part in digits(held_out=True))
    schedule, known = ddpm.NoiseSchedule(ddpm.linear_beta()), (torch.arange(8) < 4)[:, None]
    many, y = pictures.repeat(5, 1, 1, 1), labels.repeat(5)
    keep = cfg.keep_pixels(many, known)
    predict = cfg.with_x0(schedule, cfg.guided(trained, schedule, y, 1.0), keep)

    def spread(eta, seed):
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(many.shape, generator=generator)
        drawn = keep(ddpm.sample_ddim(predict, schedule, noise, 15, eta, generator))
        return drawn.view(5, 4, 1, 8, 8).std(0)[..., 4:, :].mean().item()

    quiet, noisy = ([spread(eta, seed) for seed in range(5)] for eta in (0.0, 1.0))
    assert min(quiet) > 0.1
    assert sum(quiet) > 0.95 * sum(noisy)


# the programs


def test_text_to_image_draws_a_picture_for_each_prompt(monkeypatch):
    monkeypatch.setattr(cfg, "SCENE_STEPS", 2)
    monkeypatch.setattr(cfg, "scenes", lambda count, generator: scenes(40, generator))
    prompts = ["a small red circle at the top left", "a large blue square at the bottom right", "", "a green cross"]
    out = cfg.text_to_image(prompts)
    assert out.shape == (4, 3, 32, 32) and out.isfinite().all()


def test_main_draws_three_sheets(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cfg, "TRAIN_STEPS", 2)
    cfg.main()
    printed = capsys.readouterr().out
    for name in ("guided.png", "filled.png", "enlarged.png"):
        assert (tmp_path / name).stat().st_size > 1000
        assert name in printed


# wrong input


def unet(**options) -> cfg.ConditionalUNet:
    return cfg.ConditionalUNet(cfg.ClassEncoder(3, dim=32), widths=(8, 16), **options)


def scene_unet() -> cfg.SceneUNet:
    return cfg.SceneUNet(cfg.ClassEncoder(3, dim=32), widths=(8, 16))


T2, Y2 = torch.tensor([1, 2]), torch.tensor([0, 2])
X2 = torch.zeros(2, 1, 4, 6)


@pytest.mark.parametrize(
    "call, given",
    [
        (lambda: cfg.ClassEncoder(3, 4)(torch.tensor([0, 4])), r"classes \(B,\) from 0 to 3.*4"),
        (lambda: cfg.ClassEncoder(3, 4)(torch.tensor([-1, 2])), "given.*-1"),
        (lambda: cfg.ClassEncoder(3, 4)(torch.tensor([[1]])), "given"),
        (lambda: cfg.ClassEncoder(3, 4)(torch.tensor([0.0, 1.0])), r"classes.*given tensor\(\[0., 1.\]\)"),
        (lambda: cfg.ClassEncoder(3, 4)(torch.zeros(0).long()), r"classes.*given tensor\(\[\]"),
        (lambda: cfg.CaptionEncoder(9, 5, 4)(torch.full((2, 5), 9)), r"captions \(B, 5\).*0 to 8.*given \(2, 5\)"),
        (lambda: cfg.CaptionEncoder(9, 5, 4)(torch.full((2, 6), 1)), r"captions \(B, 5\).*given \(2, 6\)"),
        (lambda: cfg.CaptionEncoder(9, 5, 4)(torch.full((2, 5), -1)), r"captions.*given \(2, 5\), tensor\(\[\[-1"),
        (lambda: cfg.CaptionEncoder(9, 5, 4)(torch.ones(2, 5)), r"captions.*given \(2, 5\), tensor\(\[\[1\."),
        (lambda: cfg.CaptionEncoder(9, 5, 4)(torch.zeros(0, 5).long()), r"captions.*given \(0, 5\)"),
        (lambda: cfg.CaptionEncoder(9, 5, 4)(torch.ones(5).long()), r"captions.*given \(5,\)"),
        (lambda: unet()(X2[0], T2, Y2), r"\(B, 1, H, W\).*given \(1, 4, 6\)"),
        (lambda: unet(channels=3)(X2, T2, Y2), r"\(B, 3, H, W\).*given \(2, 1, 4, 6\)"),
        (lambda: unet()(X2[..., :5], T2, Y2), r"multiples of 2 are expected, given \(2, 1, 4, 5\)"),
        (lambda: scene_unet()(X2, T2, Y2), r"\(B, 3, H, W\) with H and W multiples of 4.*given \(2, 1, 4, 6\)"),
        (lambda: scene_unet()(X2.repeat(1, 3, 1, 1), T2, Y2), r"multiples of 4.*given \(2, 3, 4, 6\)"),
        (lambda: unet()(X2, T2[:1], Y2), r"given \(1,\) and \(2,\) for 2 images"),
        (lambda: unet()(X2, T2, Y2[:1]), r"given \(2,\) and \(1,\) for 2 images"),
        (lambda: cfg.drop_condition(Y2, torch.tensor(3), 1.5, torch.Generator()), r"\[0, 1\] is expected, given 1.5"),
        (lambda: cfg.train_guided(unet(), None, X2, Y2[:1], 3), "2 images, 1 conditions, 3 steps, batches of 64"),
        (lambda: cfg.train_guided(unet(), None, X2, Y2, 0), "0 steps"),
        (lambda: cfg.train_guided(unet(), None, X2, Y2, 3, batch_size=0), "batches of 0"),
        (lambda: cfg.train_guided(unet(), None, X2 + 1.5, Y2, 3), r"in \[-1, 1\].*given torch.float32 up to 1.5"),
        (lambda: cfg.train_guided(unet(), None, X2.long(), Y2, 3), "given torch.int64"),
        (lambda: cfg.guide(X2, X2[:1], 2.0), r"same shape.*given \(2, 1, 4, 6\) and \(1, 1, 4, 6\)"),
        (lambda: cfg.guided(unet(), None, Y2, 2.0, phi=1.5), r"phi in \[0, 1\] is expected, given 1.5"),
        (lambda: cfg.rescale(X2, X2[:1], 0.5), r"two predictions.*given \(2, 1, 4, 6\) and \(1, 1, 4, 6\)"),
        (lambda: cfg.rescale(X2[0], X2[0], 0.5), r"\(B, C, H, W\) are expected, given \(1, 4, 6\)"),
        (lambda: cfg.dynamic_threshold(X2, 0.0), r"\(0, 1\] is expected, given 0.0"),
        (lambda: cfg.dynamic_threshold(X2, 1.1), "given 1.1"),
        (lambda: cfg.keep_pixels(X2, torch.ones(4, 6)), "mask of bools"),
        (lambda: cfg.keep_pixels(X2, torch.ones(4, 6, dtype=torch.bool)), "something to fill"),
        (lambda: cfg.keep_pixels(X2, torch.zeros(4, 5, dtype=torch.bool)), r"for \(2, 1, 4, 6\).*torch.bool \(4, 5\)"),
        (
            lambda: cfg.keep_pixels(X2[:1], torch.zeros(3, 1, 4, 6, dtype=torch.bool)),
            r"given torch.bool \(3, 1, 4, 6\)",
        ),
        (lambda: cfg.keep_small(X2, 0), r"rounds > 0 and images.*given 0 and \(2, 1, 4, 6\)"),
        (lambda: cfg.keep_small(X2 + 3), r"in \[-1, 1\].*given 20 and \(2, 1, 4, 6\) up to 3"),
        (lambda: cfg.keep_small(X2[0]), r"given 20 and \(1, 4, 6\)"),
        (lambda: cfg.keep_small(X2[:1, :, :1, :1])(X2), r"twice as large.*given \(2, 1, 4, 6\) for \(1, 1, 1, 1\)"),
        (lambda: cfg.text_to_image([]), r"at least one prompt is expected, given \[\]"),
        (lambda: cfg.shrink(torch.zeros(2, 1, 5, 6)), r"even.*given .*\(2, 1, 5, 6\)"),
        (lambda: cfg.text_to_image(["a pink circle"]), "pink"),
    ],
)
def test_wrong_input_is_refused(call, given):
    with pytest.raises(ValueError, match=given):
        call()


# what the page says about diffusers


TERM = r"[\w.\[\]]+"  # a name, an attribute or an entry
START = re.compile(rf"({TERM}) \+ [\w.]*guidance_scale \* \(\s*({TERM}) - ({TERM})\s*\)")
WEIGHTS = re.compile(r"\(([\w.]*guidance_scale) \+ 1(?:\.0)?\) \* \w+ - \1 \* \w+")


def guidance_formulas(source: str) -> set[str]:
    """How two predictions are combined: "s" for u + g * (c - u), "w" for c + g * (c - u) and (g + 1) * c - g * u."""
    code = "\n".join(line for line in source.splitlines() if not line.strip().startswith("#"))
    found = {{second: "w", third: "s"}.get(first) for first, second, third in START.findall(code)}
    return found - {None} | {"w" for _ in WEIGHTS.finditer(code)}


def test_guidance_formulas_are_told_apart():
    assert guidance_formulas("x = u + guidance_scale * (c - u)") == {"s"}
    assert guidance_formulas("x = c[0] + self.guidance_scale * (\n    c[0] - u[0]\n)") == {"w"}
    assert guidance_formulas("x = (guidance_scale + 1.0) * c - guidance_scale * u") == {"w"}
    assert (
        guidance_formulas("x = a + guidance_scale * (c - u); y = u + 2 * (c - u)\n # u + guidance_scale * (c - u)")
        == set()
    )


@pytest.mark.claim("cfg-pipelines")
def test_library_four_families_of_pipelines_take_w():
    """Of all pipelines with such a formula in their own source, the others take s."""
    pipelines, taking = Path(diffusers.__file__).parent / "pipelines", {"s": set(), "w": set()}
    for path in pipelines.rglob("pipeline_*.py"):
        for kind in guidance_formulas(path.read_text(encoding="utf-8")):
            taking[kind].add(path.relative_to(pipelines).as_posix())
    assert {path.partition("/")[0] for path in taking["w"]} == {"cosmos", "kandinsky3", "krea2", "z_image"}
    assert not taking["s"] & taking["w"] and len(taking["s"]) > 100
    assert {path for path in taking["s"] if path.startswith("cosmos/")} == {"cosmos/pipeline_cosmos3_omni.py"}


@pytest.mark.claim("cfg-switched-off")
@pytest.mark.parametrize(
    "name, off",
    [
        ("CosmosTextToWorldPipeline", 1),
        ("Kandinsky3Pipeline", 1),
        ("StableDiffusionPipeline", 1),
        ("Krea2Pipeline", 0),
        ("ZImagePipeline", 0),
    ],
)
def test_library_pipelines_switch_guidance_off(name, off):
    """At `off` and below; Stable Diffusion's takes s, the others w."""
    source = inspect.getsource(getattr(diffusers, name).do_classifier_free_guidance.fget)
    condition = ast.parse(source.strip().removeprefix("@property").strip()).body[0].body[-1].value
    compared = next(node for node in ast.walk(condition) if isinstance(node, ast.Compare))
    assert ast.unparse(compared.left).endswith("_guidance_scale") and isinstance(compared.ops[0], ast.Gt)
    assert compared.comparators[0].value == off


@pytest.mark.claim("cfg-flux")
def test_library_flux_hands_the_scale_to_the_network():
    source = inspect.getsource(diffusers.FluxPipeline.__call__)
    assert "guidance = torch.full([1], guidance_scale" in source and "guidance=guidance" in source


@pytest.mark.claim("cfg-order")
def test_library_stable_diffusion_puts_an_empty_caption_first():
    source = inspect.getsource(diffusers.StableDiffusionPipeline)
    assert 'uncond_tokens = [""] * batch_size' in source
    assert "prompt_embeds = torch.cat([negative_prompt_embeds, prompt_embeds])" in source


@pytest.mark.claim("cfg-zeros")
def test_library_sdxl_takes_zeros_unless_told_otherwise():
    large = diffusers.StableDiffusionXLPipeline
    assert inspect.signature(large.__init__).parameters["force_zeros_for_empty_prompt"].default is True
    assert "negative_prompt_embeds = torch.zeros_like(prompt_embeds)" in inspect.getsource(large.encode_prompt)


@pytest.mark.claim("cfg-threshold-default")
def test_library_thresholding_at_its_default_is_clipping():
    x0 = 2 * torch.randn(3, 1, 8, 8)
    plain, wide = (DDIMScheduler(thresholding=True, **limit) for limit in ({}, {"sample_max_value": 100.0}))
    torch.testing.assert_close(plain._threshold_sample(x0), x0.clamp(-1, 1))
    assert (wide._threshold_sample(x0) - x0.clamp(-1, 1)).abs().max() > 0.1


@pytest.mark.claim("cfg-rescale-noise")
def test_library_rescales_whatever_the_network_predicts():
    """Stable Diffusion's network predicts noise, or the velocity: the pipeline does not ask which."""
    source = inspect.getsource(diffusers.StableDiffusionPipeline.__call__)
    (line,) = (line for line in source.splitlines() if "rescale_noise_cfg(" in line)
    assert line.strip().startswith("noise_pred = rescale_noise_cfg(noise_pred, noise_pred_text,")
    assert "prediction_type" not in source


@pytest.mark.claim("cfg-defaults")
@pytest.mark.parametrize(
    "name, scale",
    [
        ("DiTPipeline", 4.0),
        ("StableDiffusionPipeline", 7.5),
        ("StableDiffusionXLPipeline", 5.0),
        ("StableDiffusion3Pipeline", 7.0),
        ("PixArtSigmaPipeline", 4.5),
        ("SanaPipeline", 4.5),
        ("Kandinsky3Pipeline", 3.0),
        ("FluxPipeline", 3.5),
    ],
)
def test_library_default_scales(name, scale):
    assert inspect.signature(getattr(diffusers, name).__call__).parameters["guidance_scale"].default == scale


# what the page says about steps of guidance and about its captions


@pytest.mark.claim("cfg-toy-step")
def test_a_guided_step_leaves_the_tilted_densities():
    """From exact points of the tilted density of level 400, DDIM one level at a time, at scale 4."""
    toy, schedule, scale, generator = toy2d(), ddpm.NoiseSchedule(ddpm.linear_beta()), 4.0, torch.Generator()
    line = torch.linspace(-4, 4, 201, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)

    def tilted(t: int):
        level = float(schedule.signal[t]), float(schedule.noise[t])
        p = (toy.log_density(grid, *level) + scale * toy.log_posterior(grid, *level)[:, 1]).softmax(dim=0)
        mean = p @ grid
        return p, mean, (p @ (grid - mean).square()).sqrt()

    x = grid[torch.multinomial(tilted(400)[0], 2000, replacement=True, generator=generator.manual_seed(0))]
    x = x[:, :, None, None]
    for t in range(400, 300, -1):
        signal, noise = float(schedule.signal[t]), float(schedule.noise[t])
        told = -noise * toy.component_score(x[:, :, 0, 0], signal, noise)[:, 1]
        eps = cfg.guide(told[:, :, None, None], toy.eps(x[:, :, 0, 0], signal, noise)[:, :, None, None], scale)
        x = ddpm.ddim_step(schedule, x, torch.full((2000,), t), torch.full((2000,), t - 1), eps, 0.0, x)
    _, mean, spread = tilted(300)
    drawn, others = x[:, :, 0, 0], toy.means[[0, 2]] * float(schedule.signal[300])
    assert (drawn.mean(0) - mean).norm() > 0.4 and (drawn.std(0) < 0.95 * spread).all()
    assert ((drawn.mean(0) - others).norm(dim=1) > (mean - others).norm(dim=1)).all()  # too far out


@pytest.mark.claim("cfg-captions-seen")
def test_a_third_of_the_labs_captions_occur_in_training(monkeypatch):
    """All with one shape, none with three, and none with the same picture."""
    monkeypatch.setattr(scene_data, "draw_scene", list)  # shapes alone: pictures take long
    training, tested = scenes(6000, torch.Generator().manual_seed(1)), scenes(120, torch.Generator().manual_seed(2))
    pictures, met = {tuple(shapes) for shapes in training}, {1: [], 2: [], 3: []}
    captions = {tuple(shape.phrase for shape in shapes) for shapes in training}
    for shapes in tested:
        met[len(shapes)].append(tuple(shape.phrase for shape in shapes) in captions)
    assert 0.3 < sum(map(sum, met.values())) / 120 < 0.4
    assert all(met[1]) and not any(met[3])
    assert not [shapes for shapes in tested if tuple(shapes) in pictures]


def test_a_flat_picture_is_left_as_it_is_by_rescale():
    """It has no deviation that could be scaled to another one."""
    told, flat = torch.randn(2, 3, 4, 6), torch.full((2, 3, 4, 6), 0.5)
    assert torch.equal(cfg.rescale(flat, told, 0.7), flat)
    half = cfg.rescale(torch.zeros(2, 3, 4, 6).half(), told.half(), 0.7)
    assert half.dtype == torch.float16 and half.isfinite().all()
    wide = 3 * told + 0.2
    torch.testing.assert_close(cfg.rescale(wide, told, 1.0), wide / 3)


def test_dynamic_threshold_takes_half_precision():
    x0 = 3 * torch.randn(2, 3, 4, 6).half()
    clipped = cfg.dynamic_threshold(x0)
    assert clipped.dtype == torch.float16 and clipped.abs().max() <= 1
    torch.testing.assert_close(clipped.float(), cfg.dynamic_threshold(x0.float()), rtol=0, atol=2e-3)


@pytest.mark.parametrize(
    "call, given",
    [
        (lambda: cfg.shrink(torch.ones(1, 1, 2, 2).long()), "float images.*given torch.int64"),
        (lambda: cfg.keep_small(torch.full((1, 1, 2, 2), torch.nan)), "in \\[-1, 1\\] are expected.*nan"),
    ],
)
def test_what_has_no_mean_is_refused(call, given):
    with pytest.raises(ValueError, match=given):
        call()
