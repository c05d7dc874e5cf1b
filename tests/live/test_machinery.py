"""Live figures without a browser: exported files are those of the code, generators agree, scripts are typed."""

import importlib
import re
import subprocess

import numpy as np
import onnx
import pytest
import torch

from theme.page import live
from theme.page.pages import ROOT, posts
from tools.live import Network, difference, keys, networks, normal, onnx_bytes, tables, threefry, uniform

FIGURES = {post.key: post for post in posts() if live.figure(post)}
LIMIT = {"StableDiffusion": 3e6, "ControlNet": 4.5e6} | dict.fromkeys(
    ("LLM/Decoder-Only", "LLM/Decoding", "LLM/LORA", "LLM/Encoder-Decoder", "TextToImage"), 5e6
)


def module(key: str):
    """The Python side of a post's figure."""
    return importlib.import_module(f"tests.live.test_{FIGURES[key].name.lower()}")


def varied(network: Network) -> dict[str, torch.Tensor]:
    """The example inputs with other sizes where they vary, and other order."""
    sizes = {name: 0 for dims in network.varies.values() for name in dims.values()}
    sizes = {name: None for name in sizes}
    given = {}
    for key, tensor in network.inputs.items():
        for at, name in network.varies.get(key, {}).items():
            sizes[name] = sizes[name] or tensor.shape[at] - 1
            tensor = tensor.flip(at).narrow(at, 0, sizes[name])
        given[key] = tensor.contiguous()
    return given


@pytest.mark.parametrize("key", keys())
def test_exported_files_compute_what_the_pages_modules_compute(key):
    for network in networks(key):
        path = ROOT / f"docs/live/{key}/{network.name}.onnx"
        assert difference(network, path, network.inputs) < 1e-4, f"{path.name} is stale. Run: make live POST={key}"
        assert difference(network, path, varied(network)) < 1e-4, f"{path.name}: sizes were fixed by the export"
    written = ROOT / f"docs/live/{key}/tables.json"
    made = tables(key)
    assert (written.read_text(encoding="utf-8") if written.is_file() else None) == made, f"make live POST={key}"
    known = {f"{network.name}.onnx" for network in networks(key)} | {"tables.json", "live.py"}
    assert {path.name for path in (ROOT / f"docs/live/{key}").glob("*")} <= known


@pytest.mark.parametrize("key", FIGURES)
def test_a_figure_is_light_and_its_script_short(key):
    found = live.figure(FIGURES[key])
    loaded = live.files(key, found["code"], others=found["others"])
    own = {name: size for name, size in loaded.items() if name[:5] == "live/"}
    assert own and sum(own.values()) < LIMIT.get(key, 2e6), own
    script = (ROOT / f"docs/live/{key}.js").read_text(encoding="utf-8").split("\n")
    assert len(script) <= 121 and max(map(len, script)) <= 140


def test_a_network_of_another_post_is_loaded_from_there(tmp_path):
    found = live.LIVE.fullmatch("{{ live: Draft and check + LLM/Decoder-Only/llama }}")
    assert (found["label"], found["others"], found["code"]) == ("Draft and check", "LLM/Decoder-Only/llama", None)
    loaded = live.files("LLM/Decoding", None, others=found["others"])
    assert loaded["live/LLM/Decoder-Only/llama.onnx"] > 3e6 and "assets/verbatim/live/ort/ort.mjs" in loaded
    with pytest.raises(OSError, match="LLM/none.onnx"):
        live.files("LLM/Decoding", None, others="LLM/none")


def test_weights_that_another_network_has_are_kept_in_its_file(tmp_path, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr("tools.live.ROOT", tmp_path)
    (tmp_path / "docs/live").mkdir(parents=True)
    given = {"input": torch.randn(3, 48)}, {"input": {0: "batch"}}
    base = Network("line", torch.nn.Linear(48, 40), *given)
    both = Network("two", torch.nn.Sequential(base.module, torch.nn.Linear(40, 4)), *given, shares="line")
    paths = [tmp_path / f"docs/live/{one.name}.onnx" for one in (base, both)]
    for network, path in zip((base, both), paths, strict=True):
        path.write_bytes(onnx_bytes(network))
        assert difference(network, path, varied(network)) < 1e-5
    assert paths[1].stat().st_size < paths[0].stat().st_size  # its own weights alone
    paths[0].write_bytes(scaled(paths[0].read_bytes(), 1.01))
    assert difference(both, paths[1], both.inputs) > 1e-4


def test_a_changed_weight_is_noticed(tmp_path):
    network = Network("line", torch.nn.Linear(6, 4), {"input": torch.randn(3, 6)}, {"input": {0: "batch"}})
    path = tmp_path / "line.onnx"
    path.write_bytes(onnx_bytes(network))
    assert difference(network, path, varied(network)) < 1e-5
    model = onnx.load(path)
    halves = [table for table in model.graph.initializer if table.data_type == onnx.TensorProto.FLOAT16]
    assert [table.name for table in halves]  # stored in half precision
    path.write_bytes(scaled(path.read_bytes(), 1.01))
    assert difference(network, path, network.inputs) > 1e-4


def scaled(data: bytes, factor: float) -> bytes:
    """A network, as large as before, with the largest table of its weights scaled."""
    model = onnx.load_from_string(data)
    table = max(model.graph.initializer, key=lambda one: len(one.raw_data))
    table.raw_data = (onnx.numpy_helper.to_array(table) * np.float16(factor)).astype(np.float16).tobytes()
    changed = model.SerializeToString(deterministic=True)
    assert len(changed) == len(data) and changed != data
    return changed


def test_the_generator_draws_the_words_that_its_authors_published():
    """Known answers of Random123, by the authors of the paper."""
    full = 0xFFFFFFFF

    def words(key, low, high):
        return tuple(int(word[0]) for word in threefry(key, np.array([low]), high))

    assert words((0, 0), 0, 0) == (0x6B200159, 0x99BA4EFE)
    assert words((full, full), full, full) == (0x1CB996FC, 0xBB002BE7)
    assert words((0x13198A2E, 0x03707344), 0x243F6A88, 0x85A308D3) == (0xC4923A9C, 0x483DF7A0)


def test_the_generators_numbers_are_uniform_and_normal():
    flat, bell = uniform(3, 0, 4001), normal(3, 1, 4001)
    assert len(flat) == len(bell) == 4001 and 0 < flat.min() and flat.max() < 1
    assert abs(flat.mean() - 0.5) < 0.02 and abs(bell.mean()) < 0.06 and abs(bell.std() - 1) < 0.05
    assert abs(np.corrcoef(bell[1:], bell[:-1])[0, 1]) < 0.06
    assert len({float(normal(seed, stream, 9)[3]) for seed in (3, 4) for stream in (1, 2)}) == 4


def types(path) -> str:
    """What the compiler of TypeScript says of scripts."""
    options = "--noEmit --allowJs --checkJs --strict --target es2022 --module es2022 --lib es2022,dom,dom.iterable"
    command = ["node_modules/.bin/tsc", *options.split(), "--types", "", *map(str, path)]
    env = {"PATH": f"{ROOT}/.venv/bin:/usr/bin:/bin"}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True).stdout


def test_scripts_have_the_types_that_they_say(tmp_path):
    scripts = sorted([*ROOT.glob("docs/live/**/*.js"), *ROOT.glob("theme/live/*.js")])
    assert types(scripts) == ""
    kit = f'/** @param {{import("{ROOT}/theme/live/kit.js").Kit}} kit */ export default function (kit) '
    (tmp_path / "bad.js").write_text(kit + "{ kit.norml(1, 2, 3); }")
    assert "norml" in types([tmp_path / "bad.js"])


def test_a_figures_python_is_the_pages_own():
    for key, post in FIGURES.items():
        if program := live.made(post):
            shown = {path for path, _ in post.includes}
            for path in re.findall(r"snippets/[\w/]+\.py", live.figure(post)["code"]):
                assert path in shown, f"{key}: the page shows nothing of {path}"
            compile(program, key, "exec")
