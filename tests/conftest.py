"""Every test starts from the same seeds; shape comments are checked in the tests of snippets; the suite is reported.

`--complete` (given by `make test`) says that the whole suite runs: then a shape comment that no test proved fails it,
and a run in which everything passed writes .verified/report.json.
"""

import os
import random
import shutil
import sys
from pathlib import Path

import pytest

from tests import building, claims, equations, oracles, shapes
from tests.claims import results  # noqa: F401  a fixture
from theme.around import report
from tools import check

ROOT = Path(__file__).resolve().parents[1]
# where a machine may lack a browser, or bubblewrap: what was skipped there does not keep the report from being written
MAY_SKIP = ("tests/site/", "tests/snippets/llm/test_execution.py")

if "PYTEST_XDIST_WORKER" in os.environ:  # one thread for each process, or they get in each other's way
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser):
    parser.addoption("--complete", action="store_true", help="the whole suite runs: ask for proof of every comment")


def pytest_configure(config):
    if config.option.complete and not hasattr(config, "workerinput"):
        chosen = [name for name in ("keyword", "markexpr", "lf", "deselect") if getattr(config.option, name, None)]
        if chosen or config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
            raise pytest.UsageError("--complete is for the whole suite: give no files, -k, -m, --lf or --deselect")
        if (ROOT / "tests/site").is_dir() and not config.option.collectonly and not building.built():
            config.built = building.build_for_all()
    proof = Proof(config)
    config.pluginmanager.register(proof, "proof")
    config.pluginmanager.register(oracles.Oracles(proof.watch), "oracles")
    config.pluginmanager.register(equations.Markers(ROOT), "equations")
    config.pluginmanager.register(claims.Claims(), "claims")


def pytest_unconfigure(config):
    if folder := getattr(config, "built", None):
        shutil.rmtree(folder, ignore_errors=True)


def pytest_collection_modifyitems(config, items):
    """`-k Diffusion` chooses the post of that name, and not all whose names have it in them."""
    named = {key for key in report.keys() if config.option.keyword in (key, key.rpartition("/")[2])}
    if named:
        others = [item for item in items if (pages := pages_of(item)) and not pages & named]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in others]


def pages_of(item) -> set[str]:
    """The posts that a test's parameters name."""
    callspec = getattr(item, "callspec", None)
    return set(report.pages_of(callspec.params.values() if callspec else ()))


class Proof:
    """Collects what the tests prove: in each process the shapes, in the first one the tests that passed."""

    def __init__(self, config):
        self.complete = config.option.complete
        self.first = not hasattr(config, "workerinput")
        self.watch = shapes.Watch(ROOT)
        self.others: list[dict] = []  # findings of the other processes
        self.tests: list[dict] = []
        self.skipped: list[str] = []
        self.problems: list[str] = []
        self.notes: list[str] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item):
        for kind in ("equation", "claim"):
            for marker in item.iter_markers(kind):
                item.user_properties += [(kind, one) for one in marker.args]
        item.user_properties += [("page", key) for key in pages_of(item)]
        return (yield from self.watched(item))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item):
        return (yield from self.watched(item))

    def watched(self, item):
        """Run a hook with shape comments checked, if it is of a test of snippets."""
        if ROOT / "tests/snippets" not in item.path.parents and "agrees" not in getattr(item, "fixturenames", ()):
            return (yield)
        with self.watch:
            result = yield
        if self.watch.wrong:
            pytest.fail("\n".join(self.watch.wrong), pytrace=False)
        return result

    def pytest_runtest_logreport(self, report):
        if report.skipped and not report.nodeid.startswith(MAY_SKIP):
            self.skipped.append(report.nodeid)
        if report.when == "call" and report.passed:
            test = {"id": report.nodeid, "properties": report.user_properties, "seconds": report.duration}
            self.tests.append(test)

    def pytest_sessionfinish(self, session):
        if not self.first:
            plain = {
                name: {"proved": sorted(found["proved"]), "equal": found["equal"], "bare": sorted(found["bare"])}
                for name, found in self.watch.findings.items()
            }
            session.config.workeroutput["shapes"] = plain

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node):
        self.others.append(getattr(node, "workeroutput", {}).get("shapes", {}))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session):
        result = yield
        if self.complete and self.first and not session.config.option.collectonly:
            check.write_map(ROOT, self.tests)
            findings = shapes.merge([self.watch.findings, *self.others])
            self.problems = shapes.unproved(ROOT, findings)
            failed = session.testsfailed
            session.testsfailed += len(self.problems)
            proved = {name: found["proved"] for name, found in sorted(findings.items()) if found["proved"]}
            counts = ", ".join(f"{name} {len(lines)}" for name, lines in proved.items())
            self.notes.append(f"shape comments proved: {counts or 'none'}")
            if failed:
                self.notes.append(
                    f"no report of the run is written: {failed} tests failed (comments they reach may be named above)"
                )
            elif self.skipped:
                self.notes.append(f"no report of the run is written, for {self.skipped[0]} was skipped")
            elif not self.problems:
                report.write(ROOT, self.tests, proved)
                self.notes.append(f"report of the run: {report.REPORT}")
        return result

    def pytest_terminal_summary(self, terminalreporter):
        if self.problems:
            terminalreporter.section("shape comments without proof", red=True)
        for line in self.problems + self.notes:
            terminalreporter.write_line(line)


@pytest.fixture(autouse=True)
def seeds():
    """The same random numbers in every test, whichever ran before."""
    random.seed(0)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(0)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture
def formula(request):
    """A function that reads a numbered equation from its page: formula("ddpm-forward").holds({"x_t": xt, …})."""
    from tests.formula import Formula

    def read(name: str) -> Formula:
        page, place, tex = equations.numbered(ROOT)[name]
        return Formula(name, tex, place, lambda: request.node.user_properties.append(("evaluated", name)))

    return read
