"""Test of the shape comments' test: right comments pass, wrong and unproved ones are named, whatever the syntax."""

from pathlib import Path

import pytest

from tests import shapes


class Array:
    """Something with a shape: enough for the checker, and quicker to import than torch."""

    def __init__(self, *shape: int):
        self.shape = shape

    def __getitem__(self, index: int) -> "Array":
        return Array(*self.shape[1:])

    def __iter__(self):
        return (self[i] for i in range(self.shape[0]))


HEAD = '"""A module.\n\nShapes: B batch, C channels, H height, W\nwidth, T levels; Ch heads.\n"""\n\n'


def write(root: Path, body: str) -> Path:
    path = root / "snippets/toy.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(HEAD + body)
    return path


def run(root: Path, body: str, *calls: tuple) -> tuple[list[str], dict]:
    """Run f(*arguments) for each call, watched: what was wrong, and the findings."""
    path = write(root, body)
    space = {"__name__": "toy", "Array": Array}
    exec(compile(path.read_text(), str(path), "exec"), space)
    watch, wrong = shapes.Watch(root), []
    for arguments in calls:
        with watch:
            try:
                space["f"](*arguments)
            except KeyError:
                pass
        wrong += watch.wrong
    return wrong, watch.findings


# Each part is a module whose f gets an array of shape (2, 3, 8, 6); all its comments are true.
RIGHT = """
#: numbers, letters and a purpose
def f(x):
    y = x  # (B, 3, H, W) what for
#: a purpose in parentheses
def f(x):
    y = x  # (B, 3, H, W) (see above), (H, W)
#: expressions
def f(x):
    y = x  # (B, 3, H, W)
    z = Array(4, 40)  # (H // B, (H + B) * 4)
    z = Array(4, 10)  # (H // 2, H + B)
#: a letter that is known later
def f(x):
    a = x[0][0]  # (H, W)
    z = Array(4, 16)  # (2 * B, B * H)
    y = x  # (B, 3, H, W)
#: a letter that stands in a sum only
def f(x):
    z = Array(10, 3)  # (T + 1, T // 3)
#: a sum that looks as if it grew evenly
def f(x):
    z = Array(7)  # (W + W // 5,)
    y = x  # (B, 3, H, W)
#: a scalar
def f(x):
    y = Array()  # () the loss
#: a tuple
def f(x):
    y, z = x, x[0]  # (B, 3, H, W), (3, H, W)
#: a tuple with a value that is no tensor
def f(x):
    y, n = x, 3  # (B, 3, H, W), _
#: a tuple with an unused value
def f(x):
    y, _ = x, 3  # (B, 3, H, W)
#: an attribute
class A:
    pass


def f(x):
    a = A()
    a.x = x[0]  # (3, H, W)
#: subscripts
def f(x):
    d = {}
    d["x"], key = x, 0  # (B, 3, H, W), _
    d[key] = x[0]  # (3, H, W)
#: a return
def f(x):
    return x[0]  # (3, H, W)
#: a return inside with
import contextlib


def f(x):
    with contextlib.nullcontext():
        return x[0]  # (3, H, W)
#: a return before finally
def f(x):
    try:
        return x[0]  # (3, H, W)
    finally:
        x = 3
#: a return of one value in a tuple
def f(x):
    return (x[0],)  # (3, H, W)
#: a return of several values
def f(x):
    return x[0], x  # (3, H, W), (B, 3, H, W)
#: a return of a call's several values
def g(x):
    return x, x[0]


def f(x):
    return g(x)  # (B, 3, H, W), (3, H, W)
#: loops
def f(x):
    for y in x:  # (3, H, W)
        y = y[0]  # (H, W)
    for y, z in zip(x, [x, x]):  # (3, H, W), (B, 3, H, W)
        if z:
            y = y[0]  # (H, W)
            continue
    while y:
        y = x[0]  # (3, H, W)
        break
    else:
        y = 3
#: several lines
def f(x):
    y = [
        x[0],
        x,
    ][
        1
    ]  # (B, 3, H, W)
    y = (
        y[0]
    )  # (3, H, W)
#: several lines that use the old value
def g(x, y):
    return x[0]


def f(x):
    y = x
    y = g(
        y,
        y,
    )  # (3, H, W)
#: several lines, the first thing in an endless loop
def f(x):
    turns = iter([1, 2, 3])
    while True:
        y = (
            x[0],
            x
        )[0]  # (3, H, W)
        if next(turns) == 3:
            break
#: several lines, the only thing in an endless loop
def f(x):
    values = [x[0], x[0]]
    try:
        while True:
            y = values.pop(
                0
            )  # (3, H, W)
    except IndexError:
        pass
#: an iterator that ends inside of the statement
class Once:
    def __init__(self, x):
        self.left = [x]

    def __iter__(self):
        return self

    def __next__(self):
        if not self.left:
            raise StopIteration
        return self.left.pop()


def f(x):
    y = [y[0] for y in Once(x)][0]  # (3, H, W)
#: a comprehension with the target's name
def f(x):
    y = x
    y = [
        y[0] for y in x
    ][0]  # (H, W)
#: a nested function with the same names
def f(x):
    def g(y):
        y = y[0]  # (H, W)
        return y

    y = x[0]  # (3, H, W)
    g(y)
#: a lambda with the target's name
def f(x):
    y = (lambda y: y[0])(x)  # (3, H, W)
#: a decorated function
def d(f):
    return f


@d
def f(x):
    y = x  # (B, 3, H, W)
#: a method
class A:
    def m(self, x):
        return x  # (B, 3, H, W)


def f(x):
    A().m(x)
#: a generator
def g(x):
    for _ in range(3):
        y = x[0]  # (3, H, W)
        yield y
        z = x  # (B, 3, H, W)


def f(x):
    list(g(x))
#: a generator that is left early
def g(x):
    while True:
        y = x[0]  # (3, H, W)
        yield y


def f(x):
    next(g(x))
#: a generator that nobody ends
KEPT = []


def g(x):
    y = x[0]  # (3, H, W)
    yield y


def f(x):
    KEPT.append(g(x))
    next(KEPT[0])
#: a generator that receives
def g(x):
    y = x
    y = yield x  # (3, H, W)
    yield y


def f(x):
    values = g(x)
    next(values)
    values.send(x[0])
#: a generator that is closed by an exception
def g(x):
    try:
        y = x[0]  # (3, H, W)
        yield y
    except KeyError:
        y = x[0]  # (3, H, W)
        raise


def f(x):
    values = g(x)
    next(values)
    values.throw(KeyError())
#: an exception, caught
def f(x):
    y = x
    try:
        y = x.shape[
            9
        ]  # (H, W) never made
    except LookupError:
        y = x[0]  # (3, H, W)
#: an exception that ends the call
def f(x):
    y = x[0]  # (3, H, W)
    z = {}["raises"]
#: a value that may be None
def f(x):
    y = None
    for y in [None, x[0]]:  # (3, H, W)
        pass
#: other assignments
def f(x):
    y = 0
    y += 1
    y: object = x  # (B, 3, H, W)
#: letters of two characters
def f(x):
    y = x  # (B, Ch, H, W)
"""
RIGHT = {name: body for name, body in (part.split("\n", 1) for part in RIGHT.split("\n#: ")[1:])}


def commented(body: str) -> list[int]:
    """Lines of the module with a comment that the run reaches."""
    lines = (HEAD + body).split("\n")
    return [n for n, line in enumerate(lines, 1) if "# (" in line and "never made" not in line]


@pytest.mark.parametrize("name", RIGHT)
def test_true_comments_pass_and_are_proved(name, tmp_path):
    wrong, findings = run(tmp_path, RIGHT[name], (Array(2, 3, 8, 6),))
    assert not wrong
    assert sorted(findings["snippets/toy.py"]["proved"]) == commented(RIGHT[name])


@pytest.mark.parametrize("name", RIGHT)
def test_each_of_them_fails_with_another_size(name, tmp_path):
    lines = RIGHT[name].split("\n")
    for number in commented(RIGHT[name]):
        index = number - 1 - HEAD.count("\n")
        broken = [*lines[:index], lines[index].replace("# (", "# (17, "), *lines[index + 1 :]]
        wrong, findings = run(tmp_path, "\n".join(broken).replace("(17, )", "(17,)"), (Array(2, 3, 8, 6),))
        assert any(message.startswith(f"snippets/toy.py:{number}: ") for message in wrong), lines[index]
        assert number not in findings["snippets/toy.py"]["proved"]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("    y = x  # (B, H, 3, W)\n", "8: y is (2, 3, 8, 6), the comment says (B, H, 3, W)"),
        (
            "    y = x  # (B, 3, H, H)\n",
            "8: y is (2, 3, 8, 6), the comment says (B, 3, H, H) with B = 2 from line 8, H = 8",
        ),
        ("    y = x  # (B, 3, H)\n", "8: y is (2, 3, 8, 6), the comment says (B, 3, H)"),
        ("    y = x  # (B, 3, H, W)\n    z = x[0]  # (3, W, H)\n", "9: z is (3, 8, 6), the comment says (3, W, H)"),
        ("    z = Array(4)  # (B,)\n    y = x  # (B, 3, H, W)\n", "9: y is (2, 3, 8, 6)"),
        ("    y = x[0]  # (3, H // 2, W)\n", "8: y is (3, 8, 6), and no comment of this call gives the size of H"),
        ("    y = Array(7)  # (2 * H,)\n", "8: y is (7,), the comment says (2 * H,)"),
        ("    y = [x]  # (B, 3, H, W)\n", "8: y is no tensor but a list"),
        ("    return x  # (B, 3, H, W), (B,)\n", "8: 1 values are returned"),
        ("    y = x, x\n    return y  # (B, 3, H, W)\n", "9: 2 values are returned"),
        ("    for y in x:  # (B, 3, H, W)\n        pass\n", "8: y is (3, 8, 6)"),
    ],
)
def test_a_wrong_comment_is_told_with_file_line_and_sizes(body, told, tmp_path):
    wrong, _ = run(tmp_path, "def f(x):\n" + body, (Array(2, 3, 8, 6),))
    assert len(wrong) == 1 and wrong[0].startswith("snippets/toy.py:" + told), wrong


def test_letters_may_change_from_call_to_call(tmp_path):
    body = "def f(x):\n    y = x  # (B, 3, H, W)\n"
    wrong, _ = run(tmp_path, body, (Array(2, 3, 8, 6),), (Array(4, 3, 5, 7),))
    assert not wrong


def test_a_comment_only_reached_with_equal_sizes_is_unproved(tmp_path):
    body = "def f(x):\n    y = x  # (B, 3, H, W)\n"
    _, findings = run(tmp_path, body, (Array(2, 3, 8, 8),))
    (problem,) = shapes.unproved(tmp_path, findings)
    assert problem.startswith("snippets/toy.py:8: the shape comment (B, 3, H, W) is only reached with H = W = 8.")
    _, findings = run(tmp_path, body, (Array(2, 3, 8, 8),), (Array(2, 3, 8, 6),))
    assert not shapes.unproved(tmp_path, findings)
    _, findings = run(tmp_path, body, (Array(3, 3, 8, 6),))
    assert "is only reached with B = 3." in shapes.unproved(tmp_path, findings)[0]


def test_letters_that_are_equal_hide_behind_expressions(tmp_path):
    body = "def f(x):\n    y = Array(16, 8)  # (2 * H, W)\n"
    _, findings = run(tmp_path, body, (None,))
    assert "is only reached with H = W = 8." in shapes.unproved(tmp_path, findings)[0]


def test_a_call_that_raises_owes_no_letters(tmp_path):
    wrong, _ = run(tmp_path, "def f(x):\n    y = Array(4)  # (H // 2,)\n    {}['raises']\n", (None,))
    assert not wrong


def test_what_was_wrong_once_is_told_once(tmp_path):
    path = write(tmp_path, "def f(x):\n    y = x  # (B,)\n")
    space = {}
    exec(compile(path.read_text(), str(path), "exec"), space)
    watch = shapes.Watch(tmp_path)
    for array, wrong in ((Array(2, 3), 1), (Array(2), 0)):
        with watch:
            space["f"](array)
            space["f"](array)
        assert len(watch.wrong) == wrong


def test_a_comment_that_nothing_reached_is_unproved(tmp_path):
    body = "def f(x):\n    if not x:\n        y = x  # (B, 3, H, W)\n"
    _, findings = run(tmp_path, body, (Array(2, 3, 8, 8),))
    (problem,) = shapes.unproved(tmp_path, findings)
    assert problem.startswith("snippets/toy.py:9: the shape comment (B, 3, H, W) is reached by no test.")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("x = f()  # (B, N)\n", "the letter N of (B, N) is not declared"),
        ("x = f()  # (B)\n", "(B) is no shape"),
        ("x = f()  # (B C,)\n", "(B C,) is no shape"),
        ("x = f()  # (B, C\n", "(B, C is no shape"),
        ("x = f()  # (B / 2,)\n", "(B / 2,) is no shape"),
        ("x = f()  # (2 * _,)\n", "(2 * _,) is no shape"),
        ("x = f()  # (B,), (C,)\n", "(B,), (C,) has 2 shapes for 1 values"),
        ("x, y = f()  # (B,)\n", "(B,) has 1 shapes for 2 values"),
        ("x.mul_(2)  # (B,)\n", "the shape comment '# (B,)' is on no statement that can be checked"),
        ("f(\n    x,  # (B,)\n)\n", "the shape comment '# (B,)' is on no statement that can be checked"),
        ("# (B, C) above the line\nx = f()\n", "the shape comment '# (B, C) above the line' is on no statement"),
        ("f().x = 3  # (B,)\n", "the shape comment (B,) is on no statement"),
        ("x, *y = 3  # (B,), (C,)\n", "the shape comment (B,), (C,) is on no statement"),
    ],
)
def test_a_malformed_comment_is_told(body, told, tmp_path):
    write(tmp_path, "def f():\n    pass\n\n\n" + body)
    (tmp_path / "tests/snippets").mkdir(parents=True)
    (tmp_path / "tests/snippets/test_toy.py").touch()
    (problem,) = shapes.problems(tmp_path)
    assert problem.split(": ", 1)[1].startswith(told), problem


def test_other_comments_are_left_alone(tmp_path):
    body = "x = 3  # why (B, C)\n# (as the paper says) why\ny = '# (B, C)'  # T\n"
    write(tmp_path, body)
    (problem,) = shapes.problems(tmp_path)  # the missing test, nothing else
    assert problem == "snippets/toy.py:1: the module has no test. Write tests/snippets/test_toy.py"


def test_a_tensor_without_a_comment_on_a_page_is_told(tmp_path):
    torch = pytest.importorskip("torch")
    body = (
        "def f(x):\n    a = x * 2\n    # --8<-- [start:shown]\n    b = x * 2  # twice\n    c = b\n    n = 3 * 2\n"
        "    d = x * 2  # (B, C)\n    e, n = x[0], 3\n    h = x * 4  # _ as given\n"
        "    i, j = x.chunk(2)  # _, _ as given\n"
        "    k = x * 5  # _\n"
        "    # --8<-- [end:shown]\n    g = x * 3\n"
    )
    _, findings = run(tmp_path, body, (torch.zeros(2, 3),), (torch.zeros(2, 3),))
    told = shapes.unproved(tmp_path, findings)
    assert [problem.split(":")[1] for problem in told] == ["10", "14"], told
    assert all("the line makes a tensor. End it with its shape" in problem for problem in told)


def test_findings_of_several_processes_add_up():
    one = {"snippets/toy.py": {"proved": [8], "equal": {9: "H = W = 8"}, "bare": []}}
    two = {
        "snippets/toy.py": {"proved": [9], "equal": {}, "bare": [3]},
        "snippets/b.py": {"proved": [1], "equal": {}, "bare": []},
    }
    total = shapes.merge([one, two])
    assert total["snippets/toy.py"]["proved"] == {8, 9} and total["snippets/toy.py"]["bare"] == {3}
    assert total["snippets/b.py"]["proved"] == {1}


# Each docstring is of an f(x, n) that gets x (2, 3, 8, 6) and returns x[0] of shape (3, 8, 6); n is 3.
TRUE = [
    "Of x (B, n, H, W) the first (n, H, W).",
    "Images (C, H, W) of x (B, C, H, W).",
    "Returns (3, H, W). More (7, 7) says nothing, and so do (x, n), (0, 1) and (B / 2).",
    "Rows (T, T) become columns; returns (C, H, W).",
    "The first of x (_, C, H, W). Behind the first sentence, (B, B) is no claim.",
    "Pixels (…, W) of x (…, H, W).",
    "For `x` (B,) or (B, C, H, W): (C, H // 2 * 2, W).",
    "Of xs (B, C, H, W).",
    "x is (B, C, H, W), and Y (Y, Y) is no letter.",
]
FALSE = {
    "Of x (B, n + 1, H, W).": "x is (2, 3, 8, 6), the docstring says (B, n + 1, H, W) with n = 3. Correct",
    "Images (C, W, H) of x (B, C, H, W).": "what is returned is (3, 8, 6), the docstring says (C, W, H) with C = 3",
    "Of x (B, C, H).": "x is (2, 3, 8, 6), the docstring says (B, C, H). Correct the docstring",
    "Returns (3, H).": "what is returned is (3, 8, 6), the docstring says (3, H). Correct",
    "Of xs (B,) or (B, C).": "x is (2, 3, 8, 6), the docstring says (B,) or (B, C). Correct",
    "Pixels (…, H) of x (…, H, W).": "what is returned is (3, 8, 6), the docstring says (..., H) with H = 8",
    "Columns (W,) or rows (C, H, 7).": "what is returned is (3, 8, 6), the docstring says (W,) or (C, H, 7)",
}


@pytest.mark.parametrize("said", TRUE)
@pytest.mark.parametrize("body", ["return x[0]", "y = x  # (B, C, H, W)\n    return y[0]  # (C, H, W)"])
def test_true_docstrings_pass(said, body, tmp_path):
    wrong, _ = run(tmp_path, f'def f(x, n: int):\n    """{said}"""\n    {body}\n', (Array(2, 3, 8, 6), 3))
    assert not wrong


@pytest.mark.parametrize("said", FALSE)
def test_a_wrong_docstring_is_told_with_file_line_and_sizes(said, tmp_path):
    body = f'def f(x, n: int):\n    """\n    {said}"""\n    return x[0]\n'
    (wrong,), _ = run(tmp_path, body, (Array(2, 3, 8, 6), 3))
    assert wrong.startswith(f"snippets/toy.py:9: {FALSE[said]}"), wrong


def test_a_docstring_and_the_comments_below_have_the_same_letters(tmp_path):
    body = '    """Of x (B, H, C, W)."""\n    y = x  # (B, C, H, W)\n    return y\n'
    (wrong,), _ = run(tmp_path, f"def f(x):\n{body}", (Array(2, 3, 8, 6),))
    told = "snippets/toy.py:8: x is (2, 3, 8, 6), the docstring says (B, H, C, W) with B = 2, C = 3, H = 8, W = 6."
    assert wrong.startswith(told)


def test_docstrings_of_methods_of_several_results_and_of_generators(tmp_path):
    body = (
        'class A:\n    def m(self, x):\n        """Of x (B, B)."""\n        return x[0], x\n\n'
        '    def n(self, x):\n        """(C, H, W) and (B, C, H, H)."""\n        return x[0], x\n\n\n'
        'def g(x):\n    """Of x (B, C)."""\n    yield x\n\n\n'
        "def f(x):\n    A().m(x)\n    A().n(x)\n    list(g(x))\n"
    )
    wrong, _ = run(tmp_path, body, (Array(2, 3, 8, 6),))
    assert [message.split(": ")[1] for message in wrong] == [
        "x is (2, 3, 8, 6), the docstring says (B, B). Correct the docstring or the code",
        "what is returned is (2, 3, 8, 6), the docstring says (C, H, W) or (B, C, H, H) with C = 3, H = 8, W = 6. "
        "Correct the docstring or the code",
        "x is (2, 3, 8, 6), the docstring says (B, C). Correct the docstring or the code",
    ]


def test_a_call_that_raises_owes_its_docstring_nothing(tmp_path):
    body = 'def f(x):\n    """Of x (B, C)."""\n    {}["raises"]\n'
    wrong, _ = run(tmp_path, body, (Array(2, 3, 8, 6),))
    assert not wrong
