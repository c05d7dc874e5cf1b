"""Start a post: `make new POST=LLM/Name` writes its files from tools/templates/, and runs its lab.

They are its module, page, lab and test, and its exercises and their test. They pass every test but one, which names
each TODO that is left in them.
"""

import json
import keyword
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TEMPLATES = Path(__file__).parent / "templates"
NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_][A-Za-z0-9]+)*")
CELL = re.compile(r"^# %% *(\[markdown\])?(?:alt: (.+))?\n", re.M)

# the design's posts; the module of any other one is its name in snake case
MODULES = {
    "Diffusion": "ddpm",
    "NCSN": "ncsn",
    "Classifier_Guided_Diffusion": "classifier_guidance",
    "CFG": "cfg",
    "StableDiffusion": "latent_diffusion",
    "ControlNet": "controlnet",
    "TextToImage": "text_to_image",
    "CLIP": "clip",
    "GLIP": "glip",
    "LLM/ROPE": "llm/rope",
    "LLM/Decoder-Only": "llm/decoder_only",
    "LLM/Encoder-Decoder": "llm/t5",
    "LLM/BERT": "llm/bert",
    "LLM/Roberta": "llm/roberta",
    "LLM/SpanCorruption": "llm/span_corruption",
    "LLM/Performer": "llm/performer",
    "LLM/LORA": "llm/lora",
    "LLM/EvaluationMetricsLLM": "llm/evaluation",
}


def module_of(key: str) -> str:
    """A post's module below snippets/: LLM/FlowMatching -> llm/flow_matching; ValueError for a bad name."""
    parts = key.split("/")
    for part in parts:
        if not NAME.fullmatch(part):
            raise ValueError(f"POST is a name such as LLM/FlowMatching: letters, digits, - and _; given {key!r}")
    if key in MODULES:
        return MODULES[key]
    words = [re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", part) for part in parts]
    module = "/".join(word.replace("-", "_").lower() for word in words)
    for part in module.split("/"):
        if keyword.iskeyword(part):
            raise ValueError(f"POST becomes a module's name, and {part!r} is a word of Python; given {key!r}")
    return module


def notebook(cells: str) -> str:
    """A notebook's JSON from text: `# %%` starts a cell of code, `# %% [markdown]` one of prose.

    `# %% alt: …` starts a cell that draws, and gives the alternative text of its picture.
    """
    _, *parts = CELL.split(cells)
    made = []
    for number, (prose, alt, source) in enumerate(zip(*[iter(parts)] * 3, strict=True), 1):
        kind = {"cell_type": "markdown"} if prose else {"cell_type": "code", "execution_count": None, "outputs": []}
        lines = source.strip("\n").splitlines(keepends=True)
        made.append(kind | {"id": f"cell-{number}", "metadata": {"alt": alt} if alt else {}, "source": lines})
    metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return json.dumps({"cells": made, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}, indent=1) + "\n"


def files(key: str) -> dict[str, str]:
    """What each new file holds, by its path below the root."""
    module = module_of(key)
    name, (folder, slash, stem) = key.rpartition("/")[2], module.rpartition("/")
    folder += slash
    values = {
        "key": key,
        "title": re.sub(r"[-_]|(?<=[a-z0-9])(?=[A-Z])", " ", name),
        "module": f"snippets/{module}.py",
        "package": f"snippets.{module}".replace("/", ".").rpartition(".")[0],
        "stem": stem,
        "slug": stem.replace("_", "-"),
        "up": "../" * (key.count("/") + 1),
        "test": f"tests/snippets/{folder}test_{stem}.py",
        "exercises": f"snippets/exercises/{module}.py",
        "exercises_package": f"snippets.exercises.{module}".replace("/", ".").rpartition(".")[0],
        "starter": f"{name.replace('-', '_')}_exercises.py",
        "folder": name,
    }

    def filled(template: str) -> str:
        text = (TEMPLATES / template).read_text(encoding="utf-8")
        return re.sub(r"<<(\w+)>>", lambda found: values[found[1]], text)

    return {
        values["module"]: filled("module.txt"),
        f"docs/posts/{key}.md": filled("page.txt"),
        f"docs/labs/{key}.ipynb": notebook(filled("lab.txt")),
        values["test"]: filled("test.txt"),
        values["exercises"]: filled("exercises.txt"),
        f"tests/snippets/exercises/{folder}test_{stem}.py": filled("exercises_test.txt"),
    }


def create(key: str, root: Path = ROOT) -> list[str]:
    """Write the files of a new post and return their paths; ValueError, and nothing written, where one exists."""
    made = files(key)
    for path in made:
        package = (root / path).with_suffix("")
        if (root / path).exists() or (path.endswith(".py") and package.is_dir()):
            raise ValueError(f"{path if (root / path).exists() else path[:-3] + '/'} exists; nothing was written")
    for path, text in made.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        if path.endswith(".py"):
            (target.parent / "__init__.py").touch()
    return list(made)


def main() -> None:
    """`python -m tools.new LLM/Name`."""
    if len(sys.argv) != 2:
        sys.exit("make new takes one name: make new POST=LLM/Name")
    key = sys.argv[1]
    try:
        made = create(key)
    except ValueError as error:
        sys.exit(str(error))
    code = [path for path in made if path.endswith(".py")]  # the order of their imports depends on the name
    subprocess.run([sys.executable, "-m", "ruff", "check", "--select", "I", "--fix", "--quiet", *code], cwd=ROOT)
    print("made:", *made, sep="\n  ")
    print("its lab runs now, some seconds, so that the page has its figure and its numbers", flush=True)
    lab = subprocess.run([sys.executable, "-m", "tools.labs", "run", key], cwd=ROOT)
    if lab.returncode:
        sys.exit(f"the lab failed; correct docs/labs/{key}.ipynb, then: make lab POST={key}")
    record = subprocess.run([sys.executable, "-m", "tools.record", key], cwd=ROOT)
    if record.returncode:
        sys.exit(f"the page's program failed; correct {made[0]}, then: make record POST={key}")
    print(f"""next:
  make serve            and open http://127.0.0.1:8000/posts/{key}/
  replace every TODO    in these files; until then `make test` fails and names them
  make lab POST={key}      whenever the code or the lab has changed
  make record POST={key}   whenever the page's program has changed
docs/contributing.md explains the rest.""")


if __name__ == "__main__":
    main()
