"""Exercises: solutions in snippets/exercises/, and the starter that is made from them by taking the bodies out.

For each number N the module holds a section exercise-N with one function, whose docstring is the task and ends with a
paragraph "Hint: …", and outside of all sections a function check_N(answer), which raises what is wrong with an answer.
A section given-N holds code that the task starts from.
"""

import ast
import re
from dataclasses import dataclass
from pathlib import Path

from theme.page.pages import Page, posts

CHECKING = "snippets/exercises/checking.py"
MARK = re.compile(r"^# --8<-- \[(?P<kind>start|end):(?P<name>(?:exercise|given)-[1-9][0-9]*)\]$")
HINT = re.compile(r'\n\n +Hint: (?P<hint>(?:(?!""").)*?)\n? *"""', re.S)
HEAD = '''"""The exercises of the page "{title}".

Put this file beside the page's program, {name}.py. Write each function where it says NotImplementedError; its docstring
is the task. Then ask:

    python {name}_exercises.py           which answers are right
    python {name}_exercises.py hint 1    a hint for the first
"""'''
BELOW = "# Nothing is to be written below: this is how your answers are checked"


@dataclass(frozen=True)
class Exercise:
    """One exercise: its function, the line of it in the module, and its hint."""

    number: int
    function: str
    line: int
    hint: str


@dataclass(frozen=True)
class Piece:
    """A statement of a module, the section that it stands in ("" outside), and its lines with the comments above."""

    node: ast.stmt
    section: str
    code: str


def path_of(post: Page) -> str:
    """Where the exercises of a post are: snippets/exercises/llm/rope.py for the module snippets/llm/rope.py."""
    return str(post.meta.get("module")).replace("snippets/", "snippets/exercises/", 1)


def pieces(text: str) -> list[Piece]:
    """The statements of a module, without its docstring."""
    tree, lines, found = ast.parse(text), text.split("\n"), []
    marks = [(number, mark) for number, line in enumerate(lines, 1) if (mark := MARK.match(line))]
    for node in tree.body[1:]:
        first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])
        above = [mark for number, mark in marks if number < first]
        section = above[-1]["name"] if above and above[-1]["kind"] == "start" else ""
        while lines[first - 2].startswith("#") and not MARK.match(lines[first - 2]):
            first -= 1
        found.append(Piece(node, section, "\n".join(lines[first - 1 : node.end_lineno])))
    return found


def without_hint(code: str) -> tuple[str, str]:
    """The code of a solution without the hint of its docstring, and the hint."""
    found = HINT.search(code)
    if not found:
        return code, ""
    opening = code.rindex('"""', 0, found.start())
    indent = opening - code.rfind("\n", 0, opening) - 1
    closing = "\n" + indent * " " + '"""' if "\n" in code[opening : found.start()] else '"""'
    return code[: found.start()] + closing + code[found.end() :], " ".join(found["hint"].split())


def emptied(code: str) -> str:
    """A function's head and task, without its hint and its body."""
    code, _ = without_hint(code)
    task = ast.parse(code).body[0].body[0]
    return "\n".join(code.split("\n")[: task.end_lineno]) + "\n    raise NotImplementedError"


def exercises(path: str, root: Path) -> list[Exercise]:
    """The exercises of a module, in order; ValueError, with the line, where something is missing."""
    parts, found = pieces((root / path).read_text(encoding="utf-8")), []
    names = {getattr(part.node, "name", "") for part in parts if not part.section}
    for part in parts:
        if not part.section.startswith("exercise-"):
            continue
        number, here = len(found) + 1, f"{path}:{part.node.lineno}"
        if part.section != f"exercise-{number}" or not isinstance(part.node, ast.FunctionDef):
            mend = "Give each function a section of its own, in the order 1, 2, 3, …"
            raise ValueError(f"{here}: exercise-{number} with one function is expected, given {part.section}. {mend}")
        _, hint = without_hint(part.code)
        if not hint:
            mend = "Write a docstring: the task, and as its last paragraph Hint: …"
            raise ValueError(f"{here}: {part.node.name} has no hint. {mend}")
        if f"check_{number}" not in names:
            mend = f"Write check_{number}(answer), which raises what is wrong with an answer"
            raise ValueError(f"{here}: nothing checks {part.node.name}. {mend}")
        found.append(Exercise(number, part.node.name, part.node.lineno, hint))
    return found


def problems(root: Path) -> list[str]:
    """Exercises that lack a part or are not on their page, each once and in order, and starters that no page links."""
    found, owners = [], {path_of(post): post for post in posts(root)}
    for file in sorted((root / "snippets/exercises").rglob("*.py")):
        path = file.relative_to(root).as_posix()
        if file.name == "__init__.py" or path == CHECKING:
            continue
        try:
            wanted = [f"exercise-{one.number}" for one in exercises(path, root)]
        except ValueError as error:
            found.append(str(error))
            continue
        if path not in owners:
            found.append(f"{path}:1: no page has the module of these exercises. Name the file as that module is named")
            continue
        post = owners[path]
        here, link = f"{post.path.relative_to(root).as_posix()}:1", f"{post.name}_exercises.py"
        shown = [section for module, section in post.includes if module == path and section.startswith("exercise-")]
        if shown != wanted or not wanted:
            mend = f"Include {', '.join(wanted) or 'exercise-1'} of {path}, in this order"
            found.append(f"{here}: the page shows {', '.join(shown) or 'no exercise'}. {mend}")
        if not re.search(rf"\]\([^)]*{link}\)", post.text):
            address = f"{post.key.rpartition('/')[2]}/{link}"
            found.append(f"{here}: the page does not link the starter. Write [`{link}`]({address})")
    return found


def starter(post: Page, root: Path, solved: bool = False) -> str:
    """The file that a reader fills in; with the solutions filled in where `solved`, for tests."""
    path = path_of(post)
    all_ = exercises(path, root)
    modules = [pieces((root / one).read_text(encoding="utf-8")) for one in (path, CHECKING)]
    imports, ours, tasks, checks = set(), set(), [], []
    for part in (part for module in modules for part in module):
        if isinstance(part.node, ast.ImportFrom) and part.node.module.startswith("snippets"):
            ours |= {ast.unparse(name) for name in part.node.names if part.node.module != "snippets.exercises.checking"}
        elif isinstance(part.node, ast.Import | ast.ImportFrom):
            imports.add(ast.unparse(part.node))
        elif part.section:
            tasks.append(part.code if solved or part.section.startswith("given") else emptied(part.code))
        else:
            checks.append(part.code)
    taken = "".join(f"    {name},\n" for name in sorted(ours, key=lambda name: (name.lower(), name)))
    hints = "".join(f"            {one.hint!r},\n" for one in all_)
    answers, checked = ", ".join(one.function for one in all_), ", ".join(f"check_{one.number}" for one in all_)
    run = f"    main(\n        [{answers}],\n        [{checked}],\n        [\n{hints}        ],\n    )"
    head = HEAD.format(title=post.meta["title"].replace('"', "'"), name=post.name)
    head += "\n\n" + "\n".join(sorted(imports)) + f"\n\nfrom {post.name} import (\n{taken})"
    return "\n\n\n".join([head, *tasks, BELOW, *checks, f'if __name__ == "__main__":\n{run}']) + "\n"
