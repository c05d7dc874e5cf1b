"""Pictures made ready for CLIP against transformers' image processor, which works with Pillow here."""

import importlib.util
import math

import numpy as np
import pytest
from PIL import Image
from transformers import CLIPImageProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from snippets import clip_pictures as page

ORACLE = "transformers.models.clip.image_processing_pil_clip.CLIPImageProcessorPil"


def photo(width, height, mode="RGB"):
    """Waves and noise, so that neither scaling nor a shift of one pixel is free."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    waves = [127 + 100 * np.sin(x / (3 + c) + y / (5 - c)) for c in range(4)]
    pixels = np.stack(waves, axis=-1) + np.random.randn(height, width, 4) * 10
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8), "RGBA").convert(mode)


SIZES = [(300, 225), (61, 47), (47, 61), (32, 32), (223, 500), (33, 97)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_pictures_equal_transformers(size, mode, agrees):
    picture, side = photo(*size, mode), 45
    processor = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    theirs = processor(picture)["pixel_values"][0]  # an array of numpy
    ours = page.prepare(picture, side)
    agrees(ours.numpy(), theirs, ORACLE)
    assert (ours - page.prepare(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT), side)).abs().max() > 0.01


def test_each_step_counts(monkeypatch):
    """Negative controls: another filter, the whole picture squeezed into the square, values that are not normed."""
    picture = photo(61, 47)
    processor = CLIPImageProcessorPil(size={"shortest_edge": 45}, crop_size={"height": 45, "width": 45})
    theirs = processor(picture, return_tensors="pt")["pixel_values"][0]
    resize = Image.Image.resize
    for change in (
        lambda self, size, filter, **_: resize(self, size, Image.Resampling.BILINEAR),
        lambda self, size, filter, **_: resize(resize(self, (45, 45), filter), size, filter),
    ):
        with monkeypatch.context() as changed:
            changed.setattr(Image.Image, "resize", change)
            assert (page.prepare(picture, 45) - theirs).abs().max() > 0.05
    monkeypatch.setattr(page, "MEAN", (0.5, 0.5, 0.5))
    assert (page.prepare(picture, 45) - theirs).abs().max() > 0.05


def test_the_page_has_the_values_of_the_library():
    processor = CLIPImageProcessorPil()
    assert tuple(processor.image_mean) == page.MEAN and tuple(processor.image_std) == page.DEVIATION
    assert processor.size["shortest_edge"] == page.prepare.__defaults__[0] == 224


@pytest.mark.claim("clip-without-torchvision")
def test_the_image_processor_works_with_pillow_where_torchvision_is_missing():
    assert importlib.util.find_spec("torchvision") is None
    assert type(CLIPImageProcessor()).__name__ == "CLIPImageProcessorPil"


@pytest.mark.claim("clip-crop-rounding")
def test_where_a_middle_is_half_a_pixel_off_libraries_round_differently():
    """transformers cuts from (60 - 45) // 2 = 7; rounding as the authors' torchvision does begins at 8."""
    assert (60 - 45) // 2 == 7 and round((60 - 45) / 2) == 8
    picture = photo(60, 45)
    whole = np.asarray(picture, dtype=np.float32) / 255
    ours = page.prepare(picture, 45).permute(1, 2, 0).numpy() * page.DEVIATION + page.MEAN
    assert np.abs(ours - whole[:, 7:52]).max() < 1e-5 < 0.1 < np.abs(ours - whole[:, 8:53]).max()
    assert math.isclose(whole[0, 7, 0], ours[0, 0, 0], abs_tol=1e-5)
