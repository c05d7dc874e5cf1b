"""A reader's own folder of pictures, as training images.

Shapes: N images, C channels, S size.
"""

import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor


def read_picture(path: Path, size: int) -> np.ndarray:
    """One picture as (size, size, 3) numbers from 0 to 255: turned upright, cropped to its central square."""
    with Image.open(path) as picture:
        upright = ImageOps.exif_transpose(picture).convert("RGB")
        return np.asarray(ImageOps.fit(upright, (size, size), Image.Resampling.LANCZOS))


def pictures(folder: str | Path, size: int = 32) -> Tensor:
    """All pictures below a folder, as (N, 3, size, size) in [-1, 1], in the order of their names.

    A file that is no readable picture is named in a warning and left out. ValueError when the folder is
    missing or holds no picture, and for a size that is not a positive multiple of 8.
    """
    folder = Path(folder)
    if size <= 0 or size % 8:
        raise ValueError(f"size is a positive multiple of 8, given {size}")
    if not folder.is_dir():
        raise ValueError(f"a folder of pictures is expected, given {folder}, which is no folder")
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")):
        try:
            found.append(read_picture(path, size))
        except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
            warnings.warn(f"left out {path}: {error}", stacklevel=2)
    if not found:
        raise ValueError(f"a folder with at least one picture is expected, given {folder}, which holds none")
    pixels = torch.from_numpy(np.stack(found))  # (N, S, S, C)
    x = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1  # (N, C, S, S)
    return x
