"""CLIP: pictures and texts in one space (Radford et al. 2021, arXiv 2103.00020).

Shapes: B pictures of a batch, M texts, C channels, S pixels of a side, P patches, W width, E features of the
embedding, K classes, T tokens, Q prompts of a class.
"""

# --8<-- [start:imports]
import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

# --8<-- [end:imports]
from snippets.blocks.checkpoint import fill, read_config, read_weights, renamed
from snippets.clip_text import (
    LAYER_NAMES,
    PLAIN,
    SIZES,
    TEXT_SIZES,
    Layer,
    TextConfig,
    TextEncoder,
    initialize,
    is_quick,
    text_config,
)


# --8<-- [start:vision]
@dataclass(frozen=True)
class VisionConfig:
    """Sizes of a picture encoder. Raises ValueError for patches that do not fill the picture."""

    side: int = 32  # of the picture, in pixels
    patch: int = 4  # of a patch
    channels: int = 3
    width: int = 64
    hidden: int = 256  # features inside of the MLP
    num_layers: int = 3
    num_heads: int = 4
    embedding: int = 64
    quick: bool = True
    eps: float = 1e-5

    def __post_init__(self):
        if self.side % self.patch:
            raise ValueError(f"a side that patches divide is expected, given {self.side}, {self.patch}")


class VisionEncoder(nn.Module):
    """A vision transformer: patches are the tokens, and the state of one more token is the picture's."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.config = config
        width, patch = config.width, config.patch
        places = (config.side // patch) ** 2 + 1
        self.class_token = nn.Parameter(width**-0.5 * torch.randn(width))
        self.patch = nn.Conv2d(config.channels, width, patch, stride=patch, bias=False)
        self.position = nn.Parameter(width**-0.5 * torch.randn(places, width))
        self.norm_before, self.norm = nn.LayerNorm(width, config.eps), nn.LayerNorm(width, config.eps)
        sizes = width, config.hidden, config.num_heads, config.quick, config.eps
        self.layers = nn.ModuleList(Layer(*sizes) for _ in range(config.num_layers))
        self.project = nn.Linear(width, config.embedding, bias=False)
        initialize(self.layers)
        nn.init.normal_(self.project.weight, std=width**-0.5)

    def features(self, pictures: Tensor) -> Tensor:
        """What a linear probe reads of pictures (B, C, S, S): the state (B, W) before the projection."""
        patches = self.patch(pictures).flatten(2).transpose(1, 2)  # (B, P, W)
        first = self.class_token.expand(pictures.shape[0], 1, -1)  # (B, 1, W)
        x = self.norm_before(torch.cat([first, patches], dim=1) + self.position)  # (B, P + 1, W)
        for layer in self.layers:
            x = layer(x)  # (B, P + 1, W)
        return self.norm(x[:, 0])

    def forward(self, pictures: Tensor) -> Tensor:
        """The embedding (B, E) of pictures (B, C, S, S)."""
        return self.project(self.features(pictures))


# --8<-- [end:vision]


# --8<-- [start:similarities]
def unit(x: Tensor) -> Tensor:
    """Embeddings of length 1, by which a dot product is a cosine."""
    return F.normalize(x, dim=-1)


def similarities(pictures: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """Logits (B, M): the cosine of each of pictures (B, E) and texts (M, E), times exp(scale)."""
    logits = scale.exp() * unit(pictures) @ unit(texts).T  # (B, M)
    return logits


# --8<-- [end:similarities]


# --8<-- [start:clip]
class Clip(nn.Module):
    """Two encoders and a temperature, exp(-scale), learnt with them."""

    def __init__(self, text: TextConfig, vision: VisionConfig):
        super().__init__()
        if text.embedding != vision.embedding:
            raise ValueError(f"one embedding is expected, given {text.embedding}, {vision.embedding}")
        self.text, self.vision = TextEncoder(text), VisionEncoder(vision)
        self.scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, pictures: Tensor, tokens: Tensor) -> Tensor:
        """Logits (B, M) of pictures (B, C, S, S) and tokens (M, T)."""
        return similarities(self.vision(pictures), self.text(tokens), self.scale)


# --8<-- [end:clip]


# --8<-- [start:loss]
def clip_loss(logits: Tensor) -> Tensor:
    """Which text belongs to each picture, and which picture to each text: mean of two cross-entropies.

    Text i belongs to picture i of logits (B, M). Texts beyond the B-th belong to none: hard negatives.
    """
    right = torch.arange(logits.shape[0], device=logits.device)  # (B,)
    to_texts = F.cross_entropy(logits, right)  # ()
    to_pictures = F.cross_entropy(logits[:, : logits.shape[0]].T, right)  # ()
    return (to_texts + to_pictures) / 2


# --8<-- [end:loss]


# --8<-- [start:siglip]
def siglip_loss(logits: Tensor) -> Tensor:
    """SigLIP's loss (arXiv 2303.15343, Eq. 1): for each pair of logits (B, B) by itself, right or wrong."""
    signs = 2 * torch.eye(logits.shape[0], device=logits.device) - 1  # (B, B)
    loss = -F.logsigmoid(signs * logits).sum() / logits.shape[0]  # ()
    return loss


# --8<-- [end:siglip]


# --8<-- [start:zero-shot]
@torch.no_grad()
def class_embeddings(model: Clip, prompts: Tensor) -> Tensor:
    """One embedding (K, E) for each class: the mean direction of its prompts (K, Q, T)."""
    each = unit(model.text(prompts.flatten(0, 1)))  # (K * Q, E)
    classes = unit(each.unflatten(0, prompts.shape[:2]).mean(dim=1))  # (K, E)
    return classes


@torch.no_grad()
def zero_shot(model: Clip, pictures: Tensor, classes: Tensor) -> Tensor:
    """Probabilities (B, K) of classes (K, E) for pictures (B, C, S, S)."""
    logits = similarities(model.vision(pictures), classes, model.scale)  # (B, K)
    return logits.softmax(dim=-1)


# --8<-- [end:zero-shot]


# --8<-- [start:recall]
def recall(logits: Tensor, k: int) -> float:
    """The share of rows of logits (B, B) whose own column is among the k largest; equals count as found.

    ValueError for other shapes, for k < 1, and for NaN, which no number is larger than.
    """
    if logits.ndim != 2 or len(logits) != logits.shape[1] or not len(logits) or k < 1 or logits.isnan().any():
        given = f"{tuple(logits.shape)}, k = {k}, NaN: {bool(logits.isnan().any())}"
        raise ValueError(f"logits (B, B) without NaN and k >= 1 are expected, given {given}")
    larger = (logits > logits.diagonal()[:, None]).sum(dim=1)  # (B,)
    return (larger < k).float().mean().item()


# --8<-- [end:recall]


# --8<-- [start:probe]
@torch.no_grad()
def linear_probe(model: Clip, pictures: Tensor, labels: Tensor, others: Tensor) -> Tensor:
    """Labels (M,) of others (M, C, S, S) by logistic regression on frozen features of labelled pictures."""
    probe = LogisticRegression(max_iter=1000)
    probe.fit(model.vision.features(pictures).numpy(), labels.numpy())
    guessed = torch.from_numpy(probe.predict(model.vision.features(others).numpy()))  # (M,)
    return guessed


# --8<-- [end:probe]


# --8<-- [start:load]
CLIP_NAMES = {"text_model.": "text.", "vision_model.": "vision.", "logit_scale": "scale"}
CLIP_NAMES |= {"text_projection.": "text.project.", "visual_projection.": "vision.project."}
CLIP_NAMES |= {"text.final_layer_norm.": "text.norm.", "vision.post_layernorm.": "vision.norm."}
CLIP_NAMES |= {"vision.pre_layrnorm.": "vision.norm_before.", "embeddings.class_embedding": "class_token"}
CLIP_NAMES |= {"vision.embeddings.position_embedding.weight": "vision.position"}
CLIP_NAMES |= {"text.embeddings.position_embedding.": "text.position."}
CLIP_NAMES |= {"embeddings.token_embedding.": "token.", "embeddings.patch_embedding.": "patch."} | LAYER_NAMES
VISION_SIZES = SIZES | {"image_size": "side", "patch_size": "patch", "num_channels": "channels"}
VISION_UNLESS_GIVEN = {"side": 224, "patch": 32, "channels": 3, "width": 768, "hidden": 3072}
VISION_UNLESS_GIVEN |= {"num_layers": 12, "num_heads": 12, "eps": 1e-5}  # as in transformers


def tower(given: dict, name: str) -> dict:
    """The settings of one encoder. Older files hold them twice; then the one with _dict counts."""
    inside = given.get(f"{name}_dict") or given.get(name) or {}
    for setting, wanted in PLAIN.items():
        if inside.get(setting, wanted) != wanted:
            raise ValueError(f"{setting} {wanted} is expected, given {inside[setting]!r:.80} in {name}")
    return inside


def vision_config(given: dict, embedding: int) -> VisionConfig:
    """The sizes of a picture encoder from its settings in transformers' layout."""
    found = {ours: given[theirs] for theirs, ours in VISION_SIZES.items() if theirs in given}
    sizes = VISION_UNLESS_GIVEN | found
    if not (isinstance(sizes["side"], int) and isinstance(sizes["patch"], int)):
        raise ValueError(f"squares are expected, given {sizes['side']} with patches of {sizes['patch']}")
    return VisionConfig(**sizes, embedding=embedding, quick=is_quick(given))


def load_clip(folder: str | Path) -> Clip:
    """A CLIP from a folder as transformers' CLIPModel writes it.

    Raises ValueError for settings and weights that this page's CLIP does not have.
    """
    given = read_config(folder, {"model_type": "clip", "quantization_config": None}, ["model_type"])
    embedding = given.get("projection_dim", 512)
    text = text_config(tower(given, "text_config"), embedding)
    vision = vision_config(tower(given, "vision_config"), embedding)
    return fill(Clip(text, vision), renamed(read_weights(folder, buffers=("position_ids",)), CLIP_NAMES))


# --8<-- [end:load]


# --8<-- [start:save]
def save_clip(model: Clip, folder: str | Path) -> None:
    """Write a folder that transformers' CLIPModel reads, and `load_clip`."""
    text, vision = model.text.config, model.vision.config
    given = {"model_type": "clip", "projection_dim": text.embedding}
    for name, config, sizes in (("text", text, TEXT_SIZES), ("vision", vision, VISION_SIZES)):
        inside = {theirs: getattr(config, ours) for theirs, ours in sizes.items()}
        inside |= {"hidden_act": "quick_gelu" if config.quick else "gelu", "projection_dim": config.embedding}
        given[f"{name}_config"] = inside | {"model_type": f"clip_{name}_model"}
    if text.end is None:
        given["text_config"]["eos_token_id"] = 2  # in this layout: the largest id is the end
    Path(folder).mkdir(parents=True, exist_ok=True)
    (Path(folder) / "config.json").write_text(json.dumps(given, indent=2))
    back = {ours: theirs for theirs, ours in reversed(CLIP_NAMES.items())}
    weights = {name: weight.contiguous() for name, weight in renamed(model.state_dict(), back).items()}
    save_file(weights, Path(folder) / "model.safetensors", {"format": "pt"})


# --8<-- [end:save]
