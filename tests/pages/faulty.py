"""Runs tests on code with a fault: python -m tests.pages.faulty faults.json outcomes.json

faults.json holds a list of {"module": "snippets/ddpm.py", "code": its text with the fault, "test": pytest's id}; the
outcomes are as many strings: "" where the test fails as it should, else what is wrong. What tests import takes seconds,
so it is imported once; each fault gets a fork of this process, in which our own code is imported anew.
"""

import importlib
import json
import os
import resource
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path

import pytest

OPTIONS = ["-q", "-x", "--no-header", "-p", "no:cacheprovider"]
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
    """Notes which exceptions ended tests, and leaves out what else would notice a fault: shapes, and disturbed code."""

    def __init__(self):
        self.raised: list[str] = []

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self, config):
        for name in ("proof", "equations"):
            config.pluginmanager.unregister(name=name)

    def pytest_runtest_makereport(self, item, call):
        if call.excinfo and call.when == "call":
            self.raised.append(f"{call.excinfo.type.__name__}: {call.excinfo.value}".split("\n")[0])


def outcome(fault: dict) -> str:
    """What is wrong with a fault: "" where its test fails for a good reason."""
    for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
        del sys.modules[name]
    loader = Faulty(fault["module"], fault["code"])
    sys.meta_path.insert(0, loader)
    try:
        importlib.import_module(loader.name)
    except BaseException as error:
        said = f"{type(error).__name__}: {error}"
        return f"with this fault, the module cannot be imported: {said}. {RUNS}"
    watch = Watch()
    status = pytest.main([*OPTIONS, fault["test"]], plugins=[watch])
    if status == pytest.ExitCode.OK:
        return f"the test {fault['test']} passes with this fault. Name the test that notices it"
    if not watch.raised:
        return f"the test {fault['test']} does not run with this fault ({pytest.ExitCode(status).name}). Run it alone"
    if watch.raised[0].partition(":")[0] in TYPOS:
        return f"with this fault, the code stops with {watch.raised[0]}. {RUNS}"
    return ""


def forked(fault: dict) -> str:
    """`outcome`, in a process of its own."""
    out, into = os.pipe()
    child = os.fork()
    if not child:
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))  # a fault may make code run forever
            said = outcome(fault)
        except BaseException as error:
            said = f"pytest stops with this fault: {error!r}"
        os.write(into, json.dumps(said).encode())
        os._exit(0)
    os.close(into)
    with os.fdopen(out) as stream:
        said = stream.read()
    os.waitpid(child, 0)
    return json.loads(said) if said else f"the test {fault['test']} takes more than {SECONDS} s with this fault"


def main(source: str, target: str) -> None:
    """Read the faults, write the outcomes."""
    faults = json.loads(Path(source).read_text(encoding="utf-8"))
    tests = sorted({fault["test"].partition("::")[0] for fault in faults})
    pytest.main([*OPTIONS, "--collect-only", *tests])  # imports all that they import
    Path(target).write_text(json.dumps([forked(fault) for fault in faults]), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
