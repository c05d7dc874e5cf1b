"""A step of the page on many processes, by accelerate.

Shapes: B windows that a process reads at once, T positions, V vocabulary.
"""

# --8<-- [start:accelerate]
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn


def step_by_accelerate(
    model: nn.Module, optimizer: torch.optim.Optimizer, windows: list[Tensor], longest: float
) -> nn.Module:
    """One step on windows (B, T + 1) of equally many tokens; the model that it spread."""
    accelerator = Accelerator(gradient_accumulation_steps=len(windows))  # asks torchrun what it is part of
    model, optimizer = accelerator.prepare(model, optimizer)
    for window in windows:
        with accelerator.accumulate(model):
            logits = model(window[:, :-1])  # (B, T, V)
            loss = F.cross_entropy(logits.flatten(0, 1), window[:, 1:].flatten())  # ()
            accelerator.backward(loss)
            if accelerator.sync_gradients:  # after the last round
                accelerator.clip_grad_norm_(model.parameters(), longest)
            optimizer.step()  # these two do nothing before
            optimizer.zero_grad()
    return model


# --8<-- [end:accelerate]
