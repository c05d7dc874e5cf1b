"""What labs stand on: recording, keeping what ran."""

import functools
import importlib.util
import json
import platform
import random
import textwrap

import pytest
import torch
from torch import nn

from theme.page import results
from tools import kept, reached
from tools.lab import Lab


@pytest.fixture
def lab(tmp_path, monkeypatch) -> Lab:
    """A lab that writes below tmp_path."""
    monkeypatch.setenv("LAB_OPTIONS", json.dumps({"folder": str(tmp_path / "run")}))
    lab = Lab("Toy")
    lab.cache = tmp_path / "kept"
    return lab


def test_a_value_is_recorded_once_under_its_path_and_printed(lab, capsys):
    lab.record("a.b", {1: (2, 3.5)})
    assert lab.values == {"a": {"b": {"1": [2, 3.5]}}}  # as JSON has it
    assert capsys.readouterr().out == "a.b: {'1': [2, 3.5]}\n"
    with pytest.raises(ValueError, match="recorded once, given a.b twice"):
        lab.record("a.b", 0)
    with pytest.raises(ValueError, match="JSON"):
        lab.record("c", float("nan"))
    lab.timing("a.b", 1.5)
    assert lab.timings == {"a": {"b": 1.5}} and lab.values["a"]["b"] == {"1": [2, 3.5]}


def test_seeds_are_recorded_with_mean_and_sample_deviation(lab):
    lab.record("plain", seeds=[1, 2, 6])
    assert lab.values["plain"] == {"mean": 3.0, "sd": pytest.approx(7**0.5), "seeds": [1.0, 2.0, 6.0]}
    lab.record("named", seeds=[{"x": seed, "y": 2 * seed} for seed in (1, 2, 6)])
    assert lab.values["named"]["x"] == lab.values["plain"] and lab.values["named"]["y"]["mean"] == 6
    for wrong in ([1, 2], [{"x": 1}, {"x": 2}], [{"x": 1}, {"x": 2}, {"y": 3}], []):
        with pytest.raises(ValueError, match="expected"):
            lab.record("wrong", seeds=wrong)
    with pytest.raises(ValueError, match="a value or seeds"):
        lab.record("wrong", 1, seeds=[1, 2, 3])


def test_seeds_on_a_page(tmp_path):
    spread = {"mean": 9.83, "sd": 2.561, "seeds": [7.0, 12.66, 9.83]}
    written = {"values": {"a": {"b": spread, "c.d": 1, "c": {"e": 2}}}, "timings": {"a": {"b": 0.5}}, "date": "today"}
    (tmp_path / "docs/results").mkdir(parents=True)
    (tmp_path / "docs/results/Toy.json").write_text(json.dumps(written))

    def text(notation: str) -> str:
        return results.value(tmp_path, notation)[0].replace("\N{NO-BREAK SPACE}", " ")

    assert text("Toy: a.b | .1f") == "9.8 ± 2.6"
    assert text("Toy: a.b | .0%") == "983% ± 256%"
    assert text("Toy: a.b.mean | .2f") == "9.83" and text("Toy: a.b.seeds.1 | .1f") == "12.7"
    assert text("Toy: a.c.d") == "1" and text("Toy: a.c.e") == "2"
    assert text("Toy: timings.a.b | .1f") == "0.5"
    with pytest.raises(ValueError, match="Give a format"):
        results.value(tmp_path, "Toy: a.b")
    for wrong in ("a", "a.b.seeds", "a.x", "timings", "timings.a"):
        with pytest.raises(ValueError, match="has no value .* The nearest are .*a.b"):
            results.value(tmp_path, f"Toy: {wrong} | .1f")


RATE = 0.5
CALLS = []


def helper(x):
    return RATE * x


def train(model, x, steps, seed=0):
    """Moves a network a little."""
    with torch.no_grad():
        for _ in range(steps):
            model.weight += helper(x).mean() + torch.rand(()) + seed + random.random()
    return model


def test_a_kept_function_runs_once_and_leaves_the_same_random_numbers(lab, monkeypatch):
    model, x = nn.Linear(2, 1), torch.rand(3)
    start = model.weight.clone()
    found = []
    for _ in range(2):
        torch.rand(7)
        made = lab.keep(train, model, x, 3, seed=1)
        found.append((made.weight.clone(), torch.rand(1), random.random(), lab.seconds))
    assert all(torch.as_tensor(a).equal(torch.as_tensor(b)) for a, b in zip(*found, strict=True))
    assert model.weight.equal(start), "a copy was trained"
    assert len(list(lab.cache.iterdir())) == 1
    assert lab.spared == lab.seconds > 0
    lab.keep(train, model, x, 3, seed=2)
    lab.keep(train, model, x, 4, seed=1)
    lab.keep(train, model, x + 1, 3, seed=1)
    with torch.no_grad():
        model.bias += 1
    lab.keep(train, model, x, 3, seed=1)
    monkeypatch.setitem(globals(), "RATE", 0.25)
    lab.keep(train, model, x, 3, seed=1)
    assert len(list(lab.cache.iterdir())) == 6
    lab.cache = None
    assert lab.keep(train, model, x, 3, seed=1).weight.equal(lab.keep(train, model, x, 3, seed=1).weight)


def test_a_kept_function_records_nothing_and_changes_nothing(lab):
    def records():
        lab.record("a", 1)

    def remembers():
        CALLS.append(1)

    with pytest.raises(ValueError, match="outside of the function"):
        lab.keep(records)
    with pytest.raises(ValueError, match="changes a global"):
        lab.keep(remembers)
    assert not lab.cache.exists()
    lab.record("a", 1)


MODULE = '''
import functools
import torch
from torch import nn

SCALE = 2.0
TABLE = {"a": torch.ones(2)}

@functools.cache
def cached(x):
    return x

def inner(x):
    cached(1)
    return SCALE * x + TABLE["a"].sum()

class Net(nn.Module):
    """A net."""
    width = 3
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))
    @staticmethod
    def half(x):
        return x / 2
    @property
    def twice(self):
        return 2 * self.gain
    @torch.no_grad()
    def forward(self, x):
        return self.half(inner(x)) * self.twice

def train(steps, rate=0.1, *, decay=1):
    """Trains."""
    net = Net()  # a net
    def step(x):
        return net(x) * rate + 1
    for number in range(steps):
        step(torch.ones(1) * number)
    return net
'''
CHANGES = {  # what is changed in the module, and whether the fingerprint changes
    '"""Trains."""': ('"""Trains a net."""', False),
    "# a net": ("# another comment", False),
    "for number in range(steps):\n        step(torch.ones(1) * number)": (
        "for count in range(steps):\n        step(torch.ones(1) * count)",
        False,
    ),
    "SCALE = 2.0": ("SCALE = 3.0", True),
    "torch.ones(2)": ("torch.zeros(2)", True),
    "SCALE * x +": ("SCALE * x -", True),
    "width = 3": ("width = 4", True),
    "x / 2": ("x / 3", True),
    "return x\n": ("return -x\n", True),
    "2 * self.gain": ("3 * self.gain", True),
    "@torch.no_grad()": ("@torch.enable_grad()", True),
    "* self.twice": ("+ self.twice", True),
    "rate=0.1": ("rate=0.2", True),
    "decay=1": ("decay=2", True),
    "* rate + 1": ("* rate + 2", True),
}


def fingerprint(source: str, tmp_path, monkeypatch) -> str:
    (tmp_path / "module.py").write_text(source)
    spec = importlib.util.spec_from_file_location("snippets.toy", tmp_path / "module.py")
    module = importlib.util.module_from_spec(spec)
    exec(compile(source, "module.py", "exec"), module.__dict__)
    return kept.fingerprint(module.train, (3,), {"decay": 1}, 0)


@pytest.mark.parametrize("old", CHANGES, ids=lambda old: textwrap.shorten(old, 20))
def test_a_fingerprint_changes_with_all_that_a_function_reaches(old, tmp_path, monkeypatch):
    new, differs = CHANGES[old]
    assert MODULE.count(old) == 1
    before = fingerprint(MODULE, tmp_path, monkeypatch)
    assert before == fingerprint(MODULE, tmp_path, monkeypatch)
    assert (fingerprint(MODULE.replace(old, new), tmp_path, monkeypatch) != before) == differs


class Sizes:
    """A setting of a class of our own."""

    def __init__(self, width: int):
        self.width = width


def test_a_setting_may_be_an_object(lab):
    """To copy one leaves a name in its class, which is no change of it."""
    assert lab.keep(lambda sizes: sizes.width, Sizes(3)) == 3
    assert lab.keep(lambda sizes: sizes.width, Sizes(3)) == 3
    assert lab.keep(lambda sizes: sizes.width, Sizes(4)) == 4
    assert len(list(lab.cache.iterdir())) == 2


def test_settings_of_any_kind_have_a_fingerprint():
    def of(*args):
        return kept.fingerprint(helper, args, {}, 0)

    generators = [torch.Generator().manual_seed(seed) for seed in (0, 0, 1)]
    assert of(generators[0]) == of(generators[1]) != of(generators[2])
    assert of({"a": [1, (2.0, None)]}) == of({"a": [1, (2.0, None)]}) != of({"a": [1, (2, None)]})
    assert of({"b", "a"}) == of({"a", "b"}) != of({"a"})
    assert of(functools.partial(helper, 1)) != of(functools.partial(helper, 2))
    assert of(torch.zeros(2)) != of(torch.zeros(2, dtype=torch.float64)) != of(torch.zeros(1, 2))
    assert of(lambda x: x + 1) == of(lambda x: x + 1) != of(lambda x: x + 2)
    with pytest.raises(ValueError, match="cannot tell whether"):
        of(open(__file__))


def test_what_changed_since_a_lab_ran_is_named(tmp_path):
    def write(path: str, text: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    cell = "from snippets.data.text import text\nload('docs/weights/Base.safetensors')"
    cells = [{"cell_type": "code", "source": cell, "metadata": {}, "outputs": []}]
    write("docs/labs/Toy.ipynb", json.dumps({"cells": cells, "metadata": {}}))
    write("snippets/data/text.py", "def text():\n    return 1\n")
    write("docs/weights/Base.safetensors", "old")
    ran = {"values": {}, "versions": {"python": platform.python_version()}, "files": {}}
    ran |= {"code": reached.fingerprints("Toy", tmp_path), "inputs": reached.inputs("Toy", tmp_path)}
    write("docs/results/Toy.json", json.dumps(ran))
    assert reached.labs(tmp_path) == ["Toy"] and reached.stale("Toy", tmp_path) == []
    write("docs/labs/Toy.ipynb", json.dumps({"cells": cells, "metadata": {"quick": {"STEPS": 1}}}))
    assert reached.stale("Toy", tmp_path) == [], "metadata is no code"
    write("docs/weights/Base.safetensors", "new")
    wrong = "docs/weights/Base.safetensors:1: these weights are not the ones that the lab of Toy read. Run: make lab"
    assert reached.stale("Toy", tmp_path) == [f"{wrong} POST=Toy"]
    write("docs/results/Toy.json", json.dumps(ran | {"versions": {"python": "3.0.1"}}))
    (said,) = reached.stale("Toy", tmp_path)
    assert said.startswith(wrong) and "its texts came with Python 3.0.1, and those of 3." in said
    write("snippets/data/text.py", "def text():\n    return 2\n")
    assert "text changed after the lab of Toy ran. Run: make relab POST=Toy" in reached.stale("Toy", tmp_path)[0]


def test_rows_of_pictures_are_drawn(lab):
    rows = [torch.zeros(3, 1, 2, 2), 2 * torch.rand(3, 3, 2, 2) - 1]
    figure = lab.figure("rows.png", lambda figure: lab.pictures(figure, rows, ["grey", "colour"]))
    assert len(figure.axes) == 6 and [axis.get_ylabel() for axis in figure.axes] == ["grey", "", "", "colour", "", ""]
    assert torch.tensor(figure.axes[4].images[0].get_array()).equal((rows[1][1].permute(1, 2, 0) + 1) / 2)
    assert {path.name for path in (lab.folder / "figures").iterdir()} == {"rows.png", "rows.dark.png"}
    with pytest.raises(ValueError):
        lab.figure("rows.png", lambda figure: lab.pictures(figure, rows, ["one name"]))
