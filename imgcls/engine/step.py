"""The arithmetic of one iteration, for both trainers, and the check that its loss is finite."""

import random
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from functools import reduce
from inspect import signature
from operator import add
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from imgcls.checkpoint import read_tag
from imgcls.data.sampler import derive_seed
from imgcls.errors import UserError
from imgcls.solver import iterations

# DDP's option to send buffers at every forward pass; torch 2.13 renamed it.
_NAMES = signature(DistributedDataParallel).parameters
_SYNC_BUFFERS = "forward_sync_buffers" if "forward_sync_buffers" in _NAMES else "broadcast_buffers"


class NonFiniteLossError(UserError, FloatingPointError):
    """A loss is infinite or not a number."""


class FiniteCheck:
    """Stops a run whose loss is not finite.

    On a CPU each loss is checked before the weights are updated. On a GPU that would make the host wait for the device
    in every iteration, so the losses are collected until ``check`` is called. The message names the last checkpoint of
    ``run_folder``.
    """

    def __init__(self, device_type: str, run_folder: str):
        self.at_once = device_type == "cpu"
        self.run_folder = run_folder
        self._unchecked: list[tuple[Mapping[str, Tensor], list[Any], int, float]] = []

    def add(self, losses: Mapping[str, Tensor], batch: Any, iteration: int, lr: float) -> None:
        """Adds the losses of one batch; on a CPU raises as ``check``."""
        losses = {name: loss.detach() for name, loss in losses.items()}
        self._unchecked.append((losses, _image_ids(batch), iteration, lr))
        if self.at_once:
            self.check()

    def check(self) -> None:
        """Checks all losses added since the last call.

        Raises:
            NonFiniteLossError: with the iteration, each loss, the learning rate, the images and the last checkpoint.
        """
        if not self._unchecked:
            return
        finite = torch.stack([_sum(losses.values()).isfinite() for losses, *_ in self._unchecked]).tolist()
        checked, self._unchecked = self._unchecked, []
        if all(finite):
            return
        losses, image_ids, iteration, lr = checked[finite.index(False)]
        values = ", ".join(f"{name} {loss.item():g}" for name, loss in losses.items())
        last = read_tag(self.run_folder)
        good = f"the last good checkpoint is {last}" if last else "no checkpoint yet"
        raise NonFiniteLossError(
            f"the loss is not finite at iteration {iteration} ({values}; learning rate {lr:g}; image ids "
            f"{image_ids}); {good}; lower SOLVER.BASE_LR, lengthen the warm-up, or look "
            "at those images and their labels"
        )


def _sum(values: Iterable[Tensor]) -> Tensor:
    return reduce(add, values)


def _image_ids(batch: Any) -> list[Any]:
    if isinstance(batch, Mapping):
        return list(batch.get("image_id", ()))
    return [sample.get("image_id") for sample in batch]


class TrainStep:
    """Forward, backward and one optimizer step, with gradient accumulation, mixed precision and averaged weights.

    Random numbers that the model draws (dropout) are derived from the seed and the number of the forward pass, so that
    a resumed run draws the same ones as an uninterrupted run.

    Args:
        model: returns a dict of losses in training mode; may be wrapped in DDP.
        optimizer: of the model's parameters.
        accum_steps: batches whose gradients are averaged for one step.
        precision: of autocast, or None for no mixed precision. ``torch.float16`` comes with a gradient scaler, which
            waits for the GPU once in every step.
        ema: updated after every step.
        seed: of the model's random numbers.
        run_folder: see ``FiniteCheck``.
        head_only: iterations at the start in which a ``ClsNet`` trains its head only.

    Attributes:
        finite: the caller must call its ``check`` before anything is saved.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        accum_steps: int = 1,
        precision: torch.dtype | None = None,
        ema: AveragedModel | None = None,
        seed: int = 0,
        run_folder: str = "",
        head_only: int = 0,
    ):
        self.model = model
        self.optimizer = optimizer
        self.accum_steps = accum_steps
        self.precision = precision
        self.ema = ema
        self.seed = seed
        self.head_only = head_only
        self.device_type = next(model.parameters()).device.type
        self.finite = FiniteCheck(self.device_type, run_folder)
        self.scaler = torch.amp.GradScaler(self.device_type, enabled=precision is torch.float16)

    def __call__(self, batches: Iterator[Any], iteration: int) -> tuple[dict[str, Tensor], float]:
        """Trains on the next ``accum_steps`` batches.

        Returns:
            The losses (scalars, detached, means over the batches) and the seconds spent waiting for data.

        Raises:
            NonFiniteLossError: on a CPU, before the weights change. On a GPU ``finite.check`` raises it later.
        """
        self.optimizer.zero_grad()
        if self.head_only:
            classifier: Any = unwrap(self.model)
            if classifier.train_backbone != (iteration >= self.head_only):
                classifier.train_backbone = iteration >= self.head_only
                classifier.train()
        data_time, parts = 0.0, []
        for number in range(self.accum_steps):
            start = time.perf_counter()
            batch = next(batches)
            data_time += time.perf_counter() - start
            # After the first batch, because starting the loader draws from the same generator.
            seed_model(self.seed, iteration * self.accum_steps + number)
            # Gradients are averaged over the ranks once, in the backward pass of the last batch.
            ddp = self.model if isinstance(self.model, DistributedDataParallel) else None
            with ddp.no_sync() if ddp and number < self.accum_steps - 1 else nullcontext():
                losses = self._forward(batch)
                self.finite.add(losses, batch, iteration, self.optimizer.param_groups[0]["lr"])
                self.scaler.scale(_sum(losses.values()) / self.accum_steps).backward()
            parts.append({name: loss.detach() for name, loss in losses.items()})
        self.scaler.unscale_(self.optimizer)  # before the step, because the optimizer may clip gradients in it
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema is not None:
            self.ema.update_parameters(unwrap(self.model))
        return {name: _sum(part[name] for part in parts) / self.accum_steps for name in parts[0]}, data_time

    def _forward(self, batch: Any) -> Mapping[str, Tensor]:
        with torch.autocast(self.device_type, self.precision, enabled=self.precision is not None):
            losses = self.model(batch)
        return losses if isinstance(losses, Mapping) else {"total_loss": losses}


def build_step(
    cfg: CfgNode, model: nn.Module, optimizer: Optimizer, ema: AveragedModel | None, num_images: int = 0
) -> TrainStep:
    """The step that ``SOLVER`` describes; ``num_images`` is the size of the training set."""
    return TrainStep(
        model,
        optimizer,
        accum_steps=cfg.SOLVER.ACCUM_STEPS,
        precision=getattr(torch, cfg.SOLVER.AMP.PRECISION) if cfg.SOLVER.AMP.ENABLED else None,
        ema=ema,
        seed=cfg.SEED,
        run_folder=cfg.OUTPUT_DIR,
        head_only=iterations(cfg.SOLVER.HEAD_ONLY_EPOCHS, num_images, cfg.SOLVER.IMS_PER_BATCH),
    )


def seed_model(seed: int, number: int) -> None:
    """Seeds every generator that a model may use in a forward pass; each rank and each pass has its own seed."""
    # Negative seeds, because the samples of the data use seeds from 0.
    derived = derive_seed(-1 - seed, number * comm.get_world_size() + comm.get_rank())
    torch.manual_seed(derived)
    np.random.seed(derived % 2**32)
    random.seed(derived)


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside a wrapper for distributed training."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def wrap_ddp(model: nn.Module, partly: bool = False) -> nn.Module:
    """The model wrapped in DDP, which does not send buffers at every forward pass; the model itself on one process.

    ``partly`` is for a model of which some parameters are not used in some iterations.
    """
    if comm.get_world_size() == 1:
        return model
    device = next(model.parameters()).device
    if device.type == "cpu" and any(isinstance(module, nn.SyncBatchNorm) for module in model.modules()):
        raise UserError("MODEL.MNET.NORM 'SyncBN' works on GPUs only; on CPU processes set it to 'naiveSyncBN'")
    ids = [device.index] if device.type == "cuda" else None
    options: dict[str, Any] = {_SYNC_BUFFERS: False, "find_unused_parameters": partly}
    return DistributedDataParallel(model, device_ids=ids, **options)


def broadcast_buffers(model: nn.Module) -> None:
    """Gives all ranks the buffers of rank 0: BN statistics drift apart, as training never synchronises them."""
    if comm.get_world_size() > 1:
        for buffer in model.buffers():
            distributed.broadcast(buffer, 0)
