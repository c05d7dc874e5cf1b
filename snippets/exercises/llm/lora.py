"""Exercises of the LoRA post, solved, with what checks an answer.

Shapes: I inputs of a layer, O outputs of a layer, R rank of an adapter, S rank of another one.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from snippets.exercises.checking import compare
from snippets.llm.lora import LoRA, adapters, add_adapters, fuse


# --8<-- [start:exercise-1]
def even_rank(inputs: int, outputs: int) -> float:
    """By pencil: the rank, whole or not, at which an adapter has as many numbers as its layer's weight.

    Hint: A has one row for each rank, B one column. How many numbers are that together?
    """
    # r * (inputs + outputs) = inputs * outputs. For a square matrix it is half of its width: an adapter of a
    # rank above that is larger than the weight, and may still change less than training the weight itself
    return inputs * outputs / (inputs + outputs)


# --8<-- [end:exercise-1]


def check_1(answer: Callable) -> None:
    """By the sizes of real adapters on both sides of the answer."""
    for inputs, outputs in ((192, 512), (12, 6)):
        rank, told = answer(inputs, outputs), f"even_rank({inputs}, {outputs})"
        one = LoRA(nn.Linear(inputs, outputs, bias=False), 1, 1.0)
        each = one.A.numel() + one.B.numel()
        slips = {
            "that is the largest rank that the product can have": min(inputs, outputs),
            "an adapter has r * (inputs + outputs) numbers": inputs * outputs / 2 / (inputs + outputs),
            "that is the rank of an adapter with one number for each of the weight's": inputs * outputs,
        }
        compare(told, rank, one.layer.weight.numel() / each, slips)


# --8<-- [start:exercise-2]
def start_anywhere(adapter: LoRA, B: Tensor) -> None:
    """Let a new adapter start with this B (O, R) in place of zeros, so that the layer answers as before.

    Nothing is returned: the adapter is changed.

    Hint: What does the adapter add now? Take as much off the frozen weight. `delta` knows its layout.
    """
    with torch.no_grad():
        adapter.B.copy_(B)
        # W is another one now: whoever loads the adapter needs what was taken off, or this W, too
        adapter.layer.weight -= adapter.delta()


# --8<-- [end:exercise-2]


class Conv1D(nn.Module):
    """A layer that stores its weight as (I, O), as GPT-2's in transformers does."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of x."""
        return x @ self.weight


def check_2(answer: Callable) -> None:
    """Outputs before and after, in both layouts, with alpha over rank far from 1."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for layer in (nn.Linear(7, 5), Conv1D(7, 5)):
            adapter = LoRA(layer.double(), 3, 12.0)
            x, B = torch.randn(4, 7).double(), torch.randn(5, 3).double()
            before, A, kind = adapter(x), adapter.A.detach().clone(), type(layer).__name__
            answer(adapter, B)
            compare(f"B of the adapter on an nn.{kind}" if kind == "Linear" else "B", adapter.B, B)
            compare("A", adapter.A, A, {"the outputs stay, but A learns from 0": torch.zeros_like(A)})
            added = x @ (B @ A).T
            slips = {
                "the outputs are not those of before: nothing was taken off the weight": before + 4 * added,
                "the adapter adds alpha / rank times its product": before + 3 * added,
                "it has to be taken off the weight, not added": before + 8 * added,
            }
            compare(f"what the {kind} answers afterwards", adapter(x), before, slips)


# --8<-- [start:exercise-3]
def two_rates(model: nn.Module, rate: float, ratio: float) -> list[dict]:
    """Groups of parameters for AdamW: every A learns with this rate, every B with `ratio` times this rate.

    Args: model, with adapters. Each group is a dictionary with "params" and "lr".

    Hint: adapters(model) has all adapters by path.
    """
    found = adapters(model).values()
    # Adam moves every number by the rate, at first. What a step of A does to the output is a sum over all
    # inputs of the layer, what a step of B does is a sum over r: in a wide layer, A needs the smaller rate
    slow = {"params": [adapter.A for adapter in found], "lr": rate}
    fast = {"params": [adapter.B for adapter in found], "lr": ratio * rate}
    return [slow, fast]


# --8<-- [end:exercise-3]


def check_3(answer: Callable) -> None:
    """The groups are handed to AdamW, which knows the rate of each parameter afterwards."""
    model = add_adapters(nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3)), ["0", "1"], 2, 4.0)
    groups = torch.optim.AdamW(answer(model, 0.01, 16.0)).param_groups
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    frozen = [p for p in model.parameters() if not p.requires_grad]
    assert not rates.keys() & set(map(id, frozen)), "a frozen weight is among the parameters"
    for adapter in adapters(model).values():
        for name, right, other in (("A", 0.01, 0.16), ("B", 0.16, 0.01)):
            found = rates.get(id(getattr(adapter, name)))
            assert found is not None, f"an adapter's {name} is not among the parameters"
            slips = {
                "A and B are exchanged: B has the larger rate": other,
                'a group without "lr" has the rate of AdamW itself': 0.001,
                "the ratio is a factor: multiply by it": 0.01 / 16,
            }
            compare(f"the rate of {name}", found, right, slips, tolerance=1e-9)


# --8<-- [start:exercise-4]
def nearest_adapter(change: Tensor, rank: int, alpha: float) -> tuple[Tensor, Tensor]:
    """A (R, I) and B (O, R) whose alpha / R B A is as near to a change (O, I) as this rank can be.

    Near is meant by the sum of the squared differences.

    Hint: Cut the singular value decomposition after the R largest values. Each value is needed once, in A or
    in B or a root of it in both, and the product is still multiplied by alpha / R.
    """
    left, value, right = torch.linalg.svd(change, full_matrices=False)  # (O, _), (_,), (_, I) largest first
    A = right[:rank]  # (R, I)
    B = left[:, :rank] * value[:rank] * rank / alpha  # (O, R)
    return A, B


# --8<-- [end:exercise-4]


def check_4(answer: Callable) -> None:
    """A change of full rank: the product, and what is left."""
    change = torch.randn(8, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    A, B = answer(change, 3, 12.0)
    compare("the shape of A", torch.tensor(A.shape), torch.tensor((3, 6)))
    compare("the shape of B", torch.tensor(B.shape), torch.tensor((8, 3)))
    left, value, right = torch.linalg.svd(change, full_matrices=False)

    def product(values, chosen=slice(None, 3)):
        return left[:, chosen] * values[chosen] @ right[chosen]

    slips = {
        "the product is multiplied by alpha / rank afterwards": 4 * product(value),
        "alpha / rank counts the other way": 16 * product(value),
        "the singular values are in both, A and B": product(value**2),
        "without the singular values all directions are equally strong": product(value**0),
        "those are the weakest directions": product(value, slice(3, None)),
    }
    compare("alpha / rank times B A", 4 * B @ A, product(value), slips)


# --8<-- [start:given-5]
def hasty_sum(parts: list[LoRA]) -> tuple[Tensor, Tensor]:
    """A and B of one adapter, with alpha = rank, for the adapters of one layer together. It has a fault."""
    A = sum(part.A for part in parts)  # (R, I)
    B = sum(part.alpha / part.rank * part.B for part in parts)  # (O, R)
    return A, B


# --8<-- [end:given-5]


# --8<-- [start:exercise-5]
def careful_sum(parts: list[LoRA]) -> tuple[Tensor, Tensor]:
    """hasty_sum without its fault: A (S, I) and B (O, S), where S may be larger than the ranks of parts.

    Hint: Multiply (B_1 + B_2)(A_1 + A_2) out. Which products should not be there? Compare with `fuse`.
    """
    # the sum of two products of rank r may have the rank 2 r, so one of rank r cannot hold it
    A = torch.cat([part.A for part in parts])  # (S, I) each part reads its own directions
    B = torch.cat([part.alpha / part.rank * part.B for part in parts], dim=1)  # (O, S)
    return A, B


# --8<-- [end:exercise-5]


def check_5(answer: Callable) -> None:
    """Against the sum of what each one adds; equal ranks first, then others."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for ranks in ((3, 3), (2, 3)):
            parts = [LoRA(nn.Linear(9, 5).double(), rank, 6.0) for rank in ranks]
            for part in parts:
                part.B.data = torch.randn_like(part.B)
            A, B = answer(parts)
            compare("the number of columns of B", B.shape[-1], A.shape[0])
            right = sum(part.delta() for part in parts)
            scale = [part.alpha / part.rank for part in parts]
            stacked = fuse(parts)
            slips = {
                "alpha / rank of each part is missing": sum(part.B @ part.A for part in parts),
                "alpha / rank of each part is there twice": sum(
                    s * part.delta() for s, part in zip(scale, parts, strict=True)
                ),
            }
            if len(set(ranks)) == 1:
                scaled = sum(s * part.B for s, part in zip(scale, parts, strict=True))
                slips["each B meets the A of the other part, too"] = scaled @ sum(part.A for part in parts)
            two = len(B) == len(stacked[1])
            assert not two, "that is an adapter of the two layers stacked, not of one layer"
            compare("B A", B @ A, right, slips)
