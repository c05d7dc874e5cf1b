"""The judges of drawn digits: closed forms, and a classifier that reads digits it has not seen."""

import numpy as np
import pytest
import torch

from snippets.blocks import image_metrics as metrics
from snippets.data.digits import digits
from tests.formula import Matrix


def gaussian(count: int, mean: torch.Tensor, root: torch.Tensor) -> torch.Tensor:
    """Rows whose sample mean and covariance are exactly mean and root root^T."""
    x = torch.randn(count, len(mean), dtype=torch.float64)
    x = x - x.mean(0)
    x = x @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(x.T))).T
    return x @ root.T + mean


@pytest.mark.equation("ddpm-frechet", of=metrics.frechet_distance)
def test_frechet_distance_is_its_formula(formula):
    mean_a, mean_b = torch.randn(5).double(), torch.randn(5).double()
    mixed_a, mixed_b = torch.randn(2, 5, 5).double()
    a, b = gaussian(40, mean_a, mixed_a), gaussian(30, mean_b, mixed_b)  # covariances that do not commute
    names = {"d": metrics.frechet_distance(a, b) ** 0.5, r"\mu_a": mean_a, r"\mu_b": mean_b}
    names |= {r"\Sigma_a": Matrix(torch.cov(a.T)), r"\Sigma_b": Matrix(torch.cov(b.T))}
    formula("ddpm-frechet").holds(names | {r"\operatorname{tr}": lambda matrix: matrix.rows.trace()})


def test_frechet_distance_of_known_gaussians():
    mean_a, mean_b = torch.randn(5).double(), torch.randn(5).double()
    diagonal_a, diagonal_b = torch.rand(5).double() + 0.5, torch.rand(5).double() + 0.5
    a = gaussian(40, mean_a, diagonal_a.diag())
    b = gaussian(30, mean_b, diagonal_b.diag())
    expected = (mean_a - mean_b).square().sum() + (diagonal_a - diagonal_b).square().sum()  # commuting covariances
    assert abs(metrics.frechet_distance(a, b) - expected) < 1e-9
    turn, _ = torch.linalg.qr(torch.randn(5, 5).double())
    assert abs(metrics.frechet_distance(a @ turn, b @ turn) - expected) < 1e-9  # a rotation changes nothing


def test_frechet_distance_equals_scipy_and_notices(agrees):
    import scipy.linalg

    a, b = (
        gaussian(40, torch.zeros(5), torch.randn(5, 5).double()),
        gaussian(30, torch.ones(5), torch.randn(5, 5).double()),
    )
    cov_a, cov_b = torch.cov(a.T).numpy(), torch.cov(b.T).numpy()
    cross = scipy.linalg.sqrtm(cov_a @ cov_b).real.trace()
    theirs = float((a.mean(0) - b.mean(0)).square().sum()) + cov_a.trace() + cov_b.trace() - 2 * cross
    agrees(metrics.frechet_distance(a, b), theirs, "scipy.linalg.sqrtm", 1e-8)
    assert metrics.frechet_distance(a, a) < 1e-9
    assert abs(metrics.frechet_distance(a, b) - metrics.frechet_distance(b, a)) < 1e-9
    assert abs(metrics.frechet_distance(a, 2 * b) - theirs) > 0.1
    few = torch.randn(3, 5)  # fewer rows than features: a singular covariance is no error
    assert metrics.frechet_distance(few, few + 1) == pytest.approx(5, abs=1e-5)


def test_shift_moves_each_image_by_at_most_one_pixel():
    x = torch.full((200, 1, 8, 8), -1.0)
    x[:, 0, 3, 4] = 1.0
    moved = metrics.shift(x, torch.Generator().manual_seed(0))
    places = (moved[:, 0] == 1).nonzero()[:, 1:] - torch.tensor([3, 4])
    assert len(places) == 200 and places.abs().max() == 1
    assert len(places.unique(dim=0)) == 9


def test_classifier_reads_held_out_digits():
    torch.manual_seed(5)
    model = metrics.train_classifier(*digits(), epochs=12)
    x, y = digits(held_out=True)
    with torch.no_grad():
        assert (model(x).argmax(1) == y).float().mean() >= 0.97
        assert model.features(x).shape == (360, 64)
        assert (model(-x).argmax(1) == y).float().mean() < 0.5  # and it is the picture that it reads
    assert not model.training


def test_nearest_finds_a_planted_twin():
    x, others = torch.randn(6, 2, 3, 4), torch.randn(9, 2, 3, 4)
    others[7] = x[2] + 0.01
    distance, index = metrics.nearest(x, others)
    assert index[2] == 7 and distance[2] == pytest.approx(0.01 * 24**0.5, rel=1e-2)
    brute = torch.stack([(x[i] - others).flatten(1).norm(dim=1).min() for i in range(6)])
    torch.testing.assert_close(distance, brute, rtol=1e-3, atol=1e-4)


def slow_coverage(points, centres, k):
    """The share of points that lie in a k-nearest-neighbour ball of the centres, by scikit-learn."""
    from sklearn.neighbors import NearestNeighbors

    radius = NearestNeighbors(n_neighbors=k, algorithm="ball_tree").fit(centres).kneighbors()[0][:, -1]
    inside = [any(np.linalg.norm(p - c) <= r for c, r in zip(centres, radius, strict=True)) for p in points]
    return sum(inside) / len(inside)


@pytest.mark.equation("cgd-precision", of=metrics.precision_recall)
def test_precision_and_recall_are_their_formulas(formula):
    real, drawn = torch.randn(70, 4).double(), 0.6 * torch.randn(50, 4).double() + 0.8

    def inside(points, centres):
        """Whether each point lies in a ball around a centre that reaches to its third nearest other centre."""
        reach = torch.cdist(centres, centres).sort(dim=1).values[:, 3]
        return (torch.cdist(points, centres) <= reach).any(dim=1)

    drawn = drawn[inside(drawn, real).long().argsort(descending=True)]  # the first ones count
    real = real[inside(real, drawn).long().argsort(descending=True)]
    precision, recall = metrics.precision_recall(real, drawn, 3)
    real_like, covered = inside(drawn, real), inside(real, drawn)
    names = {r"\text{precision}": precision, "M": 50, r"\mathbf{1}[y_j \in R]": lambda j: real_like[j - 1]}
    names |= {r"\text{recall}": recall, "N": 70, r"\mathbf{1}[x_i \in D]": lambda i: covered[i - 1]}
    formula("cgd-precision").holds(names, relations=2)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_precision_and_recall_equal_scikit_learns(k, agrees):
    generator = torch.Generator().manual_seed(k)
    real = torch.randn(70, 4, generator=generator, dtype=torch.float64)
    drawn = 0.6 * torch.randn(50, 4, generator=generator, dtype=torch.float64) + 0.8
    theirs = [slow_coverage(drawn.numpy(), real.numpy(), k), slow_coverage(real.numpy(), drawn.numpy(), k)]
    agrees(metrics.precision_recall(real, drawn, k), theirs, "sklearn.neighbors.NearestNeighbors", 1e-10)
    theirs = torch.tensor(theirs, dtype=torch.float64)
    assert 0.05 < theirs.min() and theirs.max() < 0.98 and (theirs[0] - theirs[1]).abs() > 0.05  # they can differ
    other = torch.tensor(metrics.precision_recall(real, drawn, k + 1), dtype=torch.float64)
    swapped = torch.tensor(metrics.precision_recall(drawn, real, k), dtype=torch.float64)
    assert (other - theirs).abs().max() > 0.01  # negative control: a ball of another size,
    assert (swapped.flip(0) - theirs).abs().max() == 0 and (swapped - theirs).abs().max() > 0.05  # or the sets swapped


def test_precision_and_recall_know_copies_collapse_and_rubbish():
    generator = torch.Generator().manual_seed(0)
    # eight tight clusters, far apart
    centre = 100 * torch.arange(8.0).repeat_interleave(10)[:, None]
    real = centre + torch.randn(80, 3, generator=generator)
    assert metrics.precision_recall(real, real.clone()) == (1.0, 1.0)
    assert metrics.precision_recall(real, real[:20].repeat(3, 1) + 1e-3) == (1.0, pytest.approx(0.25))  # two of eight
    assert metrics.precision_recall(real, real + 50.0) == (0.0, 0.0)  # between the clusters
    half = torch.cat([real[::2], real[::2] + 50.0])
    assert metrics.precision_recall(real, half) == (0.5, pytest.approx(1, abs=0.1))
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator))
    assert metrics.precision_recall(real @ turn, half @ turn) == metrics.precision_recall(real, half)


def test_precision_and_recall_count_the_edge_of_a_ball_and_not_the_point_itself():
    real = torch.tensor([[0.0], [1.0], [3.0]])  # balls of k = 1: radius 1, 1 and 2; of k = 2: 3, 2, 3
    drawn = torch.tensor([[-1.0], [-1.5], [5.0], [5.5]])
    assert metrics.precision_recall(real, drawn, k=1)[0] == 0.5  # -1 and 5 lie on edges, the others outside
    assert metrics.precision_recall(drawn, real, k=1)[1] == 0.5  # the same for recall
    assert metrics.precision_recall(real, drawn, k=2)[0] == 1.0
    assert metrics.precision_recall(real, drawn, k=1)[1] == 0.0  # no radius is above 0.5


@pytest.mark.parametrize(
    "call, given",
    [
        (lambda: metrics.precision_recall(torch.zeros(9, 3), torch.zeros(9, 2)), "given \\(9, 3\\) and \\(9, 2\\)"),
        (lambda: metrics.precision_recall(torch.zeros(9, 3, 1), torch.zeros(9, 3)), "given \\(9, 3, 1\\)"),
        (lambda: metrics.precision_recall(torch.zeros(9, 3), torch.zeros(9)), "given \\(9, 3\\) and \\(9,\\)"),
        (lambda: metrics.precision_recall(torch.zeros(3, 2), torch.zeros(9, 2)), "k = 3, N = 3 and M = 9"),
        (lambda: metrics.precision_recall(torch.zeros(9, 2), torch.zeros(3, 2)), "k = 3, N = 9 and M = 3"),
        (lambda: metrics.precision_recall(torch.zeros(9, 2), torch.zeros(9, 2), k=0), "k = 0"),
        (lambda: metrics.frechet_distance(torch.zeros(1, 3), torch.zeros(4, 3)), "given \\(1, 3\\)"),
        (lambda: metrics.frechet_distance(torch.zeros(4, 3), torch.zeros(4, 2)), "given \\(4, 3\\), \\(4, 2\\)"),
        (lambda: metrics.DigitClassifier()(torch.zeros(4, 3, 8, 8)), "given \\(4, 3, 8, 8\\)"),
        (lambda: metrics.train_classifier(torch.zeros(4, 1, 8, 8), torch.zeros(3)), "as many labels"),
        (lambda: metrics.train_classifier(torch.zeros(4, 1, 8, 8), torch.zeros(4), epochs=0), "epochs > 0"),
        (lambda: metrics.nearest(torch.zeros(4, 1, 8, 8), torch.zeros(4, 3, 8, 8)), "same size"),
    ],
)
def test_wrong_input_is_refused(call, given):
    with pytest.raises(ValueError, match=given):
        call()
