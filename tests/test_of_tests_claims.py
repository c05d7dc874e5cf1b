"""Test of the tests of claims: those that pass on any numbers, or assert nothing about values, fail."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.claims import CHANGES, Results
from tools.lab import spread

ROOT = Path(__file__).resolve().parents[1]
CONFTEST = """
from pathlib import Path
import pytest
from tests.claims import Claims, Results

def pytest_configure(config):
    config.pluginmanager.register(Claims())

@pytest.fixture
def results():
    return Results(Path(__file__).parent)
"""
HEAD = """
import pytest, torch
from tests.labs.spread import greater, tie

"""
ANY = "the claim's test passes on any numbers. Assert what the claim says"
NOTHING = "the claim's test asserts nothing about values. Assert what the claim says"
TESTS = {  # the body of a claim's test: what is said of it, or None
    "order": ('toy = results("Toy")\nassert toy["low"] < toy["high"]', None),
    "bound": ('assert results("Toy")["low"] < 0.5', None),
    "positive": ('assert results("Toy")["low"] > 0', None),
    "equal": ('assert results("Toy")["timings.step"] == 3', None),
    "beyond spread": ('toy = results("Toy")["few"]\ngreater(toy["b"], toy["a"])', None),
    "tie": ('toy = results("Toy")["few"]\ntie(toy["a"], toy["c"], within=1)', None),
    "list falls": ('a, b, c = results("Toy")["curve"]\nassert a > b > c', None),
    "best name": ('toy = results("Toy")["few"]\nassert max(toy, key=lambda n: toy[n]["mean"]) == "b"', None),
    "a truth": ('assert results("Toy")["right"]', None),
    "a text": ('assert results("Toy")["name"] == "yarn"', None),
    "something": ('assert results("Toy")["low"] is not None', ANY),
    "a kind": ('assert isinstance(results("Toy")["low"], float)', ANY),
    "a length": ('assert len(results("Toy")["curve"]) == 3', ANY),
    "bare truth": ('assert results("Toy")["low"]', ANY),
    "itself": ('toy = results("Toy")["low"]\nassert toy == toy', ANY),
    "an error": ('toy = results("Toy")["low"]\nif toy != 0.25: raise KeyError', ANY),
    "no results": ("assert torch.ones(2).sum() == 2", None),
    "a helper": ("helper(2)", None),
    "raises": ('with pytest.raises(ValueError):\n    int("x")', None),
    "equal tensors": ("assert torch.equal(torch.ones(2), torch.ones(2))", None),
    "nothing": ("torch.ones(2)", NOTHING),
    "not none": ("assert torch.ones(2) is not None", NOTHING),
    "an instance": ("assert isinstance(torch.ones(2), torch.Tensor) and hasattr(torch, 'ones')", NOTHING),
    "true": ("assert True", NOTHING),
    "constants": ("assert 1 < 2", NOTHING),
    "the same": ("x = 1\nassert x == x", NOTHING),
    "exists": ("x = torch.ones(1)\nassert x and bool(x)", NOTHING),
}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory) -> tuple[Path, str]:
    """What pytest says of all of the tests above."""
    root = tmp_path_factory.mktemp("claims")
    few = {"a": spread([1, 2, 3]), "b": spread([11, 12, 13.5]), "c": spread([1.5, 2, 2.5])}
    values = {"low": 0.25, "high": 4.5, "few": few, "curve": [3.0, 2.0, 1.0], "right": True, "name": "yarn"}
    (root / "docs/results").mkdir(parents=True)
    (root / "docs/results/Toy.json").write_text(json.dumps({"values": values, "timings": {"step": 3}}))
    (root / "conftest.py").write_text(CONFTEST)
    text = HEAD + "def helper(x):\n    assert 2 * x == 4\n"
    for number, (body, _) in enumerate(TESTS.values()):
        lines = "\n".join("    " + line for line in body.split("\n"))
        text += (
            f'\n@pytest.mark.claim("claim-{number}")\ndef test_{number}({"results" * ("results(" in body)}):\n{lines}\n'
        )
    (root / "test_toy.py").write_text(text)
    (root / "test_raw.py").write_text(
        HEAD
        + "VALUES = {}  # of docs/results/Toy.json\n\n@pytest.mark.claim('x')\ndef test_raw():\n    assert 1 + 1 == 2\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(root), str(root)]
    done = subprocess.run(command, cwd=root, env={"PYTHONPATH": str(ROOT), "PATH": ""}, capture_output=True, text=True)
    return root, done.stdout


@pytest.mark.parametrize("name", TESTS)
def test_a_claims_test_is_judged(name, outcome):
    root, said = outcome
    body, wanted = TESTS[name]
    number = list(TESTS).index(name)
    lines = (root / "test_toy.py").read_text().split("\n")
    line = next(n for n, text in enumerate(lines, 1) if text.startswith(f"def test_{number}("))
    found = re.findall(rf"^{re.escape(str(root))}/test_toy.py:{line}: (.*)$", said, re.M)
    assert found == ([wanted] if wanted else []), said
    assert (f"::test_{number}\n" in said or f"::test_{number} - " in said) == bool(wanted), said


def test_numbers_are_disturbed_only_by_the_fixture(outcome):
    assert "test_raw.py:8: the claim's numbers cannot be disturbed. Take them from the fixture results" in outcome[1]


def test_results_are_read_by_path(tmp_path):
    (tmp_path / "docs/results").mkdir(parents=True)
    values = {"a": {"b": [1, 2], "c": spread([1, 2, 3])}}
    (tmp_path / "docs/results/Toy.json").write_text(json.dumps({"values": values}))
    results = Results(tmp_path)
    toy = results("Toy")
    assert not results.read
    assert toy["a.b.1"] == 2 and toy["a.c.seeds.0"] == 1 and toy["a"] == values["a"] and results.read
    with pytest.raises(KeyError):
        toy["a.x"]
    for change in CHANGES:
        results.change = change
        assert toy["a"] != values["a"] and toy["a"] == toy["a"], "each change is the same at every look"
        found = toy["a.c"]
        assert found == spread(found["seeds"]) and (change is CHANGES[2] or found != values["a"]["c"])
