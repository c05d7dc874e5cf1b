"""What holds of every exercise: its solution is right, no answer is not yet one, and tempting ones are wrong."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

from snippets.exercises.checking import verdict
from theme.page.exercises import exercises
from theme.page.pages import ROOT


def not_yet(*arguments, **named):
    """The answer of an empty starter."""
    raise NotImplementedError


def prove(module: ModuleType, number: int, wrong: list[tuple[Callable, str]], right: Sequence[Callable] = ()) -> None:
    """Assert what the check of an exercise says of its solution, of no answer, and of wrong and other right ones.

    Args: wrong, tempting answers, each with a part of what is to be said of it; right, answers in other ways.
    """
    path = Path(module.__file__).relative_to(ROOT).as_posix()
    one, check = exercises(path, ROOT)[number - 1], getattr(module, f"check_{number}")
    here = f"{path}:{one.line}: check_{number} says"
    said = verdict(getattr(module, one.function), check)
    assert said == "right", f"{here} of the solution: {said}. Correct one of the two"
    for answer in right:
        said = verdict(answer, check)
        assert said == "right", f"{here} of {answer.__name__}: {said}. It should say: right"
    said = verdict(not_yet, check)
    mend = "Let it call the answer before all else, and catch nothing"
    assert said == "not yet", f"{here} of an answer that is not written: {said}. {mend}"
    assert wrong, f"{here} nothing of a tempting wrong answer. Add one to WRONG"
    for answer, told in wrong:
        said = verdict(answer, check)
        found = said.startswith("wrong: ") and told in said
        assert found, f"{here} of {answer.__name__}: {said}. It should say: {told}"
