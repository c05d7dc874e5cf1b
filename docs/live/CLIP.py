"""What the live figure of the CLIP post computes with: both encoders, and the ids of the words of its captions."""

from unittest.mock import patch

import torch
from safetensors.torch import load_file

from snippets.clip import Clip, VisionConfig
from snippets.clip_text import TextConfig
from snippets.clip_tokenizer import ClipTokenizer, learn_merges
from snippets.data import scenes as data
from tools.live import ROOT, Network

LENGTH = 32  # tokens of a row, as many as the encoder can read


def tokenizer() -> ClipTokenizer:
    """The lab's, learnt from the captions of its 8,000 scenes: which scenes, without drawing them."""
    with patch.object(data, "draw_scene", list):
        drawn = data.scenes(8000, torch.Generator().manual_seed(1), max_shapes=2)
    texts = [" and ".join(shape.phrase for shape in shapes) for shapes in drawn]
    return ClipTokenizer(learn_merges([*texts, *["left of right of above below"] * 1000], 100))


def model() -> Clip:
    clip = Clip(TextConfig(580, num_layers=2), VisionConfig(patch=8))
    clip.load_state_dict(load_file(ROOT / "docs/weights/CLIP.safetensors"))
    return clip


def networks():
    clip = model()
    yield Network("vision", clip.vision, {"pictures": -torch.rand(3, 3, 32, 32)}, {"pictures": {0: "batch"}})
    tokens = torch.full((3, LENGTH), 579)
    tokens[:, :5] = torch.tensor([[578, 320, 562, 549, 579], [578, 320, 568, 545, 579], [578, 561, 579, 579, 579]])
    yield Network("text", clip.text, {"tokens": tokens}, {"tokens": {0: "batch"}})


def tables():
    words = tokenizer()
    known = sorted({*" ".join([*data.VOCABULARY, "left of right of above below"]).split()})
    ids = {word: words.encode(word) for word in known}
    assert all(len(row) == 3 for row in ids.values())  # each of these words is one piece
    return {
        "scenes": {
            "kinds": data.KINDS,
            "colours": data.COLOURS,
            "radius": data.RADIUS,
            "places": data.PLACES,
            "arm": data.ARM,
        },
        "vocabulary": {word: row[1] for word, row in ids.items()},
        "start": words.start,
        "end": words.end,
        "length": LENGTH,
        "temperature": (-model().scale).exp().item(),
    }
