"""The autoencoder of latent diffusion, weight for weight, against diffusers; its Gaussians against torch."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from snippets.blocks import autoencoder as page
from tests.snippets.oracles import perturbed
from tests.snippets.stable_diffusion import their_autoencoder

SIZES = [
    page.AutoencoderConfig(3, 4, (8, 16), 1, 4),
    page.AutoencoderConfig(2, 3, (8, 16, 24, 16), 2, 4),
    page.AutoencoderConfig(1, 5, (12,), 3, 3),
]


def pair(config):
    """Theirs with random weights, and ours with the same ones."""
    theirs, ours = perturbed(their_autoencoder(config)), page.AutoencoderKL(config).eval()
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


@torch.no_grad()
@pytest.mark.parametrize("config", SIZES, ids=str)
def test_it_equals_diffusers(config, agrees):
    theirs, ours = pair(config)
    pictures = torch.rand(6, config.channels, 2 * config.factor, 5 * config.factor) * 2 - 1
    mean, log_variance = ours.encode(pictures)
    found = theirs.encode(pictures).latent_dist
    size = mean.abs().max().item()
    agrees(mean / size, found.mean / size, "diffusers.AutoencoderKL", 1e-5)
    agrees(log_variance, found.logvar, "diffusers.AutoencoderKL", 1e-5)
    latents = torch.randn(6, config.latent_channels, 3, 5)
    rebuilt, wanted = ours.decode(latents), theirs.decode(latents).sample
    size = rebuilt.abs().max().item()
    agrees(rebuilt / size, wanted / size, "diffusers.AutoencoderKL", 1e-5)


@torch.no_grad()
@pytest.mark.parametrize(
    "change",
    [
        lambda ours: setattr(ours.encoder.conv_norm_out, "eps", 10.0),
        lambda ours: setattr(ours.encoder.mid_block.attentions[0], "heads", 2),
        lambda ours: setattr(ours.encoder.down_blocks[0].downsamplers[0], "padding", (1, 0, 1, 0)),
        lambda ours: setattr(ours, "quant_conv", torch.nn.Identity()),
    ],
    ids=["eps", "heads", "padding", "quant_conv"],
)
def test_a_wrong_one_does_not(change):
    theirs, ours = pair(SIZES[0])
    change(ours)
    pictures = torch.rand(6, 3, 4, 10) * 2 - 1
    found, mean = theirs.encode(pictures).latent_dist.mean, ours.encode(pictures)[0]
    assert (mean - found).abs().max() / found.abs().max() > 1e-4


@pytest.mark.claim("ldm-eps-1e-6")
def test_the_normalisations_of_the_librarys_autoencoder_have_an_eps_of_1e_6():
    def found(model):
        return [(name, part.eps) for name, part in model.named_modules() if isinstance(part, torch.nn.GroupNorm)]

    theirs = found(their_autoencoder(SIZES[0]))
    assert {eps for _, eps in theirs} == {1e-6} and len(theirs) == 24
    assert sorted(theirs) == sorted(found(page.AutoencoderKL(SIZES[0])))


@pytest.mark.claim("ldm-parameters")
def test_names_and_shapes_are_those_of_stable_diffusion():
    """Version 1 and 2 have the same autoencoder."""
    with torch.device("meta"):
        config = page.AutoencoderConfig(3, 4, (128, 256, 512, 512), 2, 32)
        theirs, ours = their_autoencoder(config).state_dict(), page.AutoencoderKL(config).state_dict()
        other = page.AutoencoderKL(page.AutoencoderConfig(3, 4, (128, 256, 512, 512), 1, 32)).state_dict()
    shapes = {name: weight.shape for name, weight in theirs.items()}
    assert {name: weight.shape for name, weight in ours.items()} == shapes and len(shapes) == 248
    assert {name: weight.shape for name, weight in other.items()} != shapes
    assert sum(weight.numel() for weight in ours.values()) == 83_653_863


@pytest.mark.equation("ldm-kl", of=page.kl_divergence)
def test_its_gaussians_are_those_of_torch_and_diffusers(formula, agrees):
    mean, log_variance, noise = torch.randn(3, 5, 2, 4, 6).double()
    theirs = Normal(mean, (log_variance / 2).exp())
    ours = page.kl_divergence(mean, log_variance)
    whole = kl_divergence(theirs, Normal(torch.zeros_like(mean), torch.ones_like(mean))).sum(dim=(1, 2, 3))
    agrees(ours, whole, "torch.distributions.kl_divergence", 1e-10)
    flat, sigma = mean.flatten(1), (log_variance / 2).exp().flatten(1)
    each = {r"\mu_i": lambda i: flat[:, i], r"\sigma_i": lambda i: sigma[:, i], "i": range(48)}
    formula("ldm-kl").holds(each | {r"\mathrm{KL}": ours})
    torch.testing.assert_close(page.sample_latent(mean, log_variance, noise), theirs.mean + theirs.stddev * noise)
    assert page.kl_divergence(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 4)).item() == 0


def test_gradients_reach_mean_and_variance_through_the_draw():
    mean, log_variance = torch.zeros(2, 5, 2, 3, 4).requires_grad_().unbind()
    noise = torch.randn(5, 2, 3, 4)
    gradients = torch.autograd.grad(page.sample_latent(mean, log_variance, noise).sum(), [mean, log_variance])
    torch.testing.assert_close(gradients[0], torch.ones_like(noise))
    torch.testing.assert_close(gradients[1], noise / 2)


def test_extreme_log_variances_are_cut():
    model = page.AutoencoderKL(SIZES[2])
    model.quant_conv.bias.data[5:] = torch.tensor([1e4, -1e4, 1e4, -1e4, 1e4])
    log_variance = model.encode(torch.zeros(2, 1, 3, 4))[1]
    assert log_variance.flatten(2).amax(dim=(0, 2)).tolist() == [20, -30, 20, -30, 20]


small = page.AutoencoderConfig(3, 4, (8, 16), 1, 4)


@pytest.mark.parametrize(
    "call, given",
    [
        (lambda: page.AutoencoderConfig(widths=(8, 12)), r"divisible by 8 groups.*\(8, 12\)"),
        (lambda: page.AutoencoderConfig(widths=()), r"given \(\)"),
        (lambda: page.AutoencoderKL(small).encode(torch.zeros(5, 3, 8, 7)), r"multiples of 2.*\(5, 3, 8, 7\)"),
        (lambda: page.AutoencoderKL(small).encode(torch.zeros(5, 4, 8, 6)), r"\(B, 3, H, W\)"),
        (lambda: page.AutoencoderKL(small).encode(torch.zeros(5, 3, 8, 6).int()), "torch.int32"),
        (lambda: page.AutoencoderKL(small).decode(torch.zeros(5, 3, 8, 6)), r"\(B, 4, H, W\).*\(5, 3, 8, 6\)"),
        (lambda: page.sample_latent(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(1, 3)), "one shape"),
        (lambda: page.kl_divergence(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4)), r"\(B, Z, H, W\)"),
    ],
)
def test_wrong_input_is_refused(call, given):
    with pytest.raises(ValueError, match=given):
        call()
