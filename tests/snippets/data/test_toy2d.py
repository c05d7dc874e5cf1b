"""The mixture's closed forms: against automatic differentiation, numerical integration and samples."""

import pytest
import torch

from snippets.data.toy2d import Toy2D, toy2d

LEVELS = [(1.0, 0.0), (1.0, 0.7), (0.8, 0.6), (0.1, 0.995)]


def grid(size: int = 700, reach: float = 9.0) -> tuple[torch.Tensor, float]:
    """Points (size^2, 2) of a square around the origin, and the area of one cell."""
    line = torch.linspace(-reach, reach, size, dtype=torch.float64)
    return torch.cartesian_prod(line, line), (2 * reach / (size - 1)) ** 2


@pytest.mark.parametrize("signal, noise", LEVELS)
def test_density_integrates_to_one_with_the_right_moments(signal, noise):
    toy, (x, cell) = toy2d(), grid()
    p = toy.log_density(x, signal, noise).exp() * cell
    assert p.sum() == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(p @ x, signal * toy.weights @ toy.means, rtol=0, atol=1e-6)
    second = signal**2 * (toy.weights @ toy.means**2 + toy.weights @ toy.deviations**2) + noise**2
    torch.testing.assert_close(p @ x**2, second, rtol=1e-6, atol=0)


@pytest.mark.parametrize("signal, noise", LEVELS)
def test_scores_are_gradients(signal, noise):
    toy = toy2d()
    x = (2 * torch.randn(11, 2, dtype=torch.float64)).requires_grad_()
    gradient = torch.autograd.grad(toy.log_density(x, signal, noise).sum(), x)[0]
    torch.testing.assert_close(toy.score(x, signal, noise), gradient, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(toy.eps(x, signal, noise), -noise * gradient, rtol=1e-10, atol=1e-10)
    for k in range(3):
        joint = torch.autograd.grad(toy.log_joint(x, signal, noise)[:, k].sum(), x)[0]
        torch.testing.assert_close(toy.component_score(x, signal, noise)[:, k], joint, rtol=1e-10, atol=1e-10)
    bayes = toy.log_joint(x, signal, noise) - toy.log_density(x, signal, noise)[:, None]
    torch.testing.assert_close(toy.log_posterior(x, signal, noise), bayes)


def test_samples_have_the_mixtures_moments_and_labels():
    toy = toy2d()
    x, k = toy.sample(40_000, torch.Generator().manual_seed(0))
    share = torch.bincount(k) / len(k)
    assert (share - toy.weights).abs().max() < 0.01
    for component in range(3):
        torch.testing.assert_close(x[k == component].mean(0), toy.means[component], rtol=0, atol=0.02)
        torch.testing.assert_close(x[k == component].std(0), toy.deviations[component].expand(2), rtol=0.03, atol=0)


def test_expected_noise_is_the_least_squares_answer():
    """No function of x predicts the noise better than E[eps | x]: adding anything makes the error larger."""
    toy, generator = toy2d(), torch.Generator().manual_seed(1)
    x0, _ = toy.sample(60_000, generator)
    eps = torch.randn(x0.shape, generator=generator, dtype=torch.float64)
    x = 0.8 * x0 + 0.6 * eps
    exact = toy.eps(x, 0.8, 0.6)
    error = (exact - eps).square().mean()
    for other in (0.9 * exact, 1.1 * exact, exact + 0.1, exact + 0.1 * x, toy.eps(x, 0.6, 0.8)):
        assert (other - eps).square().mean() > error


@pytest.mark.parametrize(
    "call, given",
    [
        (lambda: Toy2D(torch.ones(2), torch.zeros(3, 2), torch.ones(2)), "given \\(2,\\), \\(3, 2\\), \\(2,\\)"),
        (lambda: Toy2D(torch.tensor([1.0, 0.0]), torch.zeros(2, 2), torch.ones(2)), "positive weights"),
        (lambda: Toy2D(torch.ones(2), torch.zeros(2, 2), -torch.ones(2)), "positive weights and deviations"),
        (lambda: toy2d().score(torch.zeros(4, 3), 1.0, 1.0), "points \\(B, 2\\).*given \\(4, 3\\)"),
        (lambda: toy2d().log_density(torch.zeros(4, 2), 1.0, -1.0), "noise >= 0.*-1.0"),
        (lambda: toy2d().sample(0, torch.Generator()), "count > 0.*given 0"),
    ],
)
def test_wrong_input_is_refused(call, given):
    with pytest.raises(ValueError, match=given):
        call()
