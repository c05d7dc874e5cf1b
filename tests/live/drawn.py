"""Scenes as the live figures name them: shapes by their places."""

import torch

from snippets.data.scenes import PLACES, Shape, draw_scene, ink


def drawn(shapes: dict[str, str]) -> torch.Tensor:
    """The picture (1, 3, 32, 32) of shapes, such as a large red circle, by their places."""
    found = []
    for place, name in shapes.items():
        size, colour, kind = name.split()
        found.append(Shape(kind, colour, size, place, PLACES[place]))
    return ink([draw_scene(found)])
