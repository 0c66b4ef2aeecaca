"""The file formats: how each is written, and how it is read and run."""

import contextlib
import io
import logging
import os
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imgcls.disk import file_digest
from imgcls.errors import UserError
from imgcls.inference.classifier import choose_device
from imgcls.inference.export.archive import check_pt2, check_torchscript, read_archive_metadata
from imgcls.inference.export.graph import ExportGraph, dynamic_dimensions, example_images
from imgcls.inference.export.metadata import FILE_NAME, KEY

Run = Callable[[Tensor], Tensor]
"""Maps uint8 images in the layout of the file to float32 probabilities, both on the CPU."""


@dataclass(frozen=True)
class OpenedFile:
    """An exported file that is ready to run.

    Attributes:
        metadata: its text, None if it has none.
        device: where it runs.
        start: loads the network; it is called only after the metadata was accepted.
    """

    metadata: str | None
    device: str
    start: Callable[[], Run]


@dataclass(frozen=True)
class ExportFormat:
    """A row of `FORMATS`.

    Attributes:
        title: for messages and tables.
        packages: what must be installed to read it, by module name.
        writers: what must be installed, too, to write it.
        companion: suffix of a second file beside the first; empty if there is none.
        resizes: whether the format can hold the resizing of images of any size.
        write: writes a graph with its metadata to a path; the last argument is the ONNX opset, None for the default.
        open: opens a path on a device, None for the best one.
    """

    title: str
    packages: tuple[str, ...]
    writers: tuple[str, ...]
    companion: str
    resizes: bool
    write: Callable[[ExportGraph, str, str, int | None], None]
    open: Callable[[str, str | None], OpenedFile]


def find_format(path: str, writing: bool = False) -> ExportFormat:
    """The format of a file name.

    Args:
        path: of the file.
        writing: whether the file will be written, not only read.

    Raises:
        UserError: its suffix is unknown, or a package is not installed.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        allowed = ", ".join(f"{known} ({row.title})" for known, row in FORMATS.items())
        raise UserError(f"{path}: the suffix {suffix!r} is no export format; allowed: {allowed}")
    row = FORMATS[suffix]
    missing = [name for name in row.packages + row.writers * writing if find_spec(name) is None]
    if missing:
        raise UserError(f'{path}: {suffix} files need {", ".join(missing)}: pip install -e ".[export]"')
    return row


def _program(graph: ExportGraph) -> torch.export.ExportedProgram:
    with quiet():
        program = torch.export.export(graph, (example_images(graph),), dynamic_shapes=(dynamic_dimensions(graph),))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it names the folders of this machine
    return program


def _write_onnx(graph: ExportGraph, metadata: str, path: str, opset: int | None) -> None:
    with quiet():
        program = torch.onnx.export(
            _program(graph), dynamo=True, verbose=False, opset_version=opset, input_names=["images"],
            output_names=["probabilities"],
        )  # fmt: skip
        assert program is not None
        # What the exporter notes about its own work for each node is a tenth of the file of a small network.
        program.model.graph.metadata_props.clear()
        for node in program.model.graph:
            node.metadata_props.clear()
        program.model.metadata_props[KEY] = metadata
        program.save(path)
    written = program.model.opset_imports[""]
    if opset not in (None, written):
        raise UserError(f"--opset {opset}: torch could only export this network as opset {written}; give that, or none")


def _open_onnx(path: str, device: str | None) -> OpenedFile:
    import onnxruntime

    gpu = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if device is None:
        device = choose_device(None) if gpu else "cpu"
    elif device != "cpu" and not gpu:
        raise UserError(f"device {device!r}: this ONNX Runtime runs on the CPU; install onnxruntime-gpu, or use cpu")
    device = choose_device(device)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    providers: list[Any] = ["CPUExecutionProvider"]
    if device != "cpu":
        settings = {"device_id": torch.device(device).index or 0, "use_tf32": 0}
        providers.insert(0, ("CUDAExecutionProvider", settings))
    session = onnxruntime.InferenceSession(path, options, providers=providers)
    name = session.get_inputs()[0].name

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {name: _as_array(images)})[0])

    return OpenedFile(session.get_modelmeta().custom_metadata_map.get(KEY), device, lambda: run)


def _write_openvino(graph: ExportGraph, metadata: str, path: str, opset: int | None) -> None:
    import openvino

    with quiet():
        model = openvino.convert_model(_program(graph))
    shape = list(example_images(graph).shape)
    model.reshape([-1, *shape[1:]])
    model.inputs[0].get_tensor().set_names({"images"})
    model.outputs[0].get_tensor().set_names({"probabilities"})
    openvino.save_model(model, path, compress_to_fp16=False)
    # The weights are in a file of their own. Its checksum makes the two of different exports refused.
    model.set_rt_info(metadata, [KEY, "metadata"])
    model.set_rt_info(file_digest(_weights(path)), [KEY, "weights_sha256"])
    openvino.save_model(model, path, compress_to_fp16=False)


def _open_openvino(path: str, device: str | None) -> OpenedFile:
    import openvino

    if device not in (None, "cpu"):
        raise UserError(f"device {device!r}: an OpenVINO file runs on the CPU here; allowed: cpu")
    root = ElementTree.parse(path).getroot()
    metadata, digest = (root.find(f"rt_info/{KEY}/{name}") for name in ("metadata", "weights_sha256"))

    def start() -> Run:
        weights = _weights(path)
        if digest is None or not os.path.isfile(weights) or digest.get("value") != file_digest(weights):
            raise UserError(f"{weights} is missing, damaged or of another export than {path}; copy both files again")
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        compiled = openvino.Core().compile_model(path, "CPU", settings)
        return lambda images: torch.from_numpy(compiled([_as_array(images)])[0].copy())

    return OpenedFile(None if metadata is None else metadata.get("value"), "cpu", start)


def _write_pt2(graph: ExportGraph, metadata: str, path: str, opset: int | None) -> None:
    program = _program(graph)
    program.example_inputs = None  # they would be pickled
    with quiet():
        torch.export.save(program, path, extra_files={FILE_NAME: metadata})


def _open_pt2(path: str, device: str | None) -> OpenedFile:
    device = choose_device(device)

    def start() -> Run:
        check_pt2(path)
        with quiet():
            program = torch.export.load(path)
            module = program.module(check_guards=False).to(device)
        return _on_device(module, device)

    return OpenedFile(read_archive_metadata(path), device, start)


def _write_torchscript(graph: ExportGraph, metadata: str, path: str, opset: int | None) -> None:
    with quiet():
        traced = torch.jit.freeze(torch.jit.trace(graph, example_images(graph)))
        saved = io.BytesIO()
        torch.jit.save(traced, saved, _extra_files={FILE_NAME: metadata})
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(path, "w") as archive:
        for name in source.namelist():
            if not name.endswith(".debug_pkl"):  # optional; it names the folders of this machine
                archive.writestr(name, source.read(name))


def _open_torchscript(path: str, device: str | None) -> OpenedFile:
    device = choose_device(device)

    def start() -> Run:
        check_torchscript(path)
        with quiet():
            return _on_device(torch.jit.load(path, map_location=device), device)

    return OpenedFile(read_archive_metadata(path), device, start)


def _on_device(module: Callable[[Tensor], Tensor], device: str) -> Run:
    @torch.inference_mode()
    def run(images: Tensor) -> Tensor:
        return module(images.to(device)).cpu()

    return run


def _as_array(images: Tensor) -> NDArray[np.uint8]:
    """Contiguous; copied by numpy, because torch's threads would compete with those of the runtime for the cores."""
    return np.ascontiguousarray(images.numpy())


def _weights(path: str) -> str:
    return os.path.splitext(path)[0] + ".bin"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hides the deprecations and progress notes of exporters, which a user can do nothing about."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


FORMATS: Mapping[str, ExportFormat] = MappingProxyType(
    {
        ".onnx": ExportFormat("ONNX", ("onnxruntime",), ("onnx", "onnxscript"), "", True, _write_onnx, _open_onnx),
        ".pt2": ExportFormat("torch.export", (), (), "", True, _write_pt2, _open_pt2),
        ".xml": ExportFormat("OpenVINO IR", ("openvino",), (), ".bin", False, _write_openvino, _open_openvino),
        ".ts": ExportFormat("TorchScript", (), (), "", False, _write_torchscript, _open_torchscript),
    }
)
