"""The notebook's side of a lab: figures, recorded values, trainings that are kept.

A lab is a notebook, docs/labs/<post>.ipynb. `make lab POST=<post>` runs it from top to bottom in a fresh kernel.
In its first cell it makes a `Lab`, through which it draws figures and records values:

    lab = Lab("Diffusion")
    lab.figure("loss.svg", draw)            # docs/figures/Diffusion/loss.svg and loss.dark.svg
    lab.record("frechet.ddpm", 12.3)        # docs/results/Diffusion.json
    lab.record("frechet.ddim", seeds=[12.3, 11.9, 12.8])    # mean, standard deviation and all of them
    lab.timing("train.seconds", 312.4)      # apart from the values, for no run repeats it
    model = lab.keep(train, network, images, 5000, seed=1)  # what train returned, if it ran before
    lab.weights(model)                      # docs/weights/Diffusion.safetensors
    lab.done()

Everything is first written to a folder of the run in lab-output/<post>/ and moves to docs/ once the last cell has run.
With the reader's own data (--images, --text) it stays there, and docs/ is left as it was.
"""

import datetime
import importlib.metadata
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VERSIONS = ["torch", "numpy", "scikit-learn", "diffusers", "transformers", "peft"]
HEAVY = 150 * 1024  # bytes of a picture; pages show none above 200 KiB
INK = {"light": "#24292f", "dark": "#d7dce2"}
COLORS = {  # Okabe and Ito's, which colour-blind readers tell apart; lighter ones on a dark page
    "light": ["#0072b2", "#d55e00", "#009e73", "#a3527f", "#8a6100", "#4d4d4d"],
    "dark": ["#56b4e9", "#ff9454", "#2fc79a", "#e69fc8", "#f0c040", "#b3b3b3"],
}


class Lab:
    """What a notebook sees: its options, and where figures, values and weights go."""

    def __init__(self, key: str):
        options = json.loads(os.environ.get("LAB_OPTIONS", "{}"))
        self.key, self.started = key, time.time()
        self.images, self.text = options.get("images"), options.get("text")  # the reader's own data, or None
        self.device = options.get("device", "cpu")
        self.folder = Path(options.get("folder", ROOT / "lab-output" / key / "by-hand"))
        self.cache = ROOT / ".lab-cache" / key if options.get("keep", True) else None
        self.values: dict = {}
        self.timings: dict = {}
        self.seconds = 0.0  # that the last kept function took
        self.spared = 0.0  # seconds, by functions that were kept from an earlier run
        self.keeping = False
        for folder in ("figures", "weights"):
            (self.folder / folder).mkdir(parents=True, exist_ok=True)

    def record(self, path: str, value=None, *, seeds: list | None = None) -> None:
        """Keep a measured value under a dotted path, such as frechet.ddpm, and print it.

        seeds=[…] holds a number for each of three seeds or more; kept are {"mean", "sd" (n - 1), "seeds"}. Where it
        holds a dict of numbers for each seed, this is done for each name.
        """
        if (value is None) == (seeds is None):
            raise ValueError(f"lab.record takes a value or seeds=[…], given {value!r} and {seeds!r}")
        self._put(self.values, path, value if seeds is None else spread(seeds))

    def timing(self, path: str, value) -> None:
        """Keep what a clock measured, apart from the values, and print it: seconds, tokens a second, their ratios."""
        self._put(self.timings, path, value)

    def _put(self, place: dict, path: str, value) -> None:
        self._outside()
        value = json.loads(json.dumps(value, allow_nan=False))  # as the results will have it
        *parents, name = path.split(".")
        for parent in parents:
            place = place.setdefault(parent, {})
        if name in place:
            raise ValueError(f"each value is recorded once, given {path} twice")
        place[name] = value
        print(f"{path}: {value}")

    def keep(self, function: Callable, *args, seed: int = 0, **settings):
        """Return function(*args, **settings), and note in lab.seconds how long that took when it ran.

        The result is kept in .lab-cache/<post>/, under a fingerprint of the code and the values that the function
        uses, its settings and the seed, so that a lab that was cut goes on where it stood. Random numbers start from
        the seed before the call, and again after it. A function with an argument `seed` is given it. A kept function
        returns what it made: it records nothing, and changes neither its arguments nor a global.
        """
        from tools import kept

        self._outside()
        self.keeping = True
        try:
            result, self.seconds, before = kept.call(self.cache, function, args, settings, seed)
        finally:
            self.keeping = False
        self.spared += self.seconds if before else 0.0
        return result

    def _outside(self) -> None:
        if self.keeping:
            raise ValueError("a kept function returns what it made; record, draw and keep it outside of the function")

    def __getstate__(self) -> dict:
        """All of a lab that a kept function can depend on."""
        return {"device": self.device, "images": self.images, "text": self.text}

    def figure(self, name: str, draw: Callable, size: tuple[float, float] = (7.0, 3.0)):
        """Draw a figure for light and for dark pages, and return the light one to show it in the notebook.

        draw(figure) fills an empty matplotlib figure; the name's ending, .svg or .png, chooses the format.
        """
        self._outside()
        import matplotlib.pyplot as plt
        from cycler import cycler
        from PIL import Image

        plain, ending = name.rsplit(".", 1)
        for theme, suffix in (("dark", ".dark"), ("light", "")):
            ink = {k: INK[theme] for k in ("text.color", "axes.labelcolor", "xtick.color", "ytick.color")}
            style = {"axes.edgecolor": INK[theme], "axes.facecolor": "none", "legend.frameon": False, "font.size": 10}
            style |= {
                "axes.spines.top": False,
                "axes.spines.right": False,
                "svg.hashsalt": name,
                "svg.fonttype": "path",
            }
            style |= {"axes.prop_cycle": cycler(color=COLORS[theme]), "font.family": "DejaVu Sans"}
            with plt.rc_context(ink | style):
                figure = plt.figure(figsize=size, layout="constrained")
                draw(figure)
                where = self.folder / "figures" / f"{plain}{suffix}.{ending}"
                dated = {"metadata": {"Date": None}} if ending == "svg" else {}
                figure.savefig(where, transparent=True, dpi=200, **dated)
                plt.close(figure)
                if ending == "png" and where.stat().st_size > HEAVY:
                    with Image.open(where) as picture:  # 256 colours are enough for what is drawn
                        picture.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(
                            where, optimize=True
                        )
        return figure

    @staticmethod
    def pictures(figure, rows: list, names: list[str]) -> None:
        """Draw rows of images, each (N, C, H, W) in [-1, 1], with a name at the left of each row."""
        grid = figure.subplots(len(rows), len(rows[0]), squeeze=False)
        for axes, row, name in zip(grid, rows, names, strict=True):
            for axis, image in zip(axes, row, strict=True):
                pixels = (image.clamp(-1, 1).permute(1, 2, 0).cpu().numpy() + 1) / 2
                axis.imshow(pixels, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
                axis.set_xticks([])
                axis.set_yticks([])
                for spine in axis.spines.values():
                    spine.set(visible=True, linewidth=0.4, edgecolor="#8c8c8c")
            axes[0].set_ylabel(name, rotation=0, ha="right", va="center")

    def weights(self, model) -> None:
        """Store a network's weights, shared ones once; safetensors' load_model reads them back."""
        from safetensors.torch import save_model

        self._outside()
        save_model(model, str(self.folder / "weights" / "weights.safetensors"))

    def done(self) -> None:
        """Write the values down. The last line of every lab."""
        versions = {name: importlib.metadata.version(name) for name in VERSIONS}
        results = {"values": self.values, "timings": self.timings, "seed": 0, "versions": versions}
        results |= {"device": self.device, "seconds": round(time.time() - self.started + self.spared, 1)}
        results |= {"date": datetime.date.today().isoformat()}
        (self.folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")


def spread(seeds: list) -> dict:
    """Mean and sample standard deviation of a number for each seed; of each name, where there is a dict for each."""
    if len(seeds) < 3:
        raise ValueError(f"three seeds or more are expected, given {len(seeds)}")
    if isinstance(seeds[0], dict):
        names = list(seeds[0])
        if any(one.keys() != seeds[0].keys() for one in seeds):
            raise ValueError(f"the same names are expected for each seed, given {[list(one) for one in seeds]}")
        return {name: spread([one[name] for one in seeds]) for name in names}
    numbers = [float(one) for one in seeds]
    return {"mean": statistics.fmean(numbers), "sd": statistics.stdev(numbers), "seeds": numbers}
