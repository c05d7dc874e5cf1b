"""Exercises of the decoder-only post, solved, with what checks an answer.

Shapes: B texts of a batch, T positions, V vocabulary.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from snippets.exercises.checking import compare
from snippets.llm.decoder_only import attend


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
def perplexity(bits_a_byte: float, bytes_a_token: float) -> float:
    """By pencil: the perplexity for each token of a model that needs so many bits for each byte.

    Args: bytes_a_token, how many bytes a token has on average.

    Hint: How many bits does a token cost? Perplexity is how many equally likely tokens would cost as much.
    """
    return 2 ** (bits_a_byte * bytes_a_token)  # with the same bits, longer tokens have the larger one


# --8<-- [end:exercise-2]


def check_2(answer: Callable) -> None:
    """By nats, as perplexity is defined."""
    for bits, size in ((0.9, 4.2), (1.855, 1.0)):
        nats = bits * size * math.log(2)
        slips = {
            "that is the perplexity of a byte; a token has several": 2**bits,
            "bits are not nats: their base is 2": math.exp(bits * size),
            "a token of several bytes costs more than a byte, not less": 2 ** (bits / size),
            "that is the bits of a token; how many equally likely ones is it?": bits * size,
        }
        if size == 1:  # these are no slips then
            slips = {told: value for told, value in slips.items() if abs(value - math.exp(nats)) > 1e-6}
        compare(f"perplexity({bits}, {size})", answer(bits, size), math.exp(nats), slips)


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
def hasty_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    """What each next token costs, in nats, a mean: (). It has a fault."""
    right = tokens[:, :-1]  # (B, T - 1)
    return F.cross_entropy(logits[:, 1:].flatten(0, 1), right.flatten())


# --8<-- [end:given-4]


# --8<-- [start:exercise-4]
def careful_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    """hasty_loss without its fault: a mean over all texts and places, ().

    Args: logits (B, T, V), those at place t from tokens up to t; tokens (B, T), the text itself.

    Hint: Write down, for three tokens, which row of logits speaks of which token. Which row has no answer in
    the text, and which token has no row?
    """
    right = tokens[:, 1:]  # (B, T - 1) the first token is not predicted
    return F.cross_entropy(
        logits[:, :-1].flatten(0, 1), right.flatten()
    )  # nobody knows what follows the last


# --8<-- [end:exercise-4]


def check_4(answer: Callable) -> None:
    """By the probability of each token, one at a time."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 7, generator=generator, dtype=torch.float64)
    tokens = torch.randint(7, (2, 5), generator=generator)
    log_p = logits.log_softmax(dim=-1)

    def mean(pairs):
        return (
            -sum(log_p[b, row, tokens[b, place]].item() for b in range(2) for row, place in pairs)
            / 2
            / len(pairs)
        )

    slips = {
        "a place is asked for the token before its own": mean([(t + 1, t) for t in range(4)]),
        "a place is asked for the token that it has just read": mean([(t, t) for t in range(5)]),
        "that is a sum over the places; a mean is asked for": 4 * mean([(t, t + 1) for t in range(4)]),
        "that is the sum over all; a mean is asked for": 8 * mean([(t, t + 1) for t in range(4)]),
    }
    found = answer(logits, tokens)
    compare("the loss of two texts of five tokens", float(found), mean([(t, t + 1) for t in range(4)]), slips)


# --8<-- [start:exercise-5]
def cut_at_end(tokens: Tensor, end: int) -> Tensor:
    """Written texts (B, T) that stop: what follows the first end token of a text becomes end tokens, (B, T).

    Texts of a batch end at different places, and `generate` goes on with all of them. Do it without a loop.

    Hint: Count, at each place, how many end tokens stand before it.
    """
    before = (tokens == end).long().cumsum(dim=1) - (tokens == end).long()  # (B, T)
    return tokens.masked_fill(before > 0, end)


# --8<-- [end:exercise-5]


def check_5(answer: Callable) -> None:
    """Text by text."""
    tokens = torch.tensor([[5, 2, 0, 7, 0, 3], [1, 2, 3, 4, 5, 6], [0, 8, 8, 8, 8, 8], [4, 4, 4, 4, 4, 0]])
    wanted = tokens.clone()
    for row in wanted:
        ends = (row == 0).nonzero()
        if len(ends):
            row[int(ends[0]) :] = 0
    last = torch.tensor([[5, 2, 0, 7, 0, 0], *wanted[1:].tolist()])
    slips = {
        "nothing has changed": tokens,
        "it stops at the last end token; the first one counts": last,
        "what stands before the end is lost, too": torch.where((tokens == 0).any(dim=1)[:, None], 0, tokens),
    }
    compare("four texts, cut at 0,", answer(tokens.clone(), 0), wanted, slips)
    compare("a text without an end,", answer(tokens[1:2].clone(), 9), tokens[1:2])
