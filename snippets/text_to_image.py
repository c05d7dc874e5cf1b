"""Text to image: a DiT that reads captions, and a program that draws from captions in two ways.

Shapes: B batch, C channels, H height, W width, D features, N patches, L words of a caption.
"""

# --8<-- [start:imports]
import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from tqdm import trange

# --8<-- [end:imports]
from snippets.blocks.dit import DiT, DiTConfig
from snippets.ddpm import ema_update


# --8<-- [start:caption-dit]
class CaptionDiT(DiT):
    """A DiT for captions that speak of places: each patch gets its own part of what the caption says."""

    def __init__(self, config: DiTConfig, encoder: nn.Module):
        super().__init__(config, encoder)
        self.layout = nn.Linear(config.width, config.width * len(self.position))

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """What it says (B, C, H, W) of noisy pictures x (B, C, H, W) at times t (B,), given captions."""
        self.check(x, t, condition)
        caption = self.encoder(condition)  # (B, D)
        told = self.time_embedding(t) + caption  # (B, D)
        tokens = self.patches(x) + self.layout(caption).unflatten(1, (-1, self.config.width))  # (B, N, D)
        for block in self.blocks:
            tokens = block(tokens, told)  # (B, N, D)
        return self.picture(tokens, told)


# --8<-- [end:caption-dit]


# --8<-- [start:train]
def train_on(model: nn.Module, loss_of: Callable, num_steps: int, rate: float = 2e-3) -> nn.Module:
    """Train on loss_of(generator), a number; returns the averaged network, in `eval` mode."""
    generator = torch.Generator().manual_seed(0)
    average = copy.deepcopy(model).eval()
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, betas=(0.9, 0.99), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, num_steps)
    for step in trange(num_steps, desc="train", mininterval=2):
        loss = loss_of(generator)  # ()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        ema_update(average, model, decay=min(0.99, step / (step + 10)))
    return average


# --8<-- [end:train]
