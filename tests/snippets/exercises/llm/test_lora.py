"""The exercises of the LoRA post: answers that tempt, others that are right too, and what is said of each."""

import copy
import warnings

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from snippets.exercises.llm import lora as exercises
from snippets.llm import lora
from tests.snippets.exercises.answers import prove


def largest(inputs, outputs):
    return min(inputs, outputs)


def half(inputs, outputs):
    return inputs * outputs / (2 * inputs + 2 * outputs)


def all_of_them(inputs, outputs):
    return inputs * outputs


def left_on(adapter, B):
    adapter.B.data.copy_(B)


def without_alpha(adapter, B):
    adapter.B.data.copy_(B)
    change = B @ adapter.A.data
    adapter.layer.weight.data -= change.T if lora.is_transposed(adapter.layer) else change


def added(adapter, B):
    adapter.B.data.copy_(B)
    adapter.layer.weight.data += adapter.delta()


def for_one_layout(adapter, B):
    adapter.B.data.copy_(B)
    adapter.layer.weight.data -= adapter.alpha / adapter.rank * (B @ adapter.A.data)


def a_at_zero(adapter, B):
    adapter.B.data.copy_(B)
    adapter.A.data.zero_()


def exchanged(model, rate, ratio):
    return exercises.two_rates(model, ratio * rate, 1 / ratio)


def one_rate_missing(model, rate, ratio):
    slow, fast = exercises.two_rates(model, rate, ratio)
    return [{"params": slow["params"]}, fast]


def divided(model, rate, ratio):
    return exercises.two_rates(model, rate, 1 / ratio)


def everything(model, rate, ratio):
    slow, fast = exercises.two_rates(model, rate, ratio)
    chosen = set(map(id, slow["params"]))
    return [slow, {"params": [p for p in model.parameters() if id(p) not in chosen], "lr": fast["lr"]}]


def only_a(model, rate, ratio):
    return exercises.two_rates(model, rate, ratio)[:1]


def decomposed(change, rank):
    left, value, right = torch.linalg.svd(change, full_matrices=False)
    return left[:, :rank], value[:rank], right[:rank]


def without_factor(change, rank, alpha):
    left, value, right = decomposed(change, rank)
    return right, left * value


def factor_reversed(change, rank, alpha):
    left, value, right = decomposed(change, rank)
    return right, left * value * alpha / rank


def values_twice(change, rank, alpha):
    left, value, right = decomposed(change, rank)
    return value[:, None] * right, left * value * rank / alpha


def no_values(change, rank, alpha):
    left, _, right = decomposed(change, rank)
    return right, left * rank / alpha


def weakest(change, rank, alpha):
    left, value, right = torch.linalg.svd(change, full_matrices=False)
    return right[rank:], left[:, rank:] * value[rank:] * rank / alpha


def roots(change, rank, alpha):
    """Right too: the root of each singular value on either side."""
    left, value, right = decomposed(change, rank)
    return value.sqrt()[:, None] * right, left * value.sqrt() * rank / alpha


def unscaled(parts):
    return torch.cat([part.A for part in parts]), torch.cat([part.B for part in parts], dim=1)


def scaled_twice(parts):
    A, B = exercises.careful_sum(parts)
    return torch.cat([part.alpha / part.rank * part.A for part in parts]), B


WRONG = {
    1: [(largest, "the product can have"), (half, "r * (inputs + outputs)"), (all_of_them, "one number for each")],
    2: [
        (left_on, "nothing was taken off"),
        (without_alpha, "alpha / rank times its product"),
        (added, "not added"),
        (for_one_layout, "it stops with RuntimeError"),
        (a_at_zero, "A learns from 0"),
    ],
    3: [
        (exchanged, "A and B are exchanged"),
        (one_rate_missing, "AdamW itself"),
        (divided, "multiply by it"),
        (everything, "a frozen weight"),
        (only_a, "an adapter's B is not among"),
    ],
    4: [
        (without_factor, "alpha / rank afterwards"),
        (factor_reversed, "the other way"),
        (values_twice, "in both, A and B"),
        (no_values, "equally strong"),
        (weakest, "the weakest directions"),
    ],
    5: [
        (exercises.hasty_sum, "the A of the other part"),
        (lora.fuse, "of the two layers stacked"),
        (unscaled, "is missing"),
        (scaled_twice, "is there twice"),
    ],
}
RIGHT = {4: [roots]}


@pytest.mark.parametrize("number", WRONG)
def test_answers(number):
    prove(exercises, number, WRONG[number], RIGHT.get(number, ()))


@pytest.mark.claim("lora-linear-sum")
def test_library_adds_factors_not_products():
    """Exercise 5: peft's combination_type "linear" multiplies each B with the A of the other one, "cat" does not."""
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(9, 5))
    config = LoraConfig(r=3, lora_alpha=3, target_modules=["0"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(copy.deepcopy(base), config, adapter_name="one")
        model.add_adapter("two", config)
        parts = []
        for name in ("one", "two"):
            part = lora.LoRA(copy.deepcopy(base[0]), 3, 3.0)
            for letter in "AB":
                weight = getattr(model.base_model.model[0], f"lora_{letter}")[name].weight
                weight.data = torch.randn_like(weight)
                getattr(part, letter).data = weight.detach().clone()
            parts.append(part)
        found = {}
        for kind in ("linear", "cat"):
            model.base_model.add_weighted_adapter(["one", "two"], [1.0, 1.0], kind, combination_type=kind)
            found[kind] = model.base_model.model[0].get_delta_weight(kind).detach()
    A, B = exercises.careful_sum(parts)
    torch.testing.assert_close(found["cat"], B @ A)
    A, B = exercises.hasty_sum(parts)
    torch.testing.assert_close(found["linear"], B @ A)
    assert (found["cat"] - found["linear"]).abs().max() > 0.1
