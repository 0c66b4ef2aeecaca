"""One model on many processes."""

from inspect import signature

from detectron2.utils import comm
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from imgcls.errors import UserError

# Buffers at every forward pass; torch 2.13 renamed the option.
_NAMES = signature(DistributedDataParallel).parameters
_SYNCHRONISED = "forward_sync_buffers" if "forward_sync_buffers" in _NAMES else "broadcast_buffers"


def replicate(model: nn.Module) -> nn.Module:
    """The model, wrapped so that the gradients of all processes are averaged; itself where there is one process.

    Raises:
        ValueError: a norm that works on GPUs only.
    """
    if comm.get_world_size() == 1:
        return model
    device = next(model.parameters()).device
    if device.type == "cpu" and any(isinstance(module, nn.SyncBatchNorm) for module in model.modules()):
        raise UserError("MODEL.MNET.NORM 'SyncBN' works on GPUs only; on CPU processes set it to 'naiveSyncBN'")
    ids = [device.index] if device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=ids, **{_SYNCHRONISED: False})


def broadcast_buffers(model: nn.Module) -> None:
    """Gives all ranks the buffers of rank 0: BN statistics drift apart, as training never synchronises them."""
    if comm.get_world_size() > 1:
        for buffer in model.buffers():
            distributed.broadcast(buffer, 0)
