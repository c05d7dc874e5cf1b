"""What latent diffusion's autoencoder is trained with besides the plain difference: a perceptual distance
(Zhang et al. 2018, arXiv 1801.03924) and a judge of patches (Esser et al. 2020, arXiv 2012.09841).

Shapes: B batch, C channels, H height, W width, O features, K outputs.
"""

# --8<-- [start:perceptual]
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PictureFeatures(nn.Module):
    """A small network that answers K questions about a picture; its layers are features to compare by.

    Args: channels of the picture; width of the first layer, more than channels; num_outputs, K.
    """

    def __init__(self, channels: int, width: int, num_outputs: int):
        super().__init__()
        widths = [channels, width, 2 * width, 2 * width]
        pairs = zip(widths[:-1], widths[1:], strict=True)
        self.layers = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=1 + (a > channels), padding=1) for a, b in pairs
        )
        self.out = nn.Linear(2 * width, num_outputs)

    def features(self, pictures: Tensor) -> list[Tensor]:
        """Three layers (B, O, h, w) of pictures (B, C, H, W), at full, half and a quarter of the size."""
        found = []
        for layer in self.layers:
            pictures = F.relu(layer(pictures))  # (B, _, _, _)
            found.append(pictures)
        return found

    def forward(self, pictures: Tensor) -> Tensor:
        """Answers (B, K) about pictures (B, C, H, W)."""
        top = self.features(pictures)[-1].mean(dim=(2, 3))  # (B, O)
        out = self.out(top)  # (B, K)
        return out


def perceptual_distance(features: list[Tensor], others: list[Tensor]) -> Tensor:
    """How different pictures look to a network (B,): directions are compared, at each pixel of each layer."""
    total = torch.zeros(len(features[0]), device=features[0].device)  # (B,)
    for one, other in zip(features, others, strict=True):
        difference = F.normalize(one, dim=1) - F.normalize(other, dim=1)  # (B, _, _, _)
        total = total + difference.square().sum(dim=1).mean(dim=(1, 2))  # (B,)
    return total


# --8<-- [end:perceptual]


# --8<-- [start:adversarial]
class PatchDiscriminator(nn.Module):
    """A judge that gives each patch of a picture a number: high for real, low for rebuilt."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.conv_1 = nn.Conv2d(channels, width, 4, stride=2, padding=1)
        self.conv_2 = nn.Conv2d(width, 2 * width, 4, stride=2, padding=1)
        self.norm = nn.GroupNorm(4, 2 * width)
        self.conv_3 = nn.Conv2d(2 * width, 1, 3, padding=1)

    def forward(self, pictures: Tensor) -> Tensor:
        """One number for each patch, (B, 1, H // 4, W // 4), of pictures (B, C, H, W)."""
        hidden = F.leaky_relu(self.conv_1(pictures), 0.2)  # (B, _, _, _) half of H and W
        hidden = F.leaky_relu(self.norm(self.conv_2(hidden)), 0.2)  # (B, _, _, _) a quarter
        patches = self.conv_3(hidden)  # (B, 1, _, _)
        return patches


def judge_loss(real: Tensor, rebuilt: Tensor) -> Tensor:
    """The judge's hinge loss (): it wants numbers above 1 for real patches, below -1 for rebuilt ones."""
    loss = (F.relu(1 - real).mean() + F.relu(1 + rebuilt).mean()) / 2  # ()
    return loss


def balance(reconstruction: Tensor, adversarial: Tensor, last: Tensor) -> Tensor:
    """The factor () at which two losses pull equally hard at the decoder's last weights."""
    pull, push = (
        torch.autograd.grad(loss, last, retain_graph=True)[0].norm() for loss in (reconstruction, adversarial)
    )  # (), ()
    factor = (pull / (push + 1e-4)).clamp(max=1e4)  # () the authors' numbers
    return factor.detach()


# --8<-- [end:adversarial]
