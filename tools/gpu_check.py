#!/usr/bin/env python
"""A short benchmark on one GPU: our MobileNetV1 1.0 beside timm's mobilenetv1_100, and both trainers.

Needs no network. Prints a Markdown table with the card's name, and one with the images per second of the trainers.
`bash scripts/gpu_check.sh` runs this after the tests that need a GPU.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import timm
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from imgcls.errors import UserError, exit_on_user_error
from imgcls.model_zoo import get_config

CONFIG = "ImageNet/mnetv1_100.yaml"
CLASSES = 1000


class Mode(NamedTuple):
    """How a network is run.

    Attributes:
        name: shown in the table.
        precision: dtype of autocast; None for float32.
        compiled: whether the network goes through ``torch.compile``.
    """

    name: str
    precision: torch.dtype | None = None
    compiled: bool = False


MODES = (
    Mode("float32"),
    Mode("AMP float16", torch.float16),
    Mode("AMP bfloat16", torch.bfloat16),
    Mode("AMP bfloat16, compiled", torch.bfloat16, True),
)


def build_ours(device: torch.device, compiled: bool) -> Callable[[Tensor], Tensor]:
    """Builds our network, which normalises its images."""
    from detectron2.modeling import build_model

    settings = ["MODEL.DEVICE", str(device), "MODEL.CHANNELS_LAST", "True", "MODEL.COMPILE", str(compiled)]
    return Ours(build_model(get_config(CONFIG, settings)))


class Ours(nn.Module):
    """Makes ``ClsNet.logits`` the forward, so that both networks are called in the same way."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        """``(N, 3, H, W)`` uint8 images to ``(N, 1000)`` logits."""
        return self.net.logits(images)


class Timm(nn.Module):
    """timm's network behind the same normalisation."""

    def __init__(self, device: torch.device, compiled: bool):
        super().__init__()
        self.net = timm.create_model("mobilenetv1_100", num_classes=CLASSES)
        self.net.to(device, memory_format=torch.channels_last)
        if compiled:
            self.net.compile()

    def forward(self, images: Tensor) -> Tensor:
        """``(N, 3, H, W)`` uint8 images to ``(N, 1000)`` logits."""
        return self.net(((images.float() - 127.5) / 127.5).contiguous(memory_format=torch.channels_last))


NETWORKS = {"imgcls MobileNetV1 1.0": build_ours, "timm mobilenetv1_100": Timm}


def time_calls(run: Callable[[], object], device: torch.device, warmup: int, repeats: int) -> float:
    """Returns the median milliseconds of a call.

    On a GPU, events between the calls measure the time that the GPU needs; the CPU may run ahead of it.
    """
    for _ in range(warmup):
        run()
    if device.type != "cuda":
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            run()
            times.append(1000 * (time.perf_counter() - start))
        return statistics.median(times)
    torch.cuda.synchronize(device)
    events = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
    events[0].record()
    for event in events[1:]:
        run()
        event.record()
    torch.cuda.synchronize(device)
    return statistics.median(before.elapsed_time(after) for before, after in itertools.pairwise(events))


def measure(net: nn.Module, mode: Mode, images: Tensor, warmup: int, repeats: int) -> tuple[float, float]:
    """Returns the milliseconds of a training step and of inference, on a batch that is already on the device."""
    device = images.device
    labels = torch.arange(len(images), device=device) % CLASSES
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    scaler = torch.amp.GradScaler(device.type, enabled=mode.precision is torch.float16)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device.type, mode.precision, enabled=mode.precision is not None):
            loss = F.cross_entropy(net(images), labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    def infer() -> None:
        with torch.no_grad(), torch.autocast(device.type, mode.precision, enabled=mode.precision is not None):
            net(images)

    net.train()
    trained = time_calls(step, device, warmup, repeats)
    net.eval()
    return trained, time_calls(infer, device, warmup, repeats)


def compare_networks(
    device: torch.device, batch: int, size: int, modes: Sequence[Mode], warmup: int, repeats: int
) -> list[str]:
    """Returns the rows of the table, one for each network and mode."""
    rows = ["| network | mode | step, ms | images/s | inference, ms | images/s |", "|---|---|---|---|---|---|"]
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, generator=generator)
    images = images.to(device).contiguous(memory_format=torch.channels_last)
    for mode in modes:
        for name, build in NETWORKS.items():
            torch._dynamo.reset()  # frees what was compiled for the networks before
            trained, inferred = measure(build(device, mode.compiled), mode, images, warmup, repeats)
            rates = [f"{milliseconds:.2f} | {1000 * batch / milliseconds:,.0f}" for milliseconds in (trained, inferred)]
            rows.append(f"| {name} | {mode.name} | {rates[0]} | {rates[1]} |")
    return rows


def compare_trainers(device: torch.device, batch: int, size: int, iterations: int, workers: int) -> list[str]:
    """Runs both commands on generated images, on a GPU with and without AMP, and returns the rows of the table."""
    rows = ["| trainer | mode | images/s | data time, ms |", "|---|---|---|---|"]
    with tempfile.TemporaryDirectory(prefix="gpu_check-") as name:
        folder = Path(name)
        write_images(folder / "images", 2 * batch)
        for verb, amp in itertools.product(
            ("train", "train-plain"), (False, True) if device.type == "cuda" else (False,)
        ):
            output = folder / f"{verb}-{amp}"
            settings = {
                "DATASETS.TRAIN": f"('folder:{folder / 'images'}',)",
                "DATASETS.TEST": "()",
                "MODEL.CLSNET.NUM_CLASSES": -1,
                "MODEL.CLSNET.INPUT_SIZE": size,
                "MODEL.DEVICE": device,
                "SOLVER.IMS_PER_BATCH": batch,
                "SOLVER.MAX_ITER": iterations,
                "SOLVER.WARMUP_ITERS": 0,
                "SOLVER.AMP.ENABLED": amp,
                "SOLVER.LOG_PERIOD": max(iterations // 4, 1),
                "DATALOADER.NUM_WORKERS": workers,
                "OUTPUT_DIR": output,
            }
            run_imgcls(verb, "--config-file", CONFIG, *(str(part) for pair in settings.items() for part in pair))
            lines = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
            seconds = statistics.median(line["time"] for line in lines if "time" in line)
            waiting = statistics.median(line["data_time"] for line in lines if "data_time" in line)
            mode = "AMP float16" if amp else "float32"
            rows.append(f"| imgcls {verb} | {mode} | {batch / seconds:,.0f} | {1000 * waiting:.1f} |")
    return rows


def run_imgcls(*arguments: str) -> None:
    """Runs the command in a new process.

    Raises:
        UserError: it fails.
    """
    done = subprocess.run([sys.executable, "-m", "imgcls", *arguments], capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"imgcls {arguments[0]} ended with exit code {done.returncode}: {reason}")


def write_images(folder: Path, count: int) -> None:
    """Writes JPEG files of 500x375 pixels in two classes."""
    rng = np.random.default_rng(0)
    for number in range(count):
        path = folder / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        coarse.resize((500, 375), Image.Resampling.BICUBIC).save(path, quality=90)


def describe(device: torch.device) -> str:
    """Names the card or processor, and the versions of torch and CUDA."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}, CUDA {torch.version.cuda}"
    return f"CPU, {torch.get_num_threads()} threads, torch {torch.__version__}"


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the tables; returns 2 if there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cpu is for trying out the command (default: cuda)")
    parser.add_argument("--batch", type=int, default=128, help="images per batch (default: 128)")
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels (default: 224)")
    parser.add_argument(
        "--repeats", type=int, default=30, help="timed calls, after a third as many for warm-up (default: 30)"
    )
    parser.add_argument("--workers", type=int, default=8, help="loader workers of the trainers (default: 8)")
    args = parser.parse_args(argv)
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("error: this machine has no GPU that torch can use", file=sys.stderr)
        return 2
    torch.backends.cudnn.benchmark = True
    modes = MODES if device.type == "cuda" else MODES[:1]
    with exit_on_user_error():
        print(f"{describe(device)}; batch {args.batch}, {args.size} pixels\n")
        try:
            rows = compare_networks(device, args.batch, args.size, modes, -(-args.repeats // 3), args.repeats)
        except torch.cuda.OutOfMemoryError as error:
            raise UserError(f"--batch {args.batch} does not fit into the GPU's memory; give a smaller one") from error
        print(*rows, "", sep="\n", flush=True)
        print(*compare_trainers(device, args.batch, args.size, 2 * args.repeats, args.workers), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
