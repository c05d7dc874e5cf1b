"""The U-Net of the DDPM page in shards: what many processes ask of another model and another loss.

Shapes: B pictures of one process, C channels, H height, W width.
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from snippets.blocks.unet import Attention, ResBlock, UNet
from snippets.ddpm import NoiseSchedule, ddpm_loss


# --8<-- [start:unet]
def sharded_unet(unet: UNet) -> nn.Module:
    """A part of each weight in each process; whole ones are gathered for a residual block or attention."""
    mesh = init_device_mesh(next(unet.parameters()).device.type, (dist.get_world_size(),))
    for part in list(unet.modules()):
        if isinstance(part, ResBlock | Attention):  # a Stage is never called itself: it would gather nothing
            fully_shard(part, mesh=mesh)
    return fully_shard(unet, mesh=mesh)


def picture_step(
    unet: nn.Module,
    schedule: NoiseSchedule,
    optimizer: torch.optim.Optimizer,
    pictures: Tensor,
    generator: torch.Generator,
) -> float:
    """A step on pictures (B, C, H, W), equally many in each process; the mean loss of all processes.

    The generator draws levels and noise, so that each process needs one of its own.
    """
    loss = ddpm_loss(unet, schedule, pictures, generator)  # ()
    loss.backward()
    nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    mean = loss.detach() / dist.get_world_size()  # ()
    dist.all_reduce(mean)
    return mean.item()


# --8<-- [end:unet]
