"""From T5's logits to text: a cache, greedy decoding, sampling and beam search.

Shapes: B texts of a batch, N beams, S tokens of a source, R room for a target, V vocabulary, W width,
H heads, D features of a head.
"""

# --8<-- [start:imports]
import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

# --8<-- [end:imports]
from snippets.llm.reordered import reordered
from snippets.llm.t5 import T5, heads


# --8<-- [start:cache]
class Cache:
    """What a layer of the decoder keeps: keys and values of the source, and of what N beams have written."""

    def __init__(self, layer: nn.Module, memory: Tensor, beams: int, room: int):
        key, value = layer.cross.read(memory)  # (B, H, S, D), (B, H, S, D) read once, for all steps and beams
        self.source = key.contiguous(), value.contiguous()
        shape = len(memory), beams, key.shape[1], room, key.shape[3]
        self.keys, self.values = memory.new_zeros(shape), memory.new_zeros(shape)

    def reorder(self, beam: Tensor, length: int) -> None:
        """Beam n goes on from what beam[:, n] wrote; beam (B, N). The first `length` places are in use."""
        row = torch.arange(len(beam), device=beam.device)[:, None]  # (B, 1)
        for written in (self.keys, self.values):
            written[:, :, :, :length] = written[row, beam, :, :length]


def begin(model: T5, source: Tensor, real: Tensor | None, beams: int, room: int) -> tuple:
    """What stays while texts are written: caches, the bias of distances, which keys are real."""
    if not 1 <= beams <= model.config.vocabulary // 2 or room < 1:
        most = model.config.vocabulary // 2
        raise ValueError(f"from 1 to {most} beams and room for a token are expected, given {beams}, {room}")
    if real is not None and not real.any(dim=1).all():
        raise ValueError("a real token in each source is expected, given a source of padding alone")
    memory = model.encode(source, real)  # (B, S, W)
    place = torch.arange(room, device=source.device)  # (R,)
    bias = model.decoder.bias(place, place)  # (H, R, R) minus infinity where nothing is written yet
    real = None if real is None else real.bool()[:, None, None, :]  # _ (B, 1, 1, S)
    return [Cache(layer, memory, beams, room) for layer in model.decoder.layers], bias, real


# --8<-- [end:cache]


# --8<-- [start:step]
def step(
    model: T5, token: Tensor, place: Tensor, caches: list[Cache], bias: Tensor, real: Tensor | None
) -> Tensor:
    """Logits (B, N, V) after one token (B, N) of each beam at its place (1,). bias (H, R, R)."""
    row = bias[:, place]  # (H, 1, R) distances from this place, not from 0
    x = model.token(token)  # (B, N, W)
    for layer, cache in zip(model.decoder.layers, caches, strict=True):
        normed = layer.norm_1(x)  # (B, N, W)
        key, value = layer.attention.read(normed)  # (B, H, N, D), (B, H, N, D)
        cache.keys[:, :, :, place] = key.transpose(1, 2)[:, :, :, None]
        cache.values[:, :, :, place] = value.transpose(1, 2)[:, :, :, None]
        query = heads(layer.attention.to_query(normed), layer.attention.num_heads)  # (B, H, N, D)
        query = query.transpose(1, 2)[:, :, :, None]  # (B, N, H, 1, D)
        score = query @ cache.keys.transpose(3, 4) + row  # (B, N, H, 1, R)
        mixed = score.softmax(dim=-1) @ cache.values  # (B, N, H, 1, D)
        x = x + layer.attention.to_out(mixed.flatten(2))  # (B, N, W)
        x = layer.finish(x, *cache.source, real)  # (B, N, W) beams are queries to one source
    return model.logits(model.decoder.norm(x))


# --8<-- [end:step]


# --8<-- [start:write]
def likeliest(logits: Tensor) -> Tensor:
    """Greedy: the token (B,) of the largest logit (B, V)."""
    return logits.argmax(dim=-1)


def sampler(temperature: float, top_p: float, generator: torch.Generator) -> Callable:
    """What draws a token from the likeliest ones that together have the probability top_p or more."""
    if not (temperature > 0 and 0 < top_p <= 1):
        raise ValueError(
            f"a temperature above 0 and top_p above 0 and up to 1 are expected, given {temperature}, {top_p}"
        )

    def pick(logits: Tensor) -> Tensor:
        p, order = (logits / temperature).softmax(dim=-1).sort(dim=-1, descending=True)  # (B, V), (B, V)
        p = p.masked_fill(p.cumsum(dim=-1) - p >= top_p, 0.0)  # (B, V) the likeliest stays
        drawn = torch.multinomial(p, 1, generator=generator)  # (B, 1)
        return order.gather(1, drawn)[:, 0]

    return pick


@torch.no_grad()
def write(
    model: T5,
    source: Tensor,
    real: Tensor | None,
    room: int,
    pick: Callable = likeliest,
    step: Callable = step,
) -> list[list[int]]:
    """The target of each source (B, S): at most `room` tokens. pick takes logits (B, V) to tokens (B,)."""
    config = model.config
    fixed = begin(model, source, real, 1, room)
    token = torch.full((len(source),), config.start, device=source.device)  # (B,)
    done, written = torch.zeros_like(token, dtype=torch.bool), []  # (B,), _
    for place in torch.arange(room, device=source.device).split(1):
        token = pick(step(model, token[:, None], place, *fixed)[:, 0])  # (B,)
        token = token.masked_fill(done, config.pad)  # (B,) a row that has ended waits for the others
        written.append(token)
        done = done | (token == config.end)  # (B,)
        if done.all():
            break
    return [cut(row, config.end) for row in torch.stack(written, dim=1).tolist()]


def cut(row: list[int], end: int) -> list[int]:
    """A row up to its first end, which stays."""
    return row[: row.index(end) + 1] if end in row else row


# --8<-- [end:write]


# --8<-- [start:beams]
@torch.no_grad()
def beam_search(
    model: T5,
    source: Tensor,
    real: Tensor | None,
    room: int,
    beams: int = 4,
    length_penalty: float = 1.0,
    early: bool = False,
    patient: bool = False,
    step: Callable = step,
) -> list[list[tuple[list[int], float]]]:
    """For each source (B, S) its N best targets of at most `room` tokens, with their scores, best first.

    A score is the log-probability over length ** length_penalty. A source is done when no live beam can beat
    the worst finished one: at the length it has now or, if patient, at the best length it could reach. If
    early, it takes no more once N targets are finished. Raises ValueError if both are asked for.
    """
    if early and patient:
        raise ValueError("early or patient is expected, given both")
    config, start = model.config, model.config.start
    fixed = begin(model, source, real, beams, room)
    tokens = torch.full((len(source), beams, room + 1), start, device=source.device)  # (B, N, R + 1)
    live = torch.full(tokens.shape[:2], float("-inf"), device=source.device)  # (B, N) log-probabilities
    live[:, 0] = 0  # at first all beams are the same: one counts
    best, score = (
        tokens.clone(),
        torch.full_like(live, float("-inf")),
    )  # (B, N, R + 1), (B, N) finished
    hopeful = torch.ones(len(source), 1, dtype=torch.bool, device=source.device)  # (B, 1)
    for place in torch.arange(room, device=source.device).split(1):
        length = place.item() + 1
        logits = step(model, tokens[:, :, length - 1], place, *fixed)  # (B, N, V)
        total = live[:, :, None] + logits.float().log_softmax(dim=-1)  # (B, N, V)
        total, which = total.flatten(1).topk(2 * beams)  # (B, 2 * N), (B, 2 * N) half of them may end
        beam, token = which // config.vocabulary, which % config.vocabulary  # (B, 2 * N), (B, 2 * N)
        grown = take(tokens, beam)  # (B, 2 * N, R + 1)
        grown[:, :, length] = token
        ended = (token == config.end) | (length == room)  # (B, 2 * N)
        counts = ended & hopeful & (torch.arange(2 * beams, device=source.device) < beams)  # (B, 2 * N)
        if early:
            counts = counts & score.isinf().any(dim=1, keepdim=True)  # (B, 2 * N)
        final = (total / length**length_penalty).masked_fill(~counts, float("-inf"))  # (B, 2 * N)
        score, keep = torch.cat([score, final], dim=1).topk(beams)  # (B, N), (B, N)
        best = take(torch.cat([best, grown], dim=1), keep)  # (B, N, R + 1)
        live, keep = total.masked_fill(ended, float("-inf")).topk(beams)  # (B, N), (B, N)
        tokens, beam = take(grown, keep), beam.gather(1, keep)  # (B, N, R + 1), (B, N)
        reach = room if patient and length_penalty > 0 else length
        hopeful = hopeful & (live[:, :1] / reach**length_penalty > score[:, -1:])  # (B, 1)
        full = early and not score.isinf().any()
        if full or not hopeful.any() or length == room:
            break
        for cache in fixed[0]:
            cache.reorder(beam, length)
    rows = zip(best[:, :, 1:].tolist(), score.tolist(), strict=True)
    return [
        [(cut(row[:length], config.end), value) for row, value in zip(*both, strict=True)] for both in rows
    ]


def take(x: Tensor, which: Tensor) -> Tensor:
    """For each row of x (B, K, R) those of its K texts that which (B, N) names: (B, N, R)."""
    chosen = x.gather(1, which[:, :, None].expand(-1, -1, x.shape[2]))  # (B, N, R)
    return chosen


# --8<-- [end:beams]


# --8<-- [start:storage]
def store_by_input(model: T5) -> T5:
    """A copy for reading only, with matrices by columns in memory: MKL multiplies one text faster by them."""
    model = copy.deepcopy(model).eval()
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data = parameter.data.T.contiguous().T  # _ the same shape
    return model


# --8<-- [end:storage]


# --8<-- [start:ordered]
def ordered(model: T5, rows: int) -> T5:
    """A copy of a model that decodes faster on a CPU. rows: how many beams go through it at once, B * N.

    Raises ValueError where PyTorch was built without oneDNN, and for weights of other kinds.
    """
    return reordered(model, rows, lambda t5: [t5, *t5.decoder.modules()])


# --8<-- [end:ordered]
