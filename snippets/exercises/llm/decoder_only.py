"""Exercises of the decoder-only post, solved, with what checks an answer.

Shapes: B texts of a batch, T positions, V vocabulary, K drafted tokens.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from snippets.exercises.checking import compare
from snippets.llm.decoder_only import accept, attend


# --8<-- [start:exercise-1]
def attention_flops(num_layers: int, width: int, length: int) -> float:
    """By pencil: operations of attention's scores and sums for a token, the mean over a whole text.

    Args: length, how many tokens the text has; each sees itself and those before it.

    Hint: A token that sees S positions takes 4 L W S. How many does the first one see, and how many the last?
    """
    seen = (length + 1) / 2  # the mean of 1, 2, …, length
    return 4 * num_layers * width * seen


# --8<-- [end:exercise-1]


def check_1(answer: Callable) -> None:
    """By counting the places of a causal mask."""
    for num_layers, width, length in ((4, 192, 512), (3, 10, 7)):
        seen = torch.ones(length, length).tril().sum().item() / length
        slips = {
            "so many it would be if each token saw the whole text": 4 * num_layers * width * length,
            "a token sees itself, too": 2 * num_layers * width * (length - 1),
            "the mean of 1, 2, …, S is not S / 2": 2 * num_layers * width * length,
            "that is the sum over all tokens, not the mean": 4 * num_layers * width * seen * length,
        }
        told = f"attention_flops({num_layers}, {width}, {length})"
        compare(told, answer(num_layers, width, length), 4 * num_layers * width * seen, slips)


# --8<-- [start:exercise-2]
def drafting_gain(rate: float, cost: float, num_drafted: int) -> float:
    """By pencil: how many times as fast as the plain loop is drafting?

    Args: rate, with which each drafted token stays; cost, of one step of the draft, where a step of the large
    model costs 1, however many tokens it reads.

    Hint: What does a round cost, and how many tokens does it give? The plain loop pays 1 for each.
    """
    tokens = sum(rate**place for place in range(num_drafted + 1))  # 1 + alpha + … + alpha^K
    return tokens / (num_drafted * cost + 1)  # with rate 0.64, two drafted tokens pay below a cost of 0.52


# --8<-- [end:exercise-2]


def check_2(answer: Callable) -> None:
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


# --8<-- [start:exercise-3]
def left_padded(begin: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Places (B, T) and what is seen (B, T, T), True, of texts that are filled up on the left.

    Args: begin (B,) where each text's first real token stands; length, T.
    A text's places count from 0 at its first real token; padding has any place that is not negative.

    Hint: Two conditions for a key: it is no later than the query, and it is real. Softmax over nothing is no
    number, so let padding see something, say itself.
    """
    index = torch.arange(length, device=begin.device)  # (T,)
    # places: only differences count for Llama, so that it may keep 0, 1, 2, …; GPT-2 looks each place up
    place = (index - begin[:, None]).clamp(min=0)  # (B, T)
    real = index >= begin[:, None]  # (B, T)
    seen = real[:, None] & (index <= index[:, None])  # (B, T, T) rows are queries, columns are keys
    seen = seen | (index == index[:, None])  # (B, T, T) padding sees itself; nobody looks at the result
    return place, seen


# --8<-- [end:exercise-3]


def check_3(answer: Callable) -> None:
    """Attention in the padded batch against the page's own, for each text alone."""
    begin, generator = torch.tensor([0, 2, 5]), torch.Generator().manual_seed(0)
    place, seen = answer(begin, 7)
    compare("the number of places", torch.tensor(place.shape), torch.tensor((3, 7)))
    compare("the shape of what may be seen", torch.tensor(seen.shape), torch.tensor((3, 7, 7)))
    assert place.min() >= 0, "a place is negative: a table of positions would be read from its end"
    assert seen.bool().any(-1).all(), "padding that sees nothing: its softmax is over nothing, and no number"
    query, key, value = torch.randn(3, 3, 2, 7, 6, generator=generator, dtype=torch.float64)
    causal = torch.ones(7, 7, dtype=torch.bool).tril()
    for b, first in enumerate(begin.tolist()):

        def mixed(mask, b=b, first=first):
            out = F.scaled_dot_product_attention(query[b], key[b], value[b], attn_mask=mask)
            return out[:, first:].transpose(0, 1).flatten(1)

        real = torch.arange(7) >= first
        alone = attend(*(x[b : b + 1, :, first:] for x in (query, key, value)))[0]
        slips = {
            "real tokens see padding": mixed(causal),
            "tokens see what comes after them": mixed(real.expand(7, 7)),
            "rows and columns are exchanged: rows are queries": mixed(
                (causal & real).T | causal.diag().diag()
            ),
        }
        compare(f"what the text sees that begins at {first}", mixed(seen[b].bool()), alone, slips)
        slips = {"padding counts as places": torch.arange(first, 7)} if first else {}
        compare(
            f"the places of the text that begins at {first}", place[b, first:], torch.arange(7 - first), slips
        )


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
