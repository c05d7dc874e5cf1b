"""Networks and tables of the live figures: `make live POST=Diffusion` exports them as docs/live/<post>.py says.

That file has a function `networks()`, which yields a `Network` for each module that the figure calls, and may have
`tables()`, a dict of numbers that the figure reads instead of deriving them again. The modules hold the weights of
docs/weights/, rounded to half precision: so they are stored, and computed with in single precision.
"""

import argparse
import copy
import json
import math
import runpy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from theme.page.pages import ROOT

MASK = 0xFFFFFFFF


@dataclass(frozen=True)
class Network:
    """A module of a page, example inputs by the names of forward's arguments, and which of their sizes vary."""

    name: str
    module: nn.Module
    inputs: dict[str, Tensor]
    varies: dict[str, dict[int, str]]  # of an input, the name of each size that varies: {"x": {0: "batch"}}
    outputs: tuple[str, ...] = ("out",)
    without_checks: Callable[[nn.Module], nn.Module] | None = None  # the same module, where forward looks at values
    shares: str | None = None  # another post's network, "LLM/Decoder-Only/llama", whose weights this one has too

    def rounded(self) -> nn.Module:
        """The module with its weights rounded to half precision, ready to compute in single precision."""
        module = copy.deepcopy(self.module).eval().float()
        for tensor in module.parameters():
            tensor.data = tensor.data.half().float()
        return module.requires_grad_(False)


def exporter(key: str, root: Path = ROOT) -> dict:
    """What docs/live/<post>.py defines."""
    return runpy.run_path(str(root / f"docs/live/{key}.py"))


def keys(root: Path = ROOT) -> list[str]:
    """Posts whose live figure has something to export."""
    return sorted(p.relative_to(root / "docs/live").with_suffix("").as_posix() for p in root.glob("docs/live/**/*.py"))


def networks(key: str, root: Path = ROOT) -> Iterator[Network]:
    """The networks of a post's live figure."""
    return exporter(key, root).get("networks", lambda: iter(()))()


def onnx_bytes(network: Network) -> bytes:
    """The network as ONNX: each table of weights in half precision where that loses nothing, then cast back."""
    import onnx

    varies = {name: dict(sizes) for name, sizes in network.varies.items()}
    shapes = {name: {at: torch.export.Dim.DYNAMIC for at in varies.get(name, ())} for name in network.inputs}
    program = torch.onnx.export(
        network.without_checks(network.rounded()) if network.without_checks else network.rounded(),
        kwargs=network.inputs,
        input_names=list(network.inputs),
        output_names=list(network.outputs),
        dynamic_shapes=shapes,
        dynamo=True,
        verbose=False,
    )
    model = program.model_proto
    del model.metadata_props[:]
    for item in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.value_info, model.graph):
        del item.metadata_props[:]  # traces of the machine that exported
        if hasattr(item, "doc_string"):
            item.ClearField("doc_string")
    casts = []
    for table in model.graph.initializer:
        values = onnx.numpy_helper.to_array(table)
        if values.dtype == "float32" and values.size > 16 and (values.astype("float16") == values).all():
            name = table.name
            table.CopyFrom(onnx.numpy_helper.from_array(values.astype("float16"), f"{name}.half"))
            casts.append(onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    del model.graph.value_info[:]
    onnx.checker.check_model(model)
    if network.shares:
        refer(model, ROOT / f"docs/live/{network.shares}.onnx")
    return model.SerializeToString(deterministic=True)


def refer(model, base: Path) -> None:
    """Make tables that the base's file holds too references into it, so that they are kept and loaded once."""
    from onnx.external_data_helper import set_external_data

    data = base.read_bytes()
    for table in model.graph.initializer:
        at = data.find(table.raw_data) if len(table.raw_data) > 1024 else -1
        if at >= 0:
            set_external_data(table, base.name, at, len(table.raw_data))
            table.ClearField("raw_data")


def whole(network: Network, path: Path) -> bytes:
    """A network's file with what it refers to put into it, as a reader's browser has it."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    for table in model.graph.initializer:
        if table.external_data:
            place = {one.key: one.value for one in table.external_data}
            data = (ROOT / f"docs/live/{network.shares}.onnx").read_bytes()
            table.raw_data = data[int(place["offset"]) :][: int(place["length"])]
            del table.external_data[:]
            table.data_location = onnx.TensorProto.DEFAULT
    return model.SerializeToString()


def difference(network: Network, path: Path, inputs: dict[str, Tensor]) -> float:
    """The largest difference between the committed file and the page's module, on some inputs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(whole(network, path), options, providers=["CPUExecutionProvider"])
    given = {one.name: inputs[one.name].numpy() for one in session.get_inputs()}
    theirs = session.run(list(network.outputs), given)
    with torch.no_grad():
        ours = network.rounded()(**inputs)
    ours = [ours] if isinstance(ours, Tensor) else ours
    pairs = zip(ours, theirs, strict=True)
    return max(float((a - torch.from_numpy(b)).abs().max()) if a.shape == b.shape else math.inf for a, b in pairs)


def tables(key: str, root: Path = ROOT) -> str | None:
    """The post's tables as JSON, numbers to the last digit."""
    made = exporter(key, root).get("tables")
    return json.dumps(made(), allow_nan=False, separators=(",", ":"), ensure_ascii=False) + "\n" if made else None


def export(key: str, root: Path = ROOT) -> None:
    """Write docs/live/<post>/*.onnx and tables.json, and check each network at once."""
    folder = root / f"docs/live/{key}"
    folder.mkdir(parents=True, exist_ok=True)
    for network in networks(key, root):
        path = folder / f"{network.name}.onnx"
        path.write_bytes(onnx_bytes(network))
        far = difference(network, path, network.inputs)
        print(f"{path.relative_to(root)}: {path.stat().st_size / 1024:.0f} KiB, {far:.1e} from the page's module")
        if not far < 1e-4:
            raise SystemExit(f"{path} computes something else than the page's module")
    if (text := tables(key, root)) is not None:
        (folder / "tables.json").write_text(text, encoding="utf-8")
        print(f"{(folder / 'tables.json').relative_to(root)}: {len(text) / 1024:.0f} KiB")


# The generator of the live figures: theme/live/noise.js draws the same numbers.
def threefry(key: tuple[int, int], counter: np.ndarray, high: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Threefry-2x32 with 20 rounds (Salmon et al. 2011): two random words for each counter, the same for ever."""
    keys = [np.uint32(word & MASK) for word in (*key, key[0] ^ key[1] ^ 0x1BD11BDA)]
    a, b = counter.astype(np.uint32) + keys[0], np.full(counter.shape, high, dtype=np.uint32) + keys[1]
    for group in range(5):
        for turn in ((13, 15, 26, 6), (17, 29, 16, 24))[group % 2]:
            a = a + b
            b = (b << np.uint32(turn) | b >> np.uint32(32 - turn)) ^ a
        a = a + keys[(group + 1) % 3]
        b = b + np.array([keys[(group + 2) % 3]]) + np.uint32(group + 1)
    return a, b


def uniform(seed: int, stream: int, count: int) -> np.ndarray:
    """Numbers in (0, 1), float64; each stream of a seed is a sequence of its own."""
    words = np.stack(threefry((seed, stream), np.arange((count + 1) // 2)), axis=1).ravel()
    return (words[:count] + 0.5) / 2**32


def normal(seed: int, stream: int, count: int) -> np.ndarray:
    """Standard normal numbers, float32, by Box and Muller."""
    flat = uniform(seed, stream, count + count % 2)
    radius, angle = np.sqrt(-2 * np.log(flat[::2])), 2 * np.pi * flat[1::2]
    both = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).ravel()
    return both[:count].astype(np.float32)


def main() -> None:
    """`python -m tools.live POST`."""
    parser = argparse.ArgumentParser(prog="make live", description="Export what a post's live figure computes with.")
    parser.add_argument("post", nargs="?", help=f"of {', '.join(keys())}; without it, all")
    key = parser.parse_args().post
    if key and key not in keys():
        parser.error(f"there is no docs/live/{key}.py; there are {', '.join(keys())}")
    for one in [key] if key else keys():
        export(one)


if __name__ == "__main__":
    main()
