"""Several adapters in a batch, four bits, DoRA: by definition, against peft, and against published levels."""

import copy
import math

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_model
from torch import nn

from snippets.llm import lora
from snippets.llm.decoder_only import Config, Llama
from snippets.llm.lora_variants import dora_weight, forward_each, from_levels, levels, round_to_levels
from tests.formula import Matrix
from tests.snippets.oracles import perturbed
from theme.page.pages import ROOT

DOUBLE = torch.float64


def parts_of(layer: nn.Module, rank: int = 3) -> list[lora.LoRA]:
    """Four adapters beside one layer, with an alpha each."""
    return [perturbed(lora.LoRA(layer, rank, 5.0 + index)) for index in range(4)]


# several adapters


@pytest.mark.equation("lora-each", of=forward_each)
def test_each_row_has_its_adapter(formula):
    layer = perturbed(nn.Linear(7, 11, bias=False)).to(DOUBLE)
    parts, which, x = parts_of(layer), torch.tensor([2, 0, 3, 2, 1]), torch.randn(5, 6, 7, dtype=DOUBLE)
    found = forward_each(layer, parts, which, x)
    expected = torch.stack([parts[index](row) for index, row in zip(which.tolist(), x, strict=True)])
    torch.testing.assert_close(found, expected)
    assert (forward_each(layer, parts, which.flip(0), x) - expected).abs().max() > 1e-3  # negative control
    for row, index in enumerate(which.tolist()):
        names = {"W": Matrix(layer.weight), "h_n": found[row], "x_n": x[row], "r": 3, r"\alpha": parts[index].alpha}
        names |= {"B_{k(n)}": Matrix(parts[index].B), "A_{k(n)}": Matrix(parts[index].A)}
        formula("lora-each").holds(names)


def test_only_adapters_that_a_row_names_get_gradients():
    """The layer stays frozen."""
    layer = perturbed(nn.Linear(7, 11))
    parts, which, x = parts_of(layer), torch.tensor([2, 0, 2]), torch.randn(3, 4, 7)
    forward_each(layer, parts, which, x).square().sum().backward()
    assert layer.weight.grad is None
    moved = [bool(part.A.grad.any()) for part in parts]
    assert moved == [True, False, True, False]


@pytest.mark.parametrize("ranks, rows", [((3, 4), 2), ((3, 3), 3)])
def test_ranks_and_numbers_have_to_fit(ranks, rows):
    parts = [lora.LoRA(nn.Linear(7, 11), rank, 5.0) for rank in ranks]
    with pytest.raises(ValueError, match="one rank, and a number for each row, are expected, given ranks"):
        forward_each(parts[0].layer, parts, torch.zeros(rows, dtype=torch.long), torch.randn(2, 4, 7))


# four bits

# appendix E of the paper prints them, and every implementation has them as constants
PUBLISHED = [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635]
PUBLISHED += [-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725]
PUBLISHED += [
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
]


@pytest.mark.equation("lora-levels", of=levels)
def test_levels_are_the_published_ones_and_the_formulas(formula):
    torch.testing.assert_close(levels(), torch.tensor(PUBLISHED), rtol=0, atol=1e-6)
    number = torch.arange(16)
    delta = (1 / 32 + 1 / 30) / 2
    places = torch.where(number < 7, delta + number * (0.5 - delta) / 7, 0.5 + (number - 7) * (0.5 - delta) / 8)
    names = {"q_k": levels().double(), r"\Phi^{-1}": lambda p: torch.special.ndtri(torch.as_tensor(p, dtype=DOUBLE))}
    names |= {"p_k": places.double(), "k": number, r"\delta": delta}
    formula("lora-levels").holds(names, relations=2, tolerance=1e-6)
    shifted = torch.special.ndtri(torch.linspace(1 / 32, 31 / 32, 16, dtype=DOUBLE))  # negative control: even places
    assert (shifted / shifted[-1] - levels()).abs().max() > 0.01


def test_rounding_takes_the_nearest_level_of_a_block():
    weight = torch.randn(9, 64, generator=torch.Generator().manual_seed(0))
    nearest, factor = round_to_levels(weight, 32)
    assert nearest.shape == (18, 32) and nearest.dtype == torch.uint8 and factor.shape == (18, 1)
    blocks = weight.reshape(18, 32)
    assert torch.equal(factor[:, 0], blocks.abs().amax(dim=1))
    distance = (blocks[..., None] / factor[..., None] - levels()).abs()
    assert torch.equal(nearest.long(), distance.argmin(dim=-1))
    back = from_levels(nearest, factor, weight.shape)
    assert back.shape == weight.shape and back.abs().amax() == weight.abs().amax()  # the largest of a block stays
    again, same = round_to_levels(back, 32)
    assert torch.equal(again, nearest) and torch.equal(same, factor)


def test_wrong_blocks_and_blocks_of_zeros():
    with pytest.raises(ValueError, match=r"multiple of 64 weights is expected, given \(3, 7\)"):
        round_to_levels(torch.zeros(3, 7))
    assert not from_levels(*round_to_levels(torch.zeros(2, 64)), (2, 64)).any()


def test_nf4_rounds_normal_weights_better_than_even_steps():
    """The error of the levels against that of 15 even steps, the same factors."""
    weight = torch.randn(400, 64, generator=torch.Generator().manual_seed(0))
    nearest, factor = round_to_levels(weight)
    even = (weight / factor * 7).round() / 7 * factor
    error = (from_levels(nearest, factor, weight.shape) - weight).norm() / weight.norm()
    assert error < 0.95 * (even - weight).norm() / weight.norm()
    assert error == pytest.approx(0.0925, abs=0.01)


@pytest.mark.claim("lora-nf4")
def test_nf4_rounds_every_matrix_of_the_base_better_than_even_steps():
    base = Llama(Config())
    load_model(base, ROOT / "docs/weights/LLM/Decoder-Only.safetensors")
    matrices = [layer.weight.detach().float() for layer in base.blocks.modules() if isinstance(layer, nn.Linear)]
    assert len(matrices) == 28
    for weight in matrices:
        nearest, factor = round_to_levels(weight)
        blocks = weight.reshape(nearest.shape)
        even = ((blocks / factor * 7).round() / 7 * factor - blocks).norm()
        assert (from_levels(nearest, factor, weight.shape) - weight).norm() < 0.97 * even


# DoRA


@pytest.mark.equation("lora-dora", of=dora_weight)
def test_dora_is_that_of_peft_and_its_formula(formula, agrees):
    base = nn.Sequential(perturbed(nn.Linear(7, 5, bias=False))).to(DOUBLE)
    config = LoraConfig(r=3, lora_alpha=5, target_modules=["0"], use_dora=True)
    theirs = get_peft_model(copy.deepcopy(base), config).to(DOUBLE)
    other = theirs.base_model.model[0]
    start = other.lora_magnitude_vector["default"].weight.detach().clone()
    torch.testing.assert_close(start, base[0].weight.norm(dim=1))  # lengths begin as those of W
    with torch.no_grad():
        for p in theirs.parameters():
            p += 0.2 * torch.randn_like(p) * p.requires_grad
    ours = lora.LoRA(base[0], 3, 5.0)
    ours.A.data, ours.B.data = other.lora_A["default"].weight.data, other.lora_B["default"].weight.data
    length = other.lora_magnitude_vector["default"].weight
    weight, x = dora_weight(ours, length), torch.randn(4, 7, dtype=DOUBLE)
    agrees(x @ weight.T, theirs(x), "peft.tuners.lora.dora.DoraLinearLayer", 1e-10)
    assert (ours(x) - theirs(x)).abs().max() > 1e-3  # negative control: LoRA itself
    torch.testing.assert_close(weight.norm(dim=1), length)
    formula("lora-dora").holds({"w'_i": weight, "m_i": length[:, None], "u_i": ours.layer.weight + ours.delta()})


def test_dora_starts_at_the_base():
    layer = perturbed(nn.Linear(7, 5))
    torch.testing.assert_close(dora_weight(lora.LoRA(layer, 3, 5.0), layer.weight.norm(dim=1)), layer.weight)


# by hand


@pytest.mark.claim("lora-by-hand")
def test_the_numbers_of_the_table_by_hand():
    """The page's table, row by row, by the page's code."""
    layer = nn.Linear(2, 2, bias=False).to(DOUBLE)
    layer.weight.data = torch.tensor([[1.0, 2.0], [0.0, 1.0]], dtype=DOUBLE)
    adapter = lora.LoRA(layer, 1, 2.0)
    adapter.A.data = torch.tensor([[0.5, -0.5]], dtype=DOUBLE)
    x, g = torch.tensor([3.0, 1.0], dtype=DOUBLE), torch.tensor([1.0, -1.0], dtype=DOUBLE)
    h = adapter(x)
    assert h.tolist() == [5, 1]
    h.backward(g)
    assert adapter.B.grad.tolist() == [[2], [-2]] and adapter.A.grad.tolist() == [[0, 0]]
    adapter.B.data -= 0.25 * adapter.B.grad
    assert adapter.B.tolist() == [[-0.5], [0.5]]
    adapter.zero_grad()
    h = adapter(x)
    assert h.tolist() == [4, 2]
    h.backward(g)
    assert adapter.A.grad.tolist() == [[-6, -2]]
    assert lora.count_trained(adapter) == 4
    weight, before = dora_weight(adapter, layer.weight.norm(dim=1)), layer.weight.clone()
    adapter.merge()
    assert layer.weight.tolist() == [[0.5, 2.5], [0.5, 0.5]] and (layer.weight @ x).tolist() == [4, 2]
    assert [round(v, 4) for v in weight.flatten().tolist()] == [0.4385, 2.1926, 0.7071, 0.7071]
    lengths = before.norm(dim=1).tolist() + layer.weight.norm(dim=1).tolist()
    assert [round(v, 4) for v in lengths] == [2.2361, 1, 2.5495, 0.7071]
    nearest, factor = round_to_levels(torch.tensor([[-2.0, 0.5, 0.2, 1.4]]), 4)
    assert factor.item() == 2 and nearest.tolist() == [[0, 10, 8, 14]]
    back = from_levels(nearest, factor, (4,)).tolist()
    assert [round(v, 4) for v in back] == [-2, 0.4922, 0.1592, 1.4459]
    assert math.isclose(sum(lengths[:1]), 5**0.5)
