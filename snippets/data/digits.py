"""The 1,797 handwritten digits that come with scikit-learn, split once and for all.

Shapes: N images.
"""

# --8<-- [start:digits]
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor


def digits(held_out: bool = False) -> tuple[Tensor, Tensor]:
    """Images (N, 1, 8, 8) in [-1, 1] and labels (N,): 1,437 digits to train on, or the 360 held out."""
    images, labels = load_digits(return_X_y=True)  # 1,797 rows of 64 grey values from 0 to 16
    order = np.random.default_rng(0).permutation(len(images))  # mixes the writers, always in the same way
    chosen = order[:360] if held_out else order[360:]  # no image is in both parts
    x = torch.tensor(images[chosen] / 8 - 1, dtype=torch.float32)  # (N, 64) from [0, 16] to [-1, 1]
    x = x.view(-1, 1, 8, 8)  # (N, 1, 8, 8) one grey channel
    y = torch.tensor(labels[chosen])  # (N,) which digit it is
    return x, y


# --8<-- [end:digits]
