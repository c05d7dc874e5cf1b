"""An oracle is a library's code that ran: `agrees` compares our values with what that code computed, and we did not.

While a test with the fixture `agrees` runs, the memory of each tensor is marked with whose code made it: of libraries
and of snippets, what was running; of torch, whose code is on both sides, also what was called; and all that made the
tensors that it was made of. Weights hand on who changed them, not who made or copied them, since both sides have the
same ones. Numbers and arrays cannot be followed: for them it is enough that the test, or a fixture that it uses, has
entered the library's code.
"""

import contextlib
import dis
import functools
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions, version
from pathlib import Path
from types import BuiltinFunctionType, CodeType

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS, TESTS = f"{ROOT}/snippets/", f"{ROOT}/tests/"
LIBRARIES = f"{Path(pytest.__file__).parents[1]}/"
NAME = re.compile(r"(\w+)(?:\.\w+)+")
NO_MEMORY = (NotImplementedError, RuntimeError)  # of tensors that have no memory of their own
EARLIER, SNIPPETS = 1, 2  # bits of tensors made while nobody looked, and by code of snippets
packages = functools.cache(packages_distributions)  # slow, and slower while shapes are watched


def find(oracle: str):
    """The object of a dotted name; None for prose. ValueError where no installed package has it."""
    if not NAME.fullmatch(oracle):
        return None
    parts = oracle.split(".")
    for count in range(len(parts) - 1, 0, -1):
        with contextlib.suppress(ImportError, AttributeError):
            return functools.reduce(getattr, parts[count:], importlib.import_module(".".join(parts[:count])))
    raise ValueError(f"no installed package has {oracle}. Name an oracle by its module, as in diffusers.DDPMScheduler")


def named(oracle: str) -> str:
    """An oracle's name with the installed version: diffusers.DDPMScheduler -> diffusers 0.42.1 DDPMScheduler."""
    name = NAME.fullmatch(oracle)
    return f"{name[1]} {version(packages()[name[1]][0])} {oracle.rpartition('.')[2]}" if name else oracle


def codes(thing) -> Iterator[CodeType]:
    """The code of a function; of a class, that of its methods and of its subclasses'. Nothing for what is C."""
    parts = vars(thing).values() if inspect.isclass(thing) else [thing]
    for part in parts:
        part = inspect.unwrap(getattr(part, "fget", None) or getattr(part, "__func__", part))
        if isinstance(getattr(part, "__code__", None), CodeType):
            yield part.__code__
    for below in type.__subclasses__(thing) if inspect.isclass(thing) else []:
        yield from codes(below)


def loads(code: CodeType, name: str) -> bool:
    """Whether some code of tests reads a name."""
    reads = (part.opname.startswith("LOAD") and part.argval == name for part in dis.get_instructions(code))
    return code.co_filename.startswith(TESTS) and any(reads)


@functools.cache
def writes(name: str) -> bool:
    """Whether a function of torch with this name changes a tensor in its place."""
    return bool(re.search(r"[^_]_$|^__(?:setitem|i\w+)__$", name))


def made_by(tensor, unknown: int) -> int:
    """The bits of whose code made a tensor."""
    try:
        return getattr(tensor.untyped_storage(), "made_by", unknown)
    except NO_MEMORY:
        return unknown


@functools.cache
def origins():
    """The one object that marks tensors; torch is imported only where a test needs it."""
    from torch import Tensor, nn
    from torch.overrides import TorchFunctionMode

    class Origins(TorchFunctionMode):
        """While it is on, each tensor's memory is marked with the bits of whose code made it."""

        def __init__(self):
            super().__init__()
            self.bits: dict[object, int] = {}  # of each package, and of each function of torch
            self.known: dict[int, tuple[int, object]] = {}  # by id: bits of some code, -1 for pytest's; and the code

        def bit(self, code) -> int:
            """The bit of some code, or of a built-in function of torch."""
            if id(code) not in self.known:
                file = getattr(code, "co_filename", f"{LIBRARIES}torch/")
                package = file.removeprefix(LIBRARIES).partition("/")[0] if file.startswith(LIBRARIES) else ""
                owner = code if package == "torch" else package
                bit = self.bits.setdefault(owner, 4 << len(self.bits)) if owner else 0
                bit = -1 if package == "_pytest" else SNIPPETS if file.startswith(OURS) else bit
                self.known[id(code)] = bit, code  # the code is kept, so that its id stays its own
            return self.known[id(code)][0]

        def running(self) -> int:
            """The bits of all functions that are running, in the test or fixture."""
            frame, found = sys._getframe(2), 0
            while frame is not None:
                known = self.known.get(id(frame.f_code))
                bit = known[0] if known else self.bit(frame.f_code)
                if bit < 0:
                    break
                found |= bit
                frame = frame.f_back
            return found

        def __torch_function__(self, func, types, args=(), kwargs=None):
            # every call of a Python function is noticed by the watch, which takes its time: so there are few below
            result = func(*args, **(kwargs or {}))
            made, name, given = self.running(), getattr(func, "__name__", ""), {}
            if isinstance(func, BuiltinFunctionType) or hasattr(func, "__code__"):
                code = getattr(func, "__code__", func)
                made |= self.known[id(code)][0] if id(code) in self.known else self.bit(code)
            todo = [*args, *kwargs.values()] if kwargs else [*args]
            while todo:
                value = todo.pop()
                if isinstance(value, Tensor):
                    try:
                        place = value.untyped_storage()
                    except NO_MEMORY:
                        continue
                    given[id(place)] = place
                    if isinstance(value, nn.Parameter):
                        place.weight = True
                    weight = hasattr(place, "weight")
                    made |= getattr(place, "changed_by", 0) if weight else getattr(place, "made_by", EARLIER)
                elif isinstance(value, list | tuple):
                    todo += value
            changes = writes(name) or (kwargs is not None and "out" in kwargs)
            todo = [args[0] if changes and result is None else result]
            while todo:
                value = todo.pop()
                if isinstance(value, Tensor):
                    try:
                        place = value.untyped_storage()
                    except NO_MEMORY:
                        continue
                    if id(place) in given and not changes:
                        continue  # a view of what was given
                    place.made_by = made | getattr(place, "made_by", 0)
                    if len(given) > 1 and name != "copy_":
                        place.changed_by = made | getattr(place, "changed_by", 0)
                elif isinstance(value, list | tuple):
                    todo += value
            return result

    return Origins()


def took_part(ours, theirs, oracle: str, entered: dict[int, CodeType]) -> None:
    """AssertionError unless the oracle's code computed theirs, and code of snippets ours without it."""
    __tracebackhide__ = True
    from torch import Tensor

    thing, package = find(oracle), oracle.partition(".")[0]
    if thing is None:
        return  # prose: the test says itself what it compares with
    here = list(codes(thing))
    bits = [origins().bits.get(owner, 0) for owner in ([*here, thing] if package == "torch" else [package])]
    known = functools.reduce(int.__or__, bits)
    ran = any(id(code) in entered for code in here) or (known if package == "torch" else 0)
    if not here and not ran:  # it is written in C
        ran = any(loads(code, oracle.rpartition(".")[2]) for code in entered.values())
    mend = "Compute theirs with it, in the test or in a fixture that it uses, or say in words what theirs is"
    assert ran, f"no code of {oracle} ran. {mend}"
    if known and isinstance(theirs, Tensor):
        by = made_by(theirs, 0)
        assert by & known, f"{oracle} ran, but theirs was computed without code of {package}. {mend}"
    if isinstance(ours, Tensor):
        by = made_by(ours, EARLIER)
        mend = "Call the function to be tested, and give numbers as they are, not as tensors"
        assert by & (SNIPPETS | EARLIER), f"ours was computed without code of snippets. {mend}"
        assert not by & known, f"ours was computed with {oracle}, which cannot be its oracle then. Compute it without"


class Oracles:
    """The plugin: marks tensors while tests with `agrees` run, and gives them that function."""

    def __init__(self, watch):
        self.watch = watch  # of shapes, which sees every function that is entered
        self.lasting: dict[str, dict] = {}  # fixtures that several tests use -> what they entered

    def followed(self, item):
        return origins() if "agrees" in getattr(item, "fixturenames", ()) else contextlib.nullcontext()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item):
        self.watch.entered = {}
        with self.followed(item):
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item):
        with self.followed(item):
            result = yield
        item.user_properties.append(("entered", self.watch.functions(self.entered(item))))
        return result

    def entered(self, item) -> dict[int, CodeType]:
        """The code that a test has entered so far, and the fixtures that it shares with others."""
        shared = (self.lasting.get(name, {}) for name in getattr(item, "fixturenames", ()))
        return functools.reduce(dict.__or__, shared, self.watch.entered)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef, request):
        if fixturedef.scope == "function":
            return (yield)
        outer, self.watch.entered = self.watch.entered, {}
        try:
            with origins() if "torch" in sys.modules else contextlib.nullcontext():
                return (yield)
        finally:
            self.lasting[fixturedef.argname] = self.watch.entered
            self.watch.entered = outer | self.watch.entered

    @pytest.fixture
    def agrees(self, request):
        """A function that asserts that our values are an independent implementation's, and notes how closely."""

        def check(ours, theirs, oracle: str, tolerance: float = 1e-5) -> None:
            """Compare tensors or numbers in float64; oracle is a dotted name (`diffusers.DDPMScheduler`) or prose."""
            __tracebackhide__ = True
            if sys.gettrace():  # not when the test runs again on disturbed results, which nobody watches
                took_part(ours, theirs, oracle, self.entered(request.node))
            ours, theirs = in_double(ours), in_double(theirs)
            assert ours.shape == theirs.shape, f"ours has the shape {tuple(ours.shape)}, {oracle} {tuple(theirs.shape)}"
            assert not ours.isnan().any(), "ours holds NaN"
            assert not theirs.isnan().any(), f"{oracle} holds NaN"
            assert ours.numel(), "there is nothing to compare"
            difference = (ours - theirs).abs().max().item()
            assert difference <= tolerance, f"ours and {oracle} differ by {difference:.3g}, more than {tolerance:g}"
            found = {"name": named(oracle), "difference": difference, "tolerance": tolerance}
            request.node.user_properties.append(("oracle", found))

        return check


def in_double(value):
    """A tensor, number or list of numbers as a tensor in float64."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", torch.float64)
    return torch.as_tensor(value, dtype=torch.float64)
