"""The real digits and their fixed split."""

import torch
from sklearn.datasets import load_digits

from snippets.data.digits import digits


def test_the_split_is_fixed_and_complete():
    (x, y), (x_held, y_held) = digits(), digits(held_out=True)
    assert x.shape == (1437, 1, 8, 8) and x_held.shape == (360, 1, 8, 8)
    assert torch.equal(digits()[0], x)
    ours = torch.cat([x, x_held]).flatten(1)
    theirs = torch.tensor(load_digits().data, dtype=torch.float32) / 8 - 1
    assert sorted(map(tuple, ours.tolist())) == sorted(map(tuple, theirs.tolist()))
    assert torch.bincount(torch.cat([y, y_held])).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert (ours.min(), ours.max()) == (-1, 1)


def test_labels_belong_to_their_images():
    """A nearest-neighbour reader, which needs the right labels, gets nearly all held-out digits right."""
    (x, y), (x_held, y_held) = digits(), digits(held_out=True)
    nearest = torch.cdist(x_held.flatten(1), x.flatten(1)).argmin(1)
    assert (y[nearest] == y_held).float().mean() > 0.97
    assert torch.bincount(y_held, minlength=10).min() > 20  # every digit is held out
