"""transformers gives the page's ids and guesses from a folder that the page wrote."""

import pytest

from snippets.library.llm.roberta import fill_by_transformers, roberta_tokenizer
from snippets.llm.bert import Config
from snippets.llm.byte_bpe import ByteBPE, save_bpe, train_merges
from snippets.llm.roberta import save_roberta
from snippets.llm.roberta_pretraining import fill, new_model
from tests.snippets.oracles import perturbed

TEXTS = ["Return a new list.", "The file is closed, and an error is raised if it is read again!"]
BPE = ByteBPE(train_merges(TEXTS * 2, 30))


@pytest.fixture
def model():
    return perturbed(new_model(Config(len(BPE.ids), 60, 24, 20, 2, 4, kinds=1, eps=1e-5), 1, pairs=False))


def test_fill_mask_gives_the_same_guesses(model, tmp_path, agrees):
    save_roberta(model, tmp_path)
    save_bpe(BPE, tmp_path)
    for text in ("Return a <mask> list.", "<mask> is closed", "naïve 日本<mask>"):
        ours = fill(model, BPE, text, 5)[0]
        theirs = fill_by_transformers(str(tmp_path), text, 5)
        assert [piece for piece, _ in ours] == [piece for piece, _ in theirs]
        agrees([p for _, p in ours], [p for _, p in theirs], "transformers.RobertaForMaskedLM")
        other = fill(model, BPE, text.replace("<mask>", "x <mask>"), 5)[0]  # negative control
        assert abs(other[0][1] - theirs[0][1]) > 1e-4


def test_the_tokenizer_gives_the_same_ids(tmp_path):
    save_bpe(BPE, tmp_path)
    theirs = roberta_tokenizer(str(tmp_path))
    for text in (*TEXTS, "a <mask> b", "naïve 日本 😀", "  two\n\nlines "):
        assert theirs(text)["input_ids"] == [0, *BPE.encode_marked(text), 2]
