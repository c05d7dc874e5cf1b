"""GLIP: find what a prompt names (Li et al. 2021, arXiv 2112.03857); head and losses as in the authors' code.

Shapes: B pictures of a batch, S pixels of a side, R regions, T tokens, P phrases, V width of regions, L width
of tokens, H heads, D features of a head, N regions that have a box, K boxes found.
"""

# --8<-- [start:imports]
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# --8<-- [end:imports]
from snippets.blocks.average_precision import Found
from snippets.blocks.boxes import TINY, generalized_iou, nms
from snippets.glip_fusion import Fusion
from snippets.glip_prompts import Pieces, chunks, phrase_scores, token_map, write_prompt
from snippets.glip_targets import centre_ness, decode, make_anchors


# --8<-- [start:alignment]
class Alignment(nn.Module):
    """How well each region fits each token: a scaled dot product, a bias of the token, and one of all."""

    def __init__(self, region_width: int, token_width: int, prior: float = 0.01):
        super().__init__()
        self.project = nn.Linear(token_width, region_width)
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.token_bias = nn.Parameter(torch.zeros(token_width))
        self.bias = nn.Parameter(torch.tensor(-math.log((1 - prior) / prior)))  # at first, fits are rare

    def forward(self, regions: Tensor, tokens: Tensor) -> Tensor:
        """Logits (B, R, T) of regions (B, R, V) and tokens (B, T, L)."""
        tokens = F.normalize(tokens, dim=-1)  # (B, T, L)
        classes = self.project(tokens / 2)  # (B, T, V) a token's row of a classifier's weights
        bias = tokens @ self.token_bias + self.bias  # (B, T)
        return regions @ classes.transpose(1, 2) / self.log_scale.exp() + bias[:, None]


# --8<-- [end:alignment]


# --8<-- [start:encoders]
@dataclass(frozen=True)
class GlipConfig:
    """Sizes of a small GLIP."""

    vocabulary: int
    context: int = 48  # tokens of a prompt
    side: int = 32  # of a picture, in pixels
    width: int = 64  # of regions
    token_width: int = 48
    num_heads: int = 4
    num_layers: int = 2  # of the head
    fused: bool = True  # whether picture and text look at each other in each of these layers


def conv(before: int, width: int, stride: int = 1) -> nn.Sequential:
    """A convolution with norm and ReLU."""
    layer = nn.Conv2d(before, width, 3, stride, padding=1, bias=False)
    return nn.Sequential(layer, nn.GroupNorm(8, width), nn.ReLU())


class PictureEncoder(nn.Module):
    """Two maps of features: cells of 4 pixels, which also hear of the coarser map, and cells of 8 pixels."""

    def __init__(self, width: int):
        super().__init__()
        self.fine = nn.Sequential(conv(3, width // 2, 2), conv(width // 2, width, 2), conv(width, width))
        self.coarse = nn.Sequential(conv(width, width, 2), conv(width, width))
        self.back = nn.Conv2d(width, width, 1)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Both maps of pictures (B, 3, S, S). Returns (B, V, S // 4, S // 4), (B, V, S // 8, S // 8)."""
        fine = self.fine(pictures)  # (B, V, _, _)
        coarse = self.coarse(fine)  # (B, V, _, _)
        return fine + F.interpolate(self.back(coarse), scale_factor=2.0), coarse


class TextLayer(nn.Module):
    """Attention among a prompt's tokens, in both directions, then an MLP; each is added to what it read."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_all, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, tokens: Tensor, real: Tensor) -> Tensor:
        """Tokens (B, T, L) to (B, T, L); padding, where real (B, T) is false, is not looked at."""
        parts = self.to_all(self.norm_1(tokens)).unflatten(-1, (3, self.num_heads, -1))  # (B, T, 3, H, D)
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # (B, H, T, D), (B, H, T, D), (B, H, T, D)
        mixed = F.scaled_dot_product_attention(query, key, value, real[:, None, None])  # (B, H, T, D)
        tokens = tokens + self.out(mixed.transpose(1, 2).flatten(2))  # (B, T, L)
        return tokens + self.mlp(self.norm_2(tokens))


# --8<-- [end:encoders]


# --8<-- [start:glip]
class Round(nn.Module):
    """One layer of the head: picture and text look at each other, then each at itself."""

    def __init__(self, config: GlipConfig):
        super().__init__()
        sizes = config.width, config.token_width, config.width, config.num_heads
        self.fusion = Fusion(*sizes) if config.fused else None
        self.read = TextLayer(config.token_width, config.num_heads)
        self.look = conv(config.width, config.width)

    def forward(self, maps: list[Tensor], tokens: Tensor, real: Tensor) -> tuple[list[Tensor], Tensor]:
        """Maps of regions, and tokens (B, T, L), to the same shapes; real (B, T) is false for padding."""
        if self.fusion is not None:
            regions, tokens = self.fusion(flat(maps), tokens, real)  # (B, R, V), (B, T, L)
            parts = regions.transpose(1, 2).split([one[0, 0].numel() for one in maps], dim=2)
            maps = [part.reshape(one.shape) for part, one in zip(parts, maps, strict=True)]
        return [one + self.look(one) for one in maps], self.read(tokens, real)


def flat(maps: list[Tensor]) -> Tensor:
    """The cells of all maps as regions (B, R, V), level by level and row by row."""
    regions = torch.cat([one.flatten(2) for one in maps], dim=2).transpose(1, 2)  # (B, R, V)
    return regions


class Glip(nn.Module):
    """A picture and a prompt in; for each region, how well it fits each token, and where its box is."""

    strides, size = (4, 8), 3.0  # cells of the two levels, in pixels; an anchor's side, in cells

    def __init__(self, config: GlipConfig):
        super().__init__()
        self.config = config
        self.picture = PictureEncoder(config.width)
        self.token = nn.Embedding(config.vocabulary, config.token_width)
        self.position = nn.Embedding(config.context, config.token_width)
        self.text = nn.ModuleList(TextLayer(config.token_width, config.num_heads) for _ in range(2))
        self.rounds = nn.ModuleList(Round(config) for _ in range(config.num_layers))
        self.align = Alignment(config.width, config.token_width)
        self.box = nn.Linear(config.width, 4)
        self.centre = nn.Linear(config.width, 1)
        anchors, self.levels = make_anchors(config.side, self.strides, self.size)
        self.register_buffer("anchors", anchors, persistent=False)
        nn.init.normal_(self.box.weight, std=0.01)
        nn.init.zeros_(self.box.bias)

    def features(self, pictures: Tensor, ids: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Regions of pictures (B, 3, S, S), and tokens of ids (B, T); real (B, T) is false for padding.

        Returns (B, R, V), (B, T, L).
        """
        tokens = self.token(ids) + self.position.weight[: ids.shape[1]]  # (B, T, L)
        for layer in self.text:
            tokens = layer(tokens, real)  # (B, T, L)
        maps = list(self.picture(pictures))
        for layer in self.rounds:
            maps, tokens = layer(maps, tokens, real)  # _, (B, T, L) a list of maps
        return flat(maps), tokens

    def forward(self, pictures: Tensor, ids: Tensor, real: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, changes of anchors, and logits of centre-ness. Returns (B, R, T), (B, R, 4), (B, R).

        Args: pictures (B, 3, S, S); ids (B, T), of which real (B, T) are no padding.
        """
        regions, tokens = self.features(pictures, ids, real)  # (B, R, V), (B, T, L)
        return self.align(regions, tokens), self.box(regions), self.centre(regions)[..., 0]


# --8<-- [end:glip]


# --8<-- [start:focal]
def focal_loss(logits: Tensor, wanted: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """The loss of each entry by itself: what is right already counts little."""
    loss = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")  # _ -log p
    p = logits.sigmoid()  # _
    miss = wanted * (1 - p) + (1 - wanted) * p  # _ 1 - p of the right answer
    weight = wanted * alpha + (1 - wanted) * (1 - alpha)  # _
    return weight * miss**gamma * loss


# --8<-- [end:focal]


# --8<-- [start:losses]
def glip_losses(
    model: Glip,
    output: tuple[Tensor, Tensor, Tensor],
    real: Tensor,
    owned: Tensor,
    targets: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    """The losses (), (), () of alignment, boxes and centre-ness.

    Args: the model's output; real (B, T), the tokens that are no padding; owned (B, R), the regions that have
    a box; targets, the tokens (B, R, T) and boxes (B, R, 4) of `region_targets`.
    """
    (logits, change, centre), (wanted, boxes) = output, targets
    count = owned.sum().clamp(min=1)  # () pictures without any box are trained on, too
    entries = real[:, None].expand_as(logits)  # (B, R, T)
    align = focal_loss(logits[entries], wanted[entries]).sum() / count  # () padding is left out
    anchors = model.anchors.expand(len(logits), -1, -1)[owned]  # (N, 4)
    middle = centre_ness(anchors, boxes[owned])  # (N,)
    apart = 1 - generalized_iou(decode(anchors, change[owned]), boxes[owned])  # (N,)
    box = (middle * apart).sum() / middle.sum().clamp(min=TINY)  # () regions near the middle count more
    middles = F.binary_cross_entropy_with_logits(centre[owned], middle, reduction="sum") / count  # ()
    return align, 2 * box, middles


# --8<-- [end:losses]


# --8<-- [start:detect]
@torch.no_grad()
def ask(
    model: Glip, pieces: Pieces, pictures: Tensor, phrases: list[str], separator: str = ". "
) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities, scores and boxes for one prompt of P phrases, in pictures (B, 3, S, S).

    Returns (B, R, P), (B, R, P), (B, R, 4).
    """
    prompt = write_prompt(phrases, separator)
    tokens = pieces(prompt.text)
    ids = torch.tensor([tokens.ids]).expand(len(pictures), -1)  # (B, T)
    real = torch.ones_like(ids, dtype=torch.bool)  # (B, T)
    logits, change, centre = model(pictures, ids, real)  # (B, R, T), (B, R, 4), (B, R)
    p = phrase_scores(logits.sigmoid(), token_map(tokens, prompt.spans))  # (B, R, P)
    scores = (p * centre.sigmoid()[..., None]).sqrt()  # (B, R, P)
    boxes = decode(model.anchors.repeat(len(pictures), 1), change.flatten(0, 1))  # (B * R, 4)
    return p, scores, boxes.view_as(change).clamp(0, model.config.side)


def detect(
    model: Glip,
    pieces: Pieces,
    pictures: Tensor,
    phrases: list[str],
    threshold: float = 0.05,
    separator: str = ". ",
) -> list[Found]:
    """For each of pictures (B, 3, S, S): boxes whose probability of a phrase is above the threshold.

    Phrases that do not fit into one prompt are asked for in several. A label is a place in phrases.
    """
    found = [[] for _ in pictures]
    for part in chunks(pieces, phrases, model.config.context, separator):
        answers = ask(model, pieces, pictures, [phrases[i] for i in part], separator)
        for one, p, scores, boxes in zip(found, *answers, strict=True):
            region, phrase = (p > threshold).nonzero(as_tuple=True)  # (_,), (_,)
            one.append((boxes[region], scores[region, phrase], torch.tensor(part)[phrase]))
    return [best(*map(torch.cat, zip(*one, strict=True))) for one in found]


def best(boxes: Tensor, scores: Tensor, labels: Tensor, overlap: float = 0.6, most: int = 100) -> Found:
    """What remains of boxes (K, 4) with scores (K,) and labels (K,) when the best have removed the others."""
    kept = nms(boxes, scores, labels, overlap)[:most]  # (_,)
    return Found(boxes[kept], scores[kept], labels[kept])


# --8<-- [end:detect]
