"""Keep what a training returned under a fingerprint of all that it depends on, so that it need not run twice.

The fingerprint holds the function's code and the code that it reaches in the notebook and in snippets/, all settings,
global values and enclosed variables that it uses (tensors and networks by their numbers), the seed and torch's version.
Comments, docstrings and names of local variables do not count.
"""

import copy
import dis
import functools
import hashlib
import inspect
import os
import pickle
import random
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

import numpy
import torch

OURS = ("__main__", "snippets", "tests")  # whose code is read; what others define is known by its name
PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, Path)


def call(folder: Path | None, function: Callable, args: tuple, settings: dict, seed: int) -> tuple[object, float, bool]:
    """What a function returns, the seconds that it took, and whether that was in an earlier run, which the folder has.

    All generators start from the seed before the call, and again after it, so that what follows is the same whether
    the function ran or not. It gets copies of its arguments. Without a folder, nothing is kept.
    """
    if "seed" in inspect.signature(function).parameters:
        settings = settings | {"seed": seed}
    before = fingerprint(function, args, settings, seed)
    file = folder / f"{getattr(function, '__name__', 'call')}-{before}.pt" if folder else None
    earlier = file is not None and file.is_file()
    if earlier:
        kept = torch.load(file, weights_only=False)
        print(f"{file.stem}: kept from a run of {kept[1]:.0f} s", file=sys.stderr, flush=True)
    else:
        own_args, own_settings = copy.deepcopy((args, settings))
        seed_all(seed)
        start = time.perf_counter()
        made = function(*own_args, **own_settings)
        kept = made, time.perf_counter() - start
        if fingerprint(function, args, settings, seed) != before:
            raise ValueError(
                f"{function} changes a global or enclosed value. A kept function only returns what it made"
            )
        if file:
            folder.mkdir(parents=True, exist_ok=True)
            part = file.with_suffix(f".{os.getpid()}")
            torch.save(kept, part)
            part.replace(file)
            kept = torch.load(file, weights_only=False)  # the same copy as the next run gets
    seed_all(seed)
    return *kept, earlier


def seed_all(seed: int) -> None:
    """Start every global generator from a seed."""
    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)


def fingerprint(function: Callable, args: tuple, settings: dict, seed: int) -> str:
    """Equal where a function would return the same."""
    whole = parts([function, args, settings, seed, torch.__version__, sys.version_info[:2]], {})
    return hashlib.sha256(repr(whole).encode()).hexdigest()[:16]


def parts(value, seen: dict[int, tuple[int, object]]) -> object:
    """A value as nested tuples of plain texts, equal for equal values; ValueError for what cannot be told apart."""
    if isinstance(value, PLAIN):
        return type(value).__name__, repr(value)
    if id(value) in seen:
        return "seen", seen[id(value)][0]  # a function that calls itself, a weight used twice
    seen[id(value)] = len(seen), value  # the value too, or another one may get its id
    if isinstance(value, torch.Tensor):
        data = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        return "tensor", str(value.dtype), tuple(value.shape), str(value.device), hashlib.sha256(data).hexdigest()
    if isinstance(value, torch.Generator):
        return "generator", parts(value.get_state(), seen)
    if isinstance(value, list | tuple):
        return type(value).__name__, tuple(parts(one, seen) for one in value)
    if isinstance(value, dict):
        return "dict", tuple((parts(name, seen), parts(one, seen)) for name, one in value.items())
    if isinstance(value, set | frozenset):
        return "set", tuple(sorted(repr(parts(one, {})) for one in value))
    if isinstance(value, functools.partial):
        return "partial", parts([value.func, value.args, value.keywords], seen)
    if isinstance(value, types.MethodType):
        return "method", parts([value.__func__, value.__self__], seen)
    if isinstance(value, types.ModuleType):
        return "module", value.__name__
    if isinstance(value, types.FunctionType | types.BuiltinFunctionType | type):
        if not ours(value):
            return "name", value.__module__, value.__qualname__
        return class_parts(value, seen) if isinstance(value, type) else function_parts(value, seen)
    if hasattr(value, "__wrapped__"):  # functools.cache
        return "wrapped", parts(value.__wrapped__, seen)
    if isinstance(value, torch.nn.Module) or ours(type(value)):
        return "object", parts(type(value), seen), parts(vars(value), seen)
    try:
        return "pickled", type(value).__qualname__, hashlib.sha256(pickle.dumps(value)).hexdigest()
    except Exception as error:
        raise ValueError(f"lab.keep cannot tell whether {value!r} will be the same in the next run: {error}") from error


def ours(one) -> bool:
    """Whether a function or class is the project's or the notebook's own."""
    return (one.__module__ or "").partition(".")[0] in OURS


def function_parts(function: types.FunctionType, seen: dict) -> tuple:
    """A function's code and all that it uses: defaults, enclosed variables, globals."""
    around = function.__globals__
    used = {name: around[name] for name in sorted(global_names(function.__code__)) if name in around}
    enclosed = [cell.cell_contents for cell in function.__closure__ or ()]
    uses = [function.__defaults__, function.__kwdefaults__, enclosed, used]
    return "function", code_parts(function.__code__, function.__doc__), parts(uses, seen)


def code_parts(code: types.CodeType, doc: str | None) -> tuple:
    """Bytecode, its constants but the docstring, the code of functions inside it, and the names of what it uses."""
    inside = [code_parts(c, None) if isinstance(c, types.CodeType) else repr(c) for c in code.co_consts if c != doc]
    return code.co_code.hex(), tuple(inside), code.co_names


def global_names(code: types.CodeType) -> set[str]:
    """The global names that some code reads, functions inside it included."""
    found = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return found.union(*(global_names(c) for c in code.co_consts if isinstance(c, types.CodeType)))


def class_parts(kind: type, seen: dict) -> tuple:
    """A class: what it derives from, its methods and its values."""
    about = ("__module__", "__doc__", "__dict__", "__weakref__", "__firstlineno__", "__static_attributes__")
    about += ("__dataclass_fields__", "__dataclass_params__")  # the defaults are values of the class, too
    about += ("__slotnames__",)  # which copying an object adds to its class
    members = [(name, unwrapped(one)) for name, one in sorted(vars(kind).items()) if name not in about]
    return "class", kind.__qualname__, parts([kind.__bases__, members], seen)


def unwrapped(member):
    """A class's member without what Python wraps it in: the function of a static method, those of a property."""
    if isinstance(member, property):
        return [member.fget, member.fset, member.fdel]
    if isinstance(member, types.MemberDescriptorType | types.GetSetDescriptorType):  # a slot
        return member.__name__
    return member.func if isinstance(member, functools.cached_property) else getattr(member, "__func__", member)
