"""transformers gives the page's answers from a folder that the page wrote."""

import pytest
import torch

from snippets.library.llm.bert import fill_by_transformers, sort_by_transformers
from snippets.llm.bert import Config, collate, load_bert, output, save_bert
from snippets.llm.bert_pretraining import guess, join, new_model
from snippets.llm.wordpiece import PAD, WordPiece, train_wordpiece
from tests.snippets.oracles import perturbed

TEXTS = ["Return a new list.", "The file is closed, and an error is raised if it is read again!"]
WORDPIECE = WordPiece(train_wordpiece(TEXTS * 2, 90))


@pytest.fixture
def model():
    return perturbed(new_model(Config(len(WORDPIECE.pieces), 50, 24, 20, 2, 4)))


def test_fill_mask_gives_the_same_guesses(model, tmp_path, agrees):
    save_bert(model, tmp_path, WORDPIECE.pieces)
    for text in ("Return a [MASK] list.", "[MASK] is closed"):
        ours = guess(model, WORDPIECE, text, 5)[0]
        theirs = fill_by_transformers(str(tmp_path), text, 5)
        assert [piece for piece, _ in ours] == [piece for piece, _ in theirs]
        agrees([p for _, p in ours], [p for _, p in theirs], "transformers.BertForMaskedLM")


@torch.no_grad()
def test_sequence_classification_gives_the_same_logits(model, tmp_path, agrees):
    parts = torch.nn.ModuleDict({"bert": model["bert"], "pooler": model["pooler"]})
    parts["label"] = perturbed(output(model["bert"], 3))
    save_bert(parts, tmp_path, WORDPIECE.pieces)
    rows = [join(WORDPIECE.encode(text), [], WORDPIECE.ids) for text in TEXTS]
    batch = collate(rows, model["bert"].config, WORDPIECE.ids[PAD])
    ours = parts["label"](parts["pooler"](parts["bert"](**batch)))
    theirs = sort_by_transformers(str(tmp_path), TEXTS)
    agrees(ours, theirs, "transformers.BertForSequenceClassification")
    assert set(load_bert(tmp_path)) == {"bert", "pooler", "label"}
    unmasked = parts["label"](parts["pooler"](parts["bert"](batch["tokens"])))  # negative control
    assert (unmasked - theirs).abs().max() > 1e-3
