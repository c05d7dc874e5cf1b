"""Exercises of the latent diffusion post, solved, with what checks an answer.

Shapes: B batch, Z channels of a latent, H height, W width, M heads, N pixels, L tokens, D features, S stops.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from snippets.blocks.text_unet import TransformerBlock
from snippets.exercises.checking import compare
from snippets.latent_diffusion import sample_latents


# --8<-- [start:exercise-1]
def half_way(deviation: float) -> float:
    """By pencil: alpha_bar at the level where a noisy latent is half signal and half noise, in variance.

    The latents have this standard deviation, and someone forgot to scale them.

    Hint: The noisy latent is the latent times the root of alpha_bar, plus noise times the root of
    1 - alpha_bar. Which variance has each of the two parts?
    """
    # alpha_bar * deviation^2 = 1 - alpha_bar. For a deviation of 5 that is 1/26: with Stable Diffusion's
    # schedule four levels of five show more latent than noise. Even at the last one a tenth of the variance
    # is latent, where sampling starts from noise alone
    return 1 / (1 + deviation**2)


# --8<-- [end:exercise-1]


def check_1(answer: Callable) -> None:
    """The variances of both parts are equal there."""
    for deviation in (5.0, 1.0, 0.4):
        given = answer(deviation)
        slips = {
            "the variance is the square of the deviation": 1 / (1 + deviation),
            "that is the share of noise; alpha_bar is the share of signal": deviation**2 / (1 + deviation**2),
            "that would be right for scaled latents": 0.5,
        }
        slips = {said: slip for said, slip in slips.items() if deviation != 1}
        grid = torch.linspace(0, 1, 100_001, dtype=torch.float64)  # (100001,)
        level = (grid * deviation**2 - (1 - grid)).abs().argmin()  # ()
        compare(f"half_way({deviation})", given, grid[level], slips, tolerance=2e-5)


# --8<-- [start:exercise-2]
def block_parameters(width: int, text_width: int) -> int:
    """By pencil: how many weights a `TransformerBlock` has.

    Hint: Count part by part. Which of the linear layers have a bias? How wide is the gate's layer?
    """
    looks = 4 * width**2 + width  # at pixels: query, key and value without a bias, and the output with one
    reads = 2 * width**2 + 2 * width * text_width + width  # key and value come from the text
    thinks = (8 * width**2 + 8 * width) + (4 * width**2 + width)  # values and gates, then back
    norms = 3 * 2 * width  # three, with a factor and a shift for each feature
    return looks + reads + thinks + norms


# --8<-- [end:exercise-2]


def check_2(answer: Callable) -> None:
    """A real block's weights are counted."""
    for width, text_width in ((24, 10), (320, 768)):
        given = answer(width, text_width)
        with torch.device("meta"):
            block = TransformerBlock(width, text_width, heads=8)
        right = sum(weight.numel() for weight in block.parameters())
        slips = {
            "queries, keys and values have no bias": right + 6 * width,
            "the gates are missing: that layer makes values and gates": right - 4 * width**2 - 4 * width,
            "keys and values of the second attention come from the text": right
            + 2 * width * (width - text_width),
            "three normalisations have two numbers for each feature": right - 6 * width,
        }
        compare(f"block_parameters({width}, {text_width})", given, right, slips, tolerance=1e-12)


# --8<-- [start:exercise-3]
def redraw(
    predict: Callable, latents: Tensor, noise: Tensor, levels: Tensor, ratio: Tensor, skip: int
) -> Tensor:
    """Draw a picture anew, near to a given one: leave out the first stops, and start from its noised latent.

    Args: predict as `guided_noise` makes it; latents, noise (B, Z, H, W), the latents scaled; levels (S,) and
    ratio (S + 1,) as `ddim_stops` gives them; skip, how many stops to leave out. Returns (B, Z, H, W).

    Hint: `ratio` says how much noise there is for one part of signal. A noisy latent has to have the size
    that the network knows: signal and noise, squared, add up to 1.
    """
    start = ratio[skip]  # () noise over signal where the run begins
    x = (latents + start.to(latents) * noise) / (1 + start**2).sqrt().to(latents)  # (B, Z, H, W)
    return sample_latents(predict, x, levels[skip:], ratio[skip:])


# --8<-- [end:exercise-3]


def check_3(answer: Callable) -> None:
    """With a network that knows the noise, the latents come back; the levels asked are the last ones."""
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 3, 2, 4, 5, generator=generator).double()  # (3, 2, 4, 5), (3, 2, 4, 5)
    levels, ratio = torch.tensor([751, 501, 251, 1]), torch.tensor([4.0, 2.0, 1.0, 0.2, 0.1]).double()
    asked, seen = [], []

    def predict(x: Tensor, t: Tensor, alpha_bar: Tensor) -> Tensor:
        asked.append(int(t[0]))
        seen.append(x)
        return noise

    given = answer(predict, latents, noise, levels, ratio, 2)
    assert asked, "the network is never asked"
    assert asked != [751, 501, 251, 1], "it starts at the first stop: leave out the first ones"
    assert asked == [251, 1], f"with skip = 2 the network is asked at 251 and 1, not at {asked}"
    right = ((latents + noise) / 2**0.5, (latents + 0.1 * noise) / 1.01**0.5)
    slips = {
        "what it starts from has twice the variance: divide by the root of 1 + ratio^2": latents + noise,
        "it starts from pure noise: where is the picture?": noise,
        "it starts from the clean latent: add the noise of that level": latents,
    }
    compare("what the network sees first", seen[0], right[0], slips)
    compare("redraw(…) with a network that knows the noise", given, right[1])


# --8<-- [start:exercise-4]
def attend_words(query: Tensor, key: Tensor, value: Tensor, real: Tensor) -> Tensor:
    """Cross-attention in which no pixel sees the padding of its text.

    Args: query (B, M, N, D); key, value (B, M, L, D); real (B, L), True where there is a word.
    Returns (B, M, N, D).

    Hint: `F.scaled_dot_product_attention` takes `attn_mask`, True where a key may be seen. Its shape has to
    fit (B, M, N, L).
    """
    mask = real[:, None, None, :]  # (B, 1, 1, L) the same for each head and pixel
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


# --8<-- [end:exercise-4]


def check_4(answer: Callable) -> None:
    """The words alone, text by text."""
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 3, 5, 4, generator=generator)  # (2, 3, 5, 4)
    key, value = torch.randn(2, 2, 3, 6, 4, generator=generator)  # (2, 3, 6, 4), (2, 3, 6, 4)
    real = torch.tensor([[True] * 6, [True, True, True, False, False, False]])  # (2, 6)
    given = answer(query, key, value, real)
    right = torch.empty_like(query)
    for text, words in enumerate(real.sum(dim=1).tolist()):
        scores = query[text] @ key[text, :, :words].transpose(1, 2) / 2
        right[text] = scores.softmax(dim=-1) @ value[text, :, :words]
    added = F.scaled_dot_product_attention(query, key, value, attn_mask=real[:, None, None].float())
    slips = {
        "the padding is still seen": F.scaled_dot_product_attention(query, key, value),
        "a mask of numbers is added to the scores: use True and False": added,
        "keys of 0 still get a share, exp(0): keep them out of the softmax": F.scaled_dot_product_attention(
            query, key * real[:, None, :, None], value * real[:, None, :, None]
        ),
    }
    compare("attend_words(…)", given, right, slips)


# --8<-- [start:given-5]
def hasty_step(x: Tensor, eps: Tensor, here: float, there: float) -> Tensor:
    """One step of `sample_latents`, from noise over signal `here` to `there`. It has a fault."""
    spread = x * (1 + here**2) ** 0.5  # (B, Z, H, W)
    return spread + (there - here) * eps  # (B, Z, H, W)


# --8<-- [end:given-5]


# --8<-- [start:exercise-5]
def careful_step(x: Tensor, eps: Tensor, here: float, there: float) -> Tensor:
    """hasty_step without its fault. A run of one step to there = 0 is right with both, longer ones are not.

    Args: x, eps (B, Z, H, W), latents of the size that the network knows, and the noise in them.

    Hint: If the latents have the variance 1 and so has the noise, which variance does x have before the step,
    and which after it?
    """
    spread = x * (1 + here**2) ** 0.5  # (B, Z, H, W) the latent plus `here` times noise
    spread = spread + (there - here) * eps  # (B, Z, H, W) the latent plus `there` times noise
    return spread / (1 + there**2) ** 0.5  # (B, Z, H, W) back to the size that the network knows


# --8<-- [end:exercise-5]


def check_5(answer: Callable) -> None:
    """From a latent and its noise: what a step arrives at is known."""
    generator = torch.Generator().manual_seed(0)
    latents, eps = torch.randn(2, 3, 2, 4, 5, generator=generator).double()  # (3, 2, 4, 5), (3, 2, 4, 5)
    for here, there in ((3.0, 0.0), (3.0, 1.5), (0.5, 0.2)):
        x = (latents + here * eps) / (1 + here**2) ** 0.5  # (3, 2, 4, 5)
        right = (latents + there * eps) / (1 + there**2) ** 0.5  # (3, 2, 4, 5)
        slips = {
            "it is still spread out: the network knows latents and noise of variance 1 together": latents
            + there * eps,
            "it is brought to size by the amount of noise that was, not the one that is": (
                latents + there * eps
            )
            / (1 + here**2) ** 0.5,
        }
        slips = slips if there else {}
        compare(f"careful_step(x, eps, {here}, {there})", answer(x, eps, here, there), right, slips)
