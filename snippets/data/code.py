"""Python code that every CPython brings along: its library, without docstrings and lines of comment.

Shapes: N bytes.
"""

import ast
import functools

from torch import Tensor

from snippets.data.text import as_bytes, is_held_out, library


# --8<-- [start:code]
def without_prose(source: str) -> str:
    """The lines of some Python code but for docstrings, blank lines and lines of comment."""
    lines, kinds = source.split("\n"), ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, kinds) and ast.get_docstring(node, clean=False) is not None:
            first, last = node.body[0].lineno, node.body[0].end_lineno
            lines[first - 1 : last] = [""] * (last - first + 1)
    return "\n".join(line.rstrip() for line in lines if line.strip() and not line.lstrip().startswith("#"))


@functools.cache
def programs() -> dict[str, str]:
    """The code of each module of the library by name, none of it twice."""
    found = {}
    for name, source in library():
        if name.startswith("pydoc_data/"):  # prose in a dictionary
            continue
        program = without_prose(source)
        if len(program) >= 80 and program not in found.values():
            found[name] = program
    return found


def code(held_out: bool = False) -> Tensor:
    """Bytes (N,) of about nine tenths of the modules to train on, or of the held-out tenth.

    The rule is that of `text`: a module whose docstrings were held out there is held out here.
    """
    chosen = [program for name, program in sorted(programs().items()) if is_held_out(name) == held_out]
    codes = as_bytes("\n\n\n".join(chosen))  # (N,)
    return codes


# --8<-- [end:code]
