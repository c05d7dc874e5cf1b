"""A reader's own folder of pictures."""

import numpy as np
import pytest
from PIL import Image

from snippets.data.pictures import pictures


def save(path, red: int, size=(40, 24), mode="RGB") -> None:
    pixels = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    pixels[..., 0] = red
    Image.fromarray(pixels).convert(mode).save(path)


def test_reads_a_folder_and_names_what_it_leaves_out(tmp_path):
    (tmp_path / "more").mkdir()
    save(tmp_path / "b.png", 255)
    save(tmp_path / "a.jpg", 0, size=(24, 40))
    save(tmp_path / "more" / "c.png", 255, mode="P")
    (tmp_path / "notes.txt").write_text("no picture")
    whole = (tmp_path / "b.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / ".DS_Store").write_bytes(b"\0")
    with pytest.warns(UserWarning) as warned:
        x = pictures(tmp_path, size=16)
    assert x.shape == (3, 3, 16, 16) and x.dtype.is_floating_point
    named = " ".join(str(w.message) for w in warned)
    assert "notes.txt" in named and "cut.png" in named and "DS_Store" not in named
    assert x[0, 0].max() < -0.9 and x[1, 0].min() > 0.9 and x[2, 0].min() > 0.9  # a, b, more/c: sorted by name
    assert x[:, 1:].max() < -0.9  # only red


def test_keeps_the_centre_of_a_wide_picture_and_turns_it_upright(tmp_path):
    pixels = np.zeros((16, 48, 3), dtype=np.uint8)
    pixels[:, 16:32] = 255  # white in the middle third only
    pixels[:8, 16:32] = 100  # darker above
    picture = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 3  # stored upside down
    picture.save(tmp_path / "wide.png", exif=exif)
    x = pictures(tmp_path, size=8)
    assert x[0, :, :3].min() > 0.8  # after turning, the white half is on top
    assert x[0, :, 5:].max() < 0


@pytest.mark.parametrize("size", [0, -8, 12])
def test_wrong_sizes_are_refused(tmp_path, size):
    with pytest.raises(ValueError, match=f"multiple of 8, given {size}"):
        pictures(tmp_path, size)


def test_empty_and_missing_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one picture.*which holds none"):
        pictures(tmp_path)
    with pytest.raises(ValueError, match="no folder"):
        pictures(tmp_path / "absent")
