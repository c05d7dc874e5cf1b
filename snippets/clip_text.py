"""CLIP's text encoder (Radford et al. 2021, arXiv 2103.00020, section 2.4), and its folders of transformers.

Shapes: B texts of a batch, T tokens, V vocabulary, W width, H heads, D features of a head, F hidden features,
E features of the embedding.
"""

# --8<-- [start:imports]
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# --8<-- [end:imports]
from snippets.blocks.checkpoint import fill, read_config, read_weights, renamed


# --8<-- [start:layer]
def quick_gelu(x: Tensor) -> Tensor:
    """OpenAI's GELU: the sigmoid of 1.702 x is near to the share of a normal distribution below x."""
    return x * torch.sigmoid(1.702 * x)


class Layer(nn.Module):
    """Attention, then an MLP, each added to a stream that is normed before they read it (pre-LN).

    Raises ValueError for heads that do not divide the width.
    """

    def __init__(self, width: int, hidden: int, num_heads: int, quick: bool = True, eps: float = 1e-5):
        super().__init__()
        if num_heads < 1 or width % num_heads:
            raise ValueError(f"a width that heads divide is expected, given {width}, {num_heads}")
        self.num_heads, self.activation = num_heads, quick_gelu if quick else F.gelu
        self.norm_1, self.norm_2 = nn.LayerNorm(width, eps), nn.LayerNorm(width, eps)
        self.to_query, self.to_key, self.to_value = (nn.Linear(width, width) for _ in range(3))
        self.to_out = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor, causal: bool = False) -> Tensor:
        """x (B, T, W) to (B, T, W). causal: each token sees itself and those before it, else all."""
        seen = self.norm_1(x)  # (B, T, W)
        query, key, value = (
            to(seen).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for to in (self.to_query, self.to_key, self.to_value)
        )  # (B, H, T, D), (B, H, T, D), (B, H, T, D)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=causal)  # (B, H, T, D)
        x = x + self.to_out(mixed.transpose(1, 2).flatten(2))  # (B, T, W)
        hidden = self.activation(self.up(self.norm_2(x)))  # (B, T, F)
        return x + self.down(hidden)


# --8<-- [end:layer]


# --8<-- [start:initialize]
def initialize(layers: nn.ModuleList) -> None:
    """The authors' first weights: normal, narrower where a sum over many layers is written; biases 0."""
    for layer in layers:
        width = layer.to_out.out_features
        read, write = width**-0.5, (2 * len(layers) * width) ** -0.5
        for linear in (layer.to_query, layer.to_key, layer.to_value):
            nn.init.normal_(linear.weight, std=read)
        nn.init.normal_(layer.up.weight, std=(2 * width) ** -0.5)
        for linear in (layer.to_out, layer.down):
            nn.init.normal_(linear.weight, std=write)
        for module in layer.children():
            nn.init.zeros_(module.bias)


# --8<-- [end:initialize]


# --8<-- [start:text]
@dataclass(frozen=True)
class TextConfig:
    """Sizes of a text encoder."""

    vocabulary: int
    context: int = 32  # tokens that it can read
    width: int = 64
    hidden: int = 256  # features inside of the MLP
    num_layers: int = 3
    num_heads: int = 4
    embedding: int | None = 64  # features of what it returns; None: the state itself, without a projection
    end: int | None = None  # the id of the end of text; None: the largest id of a row is the end
    quick: bool = True  # quick_gelu, else gelu
    eps: float = 1e-5


class TextEncoder(nn.Module):
    """A transformer that reads from left to right. The state at the end of text has seen all of it."""

    def __init__(self, config: TextConfig):
        super().__init__()
        width, embedding = config.width, config.embedding
        self.config = config
        self.token = nn.Embedding(config.vocabulary, width)
        self.position = nn.Embedding(config.context, width)
        sizes = width, config.hidden, config.num_heads, config.quick, config.eps
        self.layers = nn.ModuleList(Layer(*sizes) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(width, config.eps)
        self.project = nn.Linear(width, embedding, bias=False) if embedding else nn.Identity()
        nn.init.normal_(self.token.weight, std=0.02)
        nn.init.normal_(self.position.weight, std=0.01)
        initialize(self.layers)
        if embedding:
            nn.init.normal_(self.project.weight, std=width**-0.5)

    def hidden_states(self, tokens: Tensor) -> list[Tensor]:
        """The stream of tokens (B, T) before the first layer and after each one, without the last norm.

        Stable Diffusion 2 takes `norm(hidden_states(tokens)[-2])` of all 24 layers; its own folder holds
        23 of them, and there that is `states(tokens)`.
        """
        place = torch.arange(tokens.shape[1], device=tokens.device)  # (T,)
        states = [self.token(tokens) + self.position(place)]
        for layer in self.layers:
            states.append(layer(states[-1], causal=True))
        return states

    def states(self, tokens: Tensor) -> Tensor:
        """One vector for each of tokens (B, T): (B, T, W). It depends on the tokens up to its own alone."""
        return self.norm(self.hidden_states(tokens)[-1])

    def ends(self, tokens: Tensor) -> Tensor:
        """The place (B,) of the end of text in each row of tokens (B, T), the first one of several."""
        end = self.config.end
        marks = tokens.int() if end is None else (tokens == end).int()  # (B, T)
        return marks.argmax(dim=-1)

    def forward(self, tokens: Tensor) -> Tensor:
        """The embedding (B, E) of texts: tokens (B, T), each row with its end of text."""
        states = self.states(tokens)  # (B, T, W)
        row = torch.arange(tokens.shape[0], device=tokens.device)  # (B,)
        last = states[row, self.ends(tokens)]  # (B, W)
        return self.project(last)


# --8<-- [end:text]


# --8<-- [start:load]
LAYER_NAMES = {"encoder.layers.": "layers.", "layer_norm1.": "norm_1.", "layer_norm2.": "norm_2."}
LAYER_NAMES |= {"self_attn.q_proj.": "to_query.", "self_attn.k_proj.": "to_key."}
LAYER_NAMES |= {"self_attn.v_proj.": "to_value.", "self_attn.out_proj.": "to_out."}
LAYER_NAMES |= {"mlp.fc1.": "up.", "mlp.fc2.": "down."}
TEXT_NAMES = {"text_model.": "", "embeddings.token_embedding.": "token.", "text_projection.": "project."}
TEXT_NAMES |= {"embeddings.position_embedding.": "position.", "final_layer_norm.": "norm."} | LAYER_NAMES
SIZES = {"hidden_size": "width", "intermediate_size": "hidden", "num_hidden_layers": "num_layers"}
SIZES |= {"num_attention_heads": "num_heads", "layer_norm_eps": "eps"}
TEXT_SIZES = SIZES | {"vocab_size": "vocabulary", "max_position_embeddings": "context"}
TEXT_SIZES |= {"eos_token_id": "end"}
TEXT_UNLESS_GIVEN = {"vocabulary": 49408, "context": 77, "width": 512, "hidden": 2048}  # as in transformers
TEXT_UNLESS_GIVEN |= {"num_layers": 12, "num_heads": 8, "eps": 1e-5, "end": 49407}
PLAIN = {"attention_dropout": 0.0, "quantization_config": None}


def is_quick(given: dict) -> bool:
    """Whether a tower's settings name quick_gelu. Raises ValueError for others than it and gelu."""
    activation = given.get("hidden_act", "quick_gelu")
    if activation not in ("quick_gelu", "gelu"):
        raise ValueError(f"hidden_act quick_gelu or gelu is expected, given {activation}")
    return activation == "quick_gelu"


def text_config(given: dict, embedding: int | None) -> TextConfig:
    """The sizes of a text encoder from its settings in transformers' layout.

    Their end of text 2 stands for the largest id: files of 2021 say 2, and mean 49407.
    """
    sizes = TEXT_UNLESS_GIVEN | {
        ours: given[theirs] for theirs, ours in TEXT_SIZES.items() if theirs in given
    }
    if not isinstance(sizes["end"], int):
        raise ValueError(f"eos_token_id, one id, is expected, given {sizes['end']!r:.80}")
    sizes["end"] = None if sizes["end"] == 2 else sizes["end"]
    return TextConfig(**sizes, embedding=embedding, quick=is_quick(given))


def load_clip_text(folder: str | Path) -> TextEncoder:
    """A text encoder as transformers' CLIPTextModel, with or without projection, writes it.

    Raises ValueError for settings and weights that this page's encoder does not have.
    """
    given = read_config(folder, PLAIN | {"model_type": "clip_text_model"}, ["model_type"])
    weights = renamed(read_weights(folder, buffers=("position_ids",)), TEXT_NAMES)  # _ ids of older files
    embedding = weights["project.weight"].shape[0] if "project.weight" in weights else None
    return fill(TextEncoder(text_config(given, embedding)), weights)


# --8<-- [end:load]
