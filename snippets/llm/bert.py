"""BERT, an encoder (Devlin et al. 2018, arXiv 1810.04805): layers, heads, and folders of transformers.

Shapes: B texts of a batch, T tokens, V vocabulary, W width, H heads, D features of a head, F hidden features,
C context, K labels, N real tokens of all texts.
Positions are counted from 0.
"""

# --8<-- [start:imports]
import json
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

# --8<-- [end:imports]
from snippets.blocks.checkpoint import fill, read_weights, renamed


# --8<-- [start:config]
@dataclass(frozen=True)
class Config:
    """Sizes of a model; those of BERT base unless given. Raises ValueError for heads that do not divide."""

    vocabulary: int = 30522
    context: int = 512  # positions that it can read
    width: int = 768
    hidden: int = 3072  # features inside of the MLP
    num_layers: int = 12
    num_heads: int = 12
    kinds: int = 2  # of segments
    dropout: float = 0.1
    eps: float = 1e-12
    tied: bool = True  # whether the words' head is the embedding

    def __post_init__(self):
        if self.num_heads < 1 or self.width % self.num_heads:
            raise ValueError(f"a width that heads divide is expected, given {self.width}, {self.num_heads}")


# --8<-- [end:config]


# --8<-- [start:attend]
def heads(x: Tensor, num_heads: int) -> Tensor:
    """Features of all heads (B, T, W) to one matrix for each head (B, H, T, D)."""
    apart = x.unflatten(-1, (num_heads, -1)).transpose(1, 2)  # (B, H, T, D)
    return apart


def attend(query: Tensor, key: Tensor, value: Tensor, real: Tensor | None, dropout: float = 0.0) -> Tensor:
    """Every token looks at every real one, in each head (B, H, T, D). Returns (B, T, W)."""
    mask = None if real is None else real[:, None, None, :]  # _ the same keys for all heads and queries
    mixed = F.scaled_dot_product_attention(query, key, value, mask, dropout)  # (B, H, T, D)
    return mixed.transpose(1, 2).flatten(2)


# --8<-- [end:attend]


# --8<-- [start:layer]
class Layer(nn.Module):
    """Attention, then an MLP. The norm stands on the stream, after each sum (post-LN)."""

    def __init__(self, config: Config):
        super().__init__()
        width = config.width
        self.num_heads, self.dropout = config.num_heads, nn.Dropout(config.dropout)
        self.to_query, self.to_key, self.to_value = (nn.Linear(width, width) for _ in range(3))
        self.to_out, self.norm_1 = nn.Linear(width, width), nn.LayerNorm(width, config.eps)
        self.up, self.down = nn.Linear(width, config.hidden), nn.Linear(config.hidden, width)
        self.norm_2 = nn.LayerNorm(width, config.eps)

    def forward(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        """x (B, T, W); real (B, T), false for padding."""
        query = heads(self.to_query(x), self.num_heads)  # (B, H, T, D)
        key = heads(self.to_key(x), self.num_heads)  # (B, H, T, D)
        value = heads(self.to_value(x), self.num_heads)  # (B, H, T, D)
        dropout = self.dropout.p if self.training else 0.0
        return self.finish(x, attend(query, key, value, real, dropout))

    def finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        """What follows attention, for each token by itself: (…, W)."""
        x = self.norm_1(x + self.dropout(self.to_out(mixed)))  # _ like x
        x = self.norm_2(x + self.dropout(self.down(F.gelu(self.up(x)))))  # _ like x
        return x


# --8<-- [end:layer]


# --8<-- [start:bert]
class Bert(nn.Module):
    """Token, position and segment are added and normed; then the layers."""

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.token = nn.Embedding(config.vocabulary, config.width)
        self.position = nn.Embedding(config.context, config.width)
        self.segment = nn.Embedding(config.kinds, config.width)
        self.norm, self.dropout = nn.LayerNorm(config.width, config.eps), nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_layers))
        initialize(self, config.width)

    def embed(self, tokens: Tensor, place: Tensor, segments: Tensor) -> Tensor:
        """The first stream (…, W) of tokens (…), which stand at a place, in a segment."""
        x = self.token(tokens) + self.position(place) + self.segment(segments)  # _ (…, W)
        return self.dropout(self.norm(x))

    def forward(
        self, tokens: Tensor, *, segments: Tensor | None = None, real: Tensor | None = None
    ) -> Tensor:
        """One vector for each of tokens (B, T): (B, T, W).

        segments (B, T) are 0 and 1, all 0 unless given; real (B, T) is false for padding.
        """
        place = torch.arange(tokens.shape[1], device=tokens.device)  # (T,)
        x = self.embed(tokens, place, torch.zeros_like(tokens) if segments is None else segments)  # (B, T, W)
        real = None if real is None else real.bool()  # _ numbers would be added to the scores
        for layer in self.layers:
            x = layer(x, real)  # (B, T, W)
        return x


def initialize(model: nn.Module, width: int) -> None:
    """BERT's first weights: normal, of deviation 0.02 at base's width, cut off at twice that; biases 0."""
    std = 0.02 * (768 / width) ** 0.5  # a narrow layer adds up fewer products
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)


# --8<-- [end:bert]


# --8<-- [start:heads]
class WordHead(nn.Module):
    """Which word was here? A layer, then the embedding read the other way, with a bias of its own."""

    def __init__(self, bert: Bert):
        super().__init__()
        width = bert.config.width
        self.dense, self.norm = nn.Linear(width, width), nn.LayerNorm(width, bert.config.eps)
        self.decoder = nn.Linear(width, bert.config.vocabulary)
        initialize(self, width)
        if bert.config.tied:
            self.decoder.weight = bert.token.weight

    def forward(self, x: Tensor) -> Tensor:
        """Logits (…, V) for vectors (…, W)."""
        logits = self.decoder(self.norm(F.gelu(self.dense(x))))  # _ (…, V)
        return logits


class Pooler(nn.Module):
    """One vector for the whole text: a layer on that of its first token, [CLS]."""

    def __init__(self, bert: Bert):
        super().__init__()
        self.dense = nn.Linear(bert.config.width, bert.config.width)
        initialize(self, bert.config.width)

    def forward(self, x: Tensor) -> Tensor:
        """Vectors of a text (B, T, W) to one (B, W)."""
        pooled = torch.tanh(self.dense(x[:, 0]))  # (B, W)
        return pooled


def output(bert: Bert, num_labels: int) -> nn.Linear:
    """A last layer from W features to K labels: for pairs of sentences, for texts, for ends of a span."""
    layer = nn.Linear(bert.config.width, num_labels)
    initialize(layer, bert.config.width)
    return layer


# --8<-- [end:heads]


# --8<-- [start:batch]
def collate(rows: list[tuple[list[int], list[int]]], config: Config, pad: int) -> dict[str, Tensor]:
    """Rows of (tokens, segments), of any lengths, as tensors (B, T): tokens, segments, and which are real."""
    length = max((len(tokens) for tokens, _ in rows), default=0)
    if not 0 < min((len(tokens) for tokens, _ in rows), default=0) <= length <= config.context:
        raise ValueError(f"rows of 1 to {config.context} tokens are expected, given one of {length}, or none")
    flat = [token for tokens, _ in rows for token in tokens]
    kinds = [kind for tokens, kinds in rows for kind in kinds]
    for name, values, limit in (("tokens", flat, config.vocabulary), ("segments", kinds, config.kinds)):
        if not 0 <= min(values) <= max(values) < limit:
            raise ValueError(
                f"{name} from 0 to {limit - 1} are expected, given {min(values)} to {max(values)}"
            )
    if any(len(tokens) != len(kinds) for tokens, kinds in rows):
        raise ValueError(f"a segment for each token is expected, given {len(kinds)} for {len(flat)}")
    tokens = torch.tensor([row + [pad] * (length - len(row)) for row, _ in rows])  # (B, T)
    segments = torch.tensor([row + [0] * (length - len(row)) for _, row in rows])  # (B, T)
    real = torch.tensor([[i < len(row) for i in range(length)] for row, _ in rows])  # (B, T)
    return {"tokens": tokens, "segments": segments, "real": real}


# --8<-- [end:batch]


# --8<-- [start:maps]
@torch.no_grad()
def attention_maps(bert: Bert, tokens: Tensor, segments: Tensor, real: Tensor | None = None) -> list[Tensor]:
    """How much each token looks at each other one, (B, H, T, T) for each layer; real (B, T): no padding."""
    real = None if real is None else real.bool()  # _ (B, T)
    place, maps = torch.arange(tokens.shape[1], device=tokens.device), []  # (T,), _
    x = bert.embed(tokens, place, segments)  # (B, T, W)
    for layer in bert.layers:
        query = heads(layer.to_query(x), layer.num_heads)  # (B, H, T, D)
        key = heads(layer.to_key(x), layer.num_heads)  # (B, H, T, D)
        score = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5  # (B, H, T, T)
        if real is not None:
            score = score.masked_fill(~real[:, None, None, :], -torch.inf)  # (B, H, T, T)
        maps.append(score.softmax(dim=-1))
        x = layer(x, real)  # (B, T, W)
    return maps


# --8<-- [end:maps]


# --8<-- [start:packed]
def encode_packed(bert: Bert, tokens: Tensor, *, segments: Tensor, real: Tensor) -> Tensor:
    """The vectors of real tokens only, (N, W), in the order of their rows. Padding costs attention alone."""
    real = real.bool()  # (B, T)
    row, place = real.nonzero(as_tuple=True)  # (N,), (N,)
    x = bert.embed(tokens[row, place], place, segments[row, place])  # (N, W)
    for layer in bert.layers:
        spread = []
        for part in (layer.to_query, layer.to_key, layer.to_value):
            rows = x.new_zeros(*tokens.shape, x.shape[-1])  # (B, T, W)
            rows[row, place] = part(x)
            spread.append(heads(rows, layer.num_heads))
        x = layer.finish(x, attend(*spread, real)[row, place])  # (N, W)
    return x


# --8<-- [end:packed]


# --8<-- [start:names]
NAMES = {  # parts of paths: in transformers' BERT -> on this page
    "bert.embeddings.word_embeddings": "bert.token",
    "bert.embeddings.position_embeddings": "bert.position",
    "bert.embeddings.token_type_embeddings": "bert.segment",
    "bert.embeddings.LayerNorm": "bert.norm",
    "bert.encoder.layer.": "bert.layers.",
    "attention.self.query": "to_query",
    "attention.self.key": "to_key",
    "attention.self.value": "to_value",
    "attention.output.dense": "to_out",
    "attention.output.LayerNorm": "norm_1",
    "intermediate.dense": "up",
    "output.dense": "down",
    "output.LayerNorm": "norm_2",
    "cls.predictions.transform.dense": "words.dense",
    "cls.predictions.transform.LayerNorm": "words.norm",
    "cls.predictions.decoder": "words.decoder",
    "bert.pooler.dense": "pooler.dense",
    "cls.seq_relationship": "pairs",
    "classifier": "label",
    "qa_outputs": "ends",
}
EXPECTED = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "quantization_config": None,
    "pruned_heads": {},
}
SIZES = {
    "vocab_size": "vocabulary",
    "max_position_embeddings": "context",
    "hidden_size": "width",
    "intermediate_size": "hidden",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "type_vocab_size": "kinds",
    "hidden_dropout_prob": "dropout",
    "layer_norm_eps": "eps",
}


# --8<-- [end:names]


# --8<-- [start:parts]
def by_our_names(folder: str, names: dict[str, str], stem: str, bias: str) -> dict[str, Tensor]:
    """All weights of a folder by their names on this page. Folders of a bare encoder lack the stem."""
    weights = read_weights(folder, buffers=("position_ids",))
    if not any(name.startswith(stem) for name in weights):
        weights = {f"{stem}{name}": weight for name, weight in weights.items()}
    found = renamed(weights, names)
    shared = found.pop(bias, None)  # _ (V,) one bias under two names, or under this one alone
    if shared is not None:
        found.setdefault("words.decoder.bias", shared)
    return found


def with_parts(
    bert: nn.Module, found: dict[str, Tensor], outputs: tuple[str, ...], wanted: str
) -> nn.ModuleDict:
    """bert and those parts of which weights were found: words, pooler and some outputs, all filled."""
    model = nn.ModuleDict({"bert": bert})
    if "words.dense.weight" in found:
        model["words"] = WordHead(bert)
        if bert.config.tied:
            found["words.decoder.weight"] = found["bert.token.weight"]
    if "pooler.dense.weight" in found:
        model["pooler"] = Pooler(bert)
    for name in outputs:
        if f"{name}.weight" in found:
            model[name] = output(bert, len(found[f"{name}.weight"]))
    return fill(model, found, wanted)


# --8<-- [end:parts]


# --8<-- [start:load]
def load_bert(folder: str) -> nn.ModuleDict:
    """What a folder in transformers' layout holds: bert, and those that it has of words, pooler, pairs,
    label (of texts) and ends (of spans).

    Raises ValueError for a setting that this page does not have.
    """
    given = json.loads((Path(folder) / "config.json").read_text())
    for name, expected in EXPECTED.items():
        if given.get(name, expected) != expected:
            raise ValueError(f"{name} {expected} is expected, given {given[name]} in {folder}")
    config = {ours: given[theirs] for theirs, ours in SIZES.items() if theirs in given}
    config = Config(**config, tied=given.get("tie_word_embeddings", True))
    google = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}  # in first files
    found = by_our_names(folder, google | NAMES, "bert.", "cls.predictions.bias")
    wanted = f"the weights of a BERT are expected in {folder}"
    return with_parts(Bert(config), found, ("pairs", "label", "ends"), wanted)


# --8<-- [end:load]


# --8<-- [start:save]
def save_bert(model: nn.ModuleDict, folder: str, pieces: list[str]) -> None:
    """Write a model of the parts that load_bert names, and its vocabulary, as transformers reads them."""
    config = model["bert"].config
    given = {theirs: getattr(config, ours) for theirs, ours in SIZES.items()}
    given |= {"attention_probs_dropout_prob": config.dropout, "tie_word_embeddings": config.tied}
    given |= {"model_type": "bert", "hidden_act": "gelu", "pad_token_id": pieces.index("[PAD]")}
    if "label" in model:
        given["id2label"] = {i: f"LABEL_{i}" for i in range(model["label"].out_features)}
    Path(folder).mkdir(parents=True, exist_ok=True)
    (Path(folder) / "config.json").write_text(json.dumps(given))
    weights = {}
    for name, weight in model.state_dict().items():
        for theirs, ours in reversed(NAMES.items()):
            name = name.replace(ours, theirs)
        weights[name] = weight.clone()
    if "words" in model:  # transformers wants it under both names
        weights["cls.predictions.bias"] = model["words"].decoder.bias.detach().clone()
    save_file(weights, Path(folder) / "model.safetensors", {"format": "pt"})
    (Path(folder) / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")


# --8<-- [end:save]
