"""Every post has a lab that ran without an error, and whose results are those of the code as it stands."""

import pytest

from tests.labs import checks
from theme.page.pages import ROOT


@pytest.mark.parametrize(
    "check",
    [checks.notebooks, checks.stale, checks.sealed, checks.outputs, checks.figures],
    ids=lambda check: check.__name__,
)
def test_labs(check):
    problems = check(ROOT)
    assert not problems, "\n" + "\n".join(problems)
