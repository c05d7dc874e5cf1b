"""Every shape comment is true: comments of snippets are compared with the real shapes while the tests run.

A shape comment ends a statement: `x = f(x)  # (B, C, H // 2, W) what it is for`. One for each target of a tuple:
`a, b = f(x)  # (N, D), (M, D)`, with `_` for a target that is no tensor, or one whose number of dimensions differs from
call to call. `()` is a scalar tensor, `_` a size that is not stated. Letters stand in the module's docstring, in the
paragraph that begins with `Shapes:`; within one call, a letter has one size. A comment is proved once a call reached it
in which its letters and sizes are all different, so that two that were swapped would not pass.

Shapes in a function's docstring use the same letters, and its whole numbers by name. In `Logits (B, T, V) of tokens
(B, T)`, the second stands behind the name of an argument (or its plural); other shapes of the first sentence, or behind
the word Returns, are of what is returned. A call that returns and contradicts them fails.
"""

import ast
import dis
import io
import itertools
import re
import sys
import tokenize
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import CodeType, FrameType

SHAPE = re.compile(r"\((?:[^()]|\([^()]*\))*\)|_\b")
BEGINS = re.compile(r"# (?:\(|_\b)")
SECTION = re.compile(r"^\s*# --8<-- \[(start|end):")
FUNCTION, GENERATOR = 0x1, 0x20  # flags of a function's and of a generator's code
PAUSES = {dis.opmap["YIELD_VALUE"], dis.opmap["RESUME"]}  # where a frame stands that yields; Python 3.13: RESUME
RETURNS = {dis.opmap[name] for name in ("RETURN_VALUE", "RETURN_CONST") if name in dis.opmap}


@dataclass(frozen=True)
class Dim:
    """One size of a shape comment: a number, a letter, or an expression such as `H // 2`."""

    text: str

    @cached_property
    def letters(self) -> frozenset[str]:
        return frozenset(node.id for node in ast.walk(ast.parse(self.text)) if isinstance(node, ast.Name)) - {"_"}

    @cached_property
    def code(self) -> CodeType:
        return compile(self.text, "<shape comment>", "eval")

    def size(self, letters: dict[str, int]) -> int:
        known = letters.get(self.text)
        return eval(self.code, {"__builtins__": {}}, letters) if known is None else known

    def solve(self, letter: str, known: dict[str, int], size: int) -> int | None:
        """The size of the one unknown letter: None where several would do (`H // 2`), -1 where none does."""
        if self.text == letter:
            return size
        if "//" in self.text:
            return None
        at = [self.size({**known, letter: value}) for value in range(3)]
        slope = at[1] - at[0]
        if not slope or at[2] - at[1] != slope:
            return None
        return -1 if (size - at[0]) % slope else (size - at[0]) // slope


@dataclass(frozen=True)
class Stated:
    """What a docstring says of the shape of an argument, or (name = "") of what is returned: one of several."""

    line: int
    name: str
    shapes: tuple[tuple[Dim, ...], ...]
    text: str


@dataclass(eq=False)
class Statement:
    """An assignment, a return or the head of a loop, with its shape comment or (shapes = None) without one."""

    first: int
    last: int
    kind: str  # "assign", "return", "for"
    targets: list[tuple[str, CodeType]]
    shapes: list[tuple[Dim, ...] | None] | None = None
    text: str = ""
    body: range = range(0)  # lines of the loop's body

    @cached_property
    def dims(self) -> list[Dim]:
        """The different sizes that the comment names."""
        found = [dim for shape in self.shapes or () for dim in shape or () if dim.text != "_"]
        return list({dim.text: dim for dim in found}.values())


def parse_comment(comment: str) -> tuple[list[tuple[Dim, ...] | None], str]:
    """The shapes at the beginning of a comment `# (B, C), (B,) purpose`, and their text; ValueError if malformed."""
    found, shapes, end = SHAPE.match(comment, 2), [], 2
    if found is None:
        raise ValueError(f"{comment[2:]} is no shape; its bracket is never closed")
    while found:
        shapes.append(None if found[0] == "_" else parse_shape(found[0]))
        end = found.end()
        found = SHAPE.match(comment, end + 2) if comment.startswith(", ", end) else None
    return shapes, comment[2:end]


def parse_shape(text: str) -> tuple[Dim, ...]:
    """The sizes of one shape, `(B, H // 2)`; ValueError if it is none."""
    try:
        node = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError):
        node = None
    parts = node.elts if isinstance(node, ast.Tuple) else [None]
    if not all(is_size(part) or ast.unparse(part) == "_" for part in parts if part) or None in parts:
        raise ValueError(
            f"{text} is no shape; letters, numbers, + - * // and commas are expected, and (T,) for one size"
        )
    return tuple(Dim(ast.unparse(part)) for part in parts)


def is_size(node: ast.AST) -> bool:
    """Whether it is a number, a letter, or a sum, difference, product or whole quotient of such."""
    match node:
        case ast.BinOp(left, ast.Add() | ast.Sub() | ast.Mult() | ast.FloorDiv(), right):
            return is_size(left) and is_size(right)
        case ast.Constant(value):
            return type(value) is int
        case ast.Name(name):
            return name != "_"
    return False


def declared(docstring: str) -> set[str]:
    """The letters of a docstring's paragraph `Shapes: B batch, C channels.`"""
    found = re.search(r"^Shapes:(.*?)(?:\.\s|\.$|\n\s*\n|\Z)", docstring, re.S | re.M)
    parts = re.split(r"[,;]", found[1]) if found else []
    return {match[1] for part in parts if (match := re.match(r"\s*([A-Z]\w*)\s", part))}


class Module:
    """The statements of one file of snippets, by scope and line, and what is wrong with its shape comments."""

    def __init__(self, path: Path, root: Path):
        self.name = path.relative_to(root).as_posix()
        self.source = path.read_text(encoding="utf-8")
        self.problems: list[str] = []
        self.scopes: dict[tuple[int, str], dict[int, Statement]] = {}
        self.stated: dict[tuple[int, str], list[Stated]] = {}  # by docstrings
        self.tree = ast.parse(self.source)
        self.letters = declared(ast.get_docstring(self.tree) or "")
        self.shown = set(self._shown())
        self.comments = self._comments()
        unclaimed = dict(self.comments)
        for scope, node in self._nodes(self.tree, (0, "<module>")):
            statement = self._statement(node)
            comment = statement and unclaimed.pop(statement.last, None)
            if comment:
                self._claim(statement, comment)
            if statement and (statement.shapes or self._makes_tensor(node)):
                self.scopes.setdefault(scope, {}).update(
                    dict.fromkeys(range(statement.first, statement.last + 1), statement)
                )
        for line, comment in unclaimed.items():
            self.say(line, f"the shape comment {comment!r} is on no statement that can be checked", CHECKABLE)
        self.claims = {s.last: s for lines in self.scopes.values() for s in lines.values() if s.shapes}

    def say(self, line: int, wrong: str, mend: str) -> None:
        self.problems.append(f"{self.name}:{line}: {wrong}. {mend}")

    def _shown(self) -> Iterator[int]:
        depth = 0
        for number, line in enumerate(self.source.split("\n"), 1):
            if found := SECTION.match(line):
                depth += 1 if found[1] == "start" else -1
            elif depth > 0:
                yield number

    def _comments(self) -> dict[int, str]:
        """Comments that begin like a shape, by line; one that has the line to itself only where it is one."""
        found = {}
        for token in tokenize.generate_tokens(io.StringIO(self.source).readline):
            if token.type != tokenize.COMMENT or not BEGINS.match(token.string):
                continue
            alone = not token.line[: token.start[1]].strip()
            try:
                shapes, _ = parse_comment(token.string)
            except ValueError as error:
                if not alone:
                    self.say(token.start[0], str(error), "Write the shape so, or begin the comment with a word")
                continue
            letters = {letter for shape in shapes for dim in shape or () for letter in dim.letters}
            if not alone or letters <= self.letters:
                found[token.start[0]] = token.string
        return found

    def _nodes(self, node: ast.AST, scope: tuple[int, str]) -> Iterator[tuple[tuple[int, str], ast.AST]]:
        """Every statement below a node, with its scope: first line and name, as in the code object."""
        for child in ast.iter_child_nodes(node):
            inner = scope
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                inner = (min([child.lineno, *(d.lineno for d in child.decorator_list)]), child.name)
                if not isinstance(child, ast.ClassDef) and ast.get_docstring(child):
                    self.stated[inner] = stated(child, self.letters)
            elif isinstance(child, ast.stmt):
                yield scope, child
            if isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case):
                yield from self._nodes(child, inner)

    def _statement(self, node: ast.AST) -> Statement | None:
        last = node.end_lineno
        match node:
            case ast.Assign() | ast.AnnAssign(value=ast.expr()) | ast.AugAssign():
                kind, target, body = (
                    "assign",
                    node.targets[0] if isinstance(node, ast.Assign) else node.target,
                    range(0),
                )
            case ast.Return(value=ast.expr()):
                kind, target, body = "return", node.value, range(0)
            case ast.For():
                kind, target, last = "for", node.target, node.iter.end_lineno
                body = range(node.body[0].lineno, node.body[-1].end_lineno + 1)
            case _:
                return None
        parts = target.elts if isinstance(target, ast.Tuple) else [target]
        parts = [part for part in parts if not (isinstance(part, ast.Name) and part.id == "_")]
        if kind == "return":
            targets = [("what is returned", load(ast.Name("_")))] * len(parts)
        elif all(isinstance(part, ast.Name | ast.Attribute | ast.Subscript) and not calls(part) for part in parts):
            targets = [(ast.unparse(part), load(part)) for part in parts]
        else:
            targets = []
        return Statement(node.lineno, last, kind, targets, body=body)

    def _claim(self, statement: Statement, comment: str) -> None:
        shapes, text = parse_comment(comment)
        if not statement.targets:
            return self.say(
                statement.last, f"the shape comment {text} is on no statement that can be checked", CHECKABLE
            )
        if len(shapes) != len(statement.targets) and (statement.kind != "return" or len(statement.targets) > 1):
            count = len(statement.targets)
            return self.say(statement.last, f"{text} has {len(shapes)} shapes for {count} values", "Write one for each")
        statement.shapes, statement.text = shapes, text
        unknown = sorted({letter for dim in statement.dims for letter in dim.letters} - self.letters)
        if unknown:
            mend = f"Add it to the docstring: `Shapes: {unknown[0]} meaning.`"
            self.say(statement.last, f"the letter {', '.join(unknown)} of {text} is not declared", mend)

    def _makes_tensor(self, node: ast.AST) -> bool:
        """Whether it is an assignment, on a page, of something new to a local name."""
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.lineno not in self.shown:
            return False
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        names = target.elts if isinstance(target, ast.Tuple) else [target]
        turned = isinstance(node.value, ast.Attribute) and node.value.attr in {"T", "mT", "H", "mH"}
        alias = isinstance(node.value, ast.Name | ast.Attribute | ast.Constant) and not turned
        return all(isinstance(name, ast.Name) for name in names) and not alias


def stated(function: ast.FunctionDef, letters: set[str]) -> list[Stated]:
    """The shapes in a function's docstring."""
    node, arguments, found, end = function.body[0], function.args, [], 0
    text = node.value.value
    given = arguments.posonlyargs + arguments.args + arguments.kwonlyargs
    names = [one.arg for one in given]
    numbers = {one.arg for one in given if one.annotation and ast.unparse(one.annotation) == "int"}
    returns = re.search(r"\b[Rr]eturns\b", text)
    first = re.search(r"\.\s|$", text).end()  # of its sentences
    for match in SHAPE.finditer(text):
        try:
            shape = parse_shape(match[0].replace("(…,", "(_,"))
        except ValueError:
            continue
        used = {name for dim in shape for name in dim.letters}
        if not used <= letters | numbers or any(dim.text == "0" for dim in shape):
            continue  # (x, y), (0, 1)
        shapes = ((Dim("..."), *shape[1:]) if "…" in match[0] else shape,)
        noun = re.search(r"(\w+)`? (?:is |are )?$", text[: match.start()])
        name = next((name for name in names if noun and noun[1] in (name, f"{name}s")), "")
        if found and text[end : match.start()] == " or ":
            before = found.pop()
            name, shapes = before.name, before.shapes + shapes
        if name or (returns.start() < match.start() if returns else match.start() < first):
            line = node.lineno + text.count("\n", 0, match.start())
            found.append(Stated(line, name, shapes, " or ".join(written(shape) for shape in shapes)))
        end = match.end()
    return found


def written(shape: tuple[Dim, ...]) -> str:
    """A shape as text."""
    return f"({', '.join(dim.text for dim in shape)}{',' * (len(shape) == 1)})"


CHECKABLE = "Put it behind an assignment, a return or the head of a for loop, on its last line"


def calls(target: ast.expr) -> bool:
    """Whether reading a target runs a call or an assignment, which it must not do twice."""
    return any(isinstance(node, ast.Call | ast.NamedExpr | ast.Await | ast.Yield) for node in ast.walk(target))


def load(target: ast.expr) -> CodeType:
    """Code that reads a target."""
    return compile(ast.unparse(target), "<shape comment>", "eval")


def modules(root: Path) -> list[Module]:
    """All modules of snippets."""
    return [Module(path, root) for path in sorted((root / "snippets").rglob("*.py"))]


def problems(root: Path) -> list[str]:
    """Shape comments that cannot be checked, and modules without a test."""
    found = [problem for module in modules(root) for problem in module.problems]
    for path in sorted((root / "snippets").rglob("*.py")):
        inside = path.relative_to(root / "snippets")
        test = root / "tests/snippets" / inside.with_name(f"test_{inside.name}")
        if inside.name != "__init__.py" and not test.exists():
            here, there = path.relative_to(root).as_posix(), test.relative_to(root).as_posix()
            found.append(f"{here}:1: the module has no test. Write {there}")
    return found


@contextmanager
def unwatched() -> Iterator[None]:
    """Run without comparing shapes."""
    trace = sys.gettrace()
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(trace)


class Call:
    """What one call of a function has shown so far."""

    def __init__(self, module: Module, lines: dict[int, Statement], stated: list[Stated], given: dict):
        self.module, self.lines, self.stated = module, lines, stated
        # of arguments, as they were given: the sizes, and the whole numbers
        sizes = {one.name: shape_of(given.get(one.name)) for one in stated if one.name}
        self.sizes = {name: size for name, size in sizes.items() if size is not None}
        self.numbers = {name: value for name, value in given.items() if type(value) is int} if stated else {}
        self.pending: Statement | None = None  # runs, but has not finished
        self.returning: Statement | None = None
        self.letters: dict[str, int] = {}
        self.origin: dict[str, int] = {}  # line that gave a letter its size
        self.open: list[tuple[Dim, int, Statement, str]] = []  # sizes whose letters are not all known yet
        self.seen: set[Statement] = set()


class Watch:
    """Compares shape comments with shapes while code runs inside `with watch:`."""

    def __init__(self, root: Path):
        self.root = root
        self.files = {str(path): path for path in (root / "snippets").rglob("*.py")}
        self.modules: dict[str, Module] = {}
        self.generators: dict[FrameType, Call] = {}
        self.wrong: list[str] = []
        self.entered: dict[int, CodeType] = {}  # the code of each function that ran, by its id
        self.findings: dict[str, dict] = {}  # module -> proved: lines, equal: {line: sizes}, bare: lines

    def __enter__(self) -> "Watch":
        self.wrong.clear()
        self.before = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_) -> None:
        sys.settrace(self.before)
        for call in self.generators.values():  # that nobody ran to their end
            self._close(call, ended=False)
        self.generators.clear()

    def functions(self, entered: dict[int, CodeType]) -> dict[str, list[int]]:
        """The functions of snippets among the code that was entered: path -> the lines at which they begin."""
        found: dict[str, set[int]] = {}
        for code in entered.values():
            if code.co_filename in self.files and code.co_flags & FUNCTION:
                found.setdefault(self.files[code.co_filename].relative_to(self.root).as_posix(), set()).add(
                    code.co_firstlineno
                )
        return {path: sorted(lines) for path, lines in found.items()}

    def _trace(self, frame: FrameType, event: str, arg):
        code = frame.f_code
        self.entered[id(code)] = code
        path = self.files.get(code.co_filename)
        if path is None:
            return None
        call = self.generators.get(frame)
        if call is None:
            module = self.modules.get(code.co_filename)
            if module is None:
                module = self.modules[code.co_filename] = Module(path, self.root)
            first = 0 if code.co_name == "<module>" else code.co_firstlineno
            lines, stated = (of.get((first, code.co_name)) for of in (module.scopes, module.stated))
            if not lines and not stated:
                return None
            frame.f_trace_lines = bool(lines)
            call = Call(module, lines or {}, stated or [], frame.f_locals if stated else {})
            if code.co_flags & GENERATOR:
                self.generators[frame] = call
        return self._tracer(call)

    def _tracer(self, call: Call):
        lines = call.lines

        def trace(frame: FrameType, event: str, arg):
            if event == "line":
                statement, pending = lines.get(frame.f_lineno), call.pending
                if pending is not None and statement is not pending:
                    self._finish(call, pending, frame)
                call.pending = statement
            elif event == "exception":
                if not issubclass(arg[0], StopIteration):  # which also ends loops inside a statement
                    call.pending = call.returning = None
            elif event == "return":
                last = frame.f_code.co_code[frame.f_lasti]
                if last not in PAUSES or not frame.f_code.co_flags & GENERATOR:
                    self._leave(call, frame, arg, returned=last in RETURNS)
            return trace

        return trace

    def _finish(self, call: Call, statement: Statement, frame: FrameType) -> None:
        """A statement is complete: look at its targets."""
        if statement.kind == "return":
            call.returning = statement  # a `with` or `finally` around it still runs
        elif statement.kind == "assign" or frame.f_lineno in statement.body:
            values = [read(code, frame) for _, code in statement.targets]
            if statement.shapes:
                self._compare(call, statement, values)
            elif any(is_tensor(value) for value in values):
                self._found(call)["bare"].add(statement.last)
                for line in range(statement.first, statement.last + 1):
                    del call.lines[line]  # once is enough

    def _leave(self, call: Call, frame: FrameType, value, returned: bool) -> None:
        """The call ends, by a return or by an exception."""
        if call.pending is not None:
            self._finish(call, call.pending, frame)
        statement = call.returning
        if statement is not None and statement.shapes:
            self._compare(call, statement, list(value) if isinstance(value, tuple) else [value])
        if returned and call.stated:
            self._docstring(call, value)
        self._close(call, ended=returned)
        self.generators.pop(frame, None)

    def _compare(self, call: Call, statement: Statement, values: list) -> None:
        """Note the sizes of the values that a statement with a shape comment has made."""
        if len(values) != len(statement.shapes):
            return self._wrong(call, statement, f"{len(values)} values are returned")
        name = statement.targets[0][0]
        names = [name for name, _ in statement.targets] if len(statement.targets) > 1 else [name] * len(values)
        for name, value, shape in zip(names, values, statement.shapes, strict=True):
            if value is None or shape is None:
                continue
            if not hasattr(value, "shape"):
                return self._wrong(call, statement, f"{name} is no tensor but a {type(value).__name__}")
            sizes = tuple(value.shape)
            real = f"{name} is {sizes}"
            if len(sizes) != len(shape):
                return self._wrong(call, statement, real)
            call.open += [
                (dim, size, statement, real) for dim, size in zip(shape, sizes, strict=True) if dim.text != "_"
            ]
            call.seen.add(statement)
        self._solve(call)

    def _solve(self, call: Call) -> None:
        """Take letters' sizes from what was seen, and compare the rest with them, until nothing more is known."""
        call.open, wrong, gave = settle(call.open, call.letters)
        call.origin |= {letter: statement.last for letter, (_, _, statement, _) in gave.items()}
        for _, _, statement, real in wrong:
            self._wrong(call, statement, real)

    def _docstring(self, call: Call, value) -> None:
        """The call returned: compare what its docstring states with what was given and what is returned."""
        letters = call.numbers | call.letters
        for one in call.stated:
            if one.name in call.sizes:
                self._fit(call, [one], call.sizes[one.name], letters)
        results = [one for one in call.stated if not one.name]
        for part in value if isinstance(value, tuple) else (value,):
            if results and (sizes := shape_of(part)) is not None:
                self._fit(call, results, sizes, letters)

    def _fit(self, call: Call, stated: list[Stated], sizes: tuple[int, ...], letters: dict[str, int]) -> None:
        """Note that sizes are none of those that are stated, or learn letters from them."""
        for shape in (shape for one in stated for shape in one.shapes):
            found = dict(letters)
            if shape and shape[0].text == "...":
                shape, rest = shape[1:], sizes[len(sizes) - len(shape) + 1 :]
            else:
                rest = sizes
            parts = [(dim, size) for dim, size in zip(shape, rest, strict=False) if dim.text != "_"]
            if len(shape) == len(rest) and not settle(parts, found)[1]:
                return letters.update(found)
        real = f"{stated[0].name or 'what is returned'} is {sizes}"
        said = f"the docstring says {' or '.join(one.text for one in stated)}"
        used = {name for one in stated for shape in one.shapes for dim in shape for name in dim.letters}
        known = [f"{name} = {letters[name]}" for name in sorted(used & letters.keys())]
        self._say(call, stated[0].line, real, said, known)

    def _close(self, call: Call, ended: bool) -> None:
        """After a call: which comments are proved by it, and which could not be compared."""
        if ended:
            for dim, _, statement, real in call.open:
                missing = ", ".join(sorted(dim.letters - call.letters.keys()))
                self._wrong(call, statement, f"{real}, and no comment of this call gives the size of {missing}")
        found = self._found(call)
        for statement in call.seen:
            if statement.last in found["proved"]:
                continue
            if any(dim.letters - call.letters.keys() for dim in statement.dims):
                continue
            used = {letter for dim in statement.dims for letter in dim.letters}
            equal = alike({x: call.letters[x] for x in sorted(used)})
            equal = equal or alike({dim.text: dim.size(call.letters) for dim in statement.dims})
            if equal:
                found["equal"][statement.last] = equal
            else:
                found["proved"].add(statement.last)

    def _found(self, call: Call) -> dict:
        return self.findings.setdefault(call.module.name, {"proved": set(), "equal": {}, "bare": set()})

    def _wrong(self, call: Call, statement: Statement, real: str) -> None:
        used = sorted({letter for dim in statement.dims for letter in dim.letters} & call.letters.keys())
        known = [f"{x} = {call.letters[x]} from line {call.origin[x]}" for x in used]
        self._say(call, statement.last, real, f"the comment says {statement.text}", known)

    def _say(self, call: Call, line: int, real: str, said: str, known: list[str]) -> None:
        if known:
            said += f" with {', '.join(known)}"
        what = said.split()[1]  # comment, docstring
        if not any(message.startswith(f"{call.module.name}:{line}:") for message in self.wrong):
            self.wrong.append(f"{call.module.name}:{line}: {real}, {said}. Correct the {what} or the code")


def settle(entries: list[tuple], letters: dict[str, int]) -> tuple[list[tuple], list[tuple], dict[str, tuple]]:
    """Take letters' sizes from entries (dim, size, …): those still open, those that contradict, who gave a letter."""
    wrong, gave, before = [], {}, None
    while entries and len(entries) != before:
        before, rest = len(entries), []
        for entry in entries:
            dim, size = entry[:2]
            unknown = dim.letters - letters.keys()
            if not unknown:
                wrong += [entry] if dim.size(letters) != size else []
                continue
            letter = next(iter(unknown))
            value = dim.solve(letter, letters, size) if len(unknown) == 1 else None
            if value is None:
                rest.append(entry)
            elif value < 0:
                wrong.append(entry)
            else:
                letters[letter], gave[letter] = value, entry
        entries = rest
    return entries, wrong, gave


def shape_of(value) -> tuple[int, ...] | None:
    """A tensor's or an array's shape; None for anything else."""
    shape = getattr(value, "shape", None)
    return tuple(shape) if isinstance(shape, tuple) else None


def alike(sizes: dict[str, int]) -> str:
    """Two names with the same size, as text; empty where all sizes differ."""
    for a, b in itertools.combinations(sizes, 2):
        if sizes[a] == sizes[b]:
            return f"{a} = {b}" if b.isdigit() else f"{a} = {b} = {sizes[b]}"
    return ""


def read(code: CodeType, frame: FrameType):
    """A target's value; None where there is none."""
    try:
        return eval(code, frame.f_globals, frame.f_locals)
    except (NameError, AttributeError, LookupError):
        return None


def is_tensor(value) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def merge(findings: list[dict[str, dict]]) -> dict[str, dict]:
    """The findings of several processes as one."""
    total: dict[str, dict] = {}
    for one in findings:
        for name, new in one.items():
            old = total.setdefault(name, {"proved": set(), "equal": {}, "bare": set()})
            old["proved"] |= set(new["proved"])
            old["bare"] |= set(new["bare"])
            old["equal"] |= new["equal"]
    return total


def unproved(root: Path, findings: dict[str, dict]) -> list[str]:
    """After the whole suite: shape comments that no test proved, and lines of pages that make a tensor without one."""
    problems = []
    for module in modules(root):
        found = findings.get(module.name, {"proved": set(), "equal": {}, "bare": set()})
        for line, statement in sorted(module.claims.items()):
            if line in found["proved"] or all(shape is None for shape in statement.shapes):
                continue
            if line in found["equal"]:
                why = f"is only reached with {found['equal'][line]}. Test with sizes that differ"
            else:
                why = "is reached by no test. Test the line, in tests/snippets"
            problems.append(f"{module.name}:{line}: the shape comment {statement.text} {why}")
        for line in sorted(found["bare"]):
            problems.append(f"{module.name}:{line}: the line makes a tensor. End it with its shape, `# (B, ...)`")
    return problems
