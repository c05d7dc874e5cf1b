"""Test of `agrees`: it notes how closely, and an oracle is code that computed the other side, and not ours."""

import numpy as np
import pytest
import scipy.special
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, DDPMScheduler
from torch import nn

from tests import oracles

ROOT, SDPA = oracles.ROOT, "torch.nn.functional.scaled_dot_product_attention"


def ours(code: str):
    """A function f(x) as if it stood in snippets."""
    space = {"torch": torch, "F": F}
    exec(compile(f"def f(x): return {code}", f"{ROOT}/snippets/toy.py", "exec"), space)
    return space["f"]


def in_diffusers(code: str, name: str):
    """A function as if it stood in diffusers."""
    space = {"torch": torch, "Layer": Layer}
    exec(compile(code, f"{oracles.LIBRARIES}diffusers/toy.py", "exec"), space)
    return space[name]


double = ours("2 * x")
X = torch.rand(3, 2)


def test_agreement_is_noted_with_version_difference_and_tolerance(agrees, request):
    agrees(double(torch.ones(2, 3)), torch.add(torch.ones(2, 3), 1) + 2**-20, oracle="torch.add")
    kind, found = request.node.user_properties.pop()
    assert kind == "oracle"
    assert found == {"name": f"torch {torch.__version__} add", "difference": 2**-20, "tolerance": 1e-5}
    agrees(1.0, 1.0, "the closed form", 0.0)
    assert request.node.user_properties.pop()[1]["name"] == "the closed form"
    agrees([0.1], torch.tensor([0.1], dtype=torch.float64), "numbers are compared in float64", 0.0)


@pytest.mark.parametrize(
    ("ours", "theirs", "told"),
    [
        ([1.0], [1.1], "ours and the sum differ by 0.1, more than 1e-05"),
        ([[1.0]], [1.0], r"ours has the shape \(1, 1\), the sum \(1,\)"),
        ([float("nan")], [1.0], "ours holds NaN"),
        ([1.0], [float("nan")], "the sum holds NaN"),
        ([float("inf")], [float("inf")], "differ by nan"),
        ([], [], "there is nothing to compare"),
    ],
)
def test_disagreement_fails_and_is_not_noted(agrees, request, ours, theirs, told):
    with pytest.raises(AssertionError, match=told):
        agrees(torch.tensor(ours), torch.tensor(theirs), oracle="the sum")
    assert not request.node.user_properties


@pytest.mark.parametrize("name", ["difusers.DDPMScheduler", "diffusers.DDPMSheduler", "snippet.ddpm.train"])
def test_an_oracle_is_code_that_is_installed(agrees, name):
    with pytest.raises(ValueError, match=f"no installed package has {name}. Name an oracle by its module"):
        agrees(1.0, 1.0, name)


DDPM = "diffusers.DDPMScheduler"


def test_ours_against_ours_fails_though_the_library_is_imported(agrees, request):
    with pytest.raises(AssertionError, match=f"no code of {DDPM} ran. Compute theirs with it, in the test or in"):
        agrees(double(X), double(X), oracle=DDPM)
    with pytest.raises(AssertionError, match=f"no code of {DDPM} ran"):
        agrees(2.0, 2.0, oracle=DDPM)
    DDIMScheduler(7)  # another class of that package
    with pytest.raises(AssertionError, match=f"no code of {DDPM} ran"):
        agrees(double(X), double(X), oracle=DDPM)
    assert not request.node.user_properties


def test_ours_against_ours_fails_though_the_library_ran(agrees):
    beta = DDPMScheduler(7).betas
    with pytest.raises(AssertionError, match=f"{DDPM} ran, but theirs was computed without code of diffusers. Comp"):
        agrees(double(X), double(X).clone(), DDPM)
    agrees(ours("torch.linspace(1e-4, 0.02, 7)")(X), beta, DDPM)
    agrees(ours("torch.linspace(1e-4, 0.02, 7)")(X), (2 * beta.double().flip(0)).flip(0) / 2, DDPM)


def test_theirs_against_theirs_fails(agrees):
    beta = DDPMScheduler(7).betas
    with pytest.raises(AssertionError, match="ours was computed without code of snippets. Call the function to be"):
        agrees(beta.clone(), beta, DDPM)
    with pytest.raises(AssertionError, match=f"ours was computed with {DDPM}, which cannot be its oracle then"):
        agrees(double(beta), 2 * beta, DDPM)
    agrees(double(torch.tensor(beta.tolist())), 2 * beta, DDPM)  # numbers are anybody's


def test_a_function_of_torch_has_to_be_called(agrees):
    x = torch.rand(2, 5, 4)
    mine = ours("(x @ x.mT / x.shape[-1] ** 0.5).softmax(-1) @ x")
    with pytest.raises(AssertionError, match="no code of torch.nn.functional.grid_sample ran"):
        agrees(mine(x), mine(x), "torch.nn.functional.grid_sample")
    theirs = F.scaled_dot_product_attention(x, x, x)
    agrees(mine(x), theirs, SDPA)
    with pytest.raises(AssertionError, match=f"{SDPA} ran, but theirs was computed without code of torch"):
        agrees(mine(x), mine(x), SDPA)
    with pytest.raises(AssertionError, match=f"ours was computed with {SDPA}"):
        agrees(ours("F.scaled_dot_product_attention(x, x, x)")(x), theirs, SDPA)
    agrees(ours("F.layer_norm(x, (4,))")(x), nn.LayerNorm(4)(x), "torch.nn.LayerNorm")  # a class, by its methods


def test_what_was_written_into_a_tensor_counts(agrees):
    theirs = torch.zeros(2, 7)
    theirs[1] = DDPMScheduler(7).betas
    mine = ours("torch.stack([torch.zeros(7), torch.linspace(1e-4, 0.02, 7)])")(X)
    agrees(mine, theirs, DDPM)
    agrees(mine[1], theirs.view(14)[7:], DDPM)
    theirs = torch.zeros(7)
    torch.mul(DDPMScheduler(7).betas, 1, out=theirs)
    agrees(mine[1], theirs, DDPM)
    passed_on = in_diffusers("def same(x): return x.to(x.dtype).view(3, 2)", "same")(X)  # gives back what it was given
    with pytest.raises(AssertionError, match="but theirs was computed without code of diffusers"):
        agrees(double(X) / 2, passed_on, DDPM)


class Layer(nn.Module):
    """A layer of theirs, and with `changed` one that is copied from it and trained by theirs."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(2))


def test_weights_hand_on_who_changed_them_not_who_made_them(agrees):
    DDPMScheduler(7)
    theirs, mine = in_diffusers("def make(): return Layer()", "make")(), Layer()
    mine.load_state_dict(theirs.state_dict())
    with pytest.raises(AssertionError, match="but theirs was computed without code of diffusers"):
        agrees(double(mine.weight), 2 * theirs.weight, DDPM)  # the weights only
    in_diffusers("def train(layer): layer.weight.data += torch.ones(2)", "train")(theirs)
    agrees(double(mine.weight) + 2, 2 * theirs.weight, DDPM)


@pytest.fixture(scope="module")
def beta():
    return DDPMScheduler(7).betas


@pytest.mark.parametrize("time", ["first", "again"])
def test_fixtures_count(agrees, beta, time):
    agrees(ours("torch.linspace(1e-4, 0.02, 7)")(X), beta, DDPM)
    agrees(ours("torch.linspace(1e-4, 0.02, 7)")(X).tolist(), beta.tolist(), DDPM)


def test_of_other_tests_they_do_not(agrees):
    with pytest.raises(AssertionError, match=f"no code of {DDPM} ran"):
        agrees(1.0, 1.0, DDPM)


def test_numbers_and_arrays_need_the_librarys_code(agrees):
    x = X.numpy()
    with pytest.raises(AssertionError, match="no code of numpy.linalg.norm ran"):
        agrees(ours("x.norm()")(X).item(), 0.0, "numpy.linalg.norm")
    agrees(ours("x.norm()")(X).item(), np.linalg.norm(x), "numpy.linalg.norm", 1e-5)
    agrees(ours("x.erf()")(X), torch.tensor(scipy.special.erf(x)), "scipy.special.erf")  # C: the test names it
    with pytest.raises(AssertionError, match="no code of scipy.special.erfc ran"):
        agrees(ours("x.erfc()")(X), torch.tensor(np.array(ours("x.erfc()")(X))), "scipy.special.erfc")
