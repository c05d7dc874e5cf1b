"""Pre-training of RoBERTa (Liu et al. 2019, arXiv 1907.11692): formats, masks, large batches.

Shapes: B texts of a batch, T tokens, V vocabulary, W width, M hidden words of a batch.
"""

# --8<-- [start:imports]
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

# --8<-- [end:imports]
from snippets.data.text import documents, is_held_out
from snippets.llm.bert import Config, Pooler, WordHead, output
from snippets.llm.bert_pretraining import mask_tokens
from snippets.llm.byte_bpe import BEGIN, END, MASK, PAD, ByteBPE, train_merges
from snippets.llm.roberta import Roberta, pad_rows


# --8<-- [start:rows]
@dataclass(frozen=True)
class Marks:
    """Ids of the special tokens."""

    begin: int
    end: int
    pad: int
    mask: int


@dataclass(frozen=True)
class Row:
    """What the network reads at once: a first part, perhaps a second one, and whether it follows (0)."""

    first: list[int]
    second: list[int] | None = None
    label: int | None = None  # 1: the second part is from another document

    def tokens(self, marks: Marks) -> list[int]:
        """<s> first </s>, or <s> first </s> second </s>."""
        rest = [] if self.second is None else [*self.second, marks.end]
        return [marks.begin, *self.first, marks.end, *rest]

    def segments(self) -> list[int]:
        """0 for the first part and its marks, 1 for the second one."""
        return [0] * (len(self.first) + 2) + ([] if self.second is None else [1] * (len(self.second) + 1))


# --8<-- [end:rows]


# --8<-- [start:full]
def split_sentences(document: str) -> list[str]:
    """A document cut at its paragraphs and at the ends of its sentences."""
    parts = re.split(r"\n\s*\n|(?<=[.!?])\s+(?=[A-Z])", document)
    return [part for part in parts if re.search(r"\w", part)]


def pieces_of(text: list[list[int]], room: int) -> list[list[int]]:
    """The sentences of a document, those that are longer than `room` in several pieces."""
    return [sentence[at : at + room] for sentence in text for at in range(0, len(sentence), room)]


def full_sentences(texts: list[list[list[int]]], length: int, marks: Marks) -> list[Row]:
    """FULL-SENTENCES: whole sentences in their order, as many as fit into a row of `length` tokens.

    texts: for each document its sentences, as ids. A row goes on into the next document, after one </s> more.
    """
    rows, row = [], []
    for text in texts:
        between = [marks.end]  # before the first sentence of a document, if the row holds one already
        for piece in pieces_of(text, length - 2):
            if len(row) + len(between) + len(piece) > length - 2:
                rows.append(Row(row))
                row = []
            row = [*row, *(between if row else []), *piece]
            between = []
    return [row for row in [*rows, Row(row)] if row.first]


def doc_sentences(texts: list[list[list[int]]], length: int, marks: Marks) -> list[Row]:
    """DOC-SENTENCES: the same, but no row holds parts of two documents. Its last row of each is short."""
    return [row for text in texts for row in full_sentences([text], length, marks)]


# --8<-- [end:full]


# --8<-- [start:pairs]
def take(text: list[list[int]], at: int, room: int) -> tuple[list[int], int]:
    """Whole sentences of a document from number `at` on that fit, one at least; and the next number."""
    taken, start = [], at
    while at < len(text) and (at == start or len(taken) + len(text[at]) <= room):
        taken, at = taken + text[at], at + 1
    return taken[:room], at


def segment_pairs(texts: list[list[list[int]]], length: int, draw: random.Random) -> list[Row]:
    """SEGMENT-PAIR+NSP, as BERT has it: two segments of several sentences, together `length` tokens at most.

    In half of the rows the second segment is what follows, label 0; in the others it begins somewhere in
    another document, label 1, and what follows is left for the next row.
    """
    texts, rows = [text for text in texts if text], []
    if len(texts) < 2 or length < 5:
        raise ValueError(f"two documents and rows of 5 tokens are expected, given {len(texts)} and {length}")
    room = length - 3
    for here, text in enumerate(texts):
        at = 0
        while at < len(text) - 1:
            first, at = take(text[:-1], at, room // 2)  # one sentence is left to follow
            label = draw.randrange(2)
            if label:
                there = texts[draw.choice([i for i in range(len(texts)) if i != here])]
                second, _ = take(there, draw.randrange(len(there)), room - len(first))
            else:
                second, at = take(text, at, room - len(first))
            rows.append(Row(first, second, label))
    return rows


def sentence_pairs(texts: list[list[list[int]]], length: int, draw: random.Random) -> list[Row]:
    """SENTENCE-PAIR+NSP: two sentences, neighbours or of two documents. Such rows are short."""
    texts, rows = [text for text in texts if text], []
    if len(texts) < 2 or length < 5:
        raise ValueError(f"two documents and rows of 5 tokens are expected, given {len(texts)} and {length}")
    room = (length - 3) // 2
    for here, text in enumerate(texts):
        for first, follows in zip(text, text[1:], strict=False):
            label = draw.randrange(2)
            if label:
                there = texts[draw.choice([i for i in range(len(texts)) if i != here])]
                follows = there[draw.randrange(len(there))]
            rows.append(Row(first[:room], follows[:room], label))
    return rows


# --8<-- [end:pairs]


# --8<-- [start:masks]
@dataclass(frozen=True)
class Masked:
    """A row with some tokens hidden: what is read, what stood there, and which places are asked for."""

    row: Row
    read: list[int]
    words: list[int]
    chosen: list[bool]


def hide(row: Row, marks: Marks, vocabulary: int) -> Masked:
    """A row with 15 % of its tokens hidden by 80/10/10, drawn now; marks are never among them."""
    words = torch.tensor([row.tokens(marks)])  # (1, T)
    allowed = ~torch.isin(words, torch.tensor([marks.begin, marks.end]))  # (1, T)
    read, chosen = mask_tokens(words, allowed, marks.mask, vocabulary)  # (1, T), (1, T)
    return Masked(row, read[0].tolist(), words[0].tolist(), chosen[0].tolist())


def static_masks(rows: list[Row], marks: Marks, vocabulary: int, copies: int) -> list[list[Masked]]:
    """Masks that are drawn once, in some copies: epoch e reads copy e modulo their number, as in BERT."""
    if copies < 1:
        raise ValueError(f"one copy of masks or more is expected, given {copies}")
    return [[hide(row, marks, vocabulary) for row in rows] for _ in range(copies)]


def epochs(rows: list[Row], marks: Marks, vocabulary: int, copies: int | None) -> Iterator[Masked]:
    """All rows, again and again, in a new order; with fixed copies of masks, or (None) with new ones."""
    fixed = None if copies is None else static_masks(rows, marks, vocabulary, copies)
    epoch = 0
    while True:
        for i in random.sample(range(len(rows)), len(rows)):
            yield fixed[epoch % copies][i] if fixed else hide(rows[i], marks, vocabulary)
        epoch += 1


# --8<-- [end:masks]


# --8<-- [start:accumulate]
def batches(source: Iterator[Masked], size: int) -> Iterator[list[Masked]]:
    """Groups of rows that have `size` tokens or just over: of short rows more, so steps cost the same."""
    while True:
        group = []
        while sum(len(masked.read) for masked in group) < size:
            group.append(next(source))
        yield group


def costs(model: nn.ModuleDict, group: list[Masked]) -> tuple[Tensor, Tensor]:
    """Cost of all hidden words of a batch, (), and of all labels of its pairs, (): sums, not means."""
    tokens = pad_rows([masked.read for masked in group], model["bert"])  # (B, T)
    length = tokens.shape[1]
    kinds = [masked.row.segments() if model["bert"].config.kinds > 1 else [] for masked in group]
    segments = torch.tensor([kind + [0] * (length - len(kind)) for kind in kinds])  # (B, T)
    chosen = [masked.chosen + [False] * (length - len(masked.chosen)) for masked in group]
    words = [
        word for masked in group for word, asked in zip(masked.words, masked.chosen, strict=True) if asked
    ]
    x = model["bert"](tokens, segments=segments)  # (B, T, W)
    logits = model["words"](x[torch.tensor(chosen)])  # (M, V)
    of_words = F.cross_entropy(logits, torch.tensor(words, dtype=torch.long), reduction="sum")  # ()
    labels = [masked.row.label for masked in group if masked.row.label is not None]
    if not labels:
        return of_words, torch.zeros(())
    of_pairs = F.cross_entropy(
        model["pairs"](model["pooler"](x)), torch.tensor(labels), reduction="sum"
    )  # ()
    return of_words, of_pairs


def accumulate(model: nn.ModuleDict, groups: list[list[Masked]]) -> float:
    """Add the gradient of one large batch, given in parts, and return its loss, the mean over its words."""
    num_words = max(1, sum(sum(masked.chosen) for group in groups for masked in group))
    num_pairs = max(1, sum(masked.row.label is not None for group in groups for masked in group))
    total = 0.0
    for group in groups:
        of_words, of_pairs = costs(model, group)  # (), ()
        loss = of_words / num_words + of_pairs / num_pairs  # () not the mean of the parts' means
        loss.backward()
        total += loss.item()
    return total


# --8<-- [end:accumulate]


# --8<-- [start:pretrain]
def new_model(config: Config, pad: int, pairs: bool) -> nn.ModuleDict:
    """A RoBERTa with its head for words, and for pairs too if asked for; untrained."""
    bert = Roberta(config, pad)
    model = nn.ModuleDict({"bert": bert, "words": WordHead(bert)})
    if pairs:
        model.update({"pooler": Pooler(bert), "pairs": output(bert, 2)})
    return model


def rate_at(read: int, total: int) -> float:
    """What the rate is multiplied by after `read` of `total` tokens: up to 1 in a tenth, then to 0."""
    share = read / total
    return min(10 * share, (1 - share) / 0.9)


def pretrain(
    model: nn.ModuleDict, source: Iterator[Masked], total: int, rate: float, parts: int = 1, size: int = 1024
) -> list[float]:
    """Read about `total` tokens, `size` a part and so many parts a step. Returns the loss of each step."""
    parameters = list(model.parameters())
    decayed = {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.01}
    others = {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0}
    optimizer = torch.optim.AdamW([decayed, others], lr=rate, betas=(0.9, 0.98), eps=1e-6, fused=True)
    losses, read, source = [], 0, batches(source, size)
    model.train()
    with tqdm(total=total, desc="train", mininterval=5) as bar:
        while read < total:
            groups = [next(source) for _ in range(parts)]
            step = sum(len(masked.read) for group in groups for masked in group)
            for kind in optimizer.param_groups:
                kind["lr"] = rate * rate_at(min(read + step // 2, total), total)
            optimizer.zero_grad()
            losses.append(accumulate(model, groups))
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            read += step
            bar.update(step)
    model.eval()
    return losses


# --8<-- [end:pretrain]


# --8<-- [start:fill]
@torch.no_grad()
def fill(model: nn.ModuleDict, bpe: ByteBPE, text: str, count: int = 3) -> list[list[tuple[str, float]]]:
    """For each <mask> of a text the likeliest pieces, with their probabilities."""
    ids = [bpe.ids[BEGIN], *bpe.encode_marked(text), bpe.ids[END]]
    tokens = pad_rows([ids], model["bert"])  # (1, T)
    x = model["bert"](tokens)[tokens == bpe.ids[MASK]]  # (M, W)
    best = model["words"](x).softmax(dim=-1).topk(count)
    rows = zip(best.values.tolist(), best.indices.tolist(), strict=True)
    return [[(bpe.names[i], chance) for chance, i in zip(*row, strict=True)] for row in rows]


# --8<-- [end:fill]


# --8<-- [start:main]
MERGES = 539
TRAIN_TOKENS = 1_500_000


def main() -> None:
    """Train a tokenizer and a small RoBERTa on Python's own prose, and let it fill gaps."""
    torch.set_num_threads(1)  # so small a network gains nothing from more
    torch.manual_seed(0)
    random.seed(0)
    prose = [document for name, document in documents().items() if not is_held_out(name)]
    bpe = ByteBPE(train_merges(prose, MERGES))
    for text in (" Unreadable encodings raise a UnicodeDecodeError.", " naïve 日本 😀"):
        ids = bpe.encode(text)
        print(*(bpe.names[i] for i in ids), "=", bpe.decode(ids))
    texts = [[bpe.encode(" " + sentence) for sentence in split_sentences(document)] for document in prose]
    marks = Marks(bpe.ids[BEGIN], bpe.ids[END], bpe.ids[PAD], bpe.ids[MASK])
    rows = full_sentences(texts, 48, marks)
    print(len(rows), "rows of", sum(len(row.tokens(marks)) for row in rows) // len(rows), "tokens on average")
    config = Config(len(bpe.ids), 50, 64, 256, 1, 4, kinds=1, dropout=0.0, eps=1e-5)
    model = new_model(config, marks.pad, pairs=False)
    losses = pretrain(model, epochs(rows, marks, config.vocabulary, None), TRAIN_TOKENS, 4e-3, size=512)
    for text in ("Return the <mask> of the list.", "This method raises a <mask> if the file is closed."):
        for guesses in fill(model, bpe, " " + text):
            print(text, " ".join(f"{piece} {chance:.2f}" for piece, chance in guesses))
    means = [sum(losses[at : at + 50]) / len(losses[at : at + 50]) for at in range(0, len(losses), 50)]
    plt.plot(range(0, len(losses), 50), means)
    plt.xlabel("step")
    plt.ylabel("loss (nats a hidden piece)")
    plt.savefig("loss.png")
    plt.close()
    print("loss by step: loss.png")


if __name__ == "__main__":
    main()
# --8<-- [end:main]
