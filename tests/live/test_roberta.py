"""The live figure of the RoBERTa post in Python, for the browser's test, and what its caption says."""

import pytest

from tests.live.printed import program

TEXT = "The lowest tower is lower than the low wall, and the newest tower is newer than the new wall."
GREEK, LONG = "το νερό και το νησί, το νησί και το νερό", "banana" * 8
CASES = [{"Merges": 25}, {"Text": GREEK, "Merges": 3}, {"Text": "🙂 naïve  \t x²", "Merges": 60}, {"Text": ""}]
CASES += [{"Merges": 4}]
FAULT = "heapq.heappush(queue, (-totals[other], other))", "heapq.heappush(queue, (+totals[other], other))"
TOLERANCE = 0


def reference(values: dict) -> dict:
    """What the figure returns for what its controls say."""
    return program("LLM/Roberta")["live"]({"text": values.get("Text", TEXT), "merges": values.get("Merges", 10)})


@pytest.mark.claim("roberta-live")
def test_try_merges_and_texts():
    none, many = reference({"Merges": 0}), reference({"Merges": 60})
    assert sum(map(len, none["pieces"])) == none["bytes"] == len(TEXT)
    assert sum(len(chunk) == 1 for chunk in many["pieces"]) > len(many["pieces"]) / 2
    greek = reference({"Text": GREEK, "Merges": 2})
    halves = [program("LLM/Roberta")["read"]("".join(pair)) for pair in greek["merges"]]
    assert all(b"\xce" in piece and piece.decode(errors="replace").endswith("\ufffd") for piece in halves)
    long = reference({"Text": LONG, "Merges": 10})
    assert long["pieces"] == [[LONG]] and len(long["merges"]) < 10
