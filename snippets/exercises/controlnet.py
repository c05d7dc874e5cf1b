"""Exercises of the ControlNet post, solved, with what checks an answer.

Shapes: B batch, O features, H height, W width, S steps of drawing, N residuals.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from snippets.blocks.text_unet import UNetConfig
from snippets.controlnet import ControlNet
from snippets.exercises.checking import compare


# --8<-- [start:exercise-1]
def two_steps(k: float, c: float, target: float, rate: float) -> tuple[float, float, float, float]:
    """By pencil: a ControlNet of two numbers, y = w (k c), learns from the loss (y - target)^2 / 2.

    w, the zero layer, begins at 0; k, the copy, does not. Each step of gradient descent moves both.
    Returns the gradients of w and of k at the first step, w after it, and the gradient of k at the second.

    Hint: The chain rule says (y - target) k c for w, and (y - target) w c for k. What is y at first?
    """
    of_w = (0 - target) * k * c  # y is 0
    w = -rate * of_w  # k stays: its gradient is (0 - target) * 0 * c
    of_k = (w * k * c - target) * w * c
    return of_w, 0.0, w, of_k


# --8<-- [end:exercise-1]


def check_1(answer: Callable) -> None:
    """PyTorch takes the gradients."""
    names = "the gradient of w", "the gradient of k at the first step", "w after the first step"
    names += ("the gradient of k at the second step",)
    for k, c, target, rate in ((1.5, -2.0, 0.7, 0.1), (0.8, 0.5, -1.0, 0.3)):
        w, key = torch.zeros((), dtype=torch.float64).requires_grad_(), torch.tensor(k).double()  # (), ()
        key.requires_grad_()
        first = torch.autograd.grad((w * key * c - target) ** 2 / 2, (w, key))
        after = (w - rate * first[0]).detach().requires_grad_()  # ()
        (second,) = torch.autograd.grad((after * key * c - target) ** 2 / 2, key)
        right = first[0].item(), first[1].item(), after.item(), second.item()
        given = answer(k, c, target, rate)
        assert isinstance(given, tuple | list) and len(given) == 4, "two_steps(…) should return four numbers"
        slips = {
            names[0]: {"w's gradient is not 0: it holds k c, not w": 0.0, "mind the sign": -right[0]},
            names[1]: {"k's gradient holds w, which is 0": -target * k * c},
            names[2]: {"a step goes against the gradient": -right[2]},
            names[3]: {"w is no longer 0": 0.0, "y is no longer 0 either": -target * right[2] * c},
        }
        for name, one, wanted in zip(names, given, right, strict=True):
            compare(f"{name} in two_steps({k}, {c}, {target}, {rate})", one, wanted, slips[name])


# --8<-- [start:exercise-2]
def zero_parameters(widths: tuple[int, ...], layers: int) -> int:
    """By pencil: how many numbers the 1x1 zero layers of a ControlNet hold, those of the middle too.

    Args: widths of the U-Net's levels; layers, residual blocks a level on the way down.

    Hint: List what the way down keeps, in order: after the first convolution, after each block, and after
    each halving. A layer of width O has O^2 weights. What else?
    """
    kept = [widths[0]]  # the first convolution
    for level, width in enumerate(widths):
        kept += [width] * (layers + (level < len(widths) - 1))  # no halving at the last level
    return sum(width**2 + width for width in [*kept, widths[-1]])  # and the middle


# --8<-- [end:exercise-2]


def check_2(answer: Callable) -> None:
    """The layers of a real ControlNet are counted."""
    for widths, layers in (((8, 16, 24), 2), ((320, 640, 1280, 1280), 2), ((8,), 3)):
        levels = len(widths)
        with torch.device("meta"):
            net = ControlNet(UNetConfig(4, widths, (True,) * levels, (8,) * levels, 10, layers, 8))
        of_skips = sum(weight.numel() for weight in net.controlnet_down_blocks.parameters())
        of_middle = sum(weight.numel() for weight in net.controlnet_mid_block.parameters())
        first, last = widths[0] ** 2 + widths[0], widths[-1] ** 2 + widths[-1]
        halvings = sum(width**2 + width for width in widths[:-1])
        right = of_skips + of_middle
        slips = {
            "the middle has a zero layer too": right - of_middle,
            "each layer has a bias": right
            - sum(part.out_channels for part in net.controlnet_down_blocks)
            - widths[-1],
            "the first convolution's answer is kept too": right - first,
            "the last level is not halved": right + last,
            "what is halved is kept too": right - halvings if halvings else -1,
        }
        compare(f"zero_parameters({widths}, {layers})", answer(widths, layers), right, slips, tolerance=1e-12)


# --8<-- [start:exercise-3]
def window(num_steps: int, start: float, end: float) -> list[float]:
    """1.0 for each step of drawing that has control, else 0.0, as the library's pipeline decides it.

    Args: start, end, shares of the run from 0 to 1: control only counts in steps that lie wholly between.

    Hint: Step i lasts from i / num_steps to (i + 1) / num_steps.
    """
    steps = [(i / num_steps, (i + 1) / num_steps) for i in range(num_steps)]
    return [float(start <= begins and ends <= end) for begins, ends in steps]


# --8<-- [end:exercise-3]


def check_3(answer: Callable) -> None:
    """Counted step by step, with whole numbers."""
    for num_steps, start, end in ((10, 0.0, 0.5), (8, 0.25, 1.0), (4, 0.3, 0.8), (5, 0.0, 1.0)):
        given = answer(num_steps, start, end)
        assert isinstance(given, list) and len(given) == num_steps, f"window(…) should have {num_steps} items"
        whole = [1000 * i >= 1000 * start * num_steps for i in range(num_steps)]
        right = [float(w and 1000 * (i + 1) <= 1000 * end * num_steps) for i, w in enumerate(whole)]
        begun = [float(start <= i / num_steps < end) for i in range(num_steps)]
        turned = [1 - one for one in right]
        slips = {"1.0 stands for control": turned}
        if begun != right:
            slips["a step that is cut by `end` has no control"] = begun
        compare(f"window({num_steps}, {start}, {end})", given, right, slips)


# --8<-- [start:exercise-4]
def within(added: list[Tensor], region: Tensor) -> list[Tensor]:
    """What a ControlNet adds, only where a region is: each residual times the share of the region there.

    Args: added, residuals (B, O, _, _) of several sizes; region (B, H, W) of the hint's size, 1 inside.

    Hint: `F.adaptive_avg_pool2d` takes means over as many pixels as needed for a given size.
    """
    shares = [F.adaptive_avg_pool2d(region[:, None], one.shape[2:]) for one in added]  # _ each (B, 1, _, _)
    return [one * share for one, share in zip(added, shares, strict=True)]


# --8<-- [end:exercise-4]


def check_4(answer: Callable) -> None:
    """Shares are counted pixel by pixel."""
    generator = torch.Generator().manual_seed(0)
    added = [torch.randn(2, 3, 4, 6, generator=generator), torch.randn(2, 5, 2, 3, generator=generator)]
    region = (torch.rand(2, 16, 24, generator=generator) < 0.3).float()  # (2, 16, 24)
    region[0, :, :12] = 1
    given = answer(list(added), region)
    assert isinstance(given, list) and len(given) == 2, "within(…) should return one tensor a residual"
    for one, told in zip(added, given, strict=True):
        rows, columns = 16 // one.shape[2], 24 // one.shape[3]
        share = region.unflatten(1, (-1, rows)).unflatten(3, (-1, columns)).mean(dim=(2, 4))  # (2, _, _)
        corner = region[:, ::rows, ::columns]  # (2, _, _)
        slips = {
            "that is all of the residual: where is the region?": one,
            "it is left out where it should be, and there where it should not": one * (1 - share[:, None]),
            "one pixel speaks for its whole block: take the mean": one * corner[:, None],
        }
        compare(f"within(…) for a residual {tuple(one.shape)}", told, one * share[:, None], slips)


# --8<-- [start:given-5]
def hasty_sum(residuals: list[list[Tensor]], scales: list[float]) -> list[Tensor]:
    """What several controls add together, each times its scale. It has a fault."""
    total = [scales[0] * one for one in residuals[0]]
    for more, scale in zip(residuals[1:], scales[1:], strict=True):
        total = [(before + one) * scale for before, one in zip(total, more, strict=True)]
    return total


# --8<-- [end:given-5]


# --8<-- [start:exercise-5]
def careful_sum(residuals: list[list[Tensor]], scales: list[float]) -> list[Tensor]:
    """hasty_sum without its fault. With one control, or with scales of 1, both give the same.

    Args: residuals, for each control its list of N tensors (B, O, _, _); scales, one for each control.

    Hint: Take two controls, the second with a scale of 0. What should be left?
    """
    each = [[scale * one for one in added] for scale, added in zip(scales, residuals, strict=True)]
    return [sum(parts) for parts in zip(*each, strict=True)]


# --8<-- [end:exercise-5]


def check_5(answer: Callable) -> None:
    """Two and three controls; the tensors that were given stay as they were."""
    generator = torch.Generator().manual_seed(0)
    for scales in ([0.5], [0.5, 2.0], [1.0, 0.0], [0.3, 0.7, 1.5]):
        residuals = [
            [torch.randn(2, 3, 4, 5, generator=generator), torch.randn(2, 4, 2, 3, generator=generator)]
            for _ in scales
        ]
        before = [[one.clone() for one in added] for added in residuals]
        right = [
            torch.einsum("k,kbchw->bchw", torch.tensor(scales), torch.stack(parts))
            for parts in zip(*residuals, strict=True)
        ]
        given = answer(residuals, scales)
        same = all(
            torch.equal(one, other)
            for pair in zip(residuals, before, strict=True)
            for one, other in zip(*pair, strict=True)
        )
        assert same, "the residuals that were given have changed: add without writing into them"
        assert len(given) == 2, "careful_sum(…) should return one tensor for each place"
        for place in range(2):
            hasty = hasty_sum(before, scales)[place]  # _
            slips = {
                "a later scale multiplies the controls before it": hasty,
                "the scales are not used": sum(added[place] for added in before),
            }
            slips = {
                said: slip
                for said, slip in slips.items()
                if not torch.allclose(slip, right[place], atol=1e-4)
            }
            compare(f"careful_sum(…) with scales {scales}", given[place], right[place], slips)
