"""The live figure of the BERT post in Python, for the browser's test, and what its caption says."""

import json
from functools import cache

import pytest
import torch

from snippets.llm.bert_pretraining import guess, join
from snippets.llm.wordpiece import MASK, WordPiece
from tools.live import networks, tables

TEXT = "If the argument is not given, it is ignored."
OTHER = "The function returns a list of the names in the directory."
SENTENCES = [TEXT, OTHER, "Return the length of the list.", "This method raises an error if the file is closed."]
SENTENCES += ["The value of the variable is set to None by default."]
ITSELF = "the piece itself"
CASES = [{"Text": "[MASK] Füllwörter, 猫 and\u00a0[SEP] cafés " * 9, "Hide": "piece 40"}, {"Text": ""}]
CASES += [
    {"Text": "Unreadable encodings raise a UnicodeDecodeError.", "Hide": "piece 62", "In its place stands": ITSELF}
]
FAULT = '"##" if start else', '"##" if False else'


@cache
def network() -> torch.nn.Module:
    return next(networks("LLM/BERT")).rounded()


@cache
def wordpiece() -> WordPiece:
    return WordPiece(json.loads(tables("LLM/BERT"))["pieces"])


@torch.no_grad()
def reference(values: dict) -> dict:
    """What the figure returns for what its controls say."""
    said = {"Text": TEXT, "Hide": "piece 6", "In its place stands": MASK} | values
    tokens, segments = join(wordpiece().encode(said["Text"])[:62], [], wordpiece().ids)
    place = min(int(said["Hide"].split()[1]), len(tokens) - 2)
    shown = list(tokens)
    if place and said["In its place stands"] == MASK:
        shown[place] = wordpiece().ids[MASK]
    chances, maps = network()(torch.tensor([shown]), torch.tensor([segments]))
    guesses = []
    for at, token in enumerate(shown):
        if at and (at == place or token == wordpiece().ids[MASK]):
            here = chances[0, at]
            best = here.topk(5)
            rank = int((here > here[tokens[at]]).sum()) + 1
            guesses.append(
                {
                    "at": at,
                    "best": [
                        [wordpiece().pieces[i], p]
                        for p, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)
                    ],
                    "right": [wordpiece().pieces[tokens[at]], float(here[tokens[at]]), rank],
                }
            )
    pieces = [wordpiece().pieces[token] for token in tokens]
    return {"pieces": pieces, "guesses": guesses, "maps": maps.flatten().tolist()}


def right_ones(text: str, stands: str) -> dict[str, list]:
    """Of each piece of a text, as it is asked for: its probability and its rank."""
    pieces = reference({"Text": text})["pieces"]
    found = {}
    for place in range(1, len(pieces) - 1):
        (one,) = reference({"Text": text, "Hide": f"piece {place}", "In its place stands": stands})["guesses"]
        found[place] = one["right"]
    return found


def test_the_vocabulary_is_the_one_that_the_weights_were_trained_with(results):
    """With the pieces kept in tables.json, the lab's network fills the lab's gaps as the lab recorded."""
    values = results("LLM/BERT")
    model = next(networks("LLM/BERT")).module.model
    assert len(wordpiece().pieces) == values["wordpiece.size"]
    assert (
        " ".join(wordpiece().tokenize("Unreadable encodings raise a UnicodeDecodeError."))
        == values["wordpiece.example"]
    )
    for gap in values["gaps"].values():
        found = ", ".join(f"{piece} {chance:.2f}" for piece, chance in guess(model, wordpiece(), gap["text"])[0])
        assert found == gap["guesses"]


@pytest.mark.claim("bert-live")
def test_try_words_texts_and_nothing_hidden():
    (the,) = reference({"Hide": "piece 2"})["guesses"]
    assert the["best"][0][0] == "the" == the["right"][0] and 0.45 < the["right"][1] < 0.55
    places = [(right_ones(text, MASK), right_ones(text, ITSELF)) for text in SENTENCES]
    first = [[rank == 1 for one in kind for _, _, rank in one.values()] for kind in zip(*places, strict=True)]
    assert [len(kind) for kind in first] == [58, 58] and [sum(kind) for kind in first] == [26, 56]
    (names,) = reference({"Text": OTHER, "Hide": "piece 8"})["guesses"]
    assert names["right"][0] == "names" and names["right"][2] > 50
    for text in SENTENCES:
        found = reference({"Text": text})
        maps = torch.tensor(found["maps"]).view(2, 4, len(found["pieces"]), -1)
        beside = {offset: maps.diagonal(offset, 2, 3).mean(dim=2).flatten() for offset in (1, -1)}
        assert beside[1].argmax() == 1 and beside[-1].argmax() == 3  # heads 2 and 4 of layer 1
        assert all(values.max() > 2 * values.topk(2).values[1] for values in beside.values())
    typed = reference({"Text": "Return the [MASK].", "Hide": "piece 1"})["guesses"]
    assert [one["at"] for one in typed] == [1, 3]
