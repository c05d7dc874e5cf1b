"""A transformer that denoises pictures or latents (DiT, Peebles and Xie 2022, arXiv 2212.09748, adaLN-zero).

Shapes: B batch, C channels, H height, W width, D features, N patches, M heads, P pixels of a patch's side.
"""

# --8<-- [start:imports]
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# --8<-- [end:imports]
from snippets.blocks.checkpoint import fill, read_config, read_weights, renamed
from snippets.blocks.unet import TimeEmbedding
from snippets.cfg import ClassEncoder


# --8<-- [start:sizes]
@dataclass(frozen=True)
class DiTConfig:
    """Sizes of a DiT. DiT-XL/2: 4 channels, side 32, patch 2, width 1152, 28 layers, 16 heads, 256 waves."""

    channels: int = 4
    side: int = 8  # of the square that it denoises
    patch: int = 2
    width: int = 96
    num_layers: int = 4
    num_heads: int = 4
    waves: int = 64  # sines and cosines that tell the time
    channels_out: int | None = None  # None: as many as in; the paper's predicts variances too: twice
    eps: float = 1e-6  # of the norm before the MLP

    def __post_init__(self):
        if self.side % self.patch or self.width % self.num_heads or self.width % 4:
            wanted = "patches that fill the side, and a width for all heads and for four parts,"
            raise ValueError(f"{wanted} are expected, given {self}")


# --8<-- [end:sizes]


# --8<-- [start:positions]
def grid_positions(side: int, width: int) -> Tensor:
    """Where each patch of a square lies, as waves (side * side, width): its column, then its row."""
    line = torch.arange(side, dtype=torch.float64)  # (H,)
    exponent = torch.arange(width // 4, dtype=torch.float64) / (width // 4)  # (_,) from 0 to nearly 1
    angle = line[:, None] * 10_000**-exponent  # (H, _)
    waves = torch.cat([angle.sin(), angle.cos()], dim=1)  # (H, _)
    column, row = waves.repeat(side, 1), waves.repeat_interleave(side, dim=0)  # _, _ of all patches
    return torch.cat([column, row], dim=1).float()


# --8<-- [end:positions]


# --8<-- [start:block]
def modulate(x: Tensor, shift: Tensor, scale: Tensor, eps: float = 1e-6) -> Tensor:
    """Layer norm of x (B, N, D) with a shift (B, 1, D) and a scale (B, 1, D) from outside: (B, N, D)."""
    normed = F.layer_norm(x, x.shape[-1:], eps=eps)  # (B, N, D)
    return normed * (1 + scale) + shift


class DiTBlock(nn.Module):
    """Attention, then an MLP. A condition says how each reads its input, and how much of it is added."""

    def __init__(self, width: int, num_heads: int, eps: float):
        super().__init__()
        self.num_heads, self.eps = num_heads, eps
        self.condition = nn.Linear(width, 6 * width)
        self.to_query, self.to_key, self.to_value = (nn.Linear(width, width) for _ in range(3))
        self.to_out = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        nn.init.zeros_(self.condition.weight)  # gates of 0: at first the block changes nothing
        nn.init.zeros_(self.condition.bias)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """Patches (B, N, D) of patches x (B, N, D), given a condition told (B, D)."""
        parts = self.condition(F.silu(told))[:, None].chunk(6, dim=2)
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = parts  # _, _, _, _, _, _ each (B, 1, D)
        seen = modulate(x, shift_1, scale_1)  # (B, N, D)
        query, key, value = (
            to(seen).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for to in (self.to_query, self.to_key, self.to_value)
        )  # (B, M, N, _), (B, M, N, _), (B, M, N, _)
        mixed = F.scaled_dot_product_attention(query, key, value)  # (B, M, N, _)
        x = x + gate_1 * self.to_out(mixed.transpose(1, 2).flatten(2))  # (B, N, D)
        seen = modulate(x, shift_2, scale_2, self.eps)  # (B, N, D)
        x = x + gate_2 * self.down(F.gelu(self.up(seen), approximate="tanh"))  # (B, N, D)
        return x


# --8<-- [end:block]


# --8<-- [start:dit]
class DiT(nn.Module):
    """A picture is cut into patches; each is a token; blocks that know time and condition; back to a picture.

    Args: encoder makes vectors of `width` numbers from conditions, and has the empty condition, `null`.
    """

    def __init__(self, config: DiTConfig, encoder: nn.Module):
        super().__init__()
        self.config, self.encoder = config, encoder
        width, patch = config.width, config.patch
        self.patch = nn.Conv2d(config.channels, width, patch, stride=patch)
        self.register_buffer("position", grid_positions(config.side // patch, width), persistent=False)
        self.time_embedding = TimeEmbedding(config.waves, width)
        sizes = width, config.num_heads, config.eps
        self.blocks = nn.ModuleList(DiTBlock(*sizes) for _ in range(config.num_layers))
        self.condition = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, patch**2 * (config.channels_out or config.channels))
        for layer in (self.condition, self.out):  # at first the answer is 0
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def check(self, x: Tensor, t: Tensor, condition: Tensor) -> None:
        """ValueError unless x, t and condition are what the network takes."""
        wanted = (self.config.channels, self.config.side, self.config.side)
        if x.ndim != 4 or x.shape[1:] != wanted or t.shape != x.shape[:1] or len(condition) != len(x):
            given = f"{tuple(x.shape)}, {tuple(t.shape)} and {tuple(condition.shape)}"
            raise ValueError(f"x (B, *{wanted}), t and condition for each are expected, given {given}")

    def patches(self, x: Tensor) -> Tensor:
        """Pictures (B, C, H, W) as tokens (B, N, D), row by row, with their places."""
        tokens = self.patch(x).flatten(2).transpose(1, 2)  # (B, N, D)
        return tokens + self.position

    def picture(self, x: Tensor, told: Tensor) -> Tensor:
        """Tokens x (B, N, D) as pictures (B, _, H, W)."""
        shift, scale = self.condition(F.silu(told))[:, None].chunk(2, dim=2)  # (B, 1, D), (B, 1, D)
        each = self.out(modulate(x, shift, scale))  # (B, N, _) channels of a pixel side by side
        size, patch = self.config.side // self.config.patch, self.config.patch
        cells = each.unflatten(2, (patch, patch, -1)).unflatten(1, (size, size))  # (B, _, _, P, P, _)
        picture = cells.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)  # (B, _, _, _)
        return picture

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """What it says (B, _, H, W) of noisy pictures x (B, C, H, W) at times t (B,), given conditions."""
        self.check(x, t, condition)
        told = self.time_embedding(t) + self.encoder(condition)  # (B, D)
        tokens = self.patches(x)  # (B, N, D)
        for block in self.blocks:
            tokens = block(tokens, told)  # (B, N, D)
        return self.picture(tokens, told)


# --8<-- [end:dit]


# --8<-- [start:load]
DIT_NAMES = {"transformer_blocks.": "blocks.", "pos_embed.proj.": "patch.", "norm1.linear.": "condition."}
DIT_NAMES |= {"attn1.to_q.": "to_query.", "attn1.to_k.": "to_key.", "attn1.to_v.": "to_value."}
DIT_NAMES |= {"attn1.to_out.0.": "to_out.", "ff.net.0.proj.": "up.", "ff.net.2.": "down."}
DIT_NAMES |= {"proj_out_1.": "condition.", "proj_out_2.": "out."}
DIT_NAMES |= {"class_embedder.embedding_table.": "encoder.embedding."}
DIT_NAMES |= {"timestep_embedder.": "time_embedding."}
DIT_SIZES = {"in_channels": 4, "sample_size": 32, "patch_size": 2, "num_layers": 28, "out_channels": None}
DIT_SIZES |= {"num_attention_heads": 16, "attention_head_dim": 72, "num_embeds_ada_norm": 1000}
DIT_SIZES |= {"norm_eps": 1e-5}  # as diffusers assumes where a folder is silent
DIT_PLAIN = {"norm_type": "ada_norm_zero", "activation_fn": "gelu-approximate", "attention_bias": True}
DIT_PLAIN |= {"norm_elementwise_affine": False, "upcast_attention": False, "quantization_config": None}


def load_dit(folder: str | Path) -> DiT:
    """The network of a folder as diffusers' DiTTransformer2DModel writes it, which takes classes.

    The library keeps a copy of the embeddings of time and class in each block. Raises ValueError where they
    are not all the same, and for settings and weights that this network does not have.
    """
    given = DIT_SIZES | read_config(folder, DIT_PLAIN, ())
    heads, classes = given["num_attention_heads"], given["num_embeds_ada_norm"]
    width = heads * given["attention_head_dim"]
    sizes = given["in_channels"], given["sample_size"], given["patch_size"], width, given["num_layers"], heads
    config = DiTConfig(*sizes, 256, given["out_channels"], given["norm_eps"])
    weights = read_weights(folder, "diffusion_pytorch_model.safetensors")
    shared = {}
    for name in [name for name in weights if ".norm1.emb." in name]:
        weight, short = weights.pop(name), name.split(".norm1.emb.")[1]  # _, _
        if not torch.equal(shared.setdefault(short, weight), weight):
            raise ValueError(f"one embedding for all blocks is expected, given another one in {name}")
    weights |= shared
    first = weights.get("timestep_embedder.linear_1.weight")  # _
    if first is not None:  # cosines come first there, sines here
        weights["timestep_embedder.linear_1.weight"] = first.roll(128, dims=1)  # _
    weights = renamed(weights, DIT_NAMES) | {"encoder.null": torch.tensor(classes)}
    return fill(DiT(config, ClassEncoder(classes, width)), weights)


# --8<-- [end:load]
