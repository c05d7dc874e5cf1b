"""Test of how equations are tested: formulas are evaluated as printed, and markers that are not true fail."""

import dataclasses
from collections.abc import Iterator
from math import cos, exp, isclose, log, pi, sqrt

import pytest

from tests.test_of_tests import PAGE, POST, TOY, replace, suite, told, write

pytest.importorskip("torch")
import torch
from torch import nn

from tests.disturb import Watched, plain
from tests.formula import Formula, FormulaError, Matrix, fingerprint
from tests.test_of_tests import tree  # noqa: F401

A, B, C, D, E = 0.36, 0.7, 1.3, 0.25, 2.0
VECTOR, OTHER = torch.tensor([0.3, -1.2, 0.5]).double(), torch.tensor([1.1, 0.4, -0.7]).double()
WIDE = torch.arange(6.0).view(2, 3).double() - 2
G, MAPPED = torch.tensor([[0.2], [-0.9]]).double(), (WIDE @ OTHER)[:, None]
SQUARE = Matrix(torch.tensor([[2.0, 0.5], [0.5, 1.0]]).double())


def read(tex: str) -> Formula:
    return Formula("toy", tex, "x.md:7")


HOLD = {
    "roots": (
        r"x_t = \sqrt{\bar\alpha_t}\; x_0 + \sqrt{1 - \bar\alpha_t}\; \epsilon .",
        {"x_t": sqrt(A) * B + sqrt(1 - A) * C, r"\bar\alpha_t": A, "x_0": B, r"\epsilon": C},
    ),
    "a call as one symbol": (
        r"x = \frac{1}{\sqrt{\alpha_t}} (x_t - \frac{\beta_t}{\sqrt{1 - \bar\alpha_t}}\, \epsilon_\theta(x_t,t))",
        {"x": (B - D / sqrt(1 - A) * C) / sqrt(1 - D), r"\alpha_t": 1 - D, "x_t": B, r"\beta_t": D}
        | {r"\bar\alpha_t": A, r"\epsilon_\theta(x_t, t)": C},
    ),
    "cosine": (
        r"f(t) = \cos^2\!\Big(\frac{t/T + s}{1 + s}\cdot\frac{\pi}{2}\Big)",
        {"f": lambda t: cos((t / 10 + 0.008) / 1.008 * pi / 2) ** 2, "t": 3, "T": 10, "s": 0.008},
    ),
    "power of a bracket": (
        r"\sigma_i = \sigma_1 \Big( \frac{\sigma_L}{\sigma_1} \Big)^{\frac{i-1}{L-1}}",
        {r"\sigma_i": 5 * (0.1 / 5) ** (2 / 9), r"\sigma_1": 5.0, r"\sigma_L": 0.1, "i": 3, "L": 10},
    ),
    "primes": (r"b' = b\, s^{d/(d-2)}", {"b'": 1e4 * 8 ** (64 / 62), "b": 1e4, "s": 8.0, "d": 64}),
    "least and largest": (
        r"g = \min\!\Big(1, \max\!\Big(0, \frac{r_i - \alpha}{\beta - \alpha}\Big)\Big)",
        {"g": torch.tensor([0, 4 / 31, 1]).double(), "r_i": torch.tensor([0.5, 5, 40]), r"\alpha": 1.0, r"\beta": 32.0},
    ),
    "exponential and logarithm": (r"p = e^{u/\tau} \ln s", {"p": exp(A / B) * log(3), "u": A, r"\tau": B, "s": 3}),
    "function and factor": (r"p = \exp(a) b - \sin a b", {"p": exp(A) * B - torch.tensor(A * B).sin(), "a": A, "b": B}),
    "thousands": (r"b = 10{,}000 a", {"b": 10000 * A, "a": A}),
    "a chain in two steps": (
        r"\frac{1}{v} = \frac{a}{b} + c \quad\Longrightarrow\quad v = \frac{b}{a + b c}, \; z \sim \mathcal{N}(0, I)",
        {"v": 1 / (A / B + C), "a": A, "b": B, "c": C},
        r"z \sim \mathcal{N}(0, I)",
        2,
    ),
    "update": (r"x \leftarrow d x + (1 - d) y", {r"x \leftarrow": D * B + (1 - D) * C, "d": D, "x": B, "y": C}),
    "sum over an index": (
        r"y_i = \frac{x_i}{\sqrt{\tfrac{1}{W} \sum_j x_j^2 + \varepsilon}}",
        {"y_i": VECTOR / (VECTOR.square().mean() + D).sqrt(), "x_i": VECTOR, "W": 3, r"\varepsilon": D}
        | {"x_j": lambda j: VECTOR[j], "j": range(3)},
    ),
    "sum with limits, product": (
        r"s = -\frac{1}{(N - 1) \ln 2} \sum_{t=2}^{N} \ln p_t + \prod_{k=1}^{N} q_k",
        {"s": -(VECTOR[1:].abs().log().sum() / 2 / log(2)) + OTHER.prod(), "N": 3}
        | {"p_t": lambda t: VECTOR[t - 1].abs(), "q_k": lambda k: OTHER[k - 1]},
    ),
    "softmax over a part": (
        r"o = \sum_{s \le t} \frac{\exp(\langle q, k_s \rangle / \sqrt{D})}"
        r"{\sum_{r \le t} \exp(\langle q, k_r \rangle / \sqrt{D})}\; v_s",
        {"o": torch.softmax(WIDE @ VECTOR / sqrt(3), 0) @ WIDE[:, :2], "q": VECTOR, "D": 3, "t": 1}
        | {"k_s": lambda s: WIDE[s], "k_r": lambda r: WIDE[r], "v_s": lambda s: WIDE[s, :2]}
        | {"s": range(2), "r": range(2)},
    ),
    "operator that is bound": (
        r"y = \operatorname{Re} \sum_i a_i e^{i b} + c",
        {"y": (VECTOR * torch.exp(1j * OTHER)).real.sum() + C, "a_i": VECTOR, "i": 1j, "b": OTHER, "c": C}
        | {r"\sum_i": torch.sum, r"\operatorname{Re}": torch.real},
    ),
    "set": (
        r"m = \min \Big\{ n : \sum_{i=1}^{n} p_i \ge p \Big\}",
        {"m": 2, "n": range(1, 4), "p_i": lambda i: [0.5, 0.3, 0.2][i - 1], "p": 0.7},
    ),
    "cases": (
        r"y = \begin{cases} (n + 1)/w & n < w \\ 0.1 - n & \text{else.} \end{cases}",
        {"y": torch.tensor([0.4, -6.9]), "n": torch.tensor([1, 7]), "w": 5},
    ),
    "norms": (
        r"d = \lVert a - b \rVert^2 + \lVert M \rVert_F - \lvert c \rvert",
        {"d": (VECTOR - OTHER).square().sum() + WIDE.square().sum().sqrt() - B, "a": VECTOR, "b": OTHER}
        | {"M": Matrix(WIDE), "c": -B},
    ),
    "floor and ceiling": (r"g = \lfloor h / 3 \rfloor + \lceil h / 4 \rceil", {"g": 2 + 2, "h": 7}),
    "matrices": (
        r"M = \frac{\alpha}{r}\, B A\, x - g (A x)^\top A x",
        {"M": Matrix(4 * SQUARE.rows @ MAPPED - G @ MAPPED.T @ MAPPED), r"\alpha": 16, "r": 4, "B": SQUARE}
        | {"A": Matrix(WIDE), "x": Matrix(OTHER[:, None]), "g": Matrix(G)},
    ),
    "elementwise product": (
        r"y = W (a \odot V b)",
        {"y": SQUARE.rows @ (VECTOR[:2] * (WIDE @ OTHER)), "W": SQUARE, "a": VECTOR[:2], "V": Matrix(WIDE), "b": OTHER},
    ),
    "matrix of cells": (
        r"\begin{pmatrix} u \\ v \end{pmatrix} = \begin{pmatrix} \cos m & -\sin m \\ & 2 \end{pmatrix}"
        r"\begin{pmatrix} a \\ b \end{pmatrix}",
        {"u": cos(A) * B - torch.tensor(A).double().sin() * C, "v": 2 * C, "m": A, "a": B, "b": C},
    ),
    "root of a matrix": (r"R R = S^{1/2} S^{1/2} + 0 S", {"R": SQUARE, "S": Matrix(SQUARE.rows @ SQUARE.rows)}),
    "at most": (r"a \le \max_i \lvert x_i \rvert", {"a": A, "x_i": lambda i: VECTOR[i], "i": range(3)}),
}


def holds(tex, bindings, apart="", relations=1):
    """Without the proof that each term counts, which numbers that are chosen for reading need not pass."""
    formula = read(tex)
    formula.prove = lambda *_: None
    formula.holds(bindings, apart, relations, 1e-7)


@pytest.mark.parametrize("name", HOLD)
def test_formulas_are_evaluated(name):
    tex, bindings, *apart = HOLD[name]
    holds(tex, bindings, *apart)
    left = next(iter(bindings))
    value = bindings[left]
    wrong = Matrix(value.rows * 1.01) if isinstance(value, Matrix) else value
    wrong = wrong if isinstance(value, Matrix) else (lambda t: value(t) + 0.01) if callable(value) else value + 0.9
    with pytest.raises((AssertionError, FormulaError), match="x.md:7"):
        holds(tex, bindings | {left: wrong}, *apart)


def test_a_formula_that_is_no_equation():
    read(r"r\, (m + n)").agrees(3 * 12, {"r": 3, "m": 5, "n": 7})
    mask = torch.tensor([True, True, False])
    keep = {"p_v": torch.tensor([0.4, 0.3, 0.1]), "p": 0.6, r"\max_u": torch.max, "p_u": torch.tensor([0.4, 0.3])}
    read(r"\text{keep } v \text{ where } p_v \ge p \max_u p_u .").agrees(mask, keep, r"\text{keep } v \text{ where }")
    with pytest.raises(AssertionError, match=r"x.md:7: r \( m \+ n \): 36 and 39"):
        read(r"r\, (m + n)").agrees(36, {"r": 3, "m": 5, "n": 8})
    with pytest.raises(FormulaError, match="this is an equation"):
        read("x = y").agrees(1, {"x": 1, "y": 1})


VALUES = {"x": 3.0, "a": 1.0, "b": 2.0}
REFUSED = {
    r"x = a + b \; | + c": r"| is never closed",
    r"x = a b ) + c": r") closes nothing",
    r"x = a + b \text{ if } c": r"no value for \text{ if } before c",
    r"x = a + b, a": r"a is no equation. Quote it in apart, or use `agrees`",
    r"x = a + b, b = 2": r"it has 2 relations, its test knows 1. Bind them all, relations=2",
    r"x = a + b = b + a": r"it has 2 relations",
    r"x = a + b + c": r"no value for c before the end",
    r"x = a + b_t": r"the formula has no b",
    r"x = a + b + b_t": r"no value for b_t",
    r"x = a + b + b'": r"no value for b'",
    r"x = a + b + \bar b": r"no value for \bar before b",
    r"x = a + \foo{b}": r"no value for \foo before { b }",
    r"x = a + b + c^2": r"no value for c before ^ 2",
    r"x = a + b +": r"SymPy cannot read 'A + B +'",
    r"x = a + \frac{b}": r"no value for",
    r"x = a + b \sum_j a": r"\sum over j: give j a range, or write both limits",
    r"x = a + \lVert b": r"\lVert is never closed",
    r"x = a": r"the formula has no b",
    r"x = 2 a + \sim b": r"no value for \sim before b",
}


@pytest.mark.parametrize("tex", REFUSED)
def test_what_cannot_be_evaluated_is_refused(tex):
    with pytest.raises(FormulaError) as error:
        read(tex).holds(VALUES)
    assert str(error.value).startswith("x.md:7: toy: ") and REFUSED[tex] in str(error.value)


def test_an_index_has_a_value_inside_of_its_sum_only():
    names = {"y": 3.0, "x_j": lambda j: float(j), "j": range(3)}
    read(r"y = \sum_j x_j").holds(names)
    with pytest.raises(FormulaError, match="x_j stands outside of what runs over j"):
        read(r"y = \sum_j 2 + x_j").holds(names)


def test_what_is_apart_is_in_the_formula():
    with pytest.raises(FormulaError, match=r"the formula has no z \\sim \\mathcal{U}"):
        read(r"x = a + b, z \sim \mathcal{N}").holds(VALUES, apart=r"z \sim \mathcal{U}")


@pytest.mark.parametrize("tex", [r"x \le a + b", r"x < a + b", r"x \ge a + b", r"x > a + b", r"x \neq a + b"])
def test_an_inequality_is_not_an_equality(tex):
    with pytest.raises(AssertionError, match="x.md:7"):
        read(tex).holds(VALUES)
    read(tex).holds(VALUES | {"x": 2.0 if r"\le" in tex or "<" in tex else 4.0})
    if r"\neq" not in tex:
        with pytest.raises(AssertionError, match="x.md:7"):
            read(tex).holds(VALUES | {"x": 4.0 if r"\le" in tex or "<" in tex else 2.0})


def test_a_term_may_be_idle():
    y = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    names = {"x": 2 / y.detach(), r"\nabla": lambda value: torch.autograd.grad(value, y)[0]}
    names |= {"f": lambda: y**2, "Z": 5.0}
    with pytest.raises(AssertionError, match=r"has the same value without \\frac"):
        read(r"x = \nabla \ln \frac{f}{Z}").holds(names)
    read(r"x = \nabla \ln \frac{f}{Z}").holds(names, idle=r"\frac")


@pytest.mark.parametrize(
    ("tex", "missing", "values"),
    [
        ("x = a + b c", "c", {"x": 3.0, "a": 1.0, "b": 2.0, "c": 1.0}),
        ("x = a + b c", r"\+ b c", {"x": 1.0, "a": 1.0, "b": 0.0, "c": 5.0}),
        ("x = a b^c", r"\^ c", {"x": 6.0, "a": 3.0, "b": 2.0, "c": 1.0}),
        (r"x = \min(a, b)", "b", {"x": 1.0, "a": 1.0, "b": 2.0}),
        (r"x = \lfloor a \rfloor + b", r"\\lfloor", {"x": 5.0, "a": 3.0, "b": 2.0}),
        (r"x = f(a) + b", "f", {"x": 5.0, "a": 3.0, "b": 2.0, "f": lambda x: x}),
        (r"x = \sqrt{a} + b", r"\\sqrt", {"x": 3.0, "a": 1.0, "b": 2.0}),
    ],
)
def test_a_term_that_does_not_count_is_told(tex, missing, values):
    with pytest.raises(AssertionError, match=f"has the same value without {missing}. Choose values"):
        read(tex).holds(values)


def test_a_fingerprint_is_of_what_is_seen():
    one = fingerprint(r"x_t = \Big( a + b_{t} \Big), \qquad \tfrac{1}{2} \label{x}")
    assert one == fingerprint(r"x_{t}=(a\; + \;b_t), \frac{1}{2}")
    others = (r"x_t = (a - b_t), \frac{1}{2}", r"x_t = (a + b_s), \frac{1}{2}", r"x_t = (a + b_t), \frac{1}{3}")
    assert len({one, *map(fingerprint, others)}) == 4


# disturbed results


@dataclasses.dataclass(frozen=True)
class Pair:
    first: float
    second: torch.Tensor


RESULTS = [
    1,
    2.5,
    1j,
    True,
    "a",
    (1, 2),
    [1.0],
    {"a": 1},
    {3},
    Pair(1.0, torch.ones(2)),
    torch.ones(2),
    torch.arange(3),
]
RESULTS += [torch.tensor([True]), torch.ones(2).numpy(), torch.Size([2, 3]), (x for x in [1.0]), iter([1])]


def same(a, b) -> bool:
    if isinstance(a, Pair):
        return same((a.first, a.second), (b.first, b.second))
    if isinstance(a, tuple | list) and not isinstance(a, torch.Size):
        return any(same(*pair) for pair in zip(a, b, strict=True))
    if isinstance(a, Iterator):
        return same(list(a), list(b))
    return bool((a == b).any()) if hasattr(a, "any") else a == b


@pytest.mark.parametrize("result", RESULTS, ids=lambda one: type(one).__name__)
def test_every_part_of_a_result_is_disturbed(result):
    twin = (x for x in [1.0]) if isinstance(result, Iterator) else result

    def function():
        return result

    with Watched(function, disturb=True) as seen:
        found = function()
    assert type(found) is type(result) or isinstance(result, Iterator)
    assert not same(found, twin) and seen.calls == 1  # nothing of it is as it was


def test_what_is_changed_in_place_is_disturbed_and_put_back():
    layer, weight = nn.Linear(2, 3), torch.ones(2)

    @torch.no_grad()
    def double_(x, module, *, others):
        x.mul_(2), module.weight.mul_(2)

    before, first = layer.weight.detach().clone(), weight.clone()
    with Watched(plain(double_), disturb=True):
        double_(weight, layer, others=[first])
        assert isclose(weight[0], 2 * 1.01 + 0.01, rel_tol=1e-6) and first[0] > 1
        assert torch.allclose(layer.weight, before * 2 * 1.01 + 0.01)
    assert weight[0] == 2 and first[0] == 1 and torch.equal(layer.weight, 2 * before)


def test_a_function_is_found_whoever_holds_it():
    class Doubles(nn.Linear):
        def forward(self, x, *, scale=2):
            return super().forward(x) * 0 + scale * x

        @property
        def two(self):
            return 2

    layer, held = Doubles(2, 2), {"f": Doubles.forward}
    with Watched(plain(Doubles)) as seen, Watched(plain(Doubles.two), disturb=True):
        assert torch.equal(layer(torch.ones(2)), held["f"](layer, torch.ones(2), scale=2)) and layer.two == 3
    assert seen.calls == 2 and layer.two == 2
    with pytest.raises(TypeError, match="a function, a method"):
        plain(dict)


# markers

MORE = '''

# --8<-- [start:more]
def triple_(x: Tensor) -> None:
    """Three times x, in place."""
    x.mul_(3)


def numbers(x: Tensor):
    """Each number, doubled."""
    yield from (2 * one for one in x.flatten())


# --8<-- [end:more]


def hidden(x: Tensor) -> Tensor:
    """On no page."""
    return 2 * x
'''
GOOD = '''"""Markers that are true."""

import pytest
import torch
from hypothesis import given, strategies

from snippets.toy import double, numbers, triple_

PINNED = "{pin}"
BY_NAME = {{"double": double}}


@pytest.fixture
def x():
    return torch.rand(3, 2)


@pytest.mark.equation("toy-three", of=triple_)
def test_in_place(x, formula):
    before = x.clone()
    triple_(x)
    formula("toy-three").holds({{"y": x, "x": before}}, tolerance=1e-6)


@pytest.mark.equation("toy-double", of=numbers)
def test_generator(x, formula):
    formula("toy-double").holds({{"y": torch.stack(list(numbers(x))), "x": x.flatten()}})


@pytest.mark.equation("toy-double", of=double, pin=PINNED)
def test_pinned(x):
    assert torch.equal(BY_NAME["double"](x), x + x)


@pytest.mark.equation("toy-double", of=None, pin=PINNED)
def test_of_nothing(x):
    assert 2 * x[0, 0] == x[0, 0] + x[0, 0]


@given(strategies.integers(-100, 100))
@pytest.mark.equation("toy-double", of=double, pin=PINNED)
def test_any_number(number):
    assert torch.equal(double(torch.full((3, 2), float(number))), torch.full((3, 2), 2.0 * number))
'''
BAD = '''"""Markers that are not."""

import pytest
import torch

from snippets.toy import double, hidden, triple_

X = torch.ones(3, 2)


@pytest.mark.equation("toy-double", of=double)
def test_degenerate(formula):
    formula("toy-double").holds({"y": double(0 * X), "x": 0 * X})


@pytest.mark.equation("toy-double", of=double)
def test_moved(formula):
    formula("toy-double").holds({"y": 2 * X, "x": X})


@pytest.mark.equation("toy-double", of=double)
def test_emptied(formula):
    assert double(X) is not None
    formula("toy-double").holds({"y": 2 * X, "x": X})


@pytest.mark.equation("toy-double", of=double, pin="01234567")
def test_changed():
    assert torch.equal(double(X), X + X)


@pytest.mark.equation("toy-double", of=double)
def test_neither():
    assert torch.equal(double(X), X + X)


@pytest.mark.equation("toy-three", of=triple_)
def test_in_place_emptied(formula):
    triple_(X.clone())
    formula("toy-three").holds({"y": 3 * X, "x": X})


@pytest.mark.equation("toy-double", of=hidden)
def test_hidden(formula):
    formula("toy-double").holds({"y": hidden(X), "x": X})


@pytest.mark.equation("toy-double")
def test_of_missing(formula):
    formula("toy-double").holds({"y": double(X), "x": X})


@pytest.mark.equation("toy-duoble", of=double)
def test_unknown():
    assert torch.equal(double(X), X + X)


@pytest.mark.equation("toy-double", of=None, pin="PIN")
def test_says_nothing():
    assert X is not None


@pytest.mark.equation("toy-double", of=double)
def test_runs_once(tmp_path, formula):
    (tmp_path / "x").mkdir()
    formula("toy-double").holds({"y": double(X), "x": X})
'''
AGAIN, MANY = "passes with a wrong result of", "Compare what"
TOLD = {
    "test_moved": "never calls double, which its marker names. Call it, or name the function that the test is about",
    "test_emptied": f"{AGAIN} double (1 % more, plus 0.01). {MANY} double returns with something independent",
    "test_neither": 'is marked for toy-double, but does not evaluate the formula. Write formula("toy-double").holds(…)',
    "test_in_place_emptied": f"{AGAIN} triple_ (1 % more, plus 0.01). {MANY} triple_ returns with something indep",
    "test_of_missing": "names no function for toy-double. Write of=function, or of=None where no function implements",
    "test_unknown": "has the marker of toy-duoble, which no page has. Write the id of an equation",
    "test_says_nothing": "is marked for toy-double, but compares no values. Assert what the formula says",
    "test_runs_once": "cannot run twice. Make it start from its fixtures alone",
}


def test_markers_that_are_true_pass_and_others_fail(tree):  # noqa: F811
    page = PAGE.replace("toy-double}\n$$\n", "toy-double}\n$$\n\n$$\ny = 3 x\n\\label{toy-three}\n$$\n")
    page += '\n```python\n--8<-- "snippets/toy.py:more"\n```\n'
    write(tree, POST, page)
    replace(tree, TOY, "# --8<-- [end:double]\n", "# --8<-- [end:double]\n" + MORE)
    pin = fingerprint("y = 2 x")
    write(tree, "tests/snippets/test_good.py", GOOD.format(pin=pin))
    write(tree, "tests/snippets/test_bad.py", BAD.replace("PIN", pin))
    status, output = suite(tree, "tests/snippets")
    assert status == 1
    assert "11 failed, 6 passed" in output, output
    lines = BAD.split("\n")
    for name, message in TOLD.items():
        line = lines.index(next(one for one in lines if one.startswith(f"def {name}(")))  # of the marker
        assert told(output, f"tests/snippets/test_bad.py:{line}: {name} {message}"), f"{name}\n{output}"
    changed = "the formula toy-double changed since its test was read. Read the test at tests/snippets/test_bad.py:"
    assert told(output, f"{POST}:21: {changed}") and f'then write pin="{pin}"' in output
    line = (tree / TOY).read_text().split("\n").index("def hidden(x: Tensor) -> Tensor:") + 1
    far = f"{TOY}:{line}: hidden implements toy-double, but {POST}:21 is far from its code. Include its section below"
    assert told(output, far), output
    assert f"{POST}:21: 2 x has the same value without 2. Choose values for which every term counts" in output
