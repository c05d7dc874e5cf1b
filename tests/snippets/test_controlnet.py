"""ControlNet: against diffusers' ControlNetModel, weight for weight; what trains when; what stays as it was."""

import copy
import inspect

import pytest
import torch
from diffusers import ControlNetModel, MultiControlNetModel
from torch import nn

from snippets import controlnet as page
from snippets.blocks.text_unet import ConditionedUNet, UNetConfig
from snippets.cfg import drop_condition
from snippets.clip_text import TextConfig, TextEncoder
from snippets.data.scenes import COLOURS, scenes
from snippets.ddpm import NoiseSchedule, noise_like, q_sample, velocity
from snippets.latent_diffusion import LatentDiffusion, guided_noise, noise_from_noise, scaled_linear_beta
from tests.formula import Matrix
from tests.snippets.oracles import perturbed
from tests.snippets.stable_diffusion import their_unet

SIZES = [
    (UNetConfig(4, (16, 24), (True, False), (2, 4), 20, 1, 4, False), 3, (5, 7, 9)),
    (UNetConfig(3, (8, 16, 24), (False, True, True), (2, 4, 3), 10, 2, 4, True), 2, (6,)),
    (UNetConfig(5, (24,), (True,), (4,), 7, 3, 3, False), 1, (5, 6, 7, 9)),
]
FULL = {
    "1.5": UNetConfig(4, (320, 640, 1280, 1280), (True, True, True, False), (8,) * 4, 768, 2, 32),
    "2.1": UNetConfig(4, (320, 640, 1280, 1280), (True, True, True, False), (5, 10, 20, 20), 1024, 2, 32, True),
}
SMALL = UNetConfig(4, (8, 16), (False, True), (2, 4), 10, 1, 4)


def seeded(seed=3):
    return torch.Generator().manual_seed(seed)


def theirs_of(config, channels, widths):
    """diffusers' ControlNet with the sizes of ours."""
    kinds = ["CrossAttn" * flag + "DownBlock2D" for flag in config.attention]
    sizes = {"in_channels": config.channels, "conditioning_channels": channels, "down_block_types": kinds}
    sizes |= {"block_out_channels": config.widths, "layers_per_block": config.layers, "norm_num_groups": config.groups}
    sizes |= {"cross_attention_dim": config.text_width, "attention_head_dim": config.heads}
    sizes |= {"use_linear_projection": config.linear, "conditioning_embedding_out_channels": widths}
    return ControlNetModel(**sizes)


def pair(config, channels, widths):
    """Theirs with random weights, the layers of zeros too, and ours with the same ones."""
    theirs, ours = perturbed(theirs_of(config, channels, widths)), page.ControlNet(config, channels, widths).eval()
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def inputs(config, channels, widths, height=8, width=12):
    """Latents, levels, texts of 7 words and hints."""
    levels, factor = torch.tensor([0, 1, 500, 7, 999]), 2 ** (len(widths) - 1)
    hint = torch.rand(5, channels, height * factor, width * factor)
    return torch.randn(5, config.channels, height, width), levels, torch.randn(5, 7, config.text_width), hint


def listed(output):
    """What diffusers returns, as the page has it: for the skips, then for the middle."""
    return [*output[0], output[1]]


def small(as_noise=noise_from_noise, dtype=torch.float32):
    """A whole small model without an autoencoder, all weights random, and a new ControlNet for it."""
    torch.manual_seed(0)
    text = perturbed(TextEncoder(TextConfig(11, 5, 10, 14, 1, 2, embedding=None))).to(dtype)
    unet = perturbed(ConditionedUNet(SMALL)).to(dtype)
    schedule = NoiseSchedule(scaled_linear_beta(40, 2e-3, 0.3))
    model = LatentDiffusion(nn.Identity(), text, unet, schedule, 0.6, as_noise)
    return model, page.control_for(unet, 3, (5, 6, 7)).to(dtype)


def batch(count=6, dtype=torch.float32, seed=1):
    """Latents (N, 4, 4, 6), texts (N, 5), hints (N, 3, 16, 24), and the empty text."""
    generator = seeded(seed)
    latents = torch.randn(count, 4, 4, 6, generator=generator, dtype=dtype)
    tokens = torch.randint(1, 11, (count, 5), generator=generator)
    return latents, tokens, torch.rand(count, 3, 16, 24, generator=generator, dtype=dtype), torch.zeros(5).long()


# parity


@torch.no_grad()
@pytest.mark.parametrize("height, width", [(8, 12), (13, 11)])
@pytest.mark.parametrize("config, channels, widths", SIZES, ids=str)
def test_it_equals_diffusers(config, channels, widths, height, width, agrees):
    theirs, ours = pair(config, channels, widths)
    x, t, text, hint = inputs(config, channels, widths, height, width)
    wanted, found = listed(theirs(x, t, text, hint, return_dict=False)), ours(x, t, text, hint)
    assert len(wanted) == len(found)
    for one, other in zip(found, wanted, strict=True):
        scale = one.abs().max().item()
        agrees(one / scale, other / scale, "diffusers.ControlNetModel", 1e-5)
        assert scale > 0.1


@torch.no_grad()
@pytest.mark.parametrize(
    "change",
    [
        lambda ours: setattr(ours.mid_block.attentions[0].norm, "eps", 10.0),
        lambda ours: ours.controlnet_cond_embedding.blocks[1].bias.data.add_(0.5),
        lambda ours: ours.controlnet_down_blocks[2].weight.data.mul_(1.1),
        lambda ours: ours.controlnet_mid_block.bias.data.zero_(),
    ],
    ids=["norm", "hint", "zero layer", "middle"],
)
def test_a_wrong_one_does_not(change):
    theirs, ours = pair(*SIZES[0])
    change(ours)
    given = inputs(*SIZES[0])
    wanted, found = listed(theirs(*given, return_dict=False)), ours(*given)
    assert max((one - other).abs().max() for one, other in zip(found, wanted, strict=True)) > 1e-3


@torch.no_grad()
@pytest.mark.claim("cn-joins")
@pytest.mark.parametrize("config, channels, widths", SIZES, ids=str)
def test_residuals_join_where_diffusers_joins_them(config, channels, widths, agrees):
    torch.manual_seed(0)
    theirs, ours = perturbed(their_unet(config)), ConditionedUNet(config).eval()
    ours.load_state_dict(theirs.state_dict())
    control = perturbed(page.ControlNet(config, channels, widths))
    x, t, text, hint = inputs(config, channels, widths, 13, 11)
    added = control(x, t, text, hint)
    skips, middle = [one.tolist() for one in added[:-1]], added[-1].tolist()
    skips, middle = [torch.tensor(one) for one in skips], torch.tensor(middle)
    joins = {"down_block_additional_residuals": skips, "mid_block_additional_residual": middle}
    wanted, found = theirs(x, t, text, **joins).sample, page.controlled(ours, x, t, text, added)
    scale = found.abs().max().item()
    agrees(found / scale, wanted / scale, "diffusers.UNet2DConditionModel", 1e-5)
    plain = ours(x, t, text)
    assert (plain - wanted).abs().max() / scale > 1e-3
    only = [torch.zeros_like(one) for one in added[:-1]] + [added[-1]]
    assert (page.controlled(ours, x, t, text, only) - wanted).abs().max() / scale > 1e-3


@pytest.mark.claim("cn-share")
@pytest.mark.claim("cn-parameters")
@pytest.mark.parametrize("version", FULL)
def test_names_and_shapes_are_those_of_stable_diffusion(version):
    widths = (16, 32, 96, 256)
    with torch.device("meta"):
        theirs = theirs_of(FULL[version], 3, widths).state_dict()
        ours = page.ControlNet(FULL[version], 3, widths).state_dict()
        whole = sum(weight.numel() for weight in ConditionedUNet(FULL[version]).parameters())
    shapes = {name: weight.shape for name, weight in theirs.items()}
    assert {name: weight.shape for name, weight in ours.items()} == shapes and len(shapes) == 340
    count = sum(weight.numel() for weight in ours.values())
    assert count == {"1.5": 361_279_120, "2.1": 364_228_240}[version]
    assert 0.415 < count / whole < 0.425


@pytest.mark.claim("cn-parameters")
def test_the_programs_networks_and_the_full_encoder_of_hints():
    with torch.device("meta"):
        unet = ConditionedUNet(UNetConfig(4, (48, 64), attention=(False, True), heads=(2, 2), groups=16))
        control, full = page.control_for(unet), page.ControlNet(FULL["1.5"], 3, (16, 32, 96, 256))
    encoders = [one.controlnet_cond_embedding for one in (control, full)]
    found = [sum(weight.numel() for weight in one.parameters()) for one in (unet, control, *encoders)]
    assert found == [1_191_796, 657_536, 85_920, 1_086_480]
    assert [len(one.controlnet_down_blocks) for one in (control, full)] == [4, 12]


@torch.no_grad()
def test_hints_of_another_size_are_refused():
    control = page.ControlNet(SMALL, 3, (5, 6, 7))
    x, t, text = torch.randn(2, 4, 4, 6), torch.tensor([1, 2]), torch.randn(2, 7, 10)
    for shape in ((2, 3, 16, 16), (2, 1, 16, 24), (1, 3, 16, 24), (2, 3, 4, 6)):
        with pytest.raises(ValueError, match=r"hints \(2, 3, 16, 24\) for latents \(2, 4, 4, 6\) are expected, given"):
            control(x, t, text, torch.zeros(shape))


# what a ControlNet is before training


@torch.no_grad()
@pytest.mark.claim("cn-identical")
def test_at_first_the_frozen_model_answers_bit_for_bit():
    model, control = small()
    latents, tokens, hints, empty = batch()
    t, states = torch.tensor([0, 3, 7, 20, 30, 39]), model.text.states(tokens)
    plain = model.unet(latents, t, states)
    added = control(latents, t, states, hints)
    assert torch.equal(page.controlled(model.unet, latents, t, states, added), plain)
    assert all((one == 0).all() for one in added)
    drawn = page.controlled_noise(model, [page.Control(control, hints)], tokens, empty, 3.0)
    alone = guided_noise(model, tokens, empty, 3.0)
    assert torch.equal(drawn(latents, t, model.schedule.alpha_bar[7]), alone(latents, t, model.schedule.alpha_bar[7]))
    perturbed(control)
    assert not torch.equal(page.controlled(model.unet, latents, t, states, control(latents, t, states, hints)), plain)


@torch.no_grad()
def test_the_copy_has_the_u_nets_weights_and_shares_none(agrees):
    torch.manual_seed(0)
    theirs, ours = perturbed(their_unet(SMALL)), ConditionedUNet(SMALL).eval()
    ours.load_state_dict(theirs.state_dict())
    wanted = ControlNetModel.from_unet(theirs, conditioning_embedding_out_channels=(5, 6, 7)).state_dict()
    control = page.control_for(ours, 3, (5, 6, 7))
    found, hint = control.state_dict(), "controlnet_cond_embedding"
    assert found.keys() == wanted.keys()
    for name, weight in found.items():
        if not name.startswith(hint):  # these begin at random on both sides
            agrees(weight.double().sum().item(), wanted[name].double().sum().item(), "diffusers.ControlNetModel", 1e-5)
    zeros = [name for name, weight in found.items() if not weight.any()]
    assert zeros and all(name.startswith("controlnet_") for name in zeros)
    assert {name for name in zeros if name.startswith(hint)} == {
        f"{hint}.conv_out.{kind}" for kind in ("weight", "bias")
    }
    before = copy.deepcopy(ours.state_dict())
    for weight in control.parameters():
        weight.add_(1.0)
    assert all(torch.equal(weight, before[name]) for name, weight in ours.state_dict().items())


# why layers of zeros learn


@pytest.mark.equation("cn-zero", of=page.zero_conv)
def test_a_zero_layer_is_its_formula_and_begins_with_zeros(formula):
    layer = page.zero_conv(3, 5).double()
    features = torch.randn(2, 3, 4, 6).double()
    assert torch.equal(layer(features), torch.zeros(2, 5, 4, 6).double())
    perturbed(layer)
    answer, weight = layer(features), layer.weight[:, :, 0, 0]
    names = {"y_i": answer[:, 3], "b_i": layer.bias[3], "W_{ij}": lambda j: weight[3, j]}
    formula("cn-zero").holds(names | {"h_j": lambda j: features[:, j], "j": range(3)})


@pytest.mark.equation("cn-gradient", of=page.zero_conv)
def test_the_gradient_of_a_zero_layer_is_its_formula(formula):
    """At zeros its weights get one, but it passes nothing on; at other weights both."""
    layer, features = page.zero_conv(3, 5).double(), torch.randn(1, 3, 4, 6).double().requires_grad_()
    above = torch.randn(1, 5, 4, 6).double()  # the gradient at its output
    to_weight, to_features = torch.autograd.grad(layer(features), (layer.weight, features), above)
    assert not to_features.any() and (to_weight.abs() > 1e-3).all()
    perturbed(layer)
    same, to_features = torch.autograd.grad(layer(features), (layer.weight, features), above)
    torch.testing.assert_close(same, to_weight)
    found = Matrix(to_weight[:, :, 0, 0]), Matrix(to_features.flatten(2)[0].T)
    names = {r"\frac{\partial L}{\partial W}": found[0], r"\frac{\partial L}{\partial H}": found[1]}
    names |= {"G": Matrix(above.flatten(2)[0].T), "H": Matrix(features.detach().flatten(2)[0].T)}
    formula("cn-gradient").holds(names | {"W": Matrix(layer.weight.detach()[:, :, 0, 0])}, relations=2)


GROUPS = {
    "zeros": lambda name: name.startswith(("controlnet_down", "controlnet_mid")),
    "hint_last": lambda name: name.startswith("controlnet_cond_embedding.conv_out"),
    "hint": lambda name: name.startswith("controlnet_cond_embedding") and "conv_out" not in name,
    "copy": lambda name: not name.startswith("controlnet_"),
}


def moving(model, control, data, steps=3):
    """For each of the first steps and each group, how many of its tensors have a gradient that is not 0."""
    nn.ModuleList([model.unet, model.text]).requires_grad_(False)
    optimizer, generator, counts = torch.optim.SGD(control.parameters(), 0.1), seeded(), []
    for _ in range(steps):
        optimizer.zero_grad()
        page.control_loss(model, control, *data, generator).backward()
        alive = {name for name, weight in control.named_parameters() if weight.grad is not None and weight.grad.any()}
        counts.append({group: sum(map(belongs, alive)) for group, belongs in GROUPS.items()})
        optimizer.step()
    return counts


@pytest.mark.claim("cn-steps")
def test_which_tensors_have_a_gradient_at_steps_0_1_and_2():
    model, control = small(dtype=torch.float64)
    names = [name for name, _ in control.named_parameters()]
    whole = {group: sum(map(belongs, names)) for group, belongs in GROUPS.items()}
    assert sum(whole.values()) == len(names) and min(whole.values()) >= 2
    counts = moving(model, control, batch(dtype=torch.float64))
    none = dict.fromkeys(GROUPS, 0)
    assert counts == [
        none | {"zeros": whole["zeros"]},
        none | {group: whole[group] for group in ("zeros", "copy", "hint_last")},
        whole,
    ]
    assert all(weight.grad is None for part in (model.unet, model.text) for weight in part.parameters())


@pytest.mark.claim("cn-random-steps")
def test_layers_that_begin_at_random_let_all_train_at_once():
    model, control = small(dtype=torch.float64)
    perturbed(control.controlnet_down_blocks), perturbed(control.controlnet_mid_block)
    perturbed(control.controlnet_cond_embedding.conv_out)
    names = [name for name, _ in control.named_parameters()]
    counts = moving(model, control, batch(dtype=torch.float64), 1)
    assert sum(counts[0].values()) == len(names)


# training


class Remembers(nn.Module):
    """A stand-in for `controlled` or a ControlNet that keeps what it was asked."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, *asked):
        self.asked = asked
        return self.answer(*asked)


def answered(x, t, text, hint):
    """One number for each latent, from all that a ControlNet is given."""
    told = text.mean(dim=(1, 2)) + 2 * hint.mean(dim=(1, 2, 3)) + t.to(x) / 40
    return [told.view(-1, 1, 1, 1) * torch.ones_like(x)]


@torch.no_grad()
@pytest.mark.equation("cn-loss", of=page.control_loss)
def test_the_loss_is_its_formula(formula, monkeypatch):
    model, _ = small(dtype=torch.float64)
    latents, tokens, hints, empty = batch(dtype=torch.float64)
    control = Remembers(answered)
    monkeypatch.setattr(page, "controlled", lambda unet, x, t, text, added: x.tanh() + added[0])
    loss = page.control_loss(model, control, latents, tokens, hints, empty, seeded())
    generator = seeded()
    told = drop_condition(tokens, empty, 0.5, generator)
    eps = noise_like(latents, generator)
    xt, t, states, seen = control.asked
    torch.testing.assert_close(states, model.text.states(told))
    torch.testing.assert_close(xt, q_sample(model.schedule, latents, t, eps))
    assert torch.equal(seen, hints)
    v = velocity(model.schedule, latents, t, eps).flatten(1)
    names = {"v": v, r"z_t": xt.flatten(1), "t": t, "y": told, "c": hints, "L": loss * 96}
    names |= {r"\tau_\theta": lambda y: model.text.states(y.long())}
    names |= {r"v_\theta": lambda x, t, s, c: x + answered(x.view(xt.shape), t, s, c)[0].flatten(1) - x + x.tanh()}
    formula("cn-loss").holds(names | {r"\mathbb{E}_{z, y, c, t, \epsilon}": torch.mean})


def test_about_half_of_the_texts_are_left_out_each_by_its_own_draw(monkeypatch):
    model, control = small()
    latents, tokens, hints, empty = batch(40)
    told = []
    monkeypatch.setattr(model.text, "states", lambda y: told.append(y) or torch.zeros(len(y), 5, 10))
    with torch.no_grad():
        for seed in range(20):
            page.control_loss(model, control, latents, tokens, hints, empty, seeded(seed))
    dropped = (torch.stack(told) == 0).all(dim=2)
    assert 0.44 < dropped.double().mean() < 0.56 and (dropped.sum(dim=1) < 40).all() and dropped.any(dim=1).all()


def test_training_repeats_itself_and_changes_no_frozen_weight():
    model, start = small()
    latents, tokens, hints, empty = batch(30)
    frozen = nn.ModuleList([model.unet, model.text])
    before, first = copy.deepcopy(frozen.state_dict()), copy.deepcopy(start.state_dict())
    trained = [page.train_control(model, start, latents, tokens, hints, empty, 5, 7, lr=1e-3) for _ in range(2)]
    assert all(torch.equal(weight, before[name]) for name, weight in frozen.state_dict().items())
    assert all(torch.equal(weight, first[name]) for name, weight in start.state_dict().items())
    after = [control.state_dict() for control in trained]
    assert all(torch.equal(weight, after[1][name]) for name, weight in after[0].items())
    assert all(not torch.equal(weight, first[name]) for name, weight in after[0].items())
    assert not trained[0].training and start.training
    for one, control in ((True, start), (False, trained[0])):
        zeros = [
            control(*args, hints[:2]) for args in [(latents[:2], torch.tensor([1, 30]), model.text.states(tokens[:2]))]
        ]
        assert all((residual == 0).all() for residual in zeros[0]) == one


@pytest.mark.claim("cn-no-grad")
def test_without_gradients_through_the_frozen_decoder_nothing_trains():
    """PyTorch says so, at once; a way down without gradients changes nothing."""
    model, control = small()
    latents, tokens, hints, _ = batch()
    nn.ModuleList([model.unet, model.text]).requires_grad_(False)
    t, states = torch.tensor([0, 3, 7, 20, 30, 39]), model.text.states(tokens)
    added = control(latents, t, states, hints)
    with torch.no_grad():
        output = page.controlled(model.unet, latents, t, states, added)
    with pytest.raises(RuntimeError, match="does not require grad"):
        output.square().mean().backward()
    with torch.no_grad():  # as the authors' code has it
        time = torch.nn.functional.silu(model.unet.time_embedding(t))
        x, skips = model.unet.encode(latents, time, states)
        x = model.unet.mid_block.block(1, model.unet.mid_block.block(0, x, time, states), time, states)
    skips = [skip + more for skip, more in zip(skips, added[:-1], strict=True)]
    model.unet.decode(x + added[-1], time, states, skips).square().mean().backward()
    found = [zero.weight.grad for zero in control.controlnet_down_blocks]
    control.zero_grad()
    page.controlled(model.unet, latents, t, states, control(latents, t, states, hints)).square().mean().backward()
    assert all(
        torch.equal(zero.weight.grad, one) for zero, one in zip(control.controlnet_down_blocks, found, strict=True)
    )
    assert all(one.any() for one in found)


# drawing


@torch.no_grad()
@pytest.mark.equation("cn-block", of=page.controlled)
def test_the_middle_is_its_formula(formula, monkeypatch):
    """In place of the decoder, four features of what the middle gets, enlarged; both copies share the first layer."""
    model, control = small(dtype=torch.float64)
    first = copy.deepcopy(control.conv_in)
    perturbed(control)
    control.conv_in = first
    latents, tokens, hints, _ = batch(dtype=torch.float64)
    t, states = torch.tensor([0, 3, 7, 20, 30, 39]), model.text.states(tokens)

    def some(features):
        return torch.nn.functional.interpolate(features[:, 3:7], size=(4, 6))

    monkeypatch.setattr(model.unet, "decode", lambda x, time, text, skips: some(x))
    found = page.controlled(model.unet, latents, t, states, control(latents, t, states, hints))

    def blocks(features, which):
        network = (model.unet, control)[int(which)]
        time, skips = torch.nn.functional.silu(network.time_embedding(t)), []
        for stage in network.down_blocks:
            features = stage.down(features, time, states, skips)
        answer = network.mid_block.block(1, network.mid_block.block(0, features, time, states), time, states)
        return answer if which else some(answer)

    names = {r"\mathcal{F}": blocks, r"\Theta": 0.0, r"\Theta_c": 1.0, "x": first(latents), "c": hints, "y_c": found}
    names |= {r"\mathcal{Z}_2": lambda h: some(control.controlnet_mid_block(h))}
    names |= {r"\mathcal{Z}_1": control.controlnet_cond_embedding}
    formula("cn-block").holds(names)


@torch.no_grad()
@pytest.mark.equation("cn-sum", of=page.summed)
@pytest.mark.claim("cn-several")
def test_two_controls_add_up_as_diffusers_adds_them(formula, agrees):
    config, channels, widths = SIZES[0]
    torch.manual_seed(0)
    pairs = [pair(config, channels, widths) for _ in range(2)]
    x, t, text, hint = inputs(config, channels, widths)
    hints, scales = [hint, hint.flip(0)], [0.7, 1.6]
    theirs = MultiControlNetModel([one for one, _ in pairs])
    wanted = listed(theirs(x, t, text, hints, scales, return_dict=False))
    controls = [page.Control(ours, h, s) for (_, ours), h, s in zip(pairs, hints, scales, strict=True)]
    found = page.summed(controls, x, t, text)
    each = [control.network(x, t, text, control.hint) for control in controls]
    for place, (one, other) in enumerate(zip(found, wanted, strict=True)):
        size = one.abs().max().item()
        agrees(one / size, other / size, "diffusers.MultiControlNetModel", 1e-5)
        assert (each[0][place] + each[1][place] - other).abs().max() / size > 1e-3
    names = {"a_i": found[1], r"\lambda_k": lambda k: scales[k], "r_{ki}": lambda k: each[k][1]}
    formula("cn-sum").holds(names | {"k": range(2)}, tolerance=1e-5)
    before = [one.clone() for one in each[0]]
    again = page.summed(controls, x, t, text)
    assert all(torch.equal(one, other) for one, other in zip(again, found, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(each[0], before, strict=True))
    with pytest.raises(ValueError, match="one control at least"):
        page.summed([], x, t, text)


@torch.no_grad()
@pytest.mark.claim("cn-scale")
@pytest.mark.parametrize("guess", [False, True])
def test_scales_and_guess_mode_are_diffusers(guess, agrees):
    theirs, ours = pair(*SIZES[1])
    x, t, text, hint = inputs(*SIZES[1])
    untold = torch.randn_like(text)
    if guess:
        wanted = listed(theirs(x, t, text, hint, conditioning_scale=0.8, guess_mode=True, return_dict=False))
        found = page.to_text_alone([page.Control(ours, hint, 0.8)], x, t, text, untold)
    else:
        both = [torch.cat([one, one]) for one in (x, t, hint)]
        texts = torch.cat([text, untold])
        settings = {"conditioning_scale": 0.8, "return_dict": False}
        wanted = listed(theirs(both[0], both[1], texts, both[2], **settings))
        found = page.to_both([page.Control(ours, hint, 0.8)], x, t, text, untold)
    for one, other in zip(found, wanted, strict=True):
        size = one.abs().max().item()
        agrees(one[: len(other)] / size, other / size, "diffusers.ControlNetModel", 1e-5)
        assert len(one) == 10 and (one[5:] == 0).all() == guess and size > 0.01


@torch.no_grad()
@pytest.mark.equation("cn-guess", of=page.to_text_alone)
@pytest.mark.claim("cn-guess-authors")
def test_weights_of_guess_mode(formula):
    """The library's, and nearly the authors' 0.825 ** (12 - i)."""
    _, ours = pair(*SIZES[1])
    x, t, text, hint = inputs(*SIZES[1])
    plain, found = ours(x, t, text, hint), page.to_text_alone([page.Control(ours, hint)], x, t, text, text)
    count = len(plain)
    for place in (0, 3, count - 1):
        weight = found[place][0].double() / plain[place][0].double()
        names = {"w_i": weight.mean(), "i": place, "n": count - 1}
        if place == 3:
            formula("cn-guess").holds(names, tolerance=1e-5)
        assert abs(weight.mean() - 10 ** (-1 + place / (count - 1))) < 1e-4
    authors = [0.825 ** (12 - i) for i in range(13)]
    library = torch.logspace(-1, 0, 13).tolist()
    assert all(abs(one / other - 1) < 0.01 for one, other in zip(authors, library, strict=True))


@torch.no_grad()
@pytest.mark.parametrize("residuals", [page.to_both, page.to_text_alone])
def test_guidance_asks_with_the_text_and_with_the_empty_one(residuals):
    model, control = small()
    perturbed(control)
    latents, tokens, hints, empty = batch()
    t, told, untold = torch.full((6,), 7), model.text.states(tokens), model.text.states(empty.expand(6, 5))
    control_of_text, control_of_none = (control(latents, t, states, hints) for states in (told, untold))
    if residuals is page.to_text_alone:
        weights = torch.logspace(-1, 0, len(control_of_text))
        control_of_text = [w * one for w, one in zip(weights, control_of_text, strict=True)]
        control_of_none = [0 * one for one in control_of_none]
    both = [
        page.controlled(model.unet, latents, t, states, added)
        for states, added in ((told, control_of_text), (untold, control_of_none))
    ]
    predict = page.controlled_noise(model, [page.Control(control, hints)], tokens, empty, 4.0, residuals)
    found = predict(latents, t, model.schedule.alpha_bar[7])
    torch.testing.assert_close(found, both[1] + 4.0 * (both[0] - both[1]), rtol=1e-4, atol=1e-4)
    assert (both[0] - both[1]).abs().max() > 0.01


@pytest.mark.claim("cn-by-hand")
def test_the_first_step_by_hand():
    layer, copy_says = page.zero_conv(1, 1), torch.full((1, 1, 1, 1), 5.0)
    answer = 5 + layer(copy_says)
    assert answer.item() == 5
    answer.backward(torch.full((1, 1, 1, 1), -1.0))
    assert (layer.weight.grad.item(), layer.bias.grad.item()) == (-5, -1)
    torch.optim.SGD(layer.parameters(), 0.01).step()
    assert abs((5 + layer(copy_says)).item() - 5.26) < 1e-6


# hints and what is drawn


@pytest.mark.claim("cn-hints")
def test_hints_are_pictures_from_0_to_1():
    for scene in scenes(20, seeded()):
        edge, mask, pose = page.edge_hint(scene), page.mask_hint(scene), page.pose_hint(scene)
        for hint in (edge, mask, pose):
            assert hint.shape == (3, 32, 32) and hint.min() == 0 and 0.6 < hint.max() <= 1
        assert torch.equal(edge[0], scene.edges) and torch.equal(mask[1] > 0, scene.mask > 0)
        assert (mask >= edge).all() and (mask - edge).sum() > 0
        for shape, points in zip(scene.shapes, scene.key_points, strict=True):
            x, y = (int(a) for a in points[0])
            assert pose[0, y, x] > 0.6 and pose[2].max() == 0
            corners = len(points) - 1
            assert corners == {"circle": 0, "square": 4, "triangle": 3, "cross": 4}[shape.kind]
            far = (
                torch.hypot(torch.arange(32) + 0.5 - points[0][0], (torch.arange(32) + 0.5 - points[0][1])[:, None])
                > 16
            )
            assert len(scene.shapes) > 1 or pose[:2, far].max() < 0.01


@pytest.mark.equation("cn-overlap", of=page.overlap)
def test_overlap_is_its_formula_and_counts_pixels(formula):
    generator = seeded()
    asked, drawn = ((torch.rand(2, 5, 4, 6, generator=generator).double() > 0.4).double()).unbind(0)
    a, b = asked.flatten(1), drawn.flatten(1)
    names = {"a_p": lambda p: a[:, p], "b_p": lambda p: b[:, p], "p": range(24)}
    formula("cn-overlap").holds(names | {r"\mathrm{IoU}": page.overlap(asked, drawn)})
    nothing = torch.zeros(1, 4, 6)
    assert page.overlap(nothing, nothing) == 1 and page.overlap(nothing, asked[:1].float()) == 0


@pytest.mark.claim("cn-overlap-circles")
def test_overlap_of_circles_that_lie_apart():
    line = torch.linspace(-10, 12, 2201)
    circles = [(torch.hypot(line - apart, line[:, None]) < 6).float() for apart in (0, 1, 2)]
    found = [page.overlap(circles[0][None], circle[None]).item() for circle in circles]
    assert [round(one, 2) for one in found] == [1.0, 0.81, 0.65]


def test_painted_finds_the_shapes_of_scenes():
    found = scenes(40, seeded())
    drawn, masks = torch.stack([s.picture for s in found]), torch.stack([(s.mask > 0).float() for s in found])
    assert page.overlap(masks, page.painted(drawn)).min() > 0.95
    paper = torch.ones(1, 3, 8, 8)
    assert page.painted(paper).sum() == 0 and page.painted(paper - 0.3).sum() == 0
    for colour in COLOURS.values():
        ink = 2 * torch.tensor(colour).view(1, 3, 1, 1).expand(1, 3, 4, 4) - 1
        assert page.painted(ink).all() and not page.painted(torch.lerp(torch.ones_like(ink), ink, 0.4)).any()


@torch.no_grad()
def test_it_exports():
    control = page.ControlNet(SMALL, 3, (5, 6, 7)).eval()
    given = torch.randn(2, 4, 4, 6), torch.tensor([1, 2]), torch.randn(2, 7, 10), torch.rand(2, 3, 16, 24)
    exported = torch.export.export(control, given).module()
    for one, other in zip(exported(*given), control(*given), strict=True):
        torch.testing.assert_close(one, other)


model, control = small()


@pytest.mark.parametrize(
    "call, given",
    [
        (lambda: page.train_control(model, control, *batch(3)[:1], *batch(2)[1:], 5), "3 latents, 2 texts, 2 hints"),
        (lambda: page.train_control(model, control, *batch(3), 0), "3 hints, 0, 16"),
        (lambda: page.train_control(model, control, *batch(3), 5, 0), "3 hints, 5, 0"),
    ],
)
def test_wrong_input_is_refused(call, given):
    with pytest.raises(ValueError, match=given):
        call()


@pytest.mark.claim("cn-library-hint")
def test_the_librarys_hint_encoder():
    """Convolutions of 3 by 3, SiLU, a last layer of zeros; its docstring quotes another network."""
    kind = type(theirs_of(SMALL, 3, (5, 6)).controlnet_cond_embedding)
    assert "4 × 4 kernels" in kind.__doc__ and "ReLU" in kind.__doc__
    made = kind(8, 3, (5, 6, 7))
    assert {layer.kernel_size for layer in made.modules() if isinstance(layer, nn.Conv2d)} == {(3, 3)}
    assert not made.conv_out.weight.any() and "F.silu" in inspect.getsource(kind.forward)
