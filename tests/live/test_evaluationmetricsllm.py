"""The live figure of the metrics post in Python, for the browser's test, and what its caption says."""

import pytest

from tests.live.printed import program

CASES = [{"Reference": "", "Candidate": ""}]
CASES += [{"Reference": "Ünder the brücke — 3.5 °C, so-so", "Candidate": "the the the the 3.5 °C so so"}]
CASES += [{"Candidate": "the trucks take the long way because that bridge is unsafe"}]
FAULT = "0.9 * precision + 0.1 * recall", "0.1 * precision + 0.9 * recall"
TOLERANCE = 1e-9
REFERENCE = "The old bridge is not safe, so the trucks have to take the long way round."
NEGATED = "The old bridge is safe, so the trucks have to take the long way round."
REWORDED = "The old bridge is not secure, so the lorries must take the long route round."
TURNED = "So the trucks have to take the long way round, the old bridge is not safe."


def reference(values: dict) -> dict:
    """What the figure returns for what its controls say."""
    given = {"reference": values.get("Reference", REFERENCE), "candidate": values.get("Candidate", NEGATED)}
    return program("LLM/EvaluationMetricsLLM")["live"](given)


@pytest.mark.claim("eval-live")
def test_try_candidates():
    negated, reworded, turned = (reference({"Candidate": text})["scores"] for text in (NEGATED, REWORDED, TURNED))
    assert sum(score > 90 for name, score in negated.items()) == 6
    for name in negated.keys() - {"TER", "exact match"}:
        assert reworded[name] < negated[name]
    assert reworded["TER"] > negated["TER"]  # more edits: worse too
    assert turned["ROUGE-1"] == turned["token F1"] == 100 and turned["ROUGE-L"] < 100 * 2 / 3
    assert reference({"Candidate": REWORDED})["orders"][:8] == [4, 4, 4, 4, 4, 0, 3, 3]
