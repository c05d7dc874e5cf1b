"""Linear layers whose weights lie as the processor's library reads them, for a model that only reads.

Shapes: B texts of a batch, T tokens, W features that come in, F features that go out.
"""

# --8<-- [start:imports]
import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

# --8<-- [end:imports]


# --8<-- [start:reordered]
class ReorderedLinear(nn.Module):
    """A linear layer for reading only, on a CPU, in float32; oneDNN chose the order of its weights."""

    def __init__(self, layer: nn.Linear, rows: int):
        super().__init__()
        self.bias = layer.bias
        self.weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), rows)

    def forward(self, x: Tensor) -> Tensor:
        """What the layer gives: vectors (…, W) to (…, F)."""
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")


def reordered(model: nn.Module, rows: int, parents: Callable = nn.Module.modules) -> nn.Module:
    """A copy of a model that reads faster on a CPU, for a batch of so many rows, B * T; others work too.

    parents(copy) are the modules whose own linear layers are replaced. Raises ValueError where PyTorch was
    built without oneDNN, and for weights of other kinds.
    """
    kind = model.token.weight.dtype, model.token.weight.device.type
    if not torch.backends.mkldnn.is_available() or kind != (torch.float32, "cpu"):
        raise ValueError(f"float32 weights on a CPU with oneDNN are expected, given {kind[0]}, {kind[1]}")
    model = copy.deepcopy(model).eval()
    for parent in list(parents(model)):
        for name, part in list(parent.named_children()):
            if isinstance(part, nn.Linear):
                setattr(parent, name, ReorderedLinear(part, rows))
    return model


# --8<-- [end:reordered]
