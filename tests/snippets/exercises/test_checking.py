"""What a starter says: of values, of answers, and on the command line."""

import sys

import pytest
import torch

from snippets.exercises.checking import compare, main, verdict

HALF = torch.tensor(0.5)


@pytest.mark.parametrize("given", [0.5, HALF, HALF + 1e-6, torch.nn.Parameter(HALF)])
def test_right_numbers_pass(given):
    compare("x", given, 0.5, {"half": 0.25})


@pytest.mark.parametrize(
    "given, right, told",
    [
        (None, 0.5, "x should be a number or a tensor, not None"),
        ("half", 0.5, "x should be a number or a tensor, not 'half'"),
        (torch.ones(3, 1), torch.ones(3), r"x has the shape \(3, 1\), not \(3,\)"),
        (torch.tensor([1.0, float("nan")]), torch.ones(2), "x holds values that are infinite or no numbers"),
        (torch.tensor([1.0, float("inf")]), torch.ones(2), "x holds values that are infinite or no numbers"),
        (0.25, 0.5, "square root"),
        (0.2501, 0.5, "x is too small: 0.2501"),
        (0.75, 0.5, "x is too large: 0.75"),
        (torch.tensor([1.0, 2.5]), torch.tensor([1.0, 2.0]), "x is off by up to 0.5"),
    ],
)
def test_wrong_values_are_told_in_a_sentence(given, right, told):
    with pytest.raises(AssertionError, match=f"^{told}$"):
        compare("x", given, right, {"square root": 0.25})


def test_tolerance_is_relative_to_large_values():
    compare("x", 1e6 + 1, 1e6)
    with pytest.raises(AssertionError):
        compare("x", 1e6 + 100, 1e6)
    with pytest.raises(AssertionError):
        compare("x", 2e-5, 0.0)


def one() -> float:
    return 1.0


def not_yet():
    raise NotImplementedError


def broken():
    return [1.0][1]


def check(answer) -> None:
    compare("it", answer(), 1.0)


def test_verdicts():
    assert verdict(one, check) == "right"
    assert verdict(not_yet, check) == "not yet"
    assert verdict(lambda: 2.0, check) == "wrong: it is too large: 2"
    said = verdict(broken, check)
    assert said.startswith("wrong: it stops with IndexError: list index out of range (line ")
    assert said.endswith(f" of {__file__})")


@pytest.mark.parametrize(
    "arguments, out, status",
    [
        ([], "1  right\n2  not yet\n", 1),
        (["hint", "2"], "think\n", None),
        (["hint"], "", "Add nothing, or one of hint 1 to hint 2"),
        (["hint", "3"], "", "Add nothing, or one of hint 1 to hint 2"),
        (["2"], "", "Add nothing, or one of hint 1 to hint 2"),
    ],
)
def test_command_line(monkeypatch, capsys, arguments, out, status):
    monkeypatch.setattr(sys, "argv", ["Toy_exercises.py", *arguments])
    if status is None:
        main([one, not_yet], [check, check], ["look", "think"])
    else:
        with pytest.raises(SystemExit) as stopped:
            main([one, not_yet], [check, check], ["look", "think"])
        assert stopped.value.code == status
    assert capsys.readouterr().out == out


def test_all_right_is_status_0(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["Toy_exercises.py"])
    with pytest.raises(SystemExit) as stopped:
        main([one], [check], [""])
    assert stopped.value.code == 0
