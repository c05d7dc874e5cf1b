"""Classifier-free guidance: equations on the toy mixture, where all is known; diffusers; the tasks; wrong input."""

import math

import pytest
import torch
from diffusers import DDIMScheduler
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg
from torch import nn

from snippets import cfg, ddpm
from snippets.blocks.unet import UNet
from snippets.data.scenes import scenes
from snippets.data.toy2d import toy2d

LEVELS = [(0.999, 0.045), (0.8, 0.6), (0.1, 0.995)]  # signal, noise


@pytest.fixture
def model() -> cfg.ConditionalUNet:
    """A class-conditional network of 3 channels and patches of 2, all weights away from their start."""
    model = cfg.ConditionalUNet(cfg.ClassEncoder(7, dim=32), channels=3, widths=(8, 16), patch=2)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return model.double().eval()


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


@pytest.mark.equation("cfg-guided")
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


@pytest.mark.equation("cfg-implicit")
@pytest.mark.parametrize("signal, noise", LEVELS)
def test_the_difference_of_the_predictions_is_a_classifiers_gradient(signal, noise, agrees):
    toy, x, told, untold = exact(signal, noise)
    x.requires_grad_()
    for k in range(3):
        log_p = toy.log_posterior(x, signal, noise)[:, k].sum()
        gradient = torch.autograd.grad(log_p, x)[0][..., None, None]
        agrees((untold - told[k]) / noise, gradient, "the gradient of toy2d's exact class posterior", 1e-10)
        assert ((told[k] - untold) / noise - gradient).abs().max() > 1e-3  # the sign


@pytest.mark.equation("cfg-tilted")
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


@pytest.mark.equation("cfg-scale")
def test_both_conventions_give_the_same_prediction():
    """The paper: (1 + w) told - w untold. Libraries: untold + s (told - untold)."""
    told, untold = torch.randn(2, 4, 3, 5, 6, dtype=torch.float64)
    for w in (-1.0, 0.0, 0.3, 2.0, 7.5):
        paper = (1 + w) * told - w * untold
        torch.testing.assert_close(cfg.guide(told, untold, cfg.scale_from_w(w)), paper)
    assert cfg.scale_from_w(-1.0) == 0 and cfg.scale_from_w(0.0) == 1
    assert (cfg.guide(told, untold, 2.0) - (3 * told - 2 * untold)).abs().max() > 0.1  # s taken for w


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
def test_one_pass_for_both_halves_equals_two(model, batch, scale):
    x, t, y = batch
    with torch.no_grad():
        told, untold = model(x, t, y), model(x, t, torch.full_like(y, 7))
        ours = cfg.guided(model, y, scale)(x, t)
        torch.testing.assert_close(ours, untold + scale * (told - untold), rtol=0, atol=1e-10)
        swapped = told + scale * (untold - told)
        assert (ours - swapped).abs().max() > 1e-3 or scale == 0.5
        alone = torch.cat([cfg.guided(model, y[i : i + 1], scale)(x[i : i + 1], t[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(ours, alone, rtol=0, atol=1e-10)  # whatever else is in the batch


def test_whole_guided_runs_equal_diffusers(model, batch, agrees):
    x, _, y = batch
    schedule = ddpm.NoiseSchedule(ddpm.linear_beta(40, 2e-3, 0.3))
    theirs = DDIMScheduler(40, 2e-3, 0.3, clip_sample=False, timestep_spacing="trailing")
    theirs.alphas_cumprod = schedule.alpha_bar.clone()
    theirs.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    theirs.set_timesteps(8)
    for phi in (0.0, 0.7):
        out = x
        with torch.no_grad():
            for level in theirs.timesteps:
                untold, told = (model(out, level.expand(5), c) for c in (torch.full_like(y, 7), y))
                eps = rescale_noise_cfg(untold + 3.0 * (told - untold), told, phi)
                out = theirs.step(eps, level, out).prev_sample
        predict = cfg.guided(model, y, 3.0, phi)
        ours = ddpm.sample_ddim(predict, schedule, x, 8, 0.0, torch.Generator())
        agrees(ours, out, "diffusers.DDIMScheduler", 1e-10)
        other = ddpm.sample_ddim(cfg.guided(model, y, 2.0, phi), schedule, x, 8, 0.0, torch.Generator())
        assert (other - out).abs().max() > 1e-3


# the network


def test_the_conditional_network_is_the_unet_with_one_more_vector(model, batch):
    x, t, y = batch
    cells = torch.nn.functional.pixel_unshuffle(x, 2)
    plain = UNet(12, (8, 16)).double().eval()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("encoder")})
    with torch.no_grad():
        model.encoder.embedding.weight[4] = 0
        ours = model(x, t, torch.full_like(y, 4))
        torch.testing.assert_close(ours, torch.nn.functional.pixel_shuffle(plain(cells, t), 2))
        assert (model(x, t, y) - ours).abs().amax(dim=(1, 2, 3)).min() > 1e-3  # each condition matters


def test_captions_ignore_padding_and_words_outside_the_neighbourhood():
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


@pytest.mark.equation("cfg-loss")
def test_training_asks_for_the_noise_with_one_condition_in_ten_dropped(monkeypatch):
    """What the network is asked, and that its loss is the error of the noise."""
    torch.manual_seed(0)
    asked, model = [], cfg.ConditionalUNet(cfg.ClassEncoder(3, dim=32), channels=1, widths=(8, 16))
    forward = cfg.ConditionalUNet.forward

    def listen(self, x, t, condition):
        eps = forward(self, x, t, condition)
        asked.append((x.detach(), t, condition, eps.detach()))
        return eps

    monkeypatch.setattr(cfg.ConditionalUNet, "forward", listen)
    losses = []
    monkeypatch.setattr(cfg, "ddpm_loss", lambda *args: losses.append(ddpm.ddpm_loss(*args)) or losses[-1])
    x0 = torch.tensor([0.9, -0.9, 0.3])[:, None, None, None].expand(3, 1, 4, 8).contiguous()
    schedule = ddpm.NoiseSchedule(ddpm.linear_beta(40, 2e-3, 0.3))
    cfg.train_guided(model, schedule, x0, torch.arange(3), num_steps=30, batch_size=50)
    told = torch.cat([condition for _, _, condition, _ in asked])
    assert abs((told == 3).float().mean() - 0.1) < 4 * math.sqrt(0.1 * 0.9 / 1500)
    for (xt, t, condition, eps), loss in zip(asked, losses, strict=True):
        sure = condition < 3  # then the clean image is that of the class
        noise = ddpm.eps_from_x0(schedule, xt[sure], t[sure], x0[condition[sure]])
        assert noise.std() == pytest.approx(1, abs=0.1)  # the pairs of images and conditions are kept
        wrong = ddpm.eps_from_x0(schedule, xt[sure], t[sure], x0[(condition[sure] + 1) % 3])
        assert wrong.std() > 1.5
        error = (noise - eps[sure]).square().mean()
        assert error == pytest.approx(loss.item(), rel=0.35)


def test_one_network_learns_both_predictions_and_training_repeats():
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
    means = {}
    for scale in (0.0, 1.0):
        drawn = ddpm.sample_ddim(cfg.guided(model, y, scale), schedule, noise, 20, 0.0, torch.Generator())
        means[scale] = drawn.mean(dim=(1, 2, 3))
    assert (means[1.0][y == 0] > 0.2).all() and (means[1.0][y == 1] < -0.2).all()
    assert means[0.0][y == 0].mean() == pytest.approx(means[0.0][y == 1].mean().item(), abs=0.35)  # deaf to the class
    short = [trained(3)(noise, torch.full((40,), 20), y) for _ in range(2)]
    assert torch.equal(*short)


# remedies


@pytest.mark.equation("cfg-rescale")
def test_rescale_equals_diffusers_and_restores_the_deviation(agrees):
    told = 1.3 * torch.randn(4, 3, 5, 6, dtype=torch.float64)
    eps = 5 * torch.randn_like(told) + 0.2
    for phi in (0.0, 0.3, 1.0):
        agrees(cfg.rescale(eps, told, phi), rescale_noise_cfg(eps, told, phi), "diffusers.rescale_noise_cfg", 1e-10)
    torch.testing.assert_close(cfg.rescale(eps, told, 1.0).std(dim=(1, 2, 3)), told.std(dim=(1, 2, 3)))
    assert torch.equal(cfg.rescale(eps, told, 0.0), eps)
    assert (cfg.rescale(told, eps, 0.3) - rescale_noise_cfg(eps, told, 0.3)).abs().max() > 0.1


@pytest.mark.equation("cfg-threshold")
def test_dynamic_threshold_equals_diffusers(agrees):
    theirs = DDIMScheduler(thresholding=True, dynamic_thresholding_ratio=0.8, sample_max_value=1e6)
    x0 = torch.randn(5, 3, 4, 6, dtype=torch.float64) * torch.tensor([0.1, 0.5, 1, 3, 9])[:, None, None, None]
    ours = cfg.dynamic_threshold(x0, 0.8)
    agrees(ours, theirs._threshold_sample(x0), "diffusers.DDIMScheduler", 1e-10)
    assert ours.abs().max() <= 1
    assert torch.equal(ours[0], x0[0])  # small pictures stay as they are
    assert (ours[4] - x0[4].clamp(-1, 1)).abs().max() > 0.3  # not the same as clipping
    assert (cfg.dynamic_threshold(x0, 0.9) - ours).abs().max() > 1e-2


@pytest.mark.equation("cfg-adjust")
def test_with_x0_changes_the_implied_picture_and_nothing_else(batch):
    x, t, _ = batch
    schedule = ddpm.NoiseSchedule(ddpm.linear_beta())
    eps = torch.randn_like(x)
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


@pytest.mark.equation("cfg-keep")
def test_corrections_are_the_nearest_pictures_that_agree():
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
        torch.testing.assert_close(ours @ matrix.T, y)
        assert (keep(real) - real).abs().max() < 1e-12
        assert (ours - real.flatten(1)).abs().max() > 0.05  # the rest is the guess's own


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
    out = cfg.restore(cfg.guided(model, y, 2.0), schedule, keep, x, 8, torch.Generator().manual_seed(0))
    if task == "fill":
        assert torch.equal(out[..., known], pictures[..., known])  # exactly
        assert (out - pictures)[..., ~known].abs().max() > 0.1
    else:
        torch.testing.assert_close(cfg.shrink(out), cfg.shrink(pictures), rtol=0, atol=1e-6)
    again = cfg.restore(cfg.guided(model, y, 2.0), schedule, keep, x, 8, torch.Generator().manual_seed(1))
    assert (again - out).abs().max() > 1e-3  # another noise, another completion


def test_restoring_with_exact_noise_samples_the_posterior():
    """One coordinate of toy2d known: the other one's mean is that of the exact conditional density."""
    toy, schedule = toy2d(), ddpm.NoiseSchedule(ddpm.linear_beta(200, 5e-4, 0.1))

    # the plane shrunk by 3, so that all lies in [-1, 1]: the toy with means and deviations divided by 3
    small = type(toy)(toy.weights, toy.means / 3, toy.deviations / 3)

    def predict_small(x, t):
        signal, noise = float(schedule.signal[t[0]]), float(schedule.noise[t[0]])
        return small.eps(x[:, :, 0, 0], signal, noise)[:, :, None, None]

    pictures = torch.tensor([0.4, 0.0], dtype=torch.float64).view(1, 2, 1, 1).expand(2000, 2, 1, 1)
    known = torch.tensor([True, False]).view(2, 1, 1)
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(2000, 2, 1, 1, generator=generator, dtype=torch.float64)
    out = cfg.restore(predict_small, schedule, cfg.keep_pixels(pictures, known), start, 200, generator)
    line = torch.linspace(-1, 1, 2001, dtype=torch.float64)
    p = small.log_density(torch.stack([torch.full_like(line, 0.4), line], 1), 1.0, 0.0).exp()
    mean = (p * line).sum() / p.sum()
    assert (out[:, 0] == 0.4).all()
    assert abs(out[:, 1].mean() - mean) < 0.1


# the programs


def test_text_to_image_draws_a_picture_for_each_prompt(monkeypatch):
    monkeypatch.setattr(cfg, "SCENE_STEPS", 2)
    monkeypatch.setattr(cfg, "scenes", lambda count, generator: scenes(40, generator))
    prompts = ["a small red circle at the top left", "a large blue square at the bottom right", ""]
    out = cfg.text_to_image(prompts)
    assert out.shape == (3, 3, 32, 32) and out.isfinite().all()


def test_main_draws_three_sheets(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cfg, "TRAIN_STEPS", 2)
    cfg.main()
    for name in ("guided.png", "filled.png", "enlarged.png"):
        assert (tmp_path / name).stat().st_size > 1000
        assert name in capsys.readouterr().out or name != "guided.png"


# wrong input


def unet(**options) -> cfg.ConditionalUNet:
    return cfg.ConditionalUNet(cfg.ClassEncoder(3, dim=32), widths=(8, 16), **options)


T2, Y2 = torch.tensor([1, 2]), torch.tensor([0, 2])
X2 = torch.zeros(2, 1, 4, 6)


@pytest.mark.parametrize(
    "call, given",
    [
        (lambda: cfg.ClassEncoder(3, 4)(torch.tensor([0, 4])), r"classes \(B,\) from 0 to 3.*4"),
        (lambda: cfg.ClassEncoder(3, 4)(torch.tensor([-1, 2])), "given.*-1"),
        (lambda: cfg.ClassEncoder(3, 4)(torch.tensor([[1]])), "given"),
        (
            lambda: cfg.CaptionEncoder(9, 5, 4)(torch.full((2, 5), 9)),
            r"captions \(2, 5\).*0 to 8.*given \(2, 5\) from 9",
        ),
        (lambda: cfg.CaptionEncoder(9, 5, 4)(torch.full((2, 6), 1)), r"captions \(2, 5\).*given \(2, 6\)"),
        (lambda: cfg.CaptionEncoder(9, 5, 4)(torch.full((2, 5), -1)), "from -1"),
        (lambda: unet()(X2[0], T2, Y2), r"\(B, 1, H, W\).*given \(1, 4, 6\)"),
        (lambda: unet(channels=3)(X2, T2, Y2), r"\(B, 3, H, W\).*given \(2, 1, 4, 6\)"),
        (lambda: unet(patch=2)(X2, T2, Y2), r"multiples of 4 are expected, given \(2, 1, 4, 6\)"),
        (lambda: unet()(X2, T2[:1], Y2), r"given \(1,\) and \(2,\) for 2 images"),
        (lambda: unet()(X2, T2, Y2[:1]), r"given \(2,\) and \(1,\) for 2 images"),
        (lambda: cfg.drop_condition(Y2, torch.tensor(3), 1.5, torch.Generator()), r"\[0, 1\] is expected, given 1.5"),
        (lambda: cfg.train_guided(unet(), None, X2, Y2[:1], 3), "2 images, 1 conditions, 3 steps, batches of 64"),
        (lambda: cfg.train_guided(unet(), None, X2, Y2, 0), "0 steps"),
        (lambda: cfg.train_guided(unet(), None, X2, Y2, 3, batch_size=0), "batches of 0"),
        (lambda: cfg.train_guided(unet(), None, X2 + 1.5, Y2, 3), r"in \[-1, 1\].*given torch.float32 up to 1.5"),
        (lambda: cfg.train_guided(unet(), None, X2.long(), Y2, 3), "given torch.int64"),
        (lambda: cfg.guide(X2, X2[:1], 2.0), r"same shape.*given \(2, 1, 4, 6\) and \(1, 1, 4, 6\)"),
        (lambda: cfg.rescale(X2, X2, 1.5), r"phi in \[0, 1\] is expected, given 1.5"),
        (lambda: cfg.dynamic_threshold(X2, 0.0), r"\(0, 1\] is expected, given 0.0"),
        (lambda: cfg.dynamic_threshold(X2, 1.1), "given 1.1"),
        (lambda: cfg.keep_pixels(X2, torch.ones(4, 6)), "mask of bools"),
        (lambda: cfg.keep_pixels(X2, torch.ones(4, 6, dtype=torch.bool)), "something to fill"),
        (lambda: cfg.keep_small(X2, 0), "rounds > 0 are expected, given 0"),
        (lambda: cfg.shrink(torch.zeros(2, 1, 5, 6)), r"even.*given \(2, 1, 5, 6\)"),
        (lambda: cfg.text_to_image(["a pink circle"]), "pink"),
    ],
)
def test_wrong_input_is_refused(call, given):
    with pytest.raises(ValueError, match=given):
        call()
