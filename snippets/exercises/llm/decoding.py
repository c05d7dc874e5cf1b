"""Exercises of the post on decoding, solved, with what checks an answer.

Shapes: B texts of a batch, T positions, V vocabulary, K drafted tokens.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from snippets.exercises.checking import compare
from snippets.llm.decoding import accept


# --8<-- [start:exercise-1]
def drafting_gain(rate: float, cost: float, num_drafted: int) -> float:
    """By pencil: how many times as fast as the plain loop is drafting?

    Args: rate, with which each drafted token stays; cost, of one step of the draft, where a step of the large
    model costs 1, however many tokens it reads.

    Hint: What does a round cost, and how many tokens does it give? The plain loop pays 1 for each.
    """
    tokens = sum(rate**place for place in range(num_drafted + 1))  # 1 + alpha + … + alpha^K
    # with rate 0.64, two drafted tokens pay below a cost of 0.52; with the lab's 0.48 and 0.26 they should be
    # 1.1 times as fast. They were not: to check three tokens costs more than one, and the loop has work, too
    return tokens / (num_drafted * cost + 1)


# --8<-- [end:exercise-1]


def check_1(answer: Callable) -> None:
    """By the probability of each number of tokens that stay."""
    for rate, cost, drafted in ((0.64, 0.25, 2), (0.9, 0.05, 5)):
        stay = [rate**kept * (1 - rate if kept < drafted else 1) for kept in range(drafted + 1)]
        tokens = sum((kept + 1) * chance for kept, chance in enumerate(stay))
        price = drafted * cost + 1
        slips = {
            "that is how many tokens a round gives; what does it cost?": tokens,
            "a round costs a step of the large model, too": tokens / (price - 1),
            "the large model's own token comes on top of those that stay": (tokens - 1) / price,
            "that takes it that all stay": (drafted + 1) / price,
            "after the first that is refused, no other one counts": (drafted * rate + 1) / price,
        }
        told = f"drafting_gain({rate}, {cost}, {drafted})"
        compare(told, answer(rate, cost, drafted), tokens / price, slips)


# --8<-- [start:exercise-2]
def pays_after(compiling: float, plain: float, fast: float) -> float:
    """By pencil: after how many tokens is it worth to have compiled the step?

    Args: compiling, the seconds that it takes; plain and fast, tokens a second without and with it.

    Hint: What does one token save?
    """
    return compiling / (1 / plain - 1 / fast)


# --8<-- [end:exercise-2]


def check_2(answer: Callable) -> None:
    """By the time at which both have written as much."""
    for compiling, plain, fast in ((8.0, 600.0, 2300.0), (10.0, 150.0, 400.0)):
        tokens = compiling * plain * fast / (fast - plain)
        slips = {
            "in this time the plain loop writes so many; but the compiled one has written none yet": compiling
            * plain,
            "speeds do not subtract: the seconds for a token do": compiling * (fast - plain),
            "that is what the compiled loop writes in the time of compiling": compiling * fast,
        }
        compare(f"pays_after({compiling}, {plain}, {fast})", answer(compiling, plain, fast), tokens, slips)


# --8<-- [start:exercise-3]
def penalize(logits: Tensor, tokens: Tensor, penalty: float) -> Tensor:
    """Logits (B, V) in which tokens that occur in tokens (B, T) are less likely, however often they occur.

    A positive logit is divided by the penalty (above 1), a negative one multiplied by it.

    Hint: A mask (B, V) of what occurs: scatter writes True in its places.
    """
    occurs = torch.zeros_like(logits, dtype=torch.bool).scatter(1, tokens, True)  # (B, V)
    lower = torch.where(logits > 0, logits / penalty, logits * penalty)  # (B, V)
    return torch.where(occurs, lower, logits)  # of bytes, soon all letters occur


# --8<-- [end:exercise-3]


def check_3(answer: Callable) -> None:
    """Token by token."""
    logits = torch.tensor([[2.0, -1.0, 0.5, 3.0, -4.0], [1.0, 1.0, -2.0, 0.0, 6.0]])
    tokens = torch.tensor([[0, 1, 0], [4, 2, 2]])
    wanted, divided, twice = logits.clone(), logits.clone(), logits.clone()
    for b in range(2):
        for v in set(tokens[b].tolist()):
            wanted[b, v] = logits[b, v] / 1.5 if logits[b, v] > 0 else logits[b, v] * 1.5
            divided[b, v] = logits[b, v] / 1.5
        for v in tokens[b].tolist():
            twice[b, v] = twice[b, v] / 1.5 if twice[b, v] > 0 else twice[b, v] * 1.5
    slips = {
        "a negative logit that is divided comes nearer to 0, so its token is likelier": divided,
        "a token that occurs twice is penalised once": twice,
        "all tokens are penalised, not only those that occur": torch.where(
            logits > 0, logits / 1.5, logits * 1.5
        ),
    }
    before = logits.clone()
    compare("penalised logits", answer(logits, tokens, 1.5), wanted, slips)
    assert torch.equal(logits, before), "the logits that were given have changed: work on a copy"


# --8<-- [start:given-4]
def hasty_accept(target: Tensor, draft: Tensor, drafted: Tensor, generator=None) -> Tensor:
    """accept in a few lines. One of them has a fault."""
    here = torch.arange(len(drafted))  # (K,)
    ratio = target[here, drafted] / draft[here, drafted]  # (K,)
    chance = torch.rand(len(drafted), generator=generator)  # (K,)
    kept = int((chance < ratio).sum())  # how many stay
    wanted = target[kept]  # (V,)
    if kept < len(drafted):
        wanted = (wanted - draft[kept]).clamp(min=0)  # (V,) what the draft gives too rarely
    last = torch.multinomial(wanted, 1, generator=generator)  # (1,)
    return torch.cat([drafted[:kept], last])


# --8<-- [end:given-4]


# --8<-- [start:exercise-4]
def careful_accept(target: Tensor, draft: Tensor, drafted: Tensor, generator=None) -> Tensor:
    """hasty_accept without its fault.

    Args: target (K + 1, V) and draft (K, V) probabilities, drafted (K,) drawn from draft.

    Hint: Of three drafted tokens the first is refused and the others would stay. What comes out?
    """
    here = torch.arange(len(drafted))  # (K,)
    ratio = target[here, drafted] / draft[here, drafted]  # (K,)
    chance = torch.rand(len(drafted), generator=generator)  # (K,)
    # once one is refused, the product is 0: what follows was drafted for a text that does not come about
    kept = int((chance < ratio).long().cumprod(dim=0).sum())
    wanted = target[kept]  # (V,)
    if kept < len(drafted):
        wanted = (wanted - draft[kept]).clamp(min=0)  # (V,) what the draft gives too rarely
    last = torch.multinomial(wanted, 1, generator=generator)  # (1,)
    return torch.cat([drafted[:kept], last])


# --8<-- [end:exercise-4]


def check_4(answer: Callable) -> None:
    """Where it is certain what stays, and then by counting."""
    sure, even = torch.eye(4, dtype=torch.float64), torch.full((4,), 0.25, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    first = torch.stack([sure[1], sure[2], sure[3]])  # what is wanted: 1, then 2, then 3
    drafts = torch.stack([even, even])
    said = answer(first, drafts, torch.tensor([0, 2]), generator).tolist()
    assert len(said) == 1, f"the first of two drafted tokens is refused, and yet {len(said)} tokens come out"
    compare("the token after a refusal", said[0], 1)
    said = answer(first, drafts, torch.tensor([1, 0]), generator).tolist()
    assert said[:1] == [1] and len(said) > 1, "a token that is sure to stay is thrown away with a later one"
    compare("the tokens where the second one is refused", torch.tensor(said), torch.tensor([1, 2]))
    said = answer(first, drafts, torch.tensor([1, 2]), generator)
    compare("the tokens where all stay", said, torch.tensor([1, 2, 3]))
    target = torch.tensor([[0.5, 0.3, 0.2, 0.0], [0.1, 0.2, 0.3, 0.4]], dtype=torch.float64)
    draft, count = torch.tensor([[0.1, 0.2, 0.3, 0.4]], dtype=torch.float64), torch.zeros(4)
    for drafted in torch.multinomial(draft[0], 600, replacement=True, generator=generator):
        count[answer(target, draft, drafted[None], generator)[0]] += 1
    compare("over 600 rounds, how often each first token comes,", count / 600, target[0], tolerance=0.08)


# --8<-- [start:exercise-5]
def accept_named(target: Tensor, drafted: Tensor, generator=None) -> Tensor:
    """Drafted tokens that may stay, and one more, where nobody knows probabilities of the draft.

    The tokens come from something that names one token and no other, say what followed the last time that
    these words occurred. Args: target (K + 1, V), the probabilities that are wanted; drafted (K,).

    Hint: Which distribution q always gives the token that was named? There is a function that takes q.
    """
    named = F.one_hot(drafted, target.shape[-1]).to(target)  # (K, V) certain of its token
    return accept(target, named, drafted, generator)  # so a token stays with its own probability p


# --8<-- [end:exercise-5]


def check_5(answer: Callable) -> None:
    """By counting: the first token has to be distributed as wanted, whatever was named."""
    target = torch.tensor([[0.5, 0.3, 0.2], [0.0, 0.0, 1.0]], dtype=torch.float64)
    generator, count, longer = torch.Generator().manual_seed(0), torch.zeros(3), 0
    for _ in range(800):
        said = answer(target, torch.tensor([1]), generator).tolist()
        count[said[0]] += 1
        longer += len(said) == 2
        assert len(said) == 1 or said == [1, 2], f"1 was named and 2 is wanted after it, but {said} came out"
    slips = {
        "the token stays each time; that is not the wanted distribution": torch.tensor([0.0, 1.0, 0.0]),
        "it never stays, as if only the likeliest might": torch.tensor([5 / 7, 0.0, 2 / 7]),
        "a refused token comes back: draw from what is missing": torch.tensor([0.35, 0.51, 0.14]),
    }
    told = "over 800 rounds, how often each first token comes,"
    compare(told, count / 800, target[0], slips, tolerance=0.07)
    compare("the share of rounds in which the named token stays", longer / 800, 0.3, tolerance=0.07)
