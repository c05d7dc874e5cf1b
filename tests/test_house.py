"""The house: modules and posts at their fixed addresses, documented, tested, and without what must stay out."""

import ast
import importlib.util
import sys

import pytest

from tests import shapes
from theme.pages import ROOT, posts

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
    "LLM/Encoder-Decoder": "snippets/llm/encoder_decoder.py",
    "LLM/BERT": "snippets/llm/bert.py",
    "LLM/Roberta": "snippets/llm/roberta.py",
    "LLM/SpanCorruption": "snippets/llm/span_corruption.py",
    "LLM/Performer": "snippets/llm/performer.py",
    "LLM/LORA": "snippets/llm/lora.py",
    "LLM/EvaluationMetricsLLM": "snippets/llm/evaluation.py",
}
LIBRARIES = {"torch", "numpy", "sklearn", "matplotlib", "PIL", "tqdm", "safetensors"}
SNIPPETS = sorted(path for path in (ROOT / "snippets").rglob("*.py") if path.name != "__init__.py")


def short(path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_shape_comments_can_be_checked_and_modules_have_tests():
    problems = shapes.problems(ROOT)
    assert not problems, "\n" + "\n".join(problems)


@pytest.mark.parametrize("page", posts(), ids=lambda page: page.key)
def test_posts_have_the_modules_of_the_design(page):
    assert page.meta.get("module") == MODULES.get(page.key, page.meta.get("module"))


def test_torchvision_is_absent():
    """Its CUDA-linked build breaks the imports of transformers, diffusers and peft on a CPU, while pip is content."""
    assert importlib.util.find_spec("torchvision") is None, "uninstall torchvision; see docs/contributing.md"


@pytest.mark.parametrize("path", SNIPPETS, ids=short)
def test_snippets_import_only_what_readers_have(path):
    imported = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or "."] if isinstance(node, ast.ImportFrom) else []
        imported |= {name.partition(".")[0]: node.lineno for name in names}
    others = imported.keys() - set(sys.stdlib_module_names) - LIBRARIES - {"snippets"}
    assert not others, "\n" + "\n".join(f"{short(path)}:{imported[name]}: {name} is not a reader's" for name in others)


@pytest.mark.parametrize("path", SNIPPETS, ids=short)
def test_public_functions_and_classes_are_documented(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_"]
    bare = [
        f"{short(path)}:{node.lineno}: {node.name} has no docstring" for node in nodes if not ast.get_docstring(node)
    ]
    assert ast.get_docstring(tree), f"{short(path)}:1: the module has no docstring"
    assert not bare, "\n" + "\n".join(bare)
