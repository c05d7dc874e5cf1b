"""Tests of claims: a claim's test reads recorded numbers by the fixture `results`, and fails on other numbers.

    @pytest.mark.claim("ddpm-ddim-steps")
    def test_more_steps_are_better(results):
        samples = results("Diffusion")["samples"]
        greater(samples["ddim_5"]["frechet"], samples["ddim_50"]["frechet"])

After such a test has passed it runs again on disturbed numbers. If it passes on all of those, it asserts nothing of
what it read, and fails. A claim's test that reads no results (of a library, say) has to assert something about values.
"""

import ast
import inspect
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from theme.page.results import find, is_spread
from tools.lab import spread

ROOT = Path(__file__).resolve().parents[1]
SEEN_BY = (AssertionError, pytest.fail.Exception)
COMPARES = {"agrees", "greater", "tie", "assert_close", "assert_allclose", "raises", "warns"}
TRUTHS = {"equal", "allclose", "isclose", "array_equal", "startswith", "endswith", "match", "fullmatch", "search"}
TRUTHS |= {"issubset", "issuperset", "isdisjoint"}


class Results:
    """`results("LLM/ROPE")["loss.yarn"]`: what a lab recorded at a dotted path, a number or all that lies below it."""

    def __init__(self, root: Path = ROOT):
        self.root, self.read, self.change = root, False, None

    def __call__(self, key: str) -> "Recorded":
        return Recorded(self, key)


class Recorded:
    """The values of one lab; its timings are at timings.…"""

    def __init__(self, results: Results, key: str):
        written = json.loads((results.root / f"docs/results/{key}.json").read_text(encoding="utf-8"))
        self.results, self.key = results, key
        self.values = written["values"] | {"timings": written.get("timings", {})}

    def __getitem__(self, path: str):
        self.results.read = True
        value = find(self.values, path)
        return self.results.change(value, f"{self.key}: {path}") if self.results.change else value


def disturbed(value, change: Callable, path: str):
    """A copy of recorded values in which each number, text and truth is changed, all seeds of a spread alike."""
    if is_spread(value):
        mean = value["mean"]
        factor = change(mean, path) / mean if mean else 1
        return spread([one * factor if mean else one + change(1.0, path) for one in value["seeds"]])
    if isinstance(value, dict):
        return {name: disturbed(below, change, f"{path}.{name}") for name, below in value.items()}
    if isinstance(value, list):
        return [disturbed(below, change, f"{path}.{place}") for place, below in enumerate(value)]
    if isinstance(value, bool):
        return not value
    return change(value, path) if isinstance(value, int | float) else f"not {value}"


def turned(value):
    """A copy in which lists, and the values of dicts, stand in the opposite order."""
    if isinstance(value, dict) and not is_spread(value):
        return dict(zip(value, [turned(below) for below in reversed(value.values())], strict=True))
    return [turned(below) for below in reversed(value)] if isinstance(value, list) else value


def times(seed: int) -> Callable:
    """Multiply each number by a factor of its own, between a hundredth and a hundred."""
    return lambda value, path: value * 10 ** random.Random(f"{seed} {path}").uniform(-2, 2)


def each(change: Callable) -> Callable:
    """The disturbance that changes each number by itself."""
    return lambda value, path: disturbed(value, change, path)


CHANGES = [each(lambda value, path: -value), each(lambda value, path: 1.0), lambda value, path: turned(value)]
CHANGES += [each(times(seed)) for seed in range(5)]


@pytest.fixture
def results() -> Results:
    """A function of a post's name: what its lab recorded."""
    return Results()


class Claims:
    """Runs a claim's test again on disturbed numbers; looks at the assertions of one that reads no numbers."""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item):
        result = yield
        if item.get_closest_marker("claim") and (problem := examine(item)):
            pytest.fail(problem, pytrace=False)
        return result


def examine(item) -> str | None:
    """What is wrong with a claim's test that has passed."""
    function = inspect.unwrap(item.obj)
    lines, first = inspect.getsourcelines(function)
    line = first + next(number for number, text in enumerate(lines) if text.lstrip().startswith("def "))
    place = f"{item.path.relative_to(ROOT).as_posix() if item.path.is_relative_to(ROOT) else item.path}:{line}"
    recorded = item.funcargs.get("results")
    if isinstance(recorded, Results) and recorded.read:
        if not any(notices(item, recorded, change) for change in CHANGES):
            return f"{place}: the claim's test passes on any numbers. Assert what the claim says"
    elif "docs/results" in item.path.read_text(encoding="utf-8"):
        return f"{place}: the claim's numbers cannot be disturbed. Take them from the fixture results"
    elif not says_something(function):
        return f"{place}: the claim's test asserts nothing about values. Assert what the claim says"
    return None


def notices(item, recorded: Results, change: Callable) -> bool:
    """Whether the test fails on changed numbers. Another error than a failed assertion proves nothing."""
    recorded.change = change
    try:
        item.runtest()
    except SEEN_BY:
        return True
    except Exception:
        return False
    finally:
        recorded.change = None
    return False


def says_something(function: Callable) -> bool:
    """Whether a test, or a function of its module that it calls, asserts more than that there is something."""
    module = ast.parse(Path(inspect.getsourcefile(function)).read_text(encoding="utf-8"))
    known = {node.name: node for node in ast.walk(module) if isinstance(node, ast.FunctionDef)}
    todo, seen = [function.__name__], set()
    while todo:
        name = todo.pop()
        if name in known and name not in seen:
            seen.add(name)
            for node in ast.walk(known[name]):
                if isinstance(node, ast.Assert) and tells(node.test):
                    return True
                if isinstance(node, ast.Call):
                    called = ast.unparse(node.func).rpartition(".")[2]
                    if called in COMPARES:
                        return True
                    todo.append(called)
    return False


def tells(test: ast.expr) -> bool:
    """Whether an asserted expression is about values: a comparison with more than None, or a call that compares."""
    for node in ast.walk(test):
        if isinstance(node, ast.Compare):
            sides = {ast.unparse(side) for side in (node.left, *node.comparators)}
            if (
                len(sides) > 1
                and "None" not in sides
                and not all(isinstance(side, ast.Constant) for side in (node.left, *node.comparators))
            ):
                return True
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in TRUTHS:
            return True
    return False
