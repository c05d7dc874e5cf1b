"""Exercises of the BERT post, solved, with what checks an answer.

Shapes: B texts of a batch, T tokens, W width.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from snippets.exercises.checking import compare
from snippets.llm.bert import Config
from snippets.llm.bert_pretraining import best_span, new_model


# --8<-- [start:exercise-1]
def asked_among_ordinary(chosen: float, masked: float) -> float:
    """By pencil: of the tokens of a row that do not read [MASK], which share must the network name?

    Args: chosen, the share of all tokens that is chosen, for instance 0.15; masked, the share of the chosen
    ones that becomes [MASK], for instance 0.8.

    Hint: Of 1,000 tokens, how many are chosen, and how many of these still look like words? How many tokens
    look like words in all?
    """
    return chosen * (1 - masked) / (1 - chosen * masked)


# --8<-- [end:exercise-1]


# --8<-- [start:exercise-2]
def parameters(config: Config) -> int:
    """By pencil, then in a line: how many numbers does a BERT learn, with all that pre-training puts on top?

    On top are the head for words, the pooler and the head for pairs.

    Hint: The encoder is counted on the page. A layer from n to m features has n * m weights and m biases, a
    LayerNorm has 2 W numbers. Which matrix of the head for words is there already?
    """
    width, hidden = config.width, config.hidden
    tables = (config.vocabulary + config.context + config.kinds) * width
    layer = 4 * (width * width + width) + 2 * width * hidden + hidden + width + 2 * 2 * width
    encoder = tables + 2 * width + config.num_layers * layer
    words = width * width + width + 2 * width + config.vocabulary
    pooler, pairs = width * width + width, 2 * width + 2
    return encoder + words + pooler + pairs


# --8<-- [end:exercise-2]


# --8<-- [start:exercise-3]
def whole_words(chosen: Tensor, continues: Tensor) -> Tensor:
    """Choose whole words: all pieces of each word of which one piece is chosen.

    Args: chosen (B, T) and continues (B, T), true where a piece continues a word (##). Returns (B, T).

    Hint: Number the words of a row: a new number begins where a piece does not continue (torch.cumsum). Then
    ask for each number whether one of its pieces is chosen (scatter_add, or a comparison of all with all).
    """
    word = (~continues).cumsum(dim=1)  # (B, T) the same number for all pieces of a word
    same = word[:, :, None] == word[:, None, :]  # (B, T, T)
    extended = (same & chosen[:, None, :]).any(dim=2)  # (B, T)
    return extended


# --8<-- [end:exercise-3]


# --8<-- [start:given-4]
def hasty_mean(x: Tensor, real: Tensor) -> Tensor:
    """The mean vector (B, W) of each text's real tokens, from x (B, T, W) and real (B, T). It has a fault."""
    kept = x.masked_fill(~real[:, :, None], 0.0)  # (B, T, W) padding adds nothing
    total = kept.sum(dim=1)  # (B, W)
    return total / x.shape[1]


# --8<-- [end:given-4]


# --8<-- [start:exercise-4]
def careful_mean(x: Tensor, real: Tensor) -> Tensor:
    """hasty_mean without its fault. Its vectors change with the longest text of the batch.

    Args: x (B, T, W), real (B, T). Returns (B, W).

    Hint: By which number is the sum divided, and by which should it be?
    """
    kept = x.masked_fill(~real[:, :, None], 0.0)  # (B, T, W) padding adds nothing
    total = kept.sum(dim=1)  # (B, W)
    mean = total / real.sum(dim=1, keepdim=True)  # (B, W) by the number of real tokens of each text
    return mean


# --8<-- [end:exercise-4]


# --8<-- [start:exercise-5]
def answer_in_passage(logits: Tensor, segments: Tensor, marks: Tensor) -> Tensor:
    """First and last token (B, 2) of the likeliest answer that lies in the passage, the second segment.

    Args: logits (B, 2, T) of begin and end, -inf for padding; segments (B, T), 0 for the question and 1 for
    the passage and the [SEP] behind it; marks (B, T), true for [CLS] and [SEP].

    Hint: best_span chooses among all places whose logits are not -inf.
    """
    outside = ((segments == 0) | marks)[:, None]  # (B, 1, T)
    allowed = logits.masked_fill(outside, -torch.inf)  # (B, 2, T)
    return best_span(allowed)


# --8<-- [end:exercise-5]


def check_1(answer: Callable) -> None:
    """For BERT's shares and for others."""
    for chosen, masked in ((0.15, 0.8), (0.4, 0.5)):
        slips = {
            "that is the share of all tokens; count those that do not read [MASK]": chosen * (1 - masked),
            "that is the share of the chosen ones": 1 - masked,
            "those that read [MASK] are asked too, but they are not among the ordinary ones": chosen,
        }
        right = chosen * (1 - masked) / ((1 - chosen) + chosen * (1 - masked))
        compare(f"asked_among_ordinary({chosen}, {masked})", answer(chosen, masked), right, slips)


def check_2(answer: Callable) -> None:
    """Against networks of two sizes."""
    for config in (Config(41, 13, 24, 20, 3, 4), Config(7, 5, 8, 12, 1, 2, kinds=3)):
        model = new_model(config)
        right = sum(p.numel() for p in model.parameters())
        slips = {
            "that is the encoder alone": sum(p.numel() for p in model["bert"].parameters()),
            "the table of pieces is counted twice": right + config.vocabulary * config.width,
            "the bias of each piece is missing": right - config.vocabulary,
            "the norm in the head for words is missing": right - 2 * config.width,
        }
        compare(f"parameters({config})", answer(config), right, slips, tolerance=1e-12)


def check_3(answer: Callable) -> None:
    """Word by word, in a loop."""
    generator = torch.Generator().manual_seed(0)
    continues = torch.rand(5, 17, generator=generator) < 0.5
    continues[:, 0] = False
    chosen = torch.rand(5, 17, generator=generator) < 0.2
    right = chosen.clone()
    for row in range(5):
        starts = [t for t in range(17) if not continues[row, t]] + [17]
        for first, end in zip(starts, starts[1:], strict=False):
            right[row, first:end] = chosen[row, first:end].any()
    ahead = chosen.clone()
    for t in range(1, 17):
        ahead[:, t] |= ahead[:, t - 1] & continues[:, t]
    slips = {
        "pieces after a chosen one are chosen, those before it are not": ahead.double(),
        "nothing is added to what was chosen": chosen.double(),
    }
    given = answer(chosen.clone(), continues.clone())
    compare("what is chosen", torch.as_tensor(given).double(), right.double(), slips)


def check_4(answer: Callable) -> None:
    """Texts of different lengths, one of them as long as the batch."""
    x = torch.randn(5, 7, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    real = torch.arange(7) < torch.tensor([7, 3, 1, 6, 4])[:, None]
    right = torch.stack([row[mask].mean(dim=0) for row, mask in zip(x, real, strict=True)])
    slips = {
        "it still divides by the length of the batch": hasty_mean(x, real),
        "padding is in the mean": x.mean(dim=1),
        "it divides by the number of all real tokens": hasty_mean(x, real) * 7 / real.sum(),
    }
    compare("the means", answer(x, real), right, slips)


def check_5(answer: Callable) -> None:
    """Questions whose own tokens look best, and a last [SEP] that looks better still."""
    logits = torch.randn(5, 2, 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    begin = torch.tensor([2, 5, 3, 7, 4])[:, None]
    segments = (torch.arange(11) >= begin).long()
    places = torch.cat([0 * begin, begin - 1, 0 * begin + 9], dim=1)  # of [CLS] and both [SEP]
    marks = torch.zeros(5, 11, dtype=torch.bool).scatter(1, places, True)
    logits[:, :, 0] += 3
    logits[:2, :, 9] += 4
    logits[:, :, 10] = -torch.inf
    right = []
    for row, kinds in zip(logits, segments, strict=True):
        inside = [t for t in range(9) if kinds[t]]
        spans = [(i, j) for i in inside for j in inside if i <= j]
        right.append(max(spans, key=lambda span, row=row: row[0, span[0]] + row[1, span[1]]))
    alone = logits.masked_fill(((segments == 0) | marks)[:, None], -torch.inf).argmax(dim=2)
    with_mark = best_span(logits.masked_fill((segments == 0)[:, None], -torch.inf))
    slips = {
        "the question is searched as well": best_span(logits).double(),
        "the last [SEP] has segment 1, too, but it is no answer": with_mark.double(),
        "begin and end are chosen one by one, and some answers end before they begin": alone.double(),
    }
    given = torch.as_tensor(answer(logits, segments, marks)).double()
    compare("the answers", given, torch.tensor(right).double(), slips)
