"""What a reader draws by pointer in a live figure is what it computes with."""

import numpy as np
import torch

from tests.live.test_controlnet import from_mask
from tests.site.test_live import BUTTON, distance, opened, ran, set_to

RESULT = "figure => figure.result"


def test_a_mask_drawn_by_pointer_is_obeyed(tab):
    """A line through a canvas of 32 by 32; a second line, which begins on the first, erases."""
    opened(tab, "ControlNet")
    tab.page.locator(BUTTON).first.click()
    assert ran(tab) == "done"
    set_to(tab, {"Mask": ""})
    assert ran(tab) == "done"
    board, mouse = tab.page.get_by_role("img", name="mask: draw here"), tab.page.mouse
    board.scroll_into_view_if_needed()
    box = board.bounding_box()

    def line(start: tuple[float, float], end: tuple[float, float]) -> np.ndarray:
        places = [(box["x"] + x / 32 * box["width"], box["y"] + y / 32 * box["height"]) for x, y in (start, end)]
        mouse.move(*places[0])
        mouse.down()
        mouse.move(*places[1])
        mouse.up()
        assert ran(tab) == "done"
        found = tab.page.locator("live-figure").evaluate(RESULT)
        assert tab.page.get_by_label("Mask", exact=True).input_value() == "own"
        assert distance(found, from_mask({}, torch.tensor(found["mask"]).float().view(32, 32))) <= 1e-4
        return np.array(found["mask"]).reshape(32, 32)

    first = line((4, 8), (28, 8))
    rows, columns = np.nonzero(first)
    assert set(rows) <= {6, 7, 8, 9} and set(columns) >= set(range(4, 28)) and columns.max() - columns.min() < 28
    second = line((10, 8), (20, 8))
    assert not second[7:9, 10:20].any() and np.array_equal(second[:, :8], first[:, :8])
