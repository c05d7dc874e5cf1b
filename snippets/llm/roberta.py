"""RoBERTa, BERT's encoder with other positions (Liu et al. 2019, arXiv 1907.11692), and its folders.

Shapes: B texts of a batch, T tokens, V vocabulary, W width, C candidates.
Positions of real tokens are counted from the padding's id plus one.
"""

# --8<-- [start:imports]
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

# --8<-- [end:imports]
from snippets.llm.bert import EXPECTED, NAMES, SIZES, Bert, Config, by_our_names, with_parts

# --8<-- [start:roberta]
BASE = Config(vocabulary=50265, context=514, kinds=1, eps=1e-5)  # RoBERTa base


def places(tokens: Tensor, pad: int) -> Tensor:
    """Where each of tokens (B, T) stands: real ones count on from pad + 1, padding keeps pad. (B, T)."""
    real = (tokens != pad).long()  # (B, T)
    place = pad + real * real.cumsum(dim=1)  # (B, T)
    return place


class Roberta(Bert):
    """BERT, but padding is known by its id, and positions follow from it."""

    def __init__(self, config: Config, pad: int = 1):
        super().__init__(config)
        self.pad = pad

    def forward(
        self, tokens: Tensor, *, segments: Tensor | None = None, real: Tensor | None = None
    ) -> Tensor:
        """One vector for each of tokens (B, T): (B, T, W). real (B, T): what is no padding, unless given.

        Positions follow from the ids alone, whatever real says.
        """
        real = tokens != self.pad if real is None else real.bool()  # (B, T)
        segments = torch.zeros_like(tokens) if segments is None else segments  # (B, T)
        x = self.embed(tokens, places(tokens, self.pad), segments)  # (B, T, W)
        for layer in self.layers:
            x = layer(x, real)  # (B, T, W)
        return x

    @property
    def longest(self) -> int:
        """How many tokens it can read: rows 0 to pad of the table of positions are not for real tokens."""
        return self.config.context - self.pad - 1


# --8<-- [end:roberta]


# --8<-- [start:batch]
def pad_rows(rows: list[list[int]], model: Roberta) -> Tensor:
    """Rows of ids, of any lengths, as one tensor (B, T), filled up with the padding's id."""
    length = max((len(row) for row in rows), default=0)
    if not 0 < min((len(row) for row in rows), default=0) <= length <= model.longest:
        raise ValueError(f"rows of 1 to {model.longest} tokens are expected, given one of {length}, or none")
    flat = [token for row in rows for token in row]
    if not 0 <= min(flat) <= max(flat) < model.config.vocabulary:
        raise ValueError(
            f"ids from 0 to {model.config.vocabulary - 1} are expected, given {min(flat)} to {max(flat)}"
        )
    tokens = torch.tensor([row + [model.pad] * (length - len(row)) for row in rows])  # (B, T)
    return tokens


# --8<-- [end:batch]


# --8<-- [start:among]
def among(logits: Tensor, candidates: Tensor) -> Tensor:
    """Probabilities (B, C) of some candidates (C,) alone, from the logits (B, V) of all pieces."""
    chances = F.softmax(logits[:, candidates], dim=-1)  # (B, C)
    return chances


# --8<-- [end:among]


# --8<-- [start:load]
ROBERTA_NAMES = {
    theirs.replace("bert.", "roberta."): ours for theirs, ours in NAMES.items() if theirs[:4] != "cls."
} | {"lm_head.dense": "words.dense", "lm_head.layer_norm": "words.norm", "lm_head.decoder": "words.decoder"}
ROBERTA_EXPECTED = EXPECTED | {"model_type": "roberta"}
UNLESS_GIVEN = {"vocabulary": 50265, "context": 512, "kinds": 2, "eps": 1e-12}  # as in transformers


def load_roberta(folder: str) -> nn.ModuleDict:
    """What a folder in transformers' layout holds: bert, and what it has of words, pooler, ends (of spans).

    Raises ValueError for a setting that this page does not have.
    """
    given = json.loads((Path(folder) / "config.json").read_text())
    for name, expected in ROBERTA_EXPECTED.items():
        if given.get(name, expected) != expected:
            raise ValueError(f"{name} {expected} is expected, given {given[name]} in {folder}")
    config = UNLESS_GIVEN | {ours: given[theirs] for theirs, ours in SIZES.items() if theirs in given}
    config = Config(**config, tied=given.get("tie_word_embeddings", True))
    roberta = Roberta(config, given.get("pad_token_id", 1))
    found = by_our_names(folder, ROBERTA_NAMES, "roberta.", "lm_head.bias")
    return with_parts(roberta, found, ("ends",), f"the weights of a RoBERTa are expected in {folder}")


# --8<-- [end:load]


# --8<-- [start:save]
def save_roberta(model: nn.ModuleDict, folder: str) -> None:
    """Write a model of the parts that load_roberta names, as transformers reads them."""
    bert = model["bert"]
    given = {theirs: getattr(bert.config, ours) for theirs, ours in SIZES.items()}
    given |= {"attention_probs_dropout_prob": bert.config.dropout, "tie_word_embeddings": bert.config.tied}
    given |= {"model_type": "roberta", "hidden_act": "gelu", "pad_token_id": bert.pad}
    Path(folder).mkdir(parents=True, exist_ok=True)
    (Path(folder) / "config.json").write_text(json.dumps(given))
    weights = {}
    for name, weight in model.state_dict().items():
        for theirs, ours in reversed(ROBERTA_NAMES.items()):
            name = name.replace(ours, theirs)
        weights[name] = weight.clone()
    if "words" in model:  # transformers wants it under both names
        weights["lm_head.bias"] = model["words"].decoder.bias.detach().clone()
    save_file(weights, Path(folder) / "model.safetensors", {"format": "pt"})


# --8<-- [end:save]
