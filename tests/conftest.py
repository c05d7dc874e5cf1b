"""Every test starts from the same seeds; shape comments are checked in the tests of snippets; the suite is reported.

`--complete` (given by `make test`) says that the whole suite runs: then a shape comment that no test proved fails it,
and a run in which everything passed writes .verified/report.json.
"""

import functools
import os
import random
import re
import sys
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest

from tests import claims, equations, shapes
from tests.claims import results  # noqa: F401  a fixture
from theme.around import report

ROOT = Path(__file__).resolve().parents[1]
ORACLE = re.compile(r"(\w+)((?:\.\w+)+)")

if "PYTEST_XDIST_WORKER" in os.environ:  # one thread for each process, or they get in each other's way
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser):
    parser.addoption("--complete", action="store_true", help="the whole suite runs: ask for proof of every comment")


def pytest_configure(config):
    if config.option.complete and not hasattr(config, "workerinput"):
        chosen = [name for name in ("keyword", "markexpr", "lf", "deselect") if getattr(config.option, name, None)]
        if chosen or config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
            raise pytest.UsageError("--complete is for the whole suite: give no files, -k, -m, --lf or --deselect")
    config.pluginmanager.register(Proof(config), "proof")
    config.pluginmanager.register(equations.Markers(ROOT), "equations")
    config.pluginmanager.register(claims.Claims(), "claims")


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
        for marker in item.iter_markers("equation"):
            item.user_properties += [("equation", one) for one in marker.args]
        return (yield from self.watched(item))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item):
        return (yield from self.watched(item))

    def watched(self, item):
        """Run a hook with shape comments checked, if it is of a test of snippets."""
        if ROOT / "tests/snippets" not in item.path.parents:
            return (yield)
        with self.watch:
            result = yield
        if self.watch.wrong:
            pytest.fail("\n".join(self.watch.wrong), pytrace=False)
        return result

    def pytest_runtest_logreport(self, report):
        if report.skipped and not report.nodeid.startswith("tests/site/"):  # which may lack a browser
            self.skipped.append(report.nodeid)
        if report.when == "call" and report.passed:
            kinds = {"equations": "equation", "evaluated": "evaluated", "oracles": "oracle"}
            values = {name: [v for k, v in report.user_properties if k == kind] for name, kind in kinds.items()}
            self.tests.append({"id": report.nodeid, **values})

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
        if self.complete and self.first and not session.config.option.collectonly and not session.testsfailed:
            findings = shapes.merge([self.watch.findings, *self.others])
            self.problems = shapes.unproved(ROOT, findings)
            session.testsfailed += len(self.problems)
            proved = {name: found["proved"] for name, found in sorted(findings.items()) if found["proved"]}
            counts = ", ".join(f"{name} {len(lines)}" for name, lines in proved.items())
            self.notes.append(f"shape comments proved: {counts or 'none'}")
            if self.skipped:
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
def agrees(request):
    """A function that asserts that our values are an independent implementation's, and notes how closely."""

    def check(ours, theirs, oracle: str, tolerance: float = 1e-5) -> None:
        """Compare tensors or numbers in float64; oracle is a dotted name (`diffusers.DDPMScheduler`) or prose."""
        import torch

        ours, theirs = (torch.as_tensor(value).detach().to("cpu", torch.float64) for value in (ours, theirs))
        assert ours.shape == theirs.shape, f"ours has the shape {tuple(ours.shape)}, {oracle} {tuple(theirs.shape)}"
        assert not ours.isnan().any(), "ours holds NaN"
        assert not theirs.isnan().any(), f"{oracle} holds NaN"
        assert ours.numel(), "there is nothing to compare"
        difference = (ours - theirs).abs().max().item()
        assert difference <= tolerance, f"ours and {oracle} differ by {difference:.3g}, more than {tolerance:g}"
        found = {"name": named(oracle), "difference": difference, "tolerance": tolerance}
        request.node.user_properties.append(("oracle", found))

    return check


@pytest.fixture
def formula(request):
    """A function that reads a numbered equation from its page: formula("ddpm-forward").holds({"x_t": xt, …})."""
    from tests.formula import Formula

    def read(name: str) -> Formula:
        page, place, tex = equations.numbered(ROOT)[name]
        return Formula(name, tex, place, lambda: request.node.user_properties.append(("evaluated", name)))

    return read


@functools.cache  # looking through all installed packages is slow, and slower while shapes are watched
def named(oracle: str) -> str:
    """An oracle's name with the installed version: diffusers.DDPMScheduler -> diffusers 0.42.1 DDPMScheduler."""
    found = ORACLE.fullmatch(oracle)
    if found is None:
        return oracle
    package = packages_distributions().get(found[1])
    if package is None:
        raise ValueError(f"an oracle is named by its package, as in diffusers.DDPMScheduler, given {oracle}")
    return f"{found[1]} {version(package[0])} {found[2].rpartition('.')[2]}"
