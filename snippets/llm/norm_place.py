"""Where the norms stand: T5 with norms on the branches (pre-LN) and on the stream (post-LN), as in the
first Transformer (Vaswani et al. 2017, arXiv 1706.03762, section 3.1).

Shapes: B texts of a batch, S tokens of a source, T tokens of a target, W width.
"""

# --8<-- [start:imports]
from torch import Tensor, nn

# --8<-- [end:imports]
from snippets.llm.t5 import T5, Config, DecoderLayer, EncoderLayer, initialize, loss


# --8<-- [start:post]
class PostEncoderLayer(EncoderLayer):
    """The layer of the encoder with its norms behind the sums."""

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """As EncoderLayer: x (B, S, W) to (B, S, W)."""
        x = self.norm_1(x + self.dropout(self.attention(x, *self.attention.read(x), bias)))  # (B, S, W)
        return self.norm_2(x + self.dropout(self.mlp(x)))


class PostDecoderLayer(DecoderLayer):
    """The layer of the decoder with its norms behind the sums."""

    def forward(self, x: Tensor, bias: Tensor, memory: Tensor, real: Tensor | None) -> Tensor:
        """As DecoderLayer: x (B, T, W) to (B, T, W)."""
        x = self.norm_1(x + self.dropout(self.attention(x, *self.attention.read(x), bias)))  # (B, T, W)
        x = self.norm_2(x + self.dropout(self.cross(x, *self.cross.read(memory), real)))  # (B, T, W)
        return self.norm_3(x + self.dropout(self.mlp(x)))


def post_norm(config: Config) -> T5:
    """A T5 with post-LN. The last norm of a stack would be the second in a row: it goes."""
    model = T5(config)
    model.encoder.layers = nn.ModuleList(PostEncoderLayer(config) for _ in range(config.num_layers))
    model.decoder.layers = nn.ModuleList(PostDecoderLayer(config) for _ in range(config.decoder_layers))
    model.encoder.norm, model.decoder.norm = nn.Identity(), nn.Identity()
    initialize(model)
    return model


# --8<-- [end:post]


# --8<-- [start:gradients]
def gradient_norms(model: T5, batch: dict[str, Tensor]) -> dict[str, list[float]]:
    """Length of the loss's gradient by the last matrix of each layer's MLP, for both stacks."""
    model.zero_grad()
    loss(model, **batch).backward()
    stacks = {"encoder": model.encoder, "decoder": model.decoder}
    return {
        name: [layer.mlp.down.weight.grad.norm().item() for layer in stack.layers]
        for name, stack in stacks.items()
    }


# --8<-- [end:gradients]
