"""A mixture of Gaussians in the plane, for which everything that a diffusion model learns has a closed form.

If x_0 is drawn from the mixture and x = signal * x_0 + noise * eps with standard normal eps, then x is drawn
from another mixture: same weights, means times signal, variances signal^2 * s_k^2 + noise^2. Its density, its
score and the class posterior follow; the score gives the expected noise, E[eps | x] = -noise * score(x). A
variance-exploding process (NCSN) has signal = 1, a variance-preserving one (DDPM) signal^2 + noise^2 = 1.

Shapes: B points, K components.
"""

# --8<-- [start:toy2d]
import torch
from torch import Tensor


class Toy2D:
    """K round Gaussians with weights (K,), means (K, 2) and standard deviations (K,), all in float64."""

    def __init__(self, weights: Tensor, means: Tensor, deviations: Tensor):
        if weights.ndim != 1 or means.shape != (len(weights), 2) or deviations.shape != weights.shape:
            raise ValueError(
                f"weights (K,), means (K, 2) and deviations (K,) are expected, given {tuple(weights.shape)}, "
                f"{tuple(means.shape)}, {tuple(deviations.shape)}"
            )
        if (weights <= 0).any() or (deviations <= 0).any():
            raise ValueError(f"positive weights and deviations are expected, given {weights}, {deviations}")
        self.weights = weights.double() / weights.double().sum()  # (K,)
        self.means = means.double()  # (K, 2)
        self.deviations = deviations.double()  # (K,)

    def sample(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Points (B, 2), float64, and the component (B,) that each was drawn from."""
        if count <= 0:
            raise ValueError(f"count > 0 is expected, given {count}")
        component = torch.multinomial(self.weights, count, replacement=True, generator=generator)  # (B,)
        eps = torch.randn(count, 2, generator=generator, dtype=torch.float64)  # (B, 2)
        points = self.means[component] + self.deviations[component, None] * eps  # (B, 2)
        return points, component

    def log_joint(self, x: Tensor, signal: float, noise: float) -> Tensor:
        """log p(x, k) (B, K) of noisy points x (B, 2)."""
        if x.ndim != 2 or x.shape[1] != 2:
            raise ValueError(f"points (B, 2) are expected, given {tuple(x.shape)}")
        if noise < 0:
            raise ValueError(f"noise >= 0 is expected, given {noise}")
        variance = (signal * self.deviations).square() + noise**2  # (K,)
        distance = (x[:, None].double() - signal * self.means).square().sum(dim=2)  # (B, K) squared
        log_normal = -distance / (2 * variance) - torch.log(2 * torch.pi * variance)  # (B, K)
        return self.weights.log() + log_normal

    def log_density(self, x: Tensor, signal: float, noise: float) -> Tensor:
        """log p(x) (B,) of noisy points x (B, 2)."""
        density = self.log_joint(x, signal, noise).logsumexp(dim=1)  # (B,)
        return density

    def log_posterior(self, x: Tensor, signal: float, noise: float) -> Tensor:
        """log p(k | x) (B, K) of noisy points x (B, 2)."""
        posterior = self.log_joint(x, signal, noise).log_softmax(dim=1)  # (B, K)
        return posterior

    def component_score(self, x: Tensor, signal: float, noise: float) -> Tensor:
        """Gradient of log p(x | k) at noisy points x (B, 2), for each component: (B, K, 2)."""
        variance = (signal * self.deviations).square() + noise**2  # (K,)
        score = (signal * self.means - x[:, None].double()) / variance[:, None]  # (B, K, 2)
        return score

    def score(self, x: Tensor, signal: float, noise: float) -> Tensor:
        """Gradient of log p(x) (B, 2) at noisy points x (B, 2): the components' scores, weighted."""
        weight = self.log_posterior(x, signal, noise).exp()  # (B, K)
        score = (weight[:, :, None] * self.component_score(x, signal, noise)).sum(dim=1)  # (B, 2)
        return score

    def eps(self, x: Tensor, signal: float, noise: float) -> Tensor:
        """E[eps | x] (B, 2): what a perfect network predicts at noisy points x (B, 2)."""
        eps = -noise * self.score(x, signal, noise)  # (B, 2)
        return eps


def toy2d() -> Toy2D:
    """The mixture of the posts: three Gaussians of unequal weight, mean and width, off centre."""
    means = torch.tensor([[-1.5, -0.6], [1.2, -0.9], [0.4, 1.5]])  # (3, 2)
    return Toy2D(torch.tensor([0.5, 0.3, 0.2]), means, torch.tensor([0.25, 0.4, 0.15]))


# --8<-- [end:toy2d]
