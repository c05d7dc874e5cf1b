"""Texts written by transformers, with the page's weights.

Shapes: B texts of a batch, S tokens of a source.
"""

# --8<-- [start:library]
from torch import Tensor
from transformers import T5ForConditionalGeneration


def write_by_transformers(
    folder: str, source: Tensor, real: Tensor, room: int, beams: int
) -> list[list[int]]:
    """Tokens for sources (B, S), greedily or by beams, from the model of a folder; real (B, S)."""
    model = T5ForConditionalGeneration.from_pretrained(folder).eval()
    settings = {"max_new_tokens": room, "num_beams": beams, "do_sample": False}
    rows = model.generate(input_ids=source, attention_mask=real.long(), **settings)  # (B, _)
    return rows[:, 1:].tolist()  # without the start token


# --8<-- [end:library]
