"""Runs tests on code with a fault: python -m tests.pages.faulty faults.json outcomes.json

faults.json holds a list of {"module": "snippets/ddpm.py", "code": its text with the fault, "test": pytest's id}; the
outcomes are as many strings: "" where the test fails as it should, else what is wrong. What tests import takes seconds,
so it is imported once. Each fault gets a fork of this process, in which our own code is imported anew; one more runs
the tests without a fault.
"""

import importlib
import json
import os
import resource
import sys
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path

import pytest
from hypothesis.internal.conjecture import engine

OPTIONS = ["-q", "--no-header", "-p", "no:cacheprovider"]
OURS = {"snippets", "tests", "theme", "tools"}
SECONDS = 60  # of CPU
RUNS = "Write a line that runs and is wrong"
TYPOS = {"NameError", "UnboundLocalError", "SyntaxError", "ImportError", "ModuleNotFoundError"}


class Faulty(SourceFileLoader):
    """Finds and loads one module, with other code than its file has."""

    def __init__(self, module: str, code: str):
        super().__init__(module.removesuffix(".py").replace("/", "."), str(Path(module).resolve()))
        self.code = code

    def get_code(self, fullname):
        return compile(self.code, self.path, "exec")

    def find_spec(self, fullname, path=None, target=None):
        return spec_from_file_location(fullname, self.path, loader=self) if fullname == self.name else None


class Watch:
    """Notes what ends each test's own function. What else looks at tests, such as shapes, is left out, to save time."""

    def __init__(self):
        self.ended: dict[str, str] = {}  # by pytest's id, without parameters: the first exception, or ""

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self, config):
        for name in ("proof", "oracles", "equations", "claims"):
            config.pluginmanager.unregister(name=name)
        oracles = importlib.import_module("tests.oracles")  # its fixture `agrees` goes on to compare
        oracles.took_part, oracles.named = lambda *given: None, str

    @pytest.hookimpl(wrapper=True)
    def pytest_pyfunc_call(self, pyfuncitem):
        test, ended = pyfuncitem.nodeid.partition("[")[0], ""
        try:
            return (yield)
        except BaseException as error:
            ended = f"{type(error).__name__}: {error}".split("\n")[0]
            raise
        finally:
            self.ended[test] = self.ended.get(test) or ended


def ended(tests: list[str]) -> dict[str, str]:
    """What ends tests on our own code, imported anew: an exception, or "" for one that passes."""
    for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
        del sys.modules[name]
    watch = Watch()
    pytest.main([*OPTIONS, *tests], plugins=[watch])
    return watch.ended


def outcome(fault: dict) -> str:
    """What is wrong with a fault: "" where its test fails for a good reason."""
    sys.meta_path.insert(0, loader := Faulty(fault["module"], fault["code"]))
    sys.modules.pop(loader.name, None)
    try:
        importlib.import_module(loader.name)
    except BaseException as error:
        return f"with this fault, the module cannot be imported: {type(error).__name__}: {error}. {RUNS}"
    told = ended([fault["test"]]).get(fault["test"])
    if told is None:
        return f"with this fault, the test {fault['test']} does not begin. Name one that does"
    if not told:
        return f"the test {fault['test']} passes with this fault. Name the test that notices it"
    if told.partition(":")[0] in TYPOS:
        return f"with this fault, the code stops with {told}. {RUNS}"
    return ""


def forked(function: Callable, argument):
    """What a function returns in a process of its own; None where it takes too long."""
    out, into = os.pipe()
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))  # a fault may make code run forever
        try:
            os.write(into, json.dumps(function(argument)).encode())
        finally:
            os._exit(0)
    os.close(into)
    with os.fdopen(out) as stream:
        said = stream.read()
    os.waitpid(child, 0)
    return json.loads(said) if said else None


def main(source: str, target: str) -> None:
    """Read the faults, write the outcomes."""
    engine.MAX_SHRINKING_SECONDS = 5  # that a test fails is enough: no smaller example is looked for
    faults = json.loads(Path(source).read_text(encoding="utf-8"))
    tests = sorted({fault["test"] for fault in faults})
    pytest.main([*OPTIONS, "--collect-only", *sorted({test.partition("::")[0] for test in tests})])  # imports the rest
    without = forked(ended, tests) or {}
    outcomes = []
    for fault in faults:
        test = fault["test"]
        if without.get(test) == "":
            said = forked(outcome, fault)
            outcomes.append(f"the test {test} does not end with this fault" if said is None else said)
        else:
            outcomes.append(f"the test {test} does not pass without this fault: {without.get(test)}. Mend it first")
    Path(target).write_text(json.dumps(outcomes), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
