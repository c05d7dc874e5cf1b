"""The live figure of the encoder-decoder post in Python, for the browser's test, and what its caption says."""

from functools import cache

import pytest
import torch

from snippets.llm.t5 import T5
from snippets.llm.t5_decoding import beam_search, write
from snippets.llm.text_to_text import CHARACTERS, END, PIECES, to_ids, to_text
from tools.live import networks

NUMBER, QUESTION = "seven thousand and forty-two", "what colour is the ring? a large blue cross at the top right"
LONG = {"Task": "reverse", "Input": "transformer"}
CASES = [{"Task": "", "Input": QUESTION, "Beams": "8"}, {"Task": "date", "Input": "Été 1987-03-07 \t ☃", "Beams": "1"}]
CASES += [LONG]
FAULT = "score: beam.total / length", "score: beam.total * length"


@cache
def network() -> torch.nn.Module:
    return next(networks("LLM/Encoder-Decoder")).rounded()


def model() -> T5:
    return network().model


@torch.no_grad()
def reference(values: dict) -> dict:
    """What the figure returns for what its controls say: the page's write and beam_search, and where it looks."""
    said = {"Task": "digits", "Input": NUMBER, "Beams": "4"} | values
    text = f"{said['Task']}: {said['Input']}" if said["Task"] else said["Input"]
    ids = to_ids("".join(one for one in text.lower() if one in CHARACTERS))[:-1]
    source = torch.tensor([[*ids[:60], END]])
    (written,) = write(model(), source, None, 24)
    looks = [network()(source, torch.tensor([[0, *written[:at]]]))[1][0].tolist() for at in range(len(written))]
    (beams,) = beam_search(model(), source, None, 24, int(said["Beams"]))
    shown = [["".join("▪" if one == END else PIECES[one] * (one > 0) for one in row), score] for row, score in beams]
    return {"written": written, "looks": [share for row in looks for share in row], "beams": shown}


@torch.no_grad()
def mean_chance(text: str, written: list[int]) -> float:
    """The mean log-probability of the tokens of a text: its score in beam search."""
    chances = model()(torch.tensor([to_ids(text)]), torch.tensor([[0, *written[:-1]]])).log_softmax(dim=-1)
    return float(chances[0, range(len(written)), written].mean())


@pytest.mark.claim("encdec-live")
def test_try_words_prefixes_and_what_is_not_there():
    first = reference({})
    assert to_text(first["written"]) == "7042" == first["beams"][0][0].rstrip("▪")
    backwards = reference({"Task": "reverse", "Input": "kbxtq"})
    source = to_ids("reverse: kbxtq")
    assert to_text(backwards["written"]) == "qtxbk"
    looks = torch.tensor(backwards["looks"]).view(-1, len(source))
    assert PIECES[source[int(looks[0].argmax())]] == "q" and looks[0].max() > 0.5
    long = reference(LONG)
    answer, (best, score) = to_text(long["written"]), long["beams"][0]
    assert len(answer) == 8 and len({answer, best.rstrip("▪"), "remrofsnart"}) == 3
    assert mean_chance("reverse: transformer", long["written"]) < score - 0.01
    assert to_text(reference({"Task": "iso"})["written"]) == "7042"
    assert to_text(reference({"Task": "", "Input": QUESTION})["written"]) == "blue"
