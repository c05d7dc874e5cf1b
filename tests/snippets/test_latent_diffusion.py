"""Latent diffusion: losses, scale, schedule and samplers against their formulas and against diffusers' schedulers."""

import copy

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler
from torch import nn

from snippets import latent_diffusion as page
from snippets.blocks.autoencoder import AutoencoderConfig, AutoencoderKL, kl_divergence, sample_latent
from snippets.blocks.text_unet import ConditionedUNet, UNetConfig
from snippets.cfg import drop_condition
from snippets.clip_text import TextConfig, TextEncoder
from snippets.data.scenes import COLOURS, KINDS, MAX_WORDS, VOCABULARY, encode_captions, scenes
from snippets.ddpm import NoiseSchedule, ddim_step, eps_from_v, linear_beta, noise_like, q_sample, velocity
from tests.snippets.oracles import perturbed
from tests.snippets.stable_diffusion import SCHEDULE

T = 40  # levels of the small schedule; no other size below is 40


def seeded(seed=3):
    return torch.Generator().manual_seed(seed)


def small(as_noise=page.noise_from_velocity, scale=0.6):
    """A whole small model: pictures 3 x 8 x 12, latents 2 x 4 x 6, texts of 5 tokens."""
    autoencoder = perturbed(AutoencoderKL(AutoencoderConfig(3, 2, (4, 8), 1, 4)))
    text = perturbed(TextEncoder(TextConfig(11, 5, 10, 14, 1, 2, embedding=None)))
    unet = perturbed(ConditionedUNet(UNetConfig(2, (8, 12), (True, False), (2, 3), 10, 1, 4)))
    schedule = NoiseSchedule(page.scaled_linear_beta(T, 2e-3, 0.3))
    return page.LatentDiffusion(autoencoder, text, unet, schedule, scale, as_noise)


def tokens(count, seed=0):
    return torch.randint(1, 11, (count, 5), generator=seeded(seed))


EMPTY = torch.zeros(5, dtype=torch.long)


# the autoencoder


@torch.no_grad()
@pytest.mark.equation("ldm-autoencoder", of=page.autoencoder_loss)
def test_loss_of_the_autoencoder_is_its_formula(formula):
    model, pictures = small().autoencoder.double(), torch.rand(5, 3, 2, 4).double() * 2 - 1
    loss = page.autoencoder_loss(model, pictures, 0.3, seeded())
    mean, log_variance = model.encode(pictures)
    rebuilt = model.decode(sample_latent(mean, log_variance, noise_like(mean, seeded())))
    x, y = pictures.flatten(1), rebuilt.flatten(1)
    each = {"x_i": lambda i: x[:, i], r"\hat x_i": lambda i: y[:, i], "i": range(24)}
    kl = kl_divergence(mean, log_variance)
    names = {"L_{\\text{AE}}": loss, r"\mathrm{KL}": kl, r"\lambda": 0.3, "n": 24, r"\mathbb{E}": torch.mean}
    formula("ldm-autoencoder").holds(names | each)


def test_training_the_autoencoder_repeats_itself_and_rebuilds():
    torch.manual_seed(0)
    pictures = (torch.rand(30, 3, 1, 1) * 2 - 1).expand(30, 3, 4, 6)  # plain colours
    start = AutoencoderKL(AutoencoderConfig(3, 2, (8, 16), 1, 4))
    models = [page.train_autoencoder(copy.deepcopy(start), pictures, 2, 1e-3, batch_size=5) for _ in range(2)]
    weights = [model.state_dict() for model in (start, *models)]
    assert all(torch.equal(weights[1][name], weight) for name, weight in weights[2].items())
    assert all(not torch.equal(weights[0][name], weight) for name, weight in weights[1].items())
    before = page.autoencoder_loss(start, pictures, 1e-3, seeded())
    model = page.train_autoencoder(start, pictures, 20, 1e-3, batch_size=5)
    assert page.autoencoder_loss(model, pictures, 1e-3, seeded()) < 0.9 * before and not model.training


@pytest.mark.equation("ldm-scale", of=page.latent_scale)
@pytest.mark.claim("ldm-unit")
def test_scaled_latents_have_the_standard_deviation_1(formula):
    model, pictures = small(), torch.rand(9, 3, 8, 12) * 2 - 1
    model.scale = page.latent_scale(model.autoencoder, pictures, seeded())
    mean, log_variance = model.autoencoder.encode(pictures)
    latents = sample_latent(mean, log_variance, noise_like(mean, seeded())).detach()
    scaled = model.to_latents(pictures, seeded())
    names = {r"\tilde z": scaled, r"\kappa": model.scale, "z": latents}
    formula("ldm-scale").holds(names | {r"\operatorname{std}": torch.std}, relations=2, tolerance=1e-6)
    assert abs(scaled.std() - 1) < 1e-5 < 0.1 < abs(latents.std() - 1)


@torch.no_grad()
def test_decoding_takes_the_scale_off_again():
    model, pictures = small(), torch.rand(5, 3, 8, 12) * 2 - 1
    mean, log_variance = model.autoencoder.encode(pictures)
    latents = sample_latent(mean, log_variance, noise_like(mean, seeded()))
    rebuilt = model.to_pictures(model.to_latents(pictures, seeded()))
    torch.testing.assert_close(rebuilt, model.autoencoder.decode(latents), rtol=1e-4, atol=1e-4)
    assert (model.autoencoder.decode(model.scale * latents) - rebuilt).abs().max() > 0.01


# the text


def test_answers_to_the_quiz_are_what_captions_say():
    examples = scenes(30, seeded())
    answers = page.quiz_answers(examples)
    assert answers.shape == (30, 4, 11) and set(answers.unique().tolist()) == {0, 1}
    places, words = ["top left", "top right", "bottom left", "bottom right"], [*KINDS, *COLOURS, "small", "large"]
    for scene, answer in zip(examples, answers, strict=True):
        for place, said in zip(places, answer, strict=True):
            phrase = [part for part in scene.caption.split(" and ") if part.endswith(place)]
            assert {words[i] for i in said.nonzero()} == (set(phrase[0].split()[1:4]) if phrase else set())


def test_the_text_encoder_learns_to_answer():
    examples = scenes(40, seeded(), max_shapes=1)
    text = TextEncoder(TextConfig(len(VOCABULARY), MAX_WORDS, 16, 24, 1, 2, embedding=None))
    made = [page.train_text(copy.deepcopy(text), examples, 2, batch_size=5).state_dict() for _ in range(2)]
    start = text.state_dict()
    moved = [name for name, weight in made[0].items() if not torch.equal(weight, start[name])]
    assert len(moved) == len(start) - len([name for name in start if "project" in name])
    quiz = page.Quiz(16)
    states = text.states(encode_captions([scene.caption for scene in examples[:7]]))
    alone = quiz(states[2:3])
    torch.testing.assert_close(quiz(states)[2:3], alone, rtol=1e-4, atol=1e-5)
    assert alone.shape == (1, 4, 11) and (alone[0, 0] - alone[0, 1]).abs().max() > 1e-3


# the schedule


@pytest.mark.equation("ldm-beta", of=page.scaled_linear_beta)
@pytest.mark.claim("ldm-root")
def test_schedule_is_linear_in_the_root_as_in_diffusers(formula, agrees):
    beta = page.scaled_linear_beta(T)
    names = {r"\beta_t": beta, "t": torch.arange(1, T + 1), "T": T}
    formula("ldm-beta").holds(names | {r"\beta_{\min}": 0.00085, r"\beta_{\max}": 0.012}, relations=3)
    theirs = DDIMScheduler(num_train_timesteps=1000, **SCHEDULE)
    ours = NoiseSchedule(page.scaled_linear_beta())
    agrees(ours.beta, theirs.betas.double(), "diffusers.DDIMScheduler", 1e-7)
    agrees(ours.alpha_bar, theirs.alphas_cumprod.double(), "diffusers.DDIMScheduler", 1e-5)
    straight = NoiseSchedule(linear_beta(1000, 0.00085, 0.012))
    assert (ours.alpha_bar - straight.alpha_bar).max() > 0.1
    named = DDIMScheduler(beta_schedule="linear", beta_start=0.00085, beta_end=0.012)
    torch.testing.assert_close(straight.alpha_bar, named.alphas_cumprod.double(), rtol=0, atol=1e-5)


@pytest.mark.claim("ldm-last-level")
def test_the_last_level_keeps_a_little_signal(agrees):
    """Which the library's schedule does too, unless it is asked to rescale."""
    last = NoiseSchedule(page.scaled_linear_beta()).alpha_bar[-1].item()
    assert 0.00465 < last < 0.00475
    agrees(last, DDIMScheduler(**SCHEDULE).alphas_cumprod[-1].item(), "diffusers.DDIMScheduler", 1e-6)
    assert DDIMScheduler(**SCHEDULE, rescale_betas_zero_snr=True).alphas_cumprod[-1] < 1e-6


# the loss


class Remembers(nn.Module):
    """A network that keeps what it was asked."""

    def __init__(self, answer=0.0):
        super().__init__()
        self.answer = answer

    def forward(self, x, t, text):
        self.asked = x, t, text
        return x.tanh() * t.to(x).view(-1, 1, 1, 1) / 40 + text.mean(dim=(1, 2)).view(-1, 1, 1, 1) + self.answer


@torch.no_grad()
@pytest.mark.equation("ldm-loss", of=page.latent_loss)
def test_loss_is_its_formula(formula):
    model, latents = small(), torch.randn(5, 2, 4, 6).double()
    model.unet, model.text = Remembers(), model.text.double()
    loss = page.latent_loss(model, latents, tokens(5), EMPTY, seeded())
    generator = seeded()
    told = drop_condition(tokens(5), EMPTY, 0.1, generator)
    eps = noise_like(latents, generator)
    xt, t, states = model.unet.asked
    torch.testing.assert_close(states, model.text.states(told))
    torch.testing.assert_close(xt, q_sample(model.schedule, latents, t, eps))
    v, alpha_bar = velocity(model.schedule, latents, t, eps), model.schedule.alpha_bar[t][:, None]
    names = {"v": v.flatten(1), "z": latents.flatten(1), r"\epsilon": eps.flatten(1), r"\bar\alpha_t": alpha_bar}
    names |= {"t": t, "y": told, r"\tau_\theta": lambda y: model.text.states(y.long()), "L": loss * 48}
    names |= {r"v_\theta": lambda x, t, s: model.unet(x.view(xt.shape), t, s).flatten(1)}
    formula("ldm-loss").holds(names | {r"\mathbb{E}_{z, y, t, \epsilon}": torch.mean}, relations=2)


def test_about_a_tenth_of_the_texts_is_left_out_each_by_its_own_draw():
    model, states = small(), []
    model.unet, model.text = Remembers(), nn.Module()
    model.text.states = lambda told: states.append(told) or torch.zeros(len(told), 5, 10)
    for seed in range(20):
        page.latent_loss(model, torch.randn(40, 2, 4, 6), tokens(40), EMPTY, seeded(seed))
    dropped = (torch.stack(states) == 0).all(dim=2)
    assert 0.07 < dropped.double().mean() < 0.13 and (dropped.sum(dim=1) < 40).all()
    assert (torch.stack(states)[~dropped] > 0).all()


def test_training_repeats_itself_and_moves_both_networks():
    start, latents, asked = small(), torch.randn(30, 2, 4, 6), tokens(30)
    start.scale = 0.4
    made = [page.train_latent(copy.deepcopy(start), latents, asked, EMPTY, 3, batch_size=7) for _ in range(2)]
    for part in ("unet", "text"):
        before, *after = (getattr(model, part).state_dict() for model in (start, *made))
        assert all(torch.equal(after[0][name], weight) for name, weight in after[1].items())
        assert all(not torch.equal(before[name], weight) for name, weight in after[0].items() if "norm" not in name)
    assert made[0].scale == 0.4 and made[0].as_noise is start.as_noise and not made[0].unet.training


# drawing


@torch.no_grad()
@pytest.mark.claim("ldm-empty")
def test_guidance_asks_with_the_text_and_with_the_empty_one():
    model, x, t = small(page.noise_from_noise), torch.randn(3, 2, 4, 6), torch.tensor([7, 7, 7])
    told, untold = (model.unet(x, t, model.text.states(one)) for one in (tokens(3), EMPTY.expand(3, 5)))
    for scale in (0.0, 1.0, 5.0):
        ours = page.guided_noise(model, tokens(3), EMPTY, scale)(x, t, model.schedule.alpha_bar[7])
        torch.testing.assert_close(ours, untold + scale * (told - untold), rtol=1e-4, atol=1e-4)
    nothing = model.unet(x, t, torch.zeros(3, 5, 10))  # states of 0 are not those of the empty text
    assert (nothing - untold).abs().max() > 0.01


@torch.no_grad()
def test_what_a_velocity_implies_is_what_the_noise_is():
    schedule, x0, eps = small().schedule, *torch.randn(2, 3, 2, 4, 6).double()
    t = torch.full((3,), 17)
    xt, v = q_sample(schedule, x0, t, eps), velocity(schedule, x0, t, eps)
    torch.testing.assert_close(page.noise_from_velocity(v, xt, schedule.alpha_bar[17]), eps)
    torch.testing.assert_close(page.noise_from_velocity(v, xt, schedule.alpha_bar[17]), eps_from_v(schedule, xt, t, v))
    assert page.noise_from_noise(v, xt, schedule.alpha_bar[17]) is v


@pytest.mark.parametrize("steps", [1, 7, 50, 999])
def test_stops_are_those_of_the_librarys_schedulers(steps, agrees):
    schedule = NoiseSchedule(page.scaled_linear_beta())
    theirs = DDIMScheduler(**SCHEDULE)
    theirs.set_timesteps(steps)
    levels, ratio = page.ddim_stops(schedule, steps)
    assert levels.tolist() == theirs.timesteps.tolist()
    assert len(ratio) == steps + 1 and torch.equal(ratio[:-1], (schedule.noise / schedule.signal)[levels])
    theirs = EulerDiscreteScheduler.from_config(DDIMScheduler(**SCHEDULE).config)
    theirs.set_timesteps(steps)
    levels, ratio = page.euler_stops(schedule, steps)
    first = 999 if steps > 1 else 0  # one stop is level 0 in both
    assert levels[0] == first and ratio[-1] == 0
    agrees(levels.tolist(), theirs.timesteps.tolist(), "diffusers.EulerDiscreteScheduler", 1e-4)
    agrees(ratio.tolist(), theirs.sigmas.tolist(), "diffusers.EulerDiscreteScheduler", 1e-4)


@pytest.mark.claim("ldm-levels")
def test_ddim_visits_other_levels_than_euler():
    schedule = NoiseSchedule(page.scaled_linear_beta())
    assert page.ddim_stops(schedule, 4)[0].tolist() == [751, 501, 251, 1]
    assert page.euler_stops(schedule, 4)[0].tolist() == [999, 666, 333, 0]


@pytest.mark.claim("ldm-thousand")
def test_a_thousand_levels_begin_at_one_that_does_not_exist():
    schedule = NoiseSchedule(page.scaled_linear_beta())
    theirs = DDIMScheduler(**SCHEDULE)
    theirs.set_timesteps(1000)  # the first one does not exist
    assert theirs.timesteps[0] == 1000 == len(theirs.alphas_cumprod)
    with pytest.raises(ValueError, match=r"\[1, 1000\) is expected, given 1000"):
        page.ddim_stops(schedule, 1000)


@pytest.mark.equation("ldm-step", of=page.sample_latents)
def test_a_step_is_its_formula_and_ddims(formula):
    schedule, x = small().schedule, torch.randn(3, 2, 4, 6).double()
    eps = torch.randn_like(x)
    t, s = torch.full((3,), 30), torch.full((3,), 12)
    ratio = schedule.noise / schedule.signal
    ours = page.sample_latents(lambda x, t, alpha_bar: eps, x, t[:1], ratio[[30, 12]])
    names = {"z_t": x, "z_s": ours, r"\epsilon": eps, "r_t": ratio[30], "r_s": ratio[12]}
    names |= {r"\bar\alpha_t": schedule.alpha_bar[30], r"\bar\alpha_s": schedule.alpha_bar[12]}
    formula("ldm-step").holds(names, relations=2)
    torch.testing.assert_close(ours, ddim_step(schedule, x, t, s, eps, 0.0, eps))


@torch.no_grad()
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("steps", [7, 20])
def test_runs_equal_diffusers(kind, steps, agrees):
    """A network that is no network: what it says depends on the latents, the level and the text."""
    model = small(page.noise_from_noise if kind == "epsilon" else page.noise_from_velocity)
    model.schedule, model.unet, text = NoiseSchedule(page.scaled_linear_beta()), Remembers(0.1), tokens(3)
    noise, states = torch.randn(3, 2, 4, 6), model.text.states(text)
    predict = page.guided_noise(model, text, EMPTY, 1.0)
    for draw, theirs in (
        (page.draw_ddim, DDIMScheduler(**SCHEDULE, prediction_type=kind)),
        (page.draw_euler, EulerDiscreteScheduler.from_config(DDIMScheduler(**SCHEDULE, prediction_type=kind).config)),
    ):
        theirs.set_timesteps(steps)
        x = noise * theirs.init_noise_sigma
        for level in theirs.timesteps:
            output = model.unet(theirs.scale_model_input(x, level), level.expand(3), states)
            x = theirs.step(output, level, x).prev_sample
        wanted = model.to_pictures(x).clamp(-1, 1)
        agrees(draw(model, predict, noise, steps), wanted, f"diffusers.{type(theirs).__name__}", 1e-4)
        assert wanted.std() > 0.1
        other = page.draw_euler if draw is page.draw_ddim else page.draw_ddim
        assert (other(model, predict, noise, steps) - wanted).abs().max() > 1e-3


@torch.no_grad()
def test_pictures_do_not_see_each_other():
    model, noise = small(), torch.randn(3, 2, 4, 6)
    whole = page.draw_ddim(model, page.guided_noise(model, tokens(3), EMPTY, 3.0), noise, 5)
    alone = page.draw_ddim(model, page.guided_noise(model, tokens(3)[1:2], EMPTY, 3.0), noise[1:2], 5)
    torch.testing.assert_close(whole[1:2], alone, rtol=1e-3, atol=1e-3)
    assert (whole[0] - whole[1]).abs().max() > 0.01


def latent(*numbers):
    return torch.tensor(numbers).view(1, 2, 1, 1)


@pytest.mark.claim("ldm-by-hand")
def test_the_example_by_hand():
    """Two numbers of a latent."""
    mean, log_variance = latent(1.5, -0.5), latent(0.25, 0.04).log()
    assert [round(x, 2) for x in kl_divergence(mean, log_variance).tolist()] == [2.7]
    each = [kl_divergence(mean[:, i : i + 1], log_variance[:, i : i + 1]).item() for i in range(2)]
    assert [round(x, 3) for x in each] == [1.443, 1.254]
    torch.testing.assert_close(sample_latent(mean, log_variance, latent(1.0, -2.0)), latent(2.0, -0.9))


@pytest.mark.claim("ldm-step-by-hand")
def test_the_step_by_hand():
    """To the clean latent, from a level with a signal of 0.6 and noise of 0.8."""
    x, eps = latent(1.4, 0.3), latent(1.0, -0.5)
    ratio = torch.tensor([(0.64 / 0.36) ** 0.5, 0.0]).double()
    step = page.sample_latents(lambda x, t, alpha_bar: eps, x, torch.tensor([30]), ratio)
    torch.testing.assert_close(step, latent(1.0, 1.1667), rtol=0, atol=1e-4)
    noise = page.noise_from_velocity(latent(0.4, 0.0), x, torch.tensor(0.36))
    torch.testing.assert_close(noise, latent(1.36, 0.24))


@pytest.mark.claim("ldm-parameters")
def test_the_text_encoder_of_stable_diffusion_1_and_the_programs_networks():
    with torch.device("meta"):
        text = TextEncoder(TextConfig(49408, 77, 768, 3072, 12, 12, embedding=None))
        coder = AutoencoderKL(AutoencoderConfig(widths=(16, 32, 32)))
        unet = ConditionedUNet(UNetConfig(4, (48, 64), attention=(False, True), heads=(2, 2), groups=16))
        words = TextEncoder(TextConfig(len(VOCABULARY), MAX_WORDS, 64, 128, 2, 2, embedding=None))
    found = [sum(weight.numel() for weight in model.parameters()) for model in (text, coder, unet, words)]
    assert found == [123_060_480, 242_327, 1_191_796, 70_016]


model = small()


@pytest.mark.parametrize(
    "call, given",
    [
        (lambda: page.scaled_linear_beta(0), "num_steps > 0.*given 0"),
        (lambda: page.scaled_linear_beta(9, 0.3, 0.2), "beta_min <= beta_max < 1.*0.3, 0.2"),
        (lambda: page.euler_stops(model.schedule, 0), r"\[1, 40\].*given 0"),
        (lambda: page.ddim_stops(model.schedule, 0), r"\[1, 40\).*given 0"),
        (lambda: page.train_autoencoder(model.autoencoder, torch.zeros(2, 3, 8, 8), 0), "num_steps > 0"),
        (lambda: page.train_autoencoder(model.autoencoder, 2 * torch.ones(2, 3, 8, 8), 1), r"\[-1, 1\].*up to 2"),
        (lambda: page.train_autoencoder(model.autoencoder, torch.full((2, 3, 8, 8), torch.nan), 1), "nan"),
        (lambda: page.train_latent(model, torch.zeros(3, 2, 4, 6), tokens(2), EMPTY, 5), "3 latents, 2 texts"),
        (lambda: page.train_latent(model, torch.zeros(3, 2, 4, 6), tokens(3), EMPTY, 0), "0 steps"),
    ],
)
def test_wrong_input_is_refused(call, given):
    with pytest.raises(ValueError, match=given):
        call()
