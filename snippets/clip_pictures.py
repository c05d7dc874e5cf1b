"""How a picture is made ready for CLIP (Radford et al. 2021, arXiv 2103.00020): cut to a square, and normed.

Shapes: C channels, S pixels of a side.
"""

# --8<-- [start:imports]
import numpy as np
import torch
from PIL import Image
from torch import Tensor

# --8<-- [end:imports]

# --8<-- [start:prepare]
MEAN = 0.48145466, 0.4578275, 0.40821073  # of red, green and blue in the authors' data, from 0 to 1
DEVIATION = 0.26862954, 0.26130258, 0.27577711


def prepare(picture: Image.Image, side: int = 224) -> Tensor:
    """A picture (C, S, S) of a given side: shorter side scaled to it (bicubic), middle cut out, normed.

    transformers rounds the longer side down, and so do we.
    """
    white = Image.new("RGBA", picture.size, "white")  # what is transparent lets it through
    picture = Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")
    width, height = picture.size
    short = min(width, height)
    width, height = side * width // short, side * height // short
    picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - side) // 2, (height - side) // 2
    pixels = np.asarray(picture.crop((left, top, left + side, top + side)), dtype=np.float32)
    mean, deviation = (
        torch.tensor(each)[:, None, None] for each in (MEAN, DEVIATION)
    )  # (3, 1, 1), (3, 1, 1)
    shown = torch.tensor(pixels).permute(2, 0, 1) / 255  # (C, S, S)
    return (shown - mean) / deviation


# --8<-- [end:prepare]
