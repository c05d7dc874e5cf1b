"""ControlNet (Zhang et al. 2023, arXiv 2302.05543): a frozen text-to-picture model obeys a second picture.

Shapes: B batch, C channels of a hint, Z channels of a latent, H height, W width, P height of a latent,
Q width of a latent, O features, L tokens of a text, D features of a token, N pictures.
Latents, levels and guidance are those of latent_diffusion.py; a hint is a picture from 0 to 1.
"""

# --8<-- [start:imports]
import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import trange

# --8<-- [end:imports]
from snippets.blocks.autoencoder import AutoencoderConfig, AutoencoderKL
from snippets.blocks.text_unet import ConditionedUNet, UNetConfig
from snippets.cfg import drop_condition, guide
from snippets.clip_text import TextConfig, TextEncoder
from snippets.data.scenes import COLOURS, MAX_WORDS, VOCABULARY, Scene, encode_captions, scenes
from snippets.ddpm import NoiseSchedule, noise_like, q_sample, save_grid, velocity
from snippets.latent_diffusion import (
    LatentDiffusion,
    descend,
    draw_ddim,
    latent_scale,
    noise_from_velocity,
    scaled_linear_beta,
    train_autoencoder,
    train_latent,
    train_text,
)


# --8<-- [start:zero]
def zero_conv(width_in: int, width_out: int, size: int = 1) -> nn.Conv2d:
    """A convolution whose weights and biases begin as zeros, so that it answers zeros to everything."""
    conv = nn.Conv2d(width_in, width_out, size, padding=size // 2)
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)
    return conv


# --8<-- [end:zero]


# --8<-- [start:hint-encoder]
class HintEncoder(nn.Module):
    """From a hint to features of a latent's size: each width after the first halves height and width."""

    def __init__(self, channels: int, widths: tuple[int, ...], width_out: int):
        super().__init__()
        self.factor = 2 ** (len(widths) - 1)  # how many times as high and wide as the latent the hint is
        self.conv_in = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for before, after in zip(widths, widths[1:], strict=False):
            self.blocks.append(nn.Conv2d(before, before, 3, padding=1))
            self.blocks.append(nn.Conv2d(before, after, 3, stride=2, padding=1))
        self.conv_out = zero_conv(widths[-1], width_out, 3)

    def forward(self, hint: Tensor) -> Tensor:
        x = F.silu(self.conv_in(hint))  # (B, _, H, W)
        for conv in self.blocks:
            x = F.silu(conv(x))  # (B, _, _, _) half as high and wide after every second one
        features = self.conv_out(x)  # (B, O, _, _) zeros at first
        return features


# --8<-- [end:hint-encoder]


# --8<-- [start:controlnet]
class ControlNet(ConditionedUNet):
    """The way down and the middle of a U-Net, which also see a hint. What they find passes zero layers."""

    def __init__(self, config: UNetConfig, hint_channels: int = 3, hint_widths: tuple = (16, 32, 96)):
        super().__init__(config)
        del self.up_blocks, self.conv_norm_out, self.conv_out  # the way up stays the frozen model's
        width, kept = config.widths[0], [config.widths[0]]
        for level, out in enumerate(config.widths):
            kept += [out] * (config.layers + (level < len(config.widths) - 1))  # as many as the U-Net keeps
        self.controlnet_cond_embedding = HintEncoder(hint_channels, hint_widths, width)
        self.controlnet_down_blocks = nn.ModuleList(zero_conv(out, out) for out in kept)
        self.controlnet_mid_block = zero_conv(kept[-1], kept[-1])

    def forward(self, x: Tensor, t: Tensor, text: Tensor, hint: Tensor) -> list[Tensor]:
        """What to add to each of the U-Net's skips, in their order, and last to its middle.

        Args: noisy latents x (B, Z, P, Q), levels t (B,), states of a text (B, L, D), hint (B, C, H, W).
        """
        encoder = self.controlnet_cond_embedding
        wanted = len(x), encoder.conv_in.in_channels, *(encoder.factor * side for side in x.shape[2:])
        if hint.shape != wanted:
            raise ValueError(f"hints {wanted} for latents {(*x.shape,)} are expected, given {(*hint.shape,)}")
        time = F.silu(self.time_embedding(t))  # (B, _)
        x = self.conv_in(x) + encoder(hint)  # (B, O, P, Q) the hint joins after the first convolution
        skips = [x]
        for stage in self.down_blocks:
            x = stage.down(x, time, text, skips)  # (B, _, _, _)
        x = self.mid_block.block(0, x, time, text)  # (B, _, _, _)
        x = self.mid_block.block(1, x, time, text)  # (B, _, _, _)
        pairs = zip(self.controlnet_down_blocks, skips, strict=True)
        return [*(zero(skip) for zero, skip in pairs), self.controlnet_mid_block(x)]


# --8<-- [end:controlnet]


# --8<-- [start:copy]
def control_for(unet: ConditionedUNet, hint_channels: int = 3, hint_widths=(16, 32, 96)) -> ControlNet:
    """A new ControlNet for a U-Net: a copy of its way down and its middle, with layers of zeros around."""
    control = ControlNet(unet.config, hint_channels, hint_widths)
    own = control.state_dict()
    shared = {name: weight for name, weight in unet.state_dict().items() if name in own}
    control.load_state_dict(own | shared)  # copies the numbers: the two share no weight
    return control


# --8<-- [end:copy]


# --8<-- [start:joined]
def controlled(unet: ConditionedUNet, x: Tensor, t: Tensor, text: Tensor, added: list[Tensor]) -> Tensor:
    """A U-Net's answer (B, Z, P, Q), with what a ControlNet adds to its skips and, last, to its middle.

    Args: noisy latents x (B, Z, P, Q), levels t (B,), states of a text (B, L, D).
    """
    time = F.silu(unet.time_embedding(t))  # (B, _)
    x, skips = unet.encode(x, time, text)  # (B, _, _, _), _ the way down sees no hint
    x = unet.mid_block.block(0, x, time, text)  # (B, _, _, _)
    x = unet.mid_block.block(1, x, time, text)  # (B, _, _, _)
    *to_skips, to_middle = added
    skips = [skip + more for skip, more in zip(skips, to_skips, strict=True)]
    out = unet.decode(x + to_middle, time, text, skips)  # (B, Z, P, Q)
    return out


# --8<-- [end:joined]


# --8<-- [start:training]
def control_loss(
    model: LatentDiffusion,
    control: ControlNet,
    latents: Tensor,
    tokens: Tensor,
    hints: Tensor,
    empty: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """The loss of latent diffusion with hints (B, C, H, W), for latents (B, Z, P, Q) and tokens (B, L).

    Half of the texts are replaced by the one without words, empty (L,).
    """
    told = drop_condition(tokens, empty, 0.5, generator)  # (B, L)
    eps = noise_like(latents, generator)  # (B, Z, P, Q)
    levels, device = model.schedule.num_steps, latents.device
    t = torch.randint(levels, latents.shape[:1], generator=generator, device=device)  # (B,)
    xt = q_sample(model.schedule, latents, t, eps)  # (B, Z, P, Q)
    states = model.text.states(told)  # (B, L, D)
    output = controlled(model.unet, xt, t, states, control(xt, t, states, hints))  # (B, Z, P, Q)
    loss = F.mse_loss(output, velocity(model.schedule, latents, t, eps))  # ()
    return loss


def train_control(
    model: LatentDiffusion,
    control: ControlNet,
    latents: Tensor,
    tokens: Tensor,
    hints: Tensor,
    empty: Tensor,
    num_steps: int,
    batch_size: int = 16,
    lr: float = 2e-3,
) -> ControlNet:
    """Train a copy of a ControlNet on latents (N, Z, P, Q), texts (N, L) and hints (N, C, H, W); the copy.

    From here on the model's U-Net and text encoder are frozen.
    """
    if not len(latents) == len(tokens) == len(hints) or num_steps <= 0 or batch_size <= 0:
        given = f"{len(latents)} latents, {len(tokens)} texts, {len(hints)} hints, {num_steps}, {batch_size}"
        raise ValueError(
            f"a text and a hint for each latent, and positive numbers, are expected, given {given}"
        )
    generator = torch.Generator(latents.device).manual_seed(0)
    nn.ModuleList([model.unet, model.text]).requires_grad_(False)  # gradients still pass through them
    control = copy.deepcopy(control).train()
    optimizer = torch.optim.AdamW(control.parameters(), lr, betas=(0.9, 0.99), fused=True)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, num_steps)
    for _ in trange(num_steps, desc="control", mininterval=2):
        rows = torch.randint(len(latents), (batch_size,), generator=generator, device=latents.device)  # (B,)
        loss = control_loss(model, control, latents[rows], tokens[rows], hints[rows], empty, generator)  # ()
        descend(loss, optimizer, rate)
    return control.eval()


# --8<-- [end:training]


# --8<-- [start:several]
@dataclass
class Control:
    """One control of a drawing: who looks, at what, and how much it counts."""

    network: ControlNet
    hint: Tensor  # of (B, C, H, W), from 0 to 1
    scale: float = 1.0


def summed(controls: list[Control], x: Tensor, t: Tensor, text: Tensor) -> list[Tensor]:
    """What all controls add together, each times its scale.

    Args: noisy latents x (B, Z, P, Q), levels t (B,), states of a text (B, L, D).
    """
    if not controls:
        raise ValueError("one control at least is expected, given none")
    each = [[one.scale * r for r in one.network(x, t, text, one.hint)] for one in controls]
    return [sum(residuals) for residuals in zip(*each, strict=True)]


# --8<-- [end:several]


# --8<-- [start:guidance]
def to_both(controls: list[Control], x: Tensor, t: Tensor, told: Tensor, untold: Tensor) -> list[Tensor]:
    """What to add where a network is asked with the text and, in the same batch, without it.

    Args: noisy latents x (B, Z, P, Q), levels t (B,), states of both texts, told and untold (B, L, D).
    """
    twice = [Control(one.network, torch.cat([one.hint] * 2), one.scale) for one in controls]
    return summed(twice, torch.cat([x, x]), torch.cat([t, t]), torch.cat([told, untold]))


def to_text_alone(
    controls: list[Control], x: Tensor, t: Tensor, told: Tensor, untold: Tensor
) -> list[Tensor]:
    """The same in "guess mode": nothing is added without the text, and fine residuals count less.

    Args: noisy latents x (B, Z, P, Q), levels t (B,), states of both texts, told and untold (B, L, D).
    """
    added = summed(controls, x, t, told)
    weights = torch.logspace(-1, 0, len(added)).tolist()  # from 0.1 for the first skip to 1 for the middle
    return [torch.cat([w * one, torch.zeros_like(one)]) for w, one in zip(weights, added, strict=True)]


def controlled_noise(
    model: LatentDiffusion,
    controls: list[Control],
    tokens: Tensor,
    empty: Tensor,
    guidance: float,
    residuals: Callable = to_both,
) -> Callable:
    """The noise as a function of latents x, levels t and alpha_bar (), guided, under one or more controls.

    Args: tokens (B, L), one text for each latent; empty (L,), the text to lead away from.
    """
    with torch.no_grad():
        told, untold = model.text.states(tokens), model.text.states(empty.expand_as(tokens))  # _, _

    @torch.no_grad()
    def predict(x: Tensor, t: Tensor, alpha_bar: Tensor) -> Tensor:
        added = residuals(controls, x, t, told, untold)
        twice = torch.cat([x, x]), torch.cat([t, t]), torch.cat([told, untold])  # _
        with_text, without = controlled(model.unet, *twice, added).chunk(2)  # (B, Z, P, Q), (B, Z, P, Q)
        noise = model.as_noise(guide(with_text, without, guidance), x, alpha_bar)  # (B, Z, P, Q)
        return noise

    return predict


# --8<-- [end:guidance]


# --8<-- [start:hints]
def edge_hint(scene: Scene) -> Tensor:
    """A hint (3, 32, 32): 1 on the outlines of the shapes, 0 elsewhere."""
    return scene.edges.expand(3, -1, -1)


def mask_hint(scene: Scene) -> Tensor:
    """A hint (3, 32, 32): 1 on the shapes, 0 on the background."""
    return (scene.mask > 0).float().expand(3, -1, -1)


def pose_hint(scene: Scene) -> Tensor:
    """A hint (3, 32, 32): soft red dots at the centres of the shapes, green ones at their corners."""
    hint = torch.zeros(3, 32, 32)  # (3, 32, 32)
    line = torch.arange(32) + 0.5  # (32,) middles of pixels
    for points in scene.key_points:
        x, y = points.T[:, :, None, None]  # (_, 1, 1), (_, 1, 1) of a shape's points
        apart = (line - x).square() + (line[:, None] - y).square()  # (_, 32, 32)
        dots = torch.exp(-apart / 2)  # (_, 32, 32) a pixel wide
        hint[0] = torch.maximum(hint[0], dots[0])
        if len(dots) > 1:  # a circle has no corners
            hint[1] = torch.maximum(hint[1], dots[1:].amax(dim=0))
    return hint


# --8<-- [end:hints]


# --8<-- [start:overlap]
def painted(pictures: Tensor) -> Tensor:
    """Where pictures (N, 3, H, W) in [-1, 1] are covered by half or more with one of the colours.

    Returns (N, H, W), 1 or 0. White paper is no colour; the nearest colour is the one of the same direction.
    """
    palette = 1 - torch.tensor(list(COLOURS.values()))  # (_, 3) what each colour takes away from white
    along = torch.einsum("kc,nchw->nkhw", palette, (1 - pictures) / 2)  # (N, _, H, W)
    nearest = (along / palette.norm(dim=1).view(-1, 1, 1)).argmax(dim=1, keepdim=True)  # (N, 1, H, W)
    cover = along / palette.square().sum(dim=1).view(-1, 1, 1)  # (N, _, H, W)
    return (cover.gather(1, nearest)[:, 0] > 0.5).float()


def overlap(asked: Tensor, drawn: Tensor) -> Tensor:
    """The intersection over the union (N,) of masks (N, H, W) of 0 and 1; it is 1 where both are empty."""
    both = torch.minimum(asked, drawn).sum(dim=(1, 2))  # (N,)
    either = torch.maximum(asked, drawn).sum(dim=(1, 2))  # (N,)
    ratio = torch.where(either > 0, both / either.clamp(min=1), 1.0)  # (N,)
    return ratio


# --8<-- [end:overlap]


# --8<-- [start:main]
AUTOENCODER_STEPS = 300
TEXT_STEPS = 200
TRAIN_STEPS = 400
CONTROL_STEPS = 250


def main() -> None:
    """Train a small text-to-picture model, freeze it, and teach a ControlNet to fill masks with shapes."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    examples = scenes(3000, generator, max_shapes=1)
    pictures = torch.stack([scene.picture for scene in examples])
    tokens = encode_captions([scene.caption for scene in examples])
    autoencoder = AutoencoderKL(AutoencoderConfig(widths=(16, 32, 32)))
    autoencoder = train_autoencoder(autoencoder, pictures, AUTOENCODER_STEPS)
    text = TextEncoder(TextConfig(len(VOCABULARY), MAX_WORDS, 64, 128, 2, 2, embedding=None))
    text = train_text(text, examples, TEXT_STEPS)
    unet = ConditionedUNet(UNetConfig(4, (48, 64), attention=(False, True), heads=(2, 2), groups=16))
    scale = latent_scale(autoencoder, pictures[:256], generator)
    schedule = NoiseSchedule(scaled_linear_beta())
    model = LatentDiffusion(autoencoder, text, unet, schedule, scale, noise_from_velocity)
    latents, empty = model.to_latents(pictures, generator), encode_captions([""])[0]
    model = train_latent(model, latents, tokens, empty, TRAIN_STEPS)  # from here on it is frozen
    hints = torch.stack([mask_hint(scene) for scene in examples])
    start = control_for(model.unet)
    control = train_control(model, start, latents, tokens, hints, empty, CONTROL_STEPS)
    asked = scenes(10, torch.Generator().manual_seed(2), max_shapes=1)
    told = encode_captions([scene.caption for scene in asked])
    hints, noise = torch.stack([mask_hint(scene) for scene in asked]), torch.randn(10, 4, 8, 8)
    rows, masks = [2 * hints - 1], hints[:, 0]
    for name, network in {"frozen model": start, "with ControlNet": control}.items():
        predict = controlled_noise(model, [Control(network, hints)], told, empty, guidance=3.0)
        rows.append(draw_ddim(model, predict, noise, num_steps=20))
        print(f"{name}: intersection over union {overlap(masks, painted(rows[-1])).mean():.2f}")
    save_grid("controlled.png", torch.cat(rows))
    print("controlled.png: the masks, the frozen model's pictures, those with ControlNet, for")
    print(*[scene.caption for scene in asked], sep="\n")


if __name__ == "__main__":
    main()
# --8<-- [end:main]
