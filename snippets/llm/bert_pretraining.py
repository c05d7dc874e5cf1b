"""Pre-training and fine-tuning of BERT (Devlin et al. 2018, arXiv 1810.04805, sections 3.1, 4 and A.1).

Shapes: B texts of a batch, T tokens, V vocabulary, M hidden words of a batch, W width, K labels.
"""

# --8<-- [start:imports]
import copy
import random
import re
from collections.abc import Callable

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import trange

# --8<-- [end:imports]
from snippets.data.text import documents, is_held_out
from snippets.llm.bert import Bert, Config, Pooler, WordHead, collate, output
from snippets.llm.wordpiece import CLS, MASK, PAD, SEP, SPECIAL, WordPiece, train_wordpiece


# --8<-- [start:mask]
def mask_tokens(
    tokens: Tensor, allowed: Tensor, piece: int, vocabulary: int, shares: tuple[float, float] = (0.8, 0.1)
) -> tuple[Tensor, Tensor]:
    """Tokens (B, T) with some hidden, and which they are (B, T): 15 % of those allowed (B, T), chosen afresh.

    Of the chosen, a share of shares[0] becomes [MASK] (piece), shares[1] any token, and the rest stays.
    """
    if not 0 <= min(shares) <= sum(shares) <= 1:
        raise ValueError(f"shares that add up to at most 1 are expected, given {shares}")
    chosen = (torch.rand(tokens.shape, device=tokens.device) < 0.15) & allowed  # (B, T)
    fate = torch.rand(tokens.shape, device=tokens.device)  # (B, T) a second draw, on its own
    hidden = tokens.masked_fill(chosen & (fate < shares[0]), piece)  # (B, T)
    changed = chosen & (shares[0] <= fate) & (fate < sum(shares))  # (B, T)
    hidden = torch.where(changed, torch.randint_like(tokens, vocabulary), hidden)  # (B, T)
    return hidden, chosen


# --8<-- [end:mask]


# --8<-- [start:pairs]
def sentences(document: str) -> list[str]:
    """A document cut at its paragraphs and at the ends of its sentences."""
    parts = re.split(r"\n\s*\n|(?<=[.!?])\s+(?=[A-Z])", document)
    return [part for part in parts if re.search(r"\w", part)]


def draw_pair(texts: list[list[list[int]]], room: int) -> tuple[list[int], list[int], int]:
    """Two passages of a document with label 0, or of two documents with label 1; half of each.

    texts: for each document its sentences, as ids. Both passages together have at most `room` tokens.
    """
    if len(texts) < 2 or min(len(text) for text in texts) < 2 or room < 2:
        raise ValueError(f"two documents of two sentences are expected, given {len(texts)} and {room} tokens")
    here = random.choices(range(len(texts)), [len(text) - 1 for text in texts])[0]
    end = random.randrange(len(texts[here]) - 1)
    first = []
    while end < len(texts[here]) - 1 and len(first) < room // 2:  # one sentence is left to follow
        first, end = first + texts[here][end], end + 1
    label = random.randrange(2)
    if label:
        there = random.choice([i for i in range(len(texts)) if i != here])
        here, end = there, random.randrange(len(texts[there]))
    first = first[: room // 2]
    second = [token for sentence in texts[here][end:] for token in sentence][: room - len(first)]
    return first, second, label


def join(first: list[int], second: list[int], ids: dict[str, int]) -> tuple[list[int], list[int]]:
    """[CLS] first [SEP] second [SEP], and its segments, 0 and then 1. second may be empty."""
    tokens = [ids[CLS], *first, ids[SEP]]
    segments = [0] * len(tokens)
    if second:
        tokens, segments = [*tokens, *second, ids[SEP]], segments + [1] * (len(second) + 1)
    return tokens, segments


# --8<-- [end:pairs]


# --8<-- [start:loss]
def pretraining_loss(
    model: nn.ModuleDict, batch: dict[str, Tensor], words: Tensor, chosen: Tensor, labels: Tensor
) -> Tensor:
    """Mean cost of the chosen words, plus mean cost of the pairs' labels (B,), 0 where the second follows.

    batch: tokens with some hidden, segments, real; words (B, T): what stood there; chosen (B, T).
    """
    x = model["bert"](**batch)  # (B, T, W)
    logits = model["words"](x[chosen])  # (M, V) other places are not even computed
    cost = F.cross_entropy(logits, words[chosen], reduction="sum")  # ()
    of_words = cost / max(1, len(logits))  # () a batch may have no hidden word: 0 / 0 is not a loss
    of_pairs = F.cross_entropy(model["pairs"](model["pooler"](x)), labels)  # ()
    return of_words + of_pairs


# --8<-- [end:loss]


# --8<-- [start:fit]
def rate_factor(step: int, num_steps: int) -> float:
    """What the rate is multiplied by: up to 1 in the first tenth of the steps, then down to 0."""
    warm_up = max(1, num_steps // 10)
    return min((step + 1) / warm_up, (num_steps - step) / (num_steps - warm_up + 1))


def fit(model: nn.Module, loss: Callable[[], Tensor], num_steps: int, rate: float) -> list[float]:
    """Lower a loss by steps of AdamW; as in BERT, biases and norms do not decay.

    Gradients longer than 1 are cut to length 1.
    """
    parameters = list(model.parameters())
    groups = [{"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.01}]
    groups += [{"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=rate, fused=True)
    losses = []
    model.train()
    for step in trange(num_steps, desc="train", mininterval=5):
        for group in optimizer.param_groups:
            group["lr"] = rate * rate_factor(step, num_steps)
        value = loss()  # ()
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        losses.append(value.item())
    model.eval()
    return losses


# --8<-- [end:fit]


# --8<-- [start:pretrain]
def new_model(config: Config) -> nn.ModuleDict:
    """A BERT with both heads of pre-training, untrained."""
    bert = Bert(config)
    parts = {"bert": bert, "words": WordHead(bert), "pooler": Pooler(bert), "pairs": output(bert, 2)}
    return nn.ModuleDict(parts)


def pretrain(
    model: nn.ModuleDict,
    texts: list[list[list[int]]],
    ids: dict[str, int],
    num_steps: int,
    rate: float = 3e-3,
    shares: tuple[float, float] = (0.8, 0.1),
) -> list[float]:
    """Train on 16 pairs a step, as long as the context, each step with new pairs and new masks."""
    config = model["bert"].config
    special = torch.tensor([ids[piece] for piece in SPECIAL])  # (_,)

    def loss() -> Tensor:
        drawn = [draw_pair(texts, config.context - 3) for _ in range(16)]
        batch = collate([join(first, second, ids) for first, second, _ in drawn], config, ids[PAD])
        words = batch["tokens"]  # (B, T)
        allowed = ~torch.isin(words, special)  # (B, T) neither special nor padding
        batch["tokens"], chosen = mask_tokens(words, allowed, ids[MASK], config.vocabulary, shares)
        labels = torch.tensor([label for _, _, label in drawn])  # (B,)
        return pretraining_loss(model, batch, words, chosen, labels)

    return fit(model, loss, num_steps, rate)


# --8<-- [end:pretrain]


# --8<-- [start:tasks]
def text_loss(model: nn.ModuleDict, batch: dict[str, Tensor], labels: Tensor) -> Tensor:
    """Mean cost of the labels (B,) of texts."""
    logits = model["label"](model["pooler"](model["bert"](**batch)))  # (B, K)
    return F.cross_entropy(logits, labels)


def span_logits(model: nn.ModuleDict, batch: dict[str, Tensor]) -> Tensor:
    """For each token, how well a span begins and ends there: (B, 2, T). Padding cannot be chosen."""
    logits = model["ends"](model["bert"](**batch)).transpose(1, 2)  # (B, 2, T)
    return logits.masked_fill(~batch["real"][:, None], -torch.inf)


def span_loss(model: nn.ModuleDict, batch: dict[str, Tensor], ends: Tensor) -> Tensor:
    """Mean cost of the ends (B, 2) of each answer: its first and its last token."""
    logits = span_logits(model, batch)  # (B, 2, T)
    return F.cross_entropy(logits.flatten(0, 1), ends.flatten())


def best_span(logits: Tensor, longest: int = 30) -> Tensor:
    """First and last token (B, 2) of the likeliest span: the last not before the first, nor too far."""
    begin, end = logits.unbind(dim=1)  # (B, T), (B, T)
    score = begin[:, :, None] + end[:, None, :]  # (B, T, T)
    size = score.shape[-1]
    possible = (
        torch.ones(size, size, dtype=torch.bool, device=score.device).triu().tril(longest - 1)
    )  # (T, T)
    best = score.masked_fill(~possible, -torch.inf).flatten(1).argmax(dim=1)  # (B,)
    return torch.stack([best // size, best % size], dim=1)


# --8<-- [end:tasks]


# --8<-- [start:fine-tune]
def batch_of(texts: list[str], wordpiece: WordPiece, config: Config) -> dict[str, Tensor]:
    """Texts as rows [CLS] text [SEP]; what does not fit into the context is cut off."""
    encoded = [wordpiece.encode(text)[: config.context - 2] for text in texts]
    return collate([join(tokens, [], wordpiece.ids) for tokens in encoded], config, wordpiece.ids[PAD])


def fine_tune(
    pretrained: nn.ModuleDict,
    wordpiece: WordPiece,
    examples: list[tuple[str, int]],
    num_steps: int,
    rate: float,
) -> nn.ModuleDict:
    """A copy of bert and pooler with a new layer on top, trained on 32 examples, (text, label), a step."""
    bert, pooler = copy.deepcopy(pretrained["bert"]), copy.deepcopy(pretrained["pooler"])
    num_labels = 1 + max(label for _, label in examples)
    model = nn.ModuleDict({"bert": bert, "pooler": pooler, "label": output(bert, num_labels)})

    def loss() -> Tensor:
        texts, labels = zip(*random.choices(examples, k=32), strict=True)
        return text_loss(model, batch_of(texts, wordpiece, bert.config), torch.tensor(labels))

    fit(model, loss, num_steps, rate)
    return model


@torch.no_grad()
def labels_of(model: nn.ModuleDict, wordpiece: WordPiece, texts: list[str]) -> list[int]:
    """The likeliest label of each text."""
    x = model["bert"](**batch_of(texts, wordpiece, model["bert"].config))  # (B, T, W)
    logits = model["label"](model["pooler"](x))  # (B, K)
    return logits.argmax(dim=1).tolist()


# --8<-- [end:fine-tune]


# --8<-- [start:vectors]
@torch.no_grad()
def vectors(bert: Bert, wordpiece: WordPiece, texts: list[str]) -> Tensor:
    """The mean vector of the real tokens of each text, made of length 1: (B, W)."""
    batch = batch_of(texts, wordpiece, bert.config)
    x = bert(**batch) * batch["real"][:, :, None]  # (B, T, W) padding adds nothing
    return F.normalize(x.sum(dim=1), dim=1)  # of length 1, sum and mean are the same


# --8<-- [end:vectors]


# --8<-- [start:guess]
@torch.no_grad()
def guess(
    model: nn.ModuleDict, wordpiece: WordPiece, text: str, count: int = 3
) -> list[list[tuple[str, float]]]:
    """For each [MASK] of a text the likeliest pieces, with their probabilities."""
    ids = wordpiece.ids
    config = model["bert"].config
    batch = collate([join(wordpiece.encode(text), [], ids)], config, ids[PAD])
    hidden = batch["tokens"] == ids[MASK]  # (1, T)
    chances = model["words"](model["bert"](**batch)[hidden]).softmax(dim=-1).topk(count)
    return [
        [(wordpiece.pieces[i], p) for p, i in zip(*row, strict=True)]
        for row in zip(chances.values.tolist(), chances.indices.tolist(), strict=True)
    ]


# --8<-- [end:guess]


# --8<-- [start:main]
TRAIN_STEPS = 1000
TUNE_STEPS = 60
VOCABULARY = 1000


def kinds(held_out: bool, count: int) -> list[tuple[str, int]]:
    """Sentences of Python's help topics, label 1, and as many of its docstrings, label 0."""
    found = [], []
    for name, document in sorted(documents().items()):
        if is_held_out(name) == held_out:
            label = int(name.startswith("topic "))
            found[label].extend((one, label) for one in sentences(document) if len(one) >= 40)
    count = min(count, *map(len, found))
    return [example for part in found for example in random.sample(part, count)]


def main() -> None:
    """Train a tokenizer and a small BERT on Python's own prose, and let it fill gaps."""
    torch.set_num_threads(1)  # so small a network gains nothing from more
    torch.manual_seed(0)
    random.seed(0)
    prose = [document for name, document in documents().items() if not is_held_out(name)]
    wordpiece = WordPiece(train_wordpiece(prose, VOCABULARY))
    print(wordpiece.tokenize("Unreadable encodings raise a UnicodeDecodeError."))
    texts = [[wordpiece.encode(sentence) for sentence in sentences(document)] for document in prose]
    texts = [text for text in texts if len(text) > 1]
    sizes = {"context": 64, "width": 96, "hidden": 384, "num_layers": 2, "num_heads": 4, "dropout": 0.0}
    model = new_model(Config(vocabulary=len(wordpiece.pieces), **sizes))
    losses = pretrain(model, texts, wordpiece.ids, TRAIN_STEPS)
    for text in ("Return the [MASK] of the list.", "This method raises a [MASK] if the file is closed."):
        for guesses in guess(model, wordpiece, text):
            print(text, " ".join(f"{piece} {chance:.2f}" for piece, chance in guesses))
    tuned = fine_tune(model, wordpiece, kinds(False, 400), TUNE_STEPS, 3e-4)
    asked = kinds(True, 150)
    answers = labels_of(tuned, wordpiece, [text for text, _ in asked])
    right = sum(answer == label for answer, (_, label) in zip(answers, asked, strict=True))
    print(f"topic or docstring: {right} of {len(asked)} held-out sentences right")
    plt.plot(losses)
    plt.xlabel("step")
    plt.ylabel("loss, words and pairs")
    plt.savefig("loss.png")
    plt.close()
    print("loss by step: loss.png")


if __name__ == "__main__":
    main()
# --8<-- [end:main]
