r"""The numbered equations of pages, evaluated as they are printed.

    formula("ddpm-velocity").holds({"v": v, r"\bar\alpha_t": alpha_bar, r"\epsilon": eps, "x_0": x0})

takes the LaTeX of the equation from its page, puts values in for whole symbols, the longest first, and compares what
stands on both sides of each relation. Nothing of the formula is left out: text that says no number is quoted in
`apart`. Then each term is taken away in turn, and the value has to change, or the test's values prove too little.
SymPy's parser reads sums, products, powers, fractions and functions; what stands around them is read here.

A value is a number or a tensor, taken elementwise; where a vector is asked for, it lies in the last dimension, and of
(B, D) vectors the norms are (B, 1). Or it is a `Matrix`, which multiplies vectors and matrices, or a callable. A
callable gets what stands in brackets behind it. If nothing does, it gets the values of its parameters' names:
{"x_j": lambda j: x[:, j], "j": range(5)} for \sum_j x_j. An operator (\sum_j, \max_u, \int, \nabla, \mathbb{E},
\operatorname{Re}) that is bound to a callable acts on the product that follows.
"""

import hashlib
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, reduce

import torch
from torch import Tensor

from tests.shapes import unwatched

TOKEN = re.compile(
    r"\\(?:label|begin|end|text|mathrm|mathbf|mathbb|mathcal|operatorname)\s*\{[^{}]*\}"
    r"|\\[a-zA-Z]+|\\.|\d+(?:\{,\}\d{3})*(?:\.\d+)?|\S"
)
SILENT = re.compile(
    r"\\(?:[,;!: ]|quad|qquad|[bB]igg?[lrm]?|left|right|displaystyle|(?:label|begin|end)\{(?!cases|pm).*)"
)
ALIKE = {
    r"\tfrac": r"\frac",
    r"\dfrac": r"\frac",
    r"\leq": r"\le",
    r"\geq": r"\ge",
    r"\Vert": r"\lVert",
    r"\vert": r"\mid",
}

PAIRS = {"{": "}", "(": ")", "[": "]", r"\{": r"\}", r"\langle": r"\rangle", r"\lfloor": r"\rfloor"}
PAIRS |= {r"\lceil": r"\rceil", r"\lvert": r"\rvert", r"\lVert": r"\rVert", "|": "|"}
PAIRS |= {rf"\begin{{{name}}}": rf"\end{{{name}}}" for name in ("cases", "pmatrix")}

RELATIONS = {
    "=": lambda a, b: a == b,
    r"\leftarrow": lambda a, b: a == b,
    r"\approx": lambda a, b: a == b,
    r"\le": lambda a, b: a <= b,
    r"\ge": lambda a, b: a >= b,
    "<": lambda a, b: a < b,
    ">": lambda a, b: a > b,
    r"\neq": lambda a, b: a != b,
}
BETWEEN = {",", r"\Longrightarrow", r"\\"}  # the formulas of one display
OPERATORS = (r"\sum", r"\prod", r"\max", r"\min", r"\int", r"\nabla", r"\mathbb{E}", r"\operatorname")
FOLDS = {r"\sum": torch.add, r"\prod": torch.mul, r"\max": torch.maximum, r"\min": torch.minimum}
FUNCTIONS = {r"\exp", r"\ln", r"\log", r"\cos", r"\sin"}
SIGNS = {"+", "-", "/", "^", r"\cdot", r"\odot"}
LETTERS = "ABCDFGHJKLMNOPQRSTUVWYZabcfghjklmnopqrstuvwyz"  # not d, e, i, x: they mean something to SymPy


class FormulaError(ValueError):
    """A formula that cannot be evaluated, with the place on its page."""


@dataclass(frozen=True)
class Matrix:
    """A value that multiplies as a matrix does."""

    rows: Tensor


@dataclass(frozen=True)
class Group:
    """What stands between two brackets."""

    open: str
    items: list


class Piece(str):
    """A symbol of the formula that has a value."""


class Applied(Piece):
    """A symbol with brackets behind it."""


# reading


def tokens(tex: str) -> list[str]:
    """The tokens of a formula: without spaces, sizes of brackets and labels; x_{t} is x_t."""
    found = [ALIKE.get(one, one) for one in map(squeezed, TOKEN.findall(tex)) if not SILENT.fullmatch(one)]
    for at in range(len(found) - 4, -1, -1):
        if found[at] in ("_", "^") and (found[at + 1], found[at + 3]) == ("{", "}") and found[at + 2] not in "{}":
            found[at + 1 : at + 4] = [found[at + 2]]
    return found


def squeezed(token: str) -> str:
    return re.sub(r"^(\\\w+)\s*\{", r"\1{", token)


def fingerprint(tex: str) -> str:
    """Eight characters that change with the formula, but not with its spaces and the sizes of its brackets."""
    return hashlib.sha256(" ".join(tokens(tex)).encode()).hexdigest()[:8]


def bound(found: list[str], keys: dict[str, list[str]]) -> list[str]:
    """The tokens with whole symbols, the longest first, as pieces."""
    ordered = sorted(keys, key=lambda key: -len(keys[key]))
    result, at, used = [], 0, set()
    while at < len(found):
        for key in ordered:
            after = at + len(keys[key])
            if found[at:after] == keys[key] and found[after : after + 1] not in (["_"], ["'"]):
                result.append((Applied if found[after : after + 1] in (["("], ["["]) else Piece)(key))
                used.add(key)
                at = after
                break
        else:
            result.append(found[at])
            at += 1
    if unused := [key for key in keys if key not in used]:
        raise FormulaError(f"the formula has no {', '.join(unused)}")
    return result


def nested(found: list[str]) -> list:
    """The tokens with brackets as groups."""
    levels: list[tuple[str, list]] = [("", [])]
    for token in found:
        opened, items = levels[-1]
        if opened and token == PAIRS[opened] and not isinstance(token, Piece):
            levels.pop()
            levels[-1][1].append(Group(opened, items))
        elif token in PAIRS and not isinstance(token, Piece):
            levels.append((token, []))
        elif token in PAIRS.values() and not isinstance(token, Piece):
            raise FormulaError(f"{token} closes nothing")
        else:
            items.append(token)
    if len(levels) > 1:
        raise FormulaError(f"{levels[-1][0]} is never closed")
    return levels[0][1]


def shown(items: list) -> str:
    """Items as LaTeX, for messages."""
    text = [f"{i.open} {shown(i.items)} {PAIRS[i.open]}" if isinstance(i, Group) else str(i) for i in items]
    return " ".join(text)


def split(items: list, marks) -> list[list]:
    """The items between marks that are in no bracket."""
    parts = [[]]
    for item in items:
        if is_mark(item, marks):
            parts.append([])
        else:
            parts[-1].append(item)
    return parts


def is_mark(item, marks) -> bool:
    return isinstance(item, str) and not isinstance(item, Piece) and item in marks


def addends(items: list) -> list[list]:
    """The addends of a sum, each with its sign."""
    parts = [[]]
    for before, item in zip([None, *items], items, strict=False):
        if is_mark(item, {"+", "-"}) and before is not None and not is_mark(before, SIGNS):
            parts.append([])
        parts[-1].append(item)
    return parts


def sides(items: list) -> tuple[list[list], list[str]]:
    """What stands on the sides of a formula's relations, and the relations. `x \\leftarrow` may be one piece."""
    parts, relations = [[]], []
    for item in items:
        if is_mark(item, RELATIONS):
            parts.append([])
            relations.append(item)
        else:
            parts[-1].append(item)
            if isinstance(item, Piece) and item.endswith(r"\leftarrow"):
                parts.append([])
                relations.append(r"\leftarrow")
    return parts, relations


# values


def number(raw) -> Tensor | Matrix:
    """A value in float64, or in complex128."""
    if isinstance(raw, Matrix):
        return Matrix(number(raw.rows))
    if callable(raw) or isinstance(raw, range | str):
        raise FormulaError(f"{raw} is no number")
    wide = torch.complex128 if isinstance(raw, complex) or torch.is_tensor(raw) and raw.is_complex() else torch.float64
    return torch.as_tensor(raw, dtype=wide)


def value(items: list, names: dict) -> Tensor | Matrix:
    """The value of items without a relation; FormulaError for whatever has none."""
    rest, text, values = list(items), [], []

    def put(one) -> str:
        values.append(number(one))
        return LETTERS[len(values) - 1]

    while rest:
        item = rest.pop(0)
        if is_mark(item, {r"\frac", r"\sqrt"}):
            taken = [rest.pop(0) if rest else "" for _ in range(2 if item == r"\frac" else 1)]
            text.append(item + "".join("{" + put(value([one], names)) + "}" for one in taken))
        elif is_mark(item, FUNCTIONS):
            text.append(item)
            if is_mark(rest[0] if rest else "", {"^"}):
                text += ["^", "{" + put(value(rest[1:2], names)) + "}"]
                del rest[:2]
            if rest and isinstance(rest[0], Group) and rest[0].open in "([":
                text.append("(" + put(value(rest.pop(0).items, names)) + ")")
        elif is_mark(item, SIGNS):
            text.append(r"\cdot" if item == r"\odot" else item)
        elif isinstance(item, str) and re.match(r"\d", item) and not isinstance(item, Piece):
            text.append(item.replace("{,}", ""))
        else:
            one = put(valued(item, rest, names))
            text.append("{" + one + "}" if text[-1:] == ["^"] else one)
    return compute(parsed(" ".join(text)), dict(zip(LETTERS, values, strict=False)))


def valued(item, rest: list, names: dict):
    """The value of one item; what belongs to it is taken off the rest."""
    if isinstance(item, Group):
        return grouped(item, rest, names)
    if rest and (is_mark(rest[0], {"_"}) or is_mark(rest[0], {"'"})) and item not in FOLDS:
        raise FormulaError(f"no value for {item}{rest[0]}{shown(rest[1:2]) if rest[0] == '_' else ''}")
    if isinstance(item, Piece) or item in names:
        found = names[item]
        if not callable(found):
            return found
        if rest and isinstance(rest[0], Group) and rest[0].open in "([":
            return found(*(value(one, names) for one in split(rest.pop(0).items, {",", r"\mid"})))
        if isinstance(item, Applied):
            raise FormulaError(f"{item} without its brackets")
        if item.startswith(OPERATORS):
            return found(value(product(rest), names))
        wanted = inspect.signature(found).parameters
        if missing := [name for name in wanted if name not in names]:
            raise FormulaError(f"no value for {', '.join(missing)}, which {item} is a function of")
        if outside := [name for name in wanted if isinstance(names[name], range)]:
            raise FormulaError(f"{item} stands outside of what runs over {', '.join(outside)}")
        return found(*(names[name] for name in wanted))
    if item in FOLDS and rest and is_mark(rest[0], {"_"}):
        return folded(item, rest, names)
    if item in (r"\max", r"\min") and rest and isinstance(rest[0], Group):
        group = rest.pop(0)
        if group.open == r"\{":
            return extreme(item, group, names)
        return reduce(FOLDS[item], (value(one, names) for one in split(group.items, {","})))
    if item == r"\pi":
        return torch.pi
    if item == r"\top":
        return Matrix(torch.zeros(0, 0))  # only `power` meets it
    if item == "e" and rest and is_mark(rest[0], {"^"}):
        return torch.e
    raise FormulaError(f"no value for {item} before {shown(rest[:3]) or 'the end'}. Bind the symbol that it belongs to")


def grouped(group: Group, rest: list, names: dict):
    """The value of what stands in brackets."""
    match group.open:
        case r"\lVert":
            inside = value(group.items, names)
            if isinstance(inside, Matrix):
                if [str(one) for one in rest[:2]] == ["_", "F"]:
                    del rest[:2]
                return torch.linalg.matrix_norm(inside.rows)
            return torch.linalg.vector_norm(inside, dim=-1, keepdim=inside.ndim > 1)
        case r"\lvert" | "|":
            return value(group.items, names).abs()
        case r"\lfloor":
            return value(group.items, names).floor()
        case r"\lceil":
            return value(group.items, names).ceil()
        case r"\langle":
            first, second = (value(one, names) for one in split(group.items, {","}))
            return (first * second).sum(-1, keepdim=first.ndim > 1)
        case r"\begin{cases}":
            return chosen(group, names)
        case r"\begin{pmatrix}":
            return blocks(group, names)
    parts = [value(one, names) for one in split(group.items, {","})]
    return torch.cat(parts, dim=-1) if len(parts) > 1 else parts[0]


def product(rest: list) -> list:
    """Take off what an operator acts on: up to the next sign or mark between formulas."""
    end = 0
    while end < len(rest) and not (is_mark(rest[end], {"+", "-", ":", "&", *RELATIONS, *BETWEEN}) and end):
        end += 1
    taken = rest[:end]
    del rest[:end]
    return taken


def folded(command: str, rest: list, names: dict):
    """A sum, product, maximum or minimum over an index: j = 1 to n, or those of the index's range that fulfil."""
    limits = {}
    while rest and is_mark(rest[0], {"_", "^"}) and rest[0] not in limits:
        mark, item = rest.pop(0), rest.pop(0)
        limits[mark] = item.items if isinstance(item, Group) else [item]
    index, *condition = limits["_"]
    if is_mark(condition[0] if condition else "", {"="}) and "^" in limits:
        span = range(whole(condition[1:], names), whole(limits["^"], names) + 1)
    elif isinstance(index, Piece) and isinstance(names[index], range) and "^" not in limits:
        span = [n for n in names[index] if not condition or fulfilled(limits["_"], {**names, index: n})]
    else:
        raise FormulaError(f"{command} over {shown(limits['_'])}: give {index} a range, or write both limits")
    body = product(rest)
    terms = [value(body, {**names, index: n}) for n in span]
    if not terms and command in (r"\max", r"\min"):
        raise FormulaError(f"{command} over nothing")
    return reduce(FOLDS[command], terms) if terms else float(command == r"\prod")


def extreme(command: str, group: Group, names: dict):
    r"""The least or largest member of a set: \min \{ n : condition \}."""
    (index,), condition = split(group.items, {":"})
    members = [n for n in names[index] if fulfilled(condition, {**names, index: n})]
    if not members:
        raise FormulaError(f"{command} of an empty set")
    return max(members) if command == r"\max" else min(members)


def whole(items: list, names: dict) -> int:
    found = value(items, names).item()
    if found != int(found):
        raise FormulaError(f"{shown(items)} is {found}, no whole number")
    return int(found)


def fulfilled(items: list, names: dict) -> Tensor:
    """Whether a relation holds, elementwise; or a condition in words, bound to truth values."""
    parts, relations = sides(items)
    if not relations:
        return value(items, names).bool()
    values = [value(part, names) for part in parts]
    return reduce(
        torch.logical_and, (RELATIONS[r](*pair) for r, *pair in zip(relations, values, values[1:], strict=False))
    )


def chosen(group: Group, names: dict):
    """Cases: each row a value and when; the first whose condition holds counts."""
    result = None
    for row in reversed([row for row in split(group.items, {r"\\"}) if row]):
        what, when = split(row, {"&"})
        if result is None:
            if not is_mark(when[0], {r"\text{else.}", r"\text{else}", r"\text{otherwise.}", r"\text{otherwise}"}):
                raise FormulaError("the last of the cases is `else`")
            result = value(what, names)
        else:
            result = torch.where(fulfilled(when, names), value(what, names), result)
    return result


def blocks(group: Group, names: dict) -> Matrix:
    """A matrix of numbers, or of blocks; an empty cell is zero."""
    rows = [split(row, {"&"}) for row in split(group.items, {r"\\"}) if row]
    cells = [[block(value(cell, names)) if cell else None for cell in row] for row in rows]
    if len({len(row) for row in cells}) > 1:
        raise FormulaError("the rows of a matrix are equally long")
    heights = [next(cell.shape[0] for cell in row if cell is not None) for row in cells]
    widths = [next(cell.shape[1] for cell in column if cell is not None) for column in zip(*cells, strict=True)]
    return Matrix(
        torch.cat(
            [
                torch.cat([torch.zeros(h, w).double() if c is None else c for c, w in zip(row, widths, strict=True)], 1)
                for row, h in zip(cells, heights, strict=True)
            ]
        )
    )


def block(one) -> Tensor:
    """A cell of a matrix as rows: a number, a column, or a matrix."""
    return one.rows if isinstance(one, Matrix) else one.reshape(-1, 1)


# SymPy's part


@cache  # many formulas are alike in letters, and SymPy needs 10 to 100 ms for one
def parsed(text: str):
    """SymPy's tree of a formula of letters, numbers, signs and functions, unevaluated, or the error that it makes."""
    from sympy.parsing.latex import parse_latex  # only where a formula is evaluated

    try:
        with unwatched():
            return parse_latex(text, strict=True)
    except Exception as error:  # of several kinds, with several lines
        return FormulaError(f"SymPy cannot read {text!r}: {str(error).splitlines()[0]}")


def compute(node, values: dict):
    """The value of SymPy's tree."""
    if isinstance(node, FormulaError):
        raise node
    if node.is_Symbol:
        return values[node.name]
    if node.is_number:
        return torch.tensor(float(node), dtype=torch.float64)
    parts = [compute(part, values) for part in node.args]
    match type(node).__name__:
        case "Add":
            return reduce(plus, parts)
        case "Mul":
            return reduce(lambda right, left: times(left, right), reversed(parts))
        case "Pow":
            return power(*parts)
        case "exp" | "log" | "cos" | "sin" as name:  # log has its base, e, as second argument
            return getattr(torch, name)(parts[0])
    raise FormulaError(f"{type(node).__name__} is not known here")


def plus(left, right):
    if isinstance(left, Matrix) and isinstance(right, Matrix):
        return Matrix(left.rows + right.rows)
    if isinstance(left, Matrix) or isinstance(right, Matrix):
        raise FormulaError("a matrix and something else are added")
    return left + right


def times(left, right):
    """A product; tensors behind a matrix are vectors in their last dimension."""
    match isinstance(left, Matrix), isinstance(right, Matrix):
        case True, True:
            return Matrix(left.rows @ right.rows)
        case True, False:
            return right @ left.rows.mT if right.ndim else Matrix(left.rows * right)
        case False, True:
            if left.ndim:
                raise FormulaError("a vector stands before a matrix. Make it a Matrix of one row or column")
            return Matrix(left * right.rows)
    return left * right


def power(base, exponent):
    if isinstance(exponent, Matrix):  # \top
        if not isinstance(base, Matrix) or exponent.rows.numel():
            raise FormulaError("only a Matrix is transposed, and no matrix is an exponent")
        return Matrix(base.rows.mT)
    if not isinstance(base, Matrix):
        return base**exponent
    if exponent.item() == 0.5:  # of a symmetric matrix
        scale, directions = torch.linalg.eigh(base.rows)
        return Matrix(directions * scale.clamp(min=0).sqrt() @ directions.mT)
    return Matrix(torch.linalg.matrix_power(base.rows, int(exponent)))


# every term counts


def without_a_term(items: list) -> Iterator[tuple[str, list]]:
    """The items without one symbol, number, function, group, power, addend or argument, with what is missing."""
    for split_at in (addends, lambda all_items: split(all_items, {","})):
        parts = split_at(items)
        for at in range(len(parts) if len(parts) > 1 else 0):
            rest = parts[:at] + parts[at + 1 :]
            comma = [","] if split_at is not addends else []
            yield shown(parts[at]), [item for n, part in enumerate(rest) for item in (comma if n else []) + part]
    for at, item in enumerate(items):
        before, after = items[:at], items[at + 1 :]
        if isinstance(item, Group):
            yield shown([item]), before + after
            if item.open not in "{([":
                yield item.open, [*before, Group("(", item.items), *after]
            for missing, inside in without_a_term(item.items):
                yield missing, [*before, Group(item.open, inside), *after]
        elif is_mark(item, {"^"}):
            yield shown(items[at : at + 2]), before + after[1:]
        elif not is_mark(item, {*SIGNS, *RELATIONS, *BETWEEN, "_", "&", ":", r"\mid"}):
            yield str(item), before + after


@dataclass
class Formula:
    """A numbered equation of a page."""

    name: str
    tex: str
    place: str  # file and line
    done: Callable[[], None] = lambda: None  # called when the formula has been evaluated

    proved = set()  # formulas whose every term was seen to count, in this run

    def holds(
        self, bindings: dict, apart: str = "", relations: int = 1, tolerance: float = 1e-10, idle: str = ""
    ) -> None:
        """Assert that all its relations hold where its symbols have these values.

        Args: apart, text of the formula that says no number, such as z \\sim \\mathcal{N}(0, I), which must be there;
        relations, how many the display has; tolerance, relative where values are large; idle, a term that does not
        count, such as a constant whose gradient is taken.
        """
        __tracebackhide__ = True
        parts = [(part, *sides(part)) for part in self.parts(bindings, apart)]
        for part, _, between in parts:
            if not between:
                raise self.error(f"{shown(part)} is no equation. Quote it in apart, or use `agrees`")
        if (count := sum(len(between) for *_, between in parts)) != relations:
            raise self.error(f"it has {count} relations, its test knows {relations}. Bind them all, relations={count}")
        for _, pieces, between in parts:
            values = [self.value(piece, bindings) for piece in pieces]
            for relation, left, right, *pair in zip(between, pieces, pieces[1:], values, values[1:], strict=False):
                difference = compared(relation, *pair, tolerance)
                assert difference is None, f"{self.place}: {shown(left)} {relation} {shown(right)}: {difference}"
            self.prove(pieces, lambda items: value(items, bindings), tolerance, idle)
        self.done()

    def agrees(self, ours, bindings: dict, apart: str = "", tolerance: float = 1e-10) -> None:
        """Assert that ours is the value of a formula that is no equation: a number, or whether a relation holds."""
        __tracebackhide__ = True
        (part,) = self.parts(bindings, apart)
        read = fulfilled if sides(part)[1] else value
        if "=" in sides(part)[1]:
            raise self.error("this is an equation. Bind its left side to your value, and use `holds`")
        try:
            theirs = read(part, bindings)
        except FormulaError as error:
            raise self.error(str(error)) from None
        difference = compared("=", number(ours), number(theirs), tolerance)
        assert difference is None, f"{self.place}: {shown(part)}: {difference}"
        self.prove([part], lambda items: number(read(items, bindings)), tolerance)
        self.done()

    def error(self, message: str) -> FormulaError:
        return FormulaError(f"{self.place}: {self.name}: {message}")

    def parts(self, bindings: dict, apart: str) -> list[list]:
        """The formulas of the display, each as items."""
        found, quoted = tokens(self.tex), tokens(apart)
        try:
            at = next((n for n in range(len(found)) if found[n : n + len(quoted)] == quoted), None)
            if at is None:
                raise FormulaError(f"the formula has no {apart}")
            found[at : at + len(quoted)] = [","] if quoted else []
            items = nested(bound(found, {key: tokens(key) for key in bindings}))
        except FormulaError as error:
            raise self.error(str(error)) from None
        parts = split([item for item in items if not is_mark(item, {"&"})], BETWEEN)
        if parts[-1] and parts[-1][-1] in (".", ";"):
            parts[-1].pop()
        return [part for part in parts if part]

    def value(self, items: list, bindings: dict):
        try:
            return value(items, bindings)
        except FormulaError as error:
            raise self.error(str(error)) from None

    def prove(self, sides: list[list], read: Callable, tolerance: float, idle: str = "") -> None:
        """Assert that each side changes when one of its terms is taken away; once a run."""
        for items in sides:
            if (self.name, shown(items)) in self.proved:
                continue
            whole = read(items)
            for missing, less in without_a_term(items):
                try:
                    with unwatched():
                        same = compared("=", read(less), whole, 10 * tolerance) is None
                except Exception:  # what cannot be evaluated any more has changed
                    continue
                if same and missing != idle:
                    raise AssertionError(
                        f"{self.place}: {shown(items)} has the same value without {missing}. "
                        "Choose values for which every term counts"
                    )
            self.proved.add((self.name, shown(items)))


def compared(relation: str, left, right, tolerance: float) -> str | None:
    """What is wrong with a relation of two values; None where it holds."""
    left, right = (one.rows if isinstance(one, Matrix) else one for one in (left, right))
    if left.shape != right.shape:
        return f"the shapes are {tuple(left.shape)} and {tuple(right.shape)}"
    if left.isnan().any() or right.isnan().any() or not left.numel():
        return "there is NaN" if left.numel() else "there is nothing to compare"
    room = tolerance * (1 + right.abs())
    if relation in ("=", r"\leftarrow", r"\approx"):
        off = (left - right).abs() > room
        off &= left != right  # infinities
    elif relation in (r"\le", "<", r"\ge", ">"):
        low, high = (left, right) if relation in (r"\le", "<") else (right, left)
        off = low > high + room
        if not (low < high - room).any():
            return "both sides are equal"
    else:
        off = (left - right).abs() <= room
    return f"{left[off][0].item():.12g} and {right[off][0].item():.12g}" if off.any() else None
