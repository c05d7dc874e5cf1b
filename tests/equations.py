"""What @pytest.mark.equation("id", of=function) says is true.

The marked test calls the function, and fails when the function's result is disturbed. It evaluates the formula as the
page prints it, or the marker holds the formula's fingerprint, pin="0a1b2c3d". The page shows the function's code, or
links to it.

of: the printed function that the formula is about, or several in a tuple; a module's class stands for its `forward`;
None where no function implements the formula.
"""

import ast
import copy
import inspect
import posixpath
import random
import sys
import textwrap
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest

from tests.shapes import unwatched
from theme.page.code import sections
from theme.page.equations import displays
from theme.page.listings import block_id
from theme.page.pages import Page, posts

COMPARES = {"agrees", "holds", "assert_close", "allclose", "approx"}
OURS = {"torch", "snippets", "tests", "builtins"}  # packages of values that a rerun gets as they were


@cache
def numbered(root: Path) -> dict[str, tuple[Page, str, str]]:
    """The numbered equations by id: page, file and line, LaTeX."""
    found = {}
    for page in posts(root):
        for name, line, tex in displays(page):
            found[name] = page, f"{page.path.relative_to(root).as_posix()}:{line}", tex
    return found


class Markers:
    """Checks the markers while the tests run."""

    def __init__(self, root: Path):
        self.root = root

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_call(self, item):
        markers = list(item.iter_markers("equation"))
        if not markers:
            return (yield)
        problems = [problem for marker in markers for problem in self.written(item, marker)]
        if problems:
            pytest.fail("\n".join(problems), pytrace=False)
        from tests.disturb import Watched, plain

        functions = {plain(one): one for marker in markers for one in named(marker)}
        start = Start(item)
        with ExitStack() as stack:
            watched = [stack.enter_context(Watched(function)) for function in functions]
            result = yield
        mend = "Call it, or name the function that the test is about"
        unused = [name(seen.function) for seen in watched if not seen.calls]
        problems = [f"{place(item)} never calls {one}, which its marker names. {mend}" for one in unused]
        problems = problems or [p for marker in markers for p in self.proved(item, marker)]
        problems = problems or [p for function in functions for p in start.disturbed(item, function)]
        if problems:
            pytest.fail("\n".join(problems), pytrace=False)
        return result

    def written(self, item, marker):
        """What is wrong with a marker as it is written."""
        from tests.disturb import plain
        from tests.formula import fingerprint

        for equation in marker.args:
            if equation not in numbered(self.root):
                yield f"{place(item)} has the marker of {equation}, which no page has. Write the id of an equation"
                continue
            page, line, tex = numbered(self.root)[equation]
            pin = marker.kwargs.get("pin")
            if pin is not None and pin != fingerprint(tex):
                mend = f'Read the test at {place(item, short=True)}, then write pin="{fingerprint(tex)}"'
                yield f"{line}: the formula {equation} changed since its test was read. {mend}"
            if "of" not in marker.kwargs:
                mend = "Write of=function, or of=None where no function implements the formula"
                yield f"{place(item)} names no function for {equation}. {mend}"
            for function in named(marker):
                code = plain(function).__code__
                path = Path(code.co_filename)
                path = path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else path.as_posix()
                lines = range(code.co_firstlineno, code.co_firstlineno + len(inspect.getsourcelines(code)[0]))
                if not at_the_formula(page, line, path, lines, self.root):
                    wrong = f"{name(function)} implements {equation}, but {line} is far from its code"
                    mend = "Include its section below the formula or below the next heading, or link to its block"
                    yield f"{path}:{lines[0]}: {wrong}. {mend}, as in [the loss](#code-ddpm-loss)"
            if pin and not named(marker) and not compares(item.function):
                yield f"{place(item)} is marked for {equation}, but compares no values. Assert what the formula says"

    def proved(self, item, marker):
        """What is wrong with a marker after its test has passed."""
        evaluated = {value for kind, value in item.user_properties if kind == "evaluated"}
        for equation in marker.args:
            if equation not in evaluated and "pin" not in marker.kwargs:
                _, _, tex = numbered(self.root)[equation]
                from tests.formula import fingerprint

                mend = f'Write formula("{equation}").holds(…), or where that is out of reach pin="{fingerprint(tex)}"'
                yield f"{place(item)} is marked for {equation}, but does not evaluate the formula. {mend}"


class Start:
    """What a test started with, for a second run: random numbers and arguments that the first may have changed."""

    def __init__(self, item):
        import torch

        self.states = [(torch.set_rng_state, torch.get_rng_state()), (random.setstate, random.getstate())]
        if numpy := sys.modules.get("numpy"):
            self.states.append((numpy.random.set_state, numpy.random.get_state()))
        self.arguments = duplicate(item.funcargs)

    def disturbed(self, item, function):
        """Run the test again while the function's result is a little wrong: a problem if it passes."""
        from tests.disturb import Watched

        for restore, state in self.states:
            restore(state)
        item.funcargs.update(duplicate(self.arguments))
        if hasattr(item.obj, "hypothesis"):  # which would look for the smallest example
            from hypothesis import Phase, settings

            item.obj._hypothesis_internal_use_settings = settings(phases=[Phase.generate])
        noted = len(item.user_properties)
        try:
            with unwatched(), Watched(function, disturb=True) as seen:
                item.runtest()
        except (Exception, pytest.fail.Exception):
            if not seen.calls:
                yield f"{place(item)} cannot run twice. Make it start from its fixtures alone"
        else:
            mend = f"Compare what {name(function)} returns with something independent"
            yield f"{place(item)} passes with a wrong result of {name(function)} (1 % more, plus 0.01). {mend}"
        finally:
            del item.user_properties[noted:]


def duplicate(arguments: dict) -> dict:
    """Copies of a test's arguments, of those that a test may change."""
    ours = {key: value for key, value in arguments.items() if type(value).__module__.partition(".")[0] in OURS}
    try:
        return copy.deepcopy(ours)
    except Exception:  # some of torch's cannot be copied
        return {}


def named(marker) -> tuple:
    """The functions that a marker names."""
    of = marker.kwargs.get("of")
    return of if isinstance(of, tuple) else () if of is None else (of,)


def name(function) -> str:
    return getattr(function, "__qualname__", None) or function.fget.__qualname__


def place(item, short: bool = False) -> str:
    """File and line of a test, and its name."""
    path, line, test = item.location
    return f"{path}:{line + 1}" if short else f"{path}:{line + 1}: {test}"


def at_the_formula(page: Page, line: str, path: str, lines: range, root: Path) -> bool:
    """Whether lines of a module are shown under the formula's heading or the next one, or linked to from there."""
    text = page.text.split("\n")
    at = int(line.rpartition(":")[2]) - page.first_line
    heads = [number for number, one in enumerate(text) if one.startswith("## ")]
    first, after = max([n for n in heads if n <= at], default=0), [n for n in heads if n > at] + [len(text)] * 2
    near = "\n".join(text[first : after[1]])
    names = [n for (module, n), (a, b) in sections(root)[0].items() if module == path and a < lines[0] <= lines[-1] < b]
    link = posixpath.relpath(path, posixpath.dirname(line))
    shown = any(f'"{path}:{n}"' in near or f"](#{block_id(path, n)})" in near for n in names)
    return shown or f"]({link})" in near


def compares(test) -> bool:
    """Whether a test's code compares values, and not only with None."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(test)))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in COMPARES:
            return True
        if isinstance(node, ast.Assert):
            for one in ast.walk(node.test):
                if isinstance(one, ast.Compare) and not all(isinstance(op, ast.Is | ast.IsNot) for op in one.ops):
                    return True
    return False
