"""The house: modules and posts at their fixed addresses, documented, tested, and without what must stay out."""

import ast
import importlib.util
import re
import sys
from pathlib import Path

import pytest
import yaml

from tests import shapes
from theme.page.pages import ROOT, posts

MODULES = {  # post -> module, the addresses that readers have
    "Diffusion": "snippets/ddpm.py",
    "NCSN": "snippets/ncsn.py",
    "Classifier_Guided_Diffusion": "snippets/classifier_guidance.py",
    "CFG": "snippets/cfg.py",
    "StableDiffusion": "snippets/latent_diffusion.py",
    "ControlNet": "snippets/controlnet.py",
    "TextToImage": "snippets/text_to_image.py",
    "CLIP": "snippets/clip.py",
    "GLIP": "snippets/glip.py",
    "LLM/ROPE": "snippets/llm/rope.py",
    "LLM/Decoder-Only": "snippets/llm/decoder_only.py",
    "LLM/Encoder-Decoder": "snippets/llm/t5.py",
    "LLM/BERT": "snippets/llm/bert.py",
    "LLM/Roberta": "snippets/llm/roberta.py",
    "LLM/SpanCorruption": "snippets/llm/span_corruption.py",
    "LLM/Performer": "snippets/llm/performer.py",
    "LLM/LORA": "snippets/llm/lora.py",
    "LLM/EvaluationMetricsLLM": "snippets/llm/evaluation.py",
}
LIBRARIES = {"torch", "numpy", "sklearn", "matplotlib", "PIL", "tqdm", "safetensors", "snippets"}
ANY_LIBRARY = "snippets/library/"  # what pages show beside their program


def snippets(root: Path) -> list[Path]:
    return sorted(path for path in (root / "snippets").rglob("*.py") if path.name != "__init__.py")


def problems(path: Path, root: Path) -> list[str]:
    """Imports of a module that readers may not have, and what has no docstring."""
    name, tree, found = path.relative_to(root).as_posix(), ast.parse(path.read_text(encoding="utf-8")), []
    for node in ast.walk(tree):
        imported = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        imported += [node.module or "."] if isinstance(node, ast.ImportFrom) else []
        foreign = {one.partition(".")[0] for one in imported} - set(sys.stdlib_module_names) - LIBRARIES
        for other in foreign if not name.startswith(ANY_LIBRARY) else ():
            mend = "Use the standard library and " + ", ".join(sorted(LIBRARIES - {"snippets"}))
            found.append(f"{name}:{node.lineno}: a reader may not have {other}. {mend}")
    for node in [tree, *(n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef) and n.name[0] != "_")]:
        if not ast.get_docstring(node):
            what, line = getattr(node, "name", "the module"), getattr(node, "lineno", 1)
            found.append(f"{name}:{line}: {what} has no docstring. Say in a sentence what it does")
    return found


def test_shape_comments_can_be_checked_and_modules_have_tests():
    found = shapes.problems(ROOT)
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize("page", posts(), ids=lambda page: page.key)
def test_posts_have_the_modules_of_the_design(page):
    assert page.meta.get("module") == MODULES.get(page.key, page.meta.get("module"))


@pytest.mark.parametrize("page", posts(), ids=lambda page: page.key)
def test_a_page_that_has_exercises_or_faults_has_four_to_six(page):
    found = {kind: len(re.findall(f"^```{kind}", page.text, re.M)) for kind in ("python solution", "diff")}
    assert all(not count or 4 <= count <= 6 for count in found.values()), found


def test_torchvision_is_absent():
    """Its CUDA-linked build breaks the imports of transformers, diffusers and peft on a CPU, while pip is content."""
    assert importlib.util.find_spec("torchvision") is None, "uninstall torchvision; see docs/contributing.md"


@pytest.mark.parametrize("path", snippets(ROOT), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_snippets_import_what_readers_have_and_are_documented(path):
    found = problems(path, ROOT)
    assert not found, "\n" + "\n".join(found)


def test_workflows_are_yaml_whose_actions_are_pinned_by_commit():
    for path in (ROOT / ".github/workflows").glob("*.yml"):
        text = path.read_text(encoding="utf-8")
        assert yaml.safe_load(text)["jobs"]
        for action in re.findall(r"uses: *(.*)", text):
            assert re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), f"{path}: pin {action}"
