"""How good are drawn digits: a classifier trained on real ones, and distances of its features.

Fréchet distance of two Gaussians: Dowson and Landau 1982; between network features: Heusel et al. 2017,
arXiv 1706.08500. Precision and recall: Kynkäänniemi et al. 2019, arXiv 1904.06991.

Shapes: B batch, D features, N images, M other images.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DigitClassifier(nn.Module):
    """A small convolutional network that reads 8x8 digits; its last hidden layer gives 64 features."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            *[nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()],
            *[nn.Conv2d(32, 64, 3, padding=1, stride=2), nn.BatchNorm2d(64), nn.ReLU()],
            *[nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU()],
            *[nn.Flatten(), nn.Linear(64 * 16, 64), nn.ReLU()],
        )
        self.head = nn.Linear(64, 10)

    def features(self, x: Tensor) -> Tensor:
        """The last hidden layer (B, 64) of digits x (B, 1, 8, 8) in [-1, 1]."""
        if x.ndim != 4 or x.shape[1:] != (1, 8, 8):
            raise ValueError(f"digits of shape (B, 1, 8, 8) are expected, given {tuple(x.shape)}")
        hidden = self.body(x)  # (B, 64)
        return hidden

    def forward(self, x: Tensor) -> Tensor:
        """The logits (B, 10) of the ten digits."""
        logits = self.head(self.features(x))  # (B, 10)
        return logits


def shift(x: Tensor, generator: torch.Generator) -> Tensor:
    """Move each image by -1, 0 or 1 pixel down and across; what comes in is background (-1)."""
    padded = F.pad(x, (1, 1, 1, 1), value=-1.0)  # (B, 1, 10, 10)
    down = torch.randint(3, (len(x),), generator=generator)  # (B,)
    across = torch.randint(3, (len(x),), generator=generator)  # (B,)
    rows = (down[:, None] + torch.arange(8))[:, :, None]  # (B, 8, 1)
    columns = (across[:, None] + torch.arange(8))[:, None, :]  # (B, 1, 8)
    moved = padded[torch.arange(len(x))[:, None, None], 0, rows, columns]  # (B, 8, 8)
    return moved[:, None]


def train_classifier(x: Tensor, y: Tensor, epochs: int = 30, seed: int = 0) -> DigitClassifier:
    """A classifier trained on digits x (N, 1, 8, 8) and labels y (N,), in `eval` mode."""
    if len(x) != len(y) or epochs <= 0:
        raise ValueError(
            f"as many labels as images, and epochs > 0, are expected, given {len(x)}, {len(y)}, {epochs}"
        )
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = DigitClassifier()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    batches = len(x) // 64
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=epochs * batches)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator)[: batches * 64].split(64):
            loss = F.cross_entropy(model(shift(x[rows], generator)), y[rows])  # ()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """The squared 2-Wasserstein distance between Gaussians fitted to features a (N, D) and b (M, D).

    |mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a^(1/2) S_b S_a^(1/2))^(1/2)), in float64.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(
            f"features (N, D) and (M, D), N, M >= 2, are expected, given {tuple(a.shape)}, {tuple(b.shape)}"
        )
    a, b = a.double(), b.double()  # (N, D), (M, D)
    shift = (a.mean(0) - b.mean(0)).square().sum()  # ()
    cov_a, cov_b = torch.cov(a.T), torch.cov(b.T)  # (D, D), (D, D)
    values, vectors = torch.linalg.eigh(cov_a)  # (D,), (D, D)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T  # (D, D)
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()  # ()
    return float(shift + cov_a.trace() + cov_b.trace() - 2 * cross)


def precision_recall(real: Tensor, drawn: Tensor, k: int = 3) -> tuple[float, float]:
    """Precision and recall of drawn features (M, D) against real ones (N, D): two shares, in [0, 1].

    A set covers the balls around its points that reach to each point's k-th nearest other point of the same
    set, edge included. Precision is the share of drawn points that the real set covers: how many look real.
    Recall is the share of real points that the drawn set covers: how much of the variety is drawn. Both
    depend on N, M and k: compare sets of the same sizes only. (Eqs. 1 and 2 of the paper, whose k is 3 too.)
    ValueError unless both sets have D features and more than k >= 1 rows.
    """
    shapes = tuple(real.shape), tuple(drawn.shape)
    if not len(shapes[0]) == len(shapes[1]) == 2 or shapes[0][1] != shapes[1][1]:
        raise ValueError(f"features (N, D) and (M, D) are expected, given {shapes[0]} and {shapes[1]}")
    if not 0 < k < min(len(real), len(drawn)):
        raise ValueError(f"0 < k < N and M is expected, given k = {k}, N = {len(real)} and M = {len(drawn)}")
    exact = "donot_use_mm_for_euclid_dist"  # a point's distance to itself has to be 0
    real, drawn = real.double(), drawn.double()  # (N, D), (M, D)
    # the smallest distance is a point's own, 0, so the k-th other point comes at k + 1
    reach_real = torch.cdist(real, real, compute_mode=exact).kthvalue(k + 1, dim=1).values  # (N,)
    reach_drawn = torch.cdist(drawn, drawn, compute_mode=exact).kthvalue(k + 1, dim=1).values  # (M,)
    distance = torch.cdist(real, drawn, compute_mode=exact)  # (N, M)
    precision = (distance <= reach_real[:, None]).any(dim=0).double().mean()  # ()
    recall = (distance <= reach_drawn).any(dim=1).double().mean()  # ()
    return float(precision), float(recall)


def nearest(x: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """For each image of x (N, C, H, W) the nearest of others (M, C, H, W): distance (N,) and index (N,)."""
    if x.shape[1:] != others.shape[1:]:
        raise ValueError(
            f"images of the same size are expected, given {tuple(x.shape)} and {tuple(others.shape)}"
        )
    distance = torch.cdist(x.flatten(1), others.flatten(1))  # (N, M)
    smallest, index = distance.min(dim=1)  # (N,), (N,)
    return smallest, index
