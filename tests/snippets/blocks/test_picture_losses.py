"""The perceptual distance and the judge of patches: their formulas, their ends, and that gradients balance."""

import pytest
import torch
import torch.nn.functional as F

from snippets.blocks import picture_losses as page
from tests.snippets.oracles import perturbed


def test_features_get_smaller_and_answers_come_from_the_last():
    model = perturbed(page.PictureFeatures(3, 8, 5))
    pictures = torch.rand(6, 3, 12, 20)
    found = model.features(pictures)
    assert [tuple(x.shape) for x in found] == [(6, 8, 12, 20), (6, 16, 6, 10), (6, 16, 3, 5)]
    torch.testing.assert_close(model(pictures), model.out(found[-1].mean(dim=(2, 3))))


def test_perceptual_distance_compares_directions_at_each_pixel():
    model = perturbed(page.PictureFeatures(3, 8, 5))
    one, other = torch.rand(2, 6, 3, 12, 20).double().unbind()
    a, b = model.double().features(one), model.features(other)
    ours = page.perceptual_distance(a, b)
    wanted = sum((2 - 2 * F.cosine_similarity(x, y, dim=1)).mean(dim=(1, 2)) for x, y in zip(a, b, strict=True))
    torch.testing.assert_close(ours, wanted, rtol=0, atol=0.3)  # where all features are 0 there is no direction
    longer = [3 * x for x in a]
    torch.testing.assert_close(page.perceptual_distance(longer, b), ours)
    assert page.perceptual_distance(a, longer).max() < 1e-12 < 1e-3 < ours.min()


def test_perceptual_distance_by_hand():
    """One layer, one pixel: directions (1, 0) and (0, 1) are 2 apart, (1, 0) and (0.6, 0.8) are 0.8 apart."""
    one = torch.tensor([[2.0, 0.0], [5.0, 0.0]]).view(2, 2, 1, 1)
    other = torch.tensor([[0.0, 3.0], [3.0, 4.0]]).view(2, 2, 1, 1)
    torch.testing.assert_close(page.perceptual_distance([one], [other]), torch.tensor([2.0, 0.8]))


def test_the_judge_sees_patches():
    """A number for each patch, that depends on pixels near it alone, but for the normalisation."""
    judge = perturbed(page.PatchDiscriminator(3, 8))
    judge.norm = torch.nn.Identity()
    pictures = torch.rand(5, 3, 32, 24).requires_grad_()
    patches = judge(pictures)
    assert patches.shape == (5, 1, 8, 6)
    seen = torch.autograd.grad(patches[0, 0, 4, 3], pictures)[0].abs().sum(dim=1)[0] > 0
    rows, columns = seen.nonzero().unbind(dim=1)
    assert (rows.max() - rows.min() + 1, columns.max() - columns.min() + 1) == (18, 18)


@pytest.mark.equation("ldm-judge", of=page.judge_loss)
def test_the_judges_loss_is_its_formula(formula):
    real, rebuilt = torch.randn(2, 60).double() * 2
    zero = torch.zeros(()).double()
    names = {"L_J": page.judge_loss(real, rebuilt), "J(x)": real, r"J(\hat x)": rebuilt, r"\mathbb{E}": torch.mean}
    formula("ldm-judge").holds(names | {r"\max": lambda a, b: torch.maximum(a + zero, b)})
    assert page.judge_loss(torch.tensor([1.0, 4.0]), torch.tensor([-1.0, -3.0])) == 0
    assert page.judge_loss(torch.tensor([-1.0]), torch.tensor([-1.0])) == 1  # taken for rebuilt: real ones count


@pytest.mark.equation("ldm-balance", of=page.balance)
def test_balanced_losses_pull_equally_hard(formula):
    last = torch.randn(4, 7).double().requires_grad_()
    reconstruction, adversarial = (last**3).sum(), (5 * last).sin().sum()
    ours = page.balance(reconstruction, adversarial, last)
    pull, push = (3 * last**2).detach().flatten(), (5 * (5 * last).cos()).detach().flatten()
    names = {r"\gamma": ours, r"\nabla_w L_{\text{rec}}": pull, r"\nabla_w L_{\text{adv}}": push}
    formula("ldm-balance").holds(names)
    assert not ours.requires_grad
    assert page.balance(1e9 * reconstruction, 0 * adversarial, last) == 1e4
