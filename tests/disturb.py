"""What a function returns, a little wrong: a test that proves something about the function fails then."""

import copy
import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping
from types import CodeType, FunctionType

import numpy
import torch
from torch import Tensor, nn


class Watched:
    """Counts the calls of a function inside `with`, and disturbs what it returns if it is asked to.

    The function's code is exchanged, so that it does not matter who holds the function, and by which name.
    """

    def __init__(self, function: Callable, disturb: bool = False):
        self.function, self.disturb, self.calls = function, disturb, 0
        self.undo: list[tuple[Tensor, Tensor]] = []  # tensors changed in place, and what they were

    def __enter__(self) -> "Watched":
        one = self.function
        self.code = one.__code__
        self.inner = FunctionType(self.code, one.__globals__, one.__name__, one.__defaults__, one.__closure__)
        self.inner.__kwdefaults__ = one.__kwdefaults__
        one.__code__ = calling(self._call, self.code)
        return self

    def __exit__(self, *_) -> None:
        self.function.__code__ = self.code
        for tensor, before in reversed(self.undo):
            tensor.data.copy_(before)

    def _call(self, *args, **kwargs):
        self.calls += 1
        result = self.inner(*args, **kwargs)
        if not self.disturb:
            return result
        if result is None:
            self._change([*args, *kwargs.values()])
        return self._disturbed(result)

    def _disturbed(self, value):
        """A value a little wrong: numbers times 1.01 plus 0.01, integers plus 1, the other truth, another text."""
        match value:
            case bool() | numpy.bool_():
                return not value
            case int() | numpy.integer():
                return value + 1
            case float() | complex() | numpy.floating():
                return value * 1.01 + 0.01
            case str():
                return value + "?"
            case Tensor() if value.dtype == torch.bool:
                return ~value
            case Tensor() | numpy.ndarray():
                exact = not (value.is_floating_point() or value.is_complex()) if torch.is_tensor(value) else False
                return value + 1 if exact else value * 1.01 + 0.01
            case nn.Module():
                self._change([value])
            case Mapping():
                return type(value)({key: self._disturbed(one) for key, one in value.items()})
            case tuple() | list() | set() | frozenset():
                parts = [self._disturbed(one) for one in value]
                return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
            case Iterator():
                return (self._disturbed(one) for one in value)
            case FunctionType():
                return lambda *args, **kwargs: self._disturbed(value(*args, **kwargs))
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            changed = copy.copy(value)
            for field in dataclasses.fields(value):
                object.__setattr__(changed, field.name, self._disturbed(getattr(value, field.name)))
            return changed
        return value

    def _change(self, values) -> None:
        """Disturb the tensors among the values, and those of modules, where they are."""
        for value in values:
            if isinstance(value, nn.Module):
                self._change([*value.parameters(), *value.buffers()])
            elif isinstance(value, list | tuple | dict):
                self._change(value.values() if isinstance(value, dict) else value)
            elif isinstance(value, Tensor) and value.is_floating_point():
                self.undo.append((value, value.detach().clone()))
                value.data.mul_(1.01).add_(0.01)


def calling(hook: Callable, code: CodeType) -> CodeType:
    """Code that calls the hook with all arguments, to stand in the place of the given code."""

    def call(*args, **kwargs):
        hook = "the hook"
        return hook(*args, **kwargs)

    constants = tuple(hook if one == "the hook" else one for one in call.__code__.co_consts)
    return call.__code__.replace(co_consts=constants, co_freevars=code.co_freevars)


def plain(function) -> FunctionType:
    """The function itself: of a property, of a decorated function, or the `forward` of a module's class."""
    if isinstance(function, property):
        function = function.fget
    if isinstance(function, type):
        function = getattr(function, "forward", None)
    function = inspect.unwrap(getattr(function, "__func__", function)) if function else function
    if not isinstance(function, FunctionType):
        raise TypeError(f"a function, a method, a property or a module's class is expected, given {function}")
    return function
