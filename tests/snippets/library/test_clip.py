"""The CLIP post's lines with transformers give the probabilities that the page's own code gives."""

import pytest
import torch

from snippets.clip import Clip, VisionConfig, class_embeddings, save_clip, zero_shot
from snippets.clip_scenes import CLASSES
from snippets.clip_text import TextConfig
from snippets.clip_tokenizer import ClipTokenizer, learn_merges, save_clip_tokenizer
from snippets.library import clip
from tests.snippets.oracles import perturbed


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model of the program's kind, weights moved, in a folder with its tokenizer."""
    torch.manual_seed(0)
    tokenizer = ClipTokenizer(learn_merges(CLASSES, 60))
    model = perturbed(Clip(TextConfig(len(tokenizer.ids), num_layers=2), VisionConfig(patch=8)), 0.05)
    folder = tmp_path_factory.mktemp("clip")
    save_clip(model, folder)
    save_clip_tokenizer(tokenizer, folder)
    return model, tokenizer, str(folder)


@pytest.mark.claim("clip-library")
def test_the_same_probabilities(trained, agrees):
    model, tokenizer, folder = trained
    texts = [f"a {name}" for name in CLASSES] + ["A small RED circle at the bottom left!"]
    pictures = torch.randn(5, 3, 32, 32)
    theirs = clip.zero_shot_by_transformers(folder, pictures, texts)
    ours = zero_shot(model, pictures, class_embeddings(model, tokenizer(texts)[:, None]))
    agrees(ours, theirs, "transformers.CLIPModel")
    assert ours.shape == (5, 21)
    other = zero_shot(model, pictures, class_embeddings(model, tokenizer(texts[::-1])[:, None]))
    assert (other - theirs).abs().max() > 0.01  # the texts in another order
