"""Exported files are read as the classifier that they were made from, and nothing else is read."""

import json
import pickle
import shutil
import sys
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

from imgcls.checkpoint import read_checkpoint
from imgcls.disk import file_digest
from imgcls.errors import UserError, UserFileNotFoundError
from imgcls.inference import Predictor
from imgcls.inference.export import load_exported
from imgcls.inference.score import read_labelled, score

SUFFIXES = (".onnx", ".pt2", ".xml", ".ts")
each_format = pytest.mark.parametrize("suffix", SUFFIXES)


@each_format
@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_probabilities_are_those_of_the_network_at_any_batch_size(exports_of, head, suffix, random_images):
    exports = exports_of(head)
    model = build_model(exports.cfg).eval()
    model.load_state_dict(read_checkpoint(exports.checkpoint)["model"])
    classifier = load_exported(exports.path(suffix), "cpu")
    for count in (1, 2, 7):
        images = random_images(count)
        with torch.no_grad():
            logits = model.logits(images) / exports.temperature
        expected = logits.softmax(1) if head == "softmax" else logits.sigmoid()
        found = classifier.probabilities(images)
        assert found.dtype == torch.float32 and found.shape == (count, 3)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert expected.std(0).min() > 0.02  # the images differ in their probabilities


@each_format
def test_a_predictor_of_a_file_predicts_as_that_of_the_checkpoint(exports_of, suffix):
    exports = exports_of("sigmoid")
    files = sorted(map(str, exports.images.rglob("*.png")))[:9]
    expected = Predictor.from_checkpoint(exports.checkpoint, "cpu").predict(files, batch_size=4, topk=2)
    predictor = Predictor.from_file(exports.path(suffix), "cpu")
    for prediction, other in zip(predictor.predict(files, batch_size=4, topk=2), expected, strict=True):
        assert prediction.source == other.source and prediction.above_threshold == other.above_threshold
        assert prediction.classes == other.classes
        assert prediction.probabilities == pytest.approx(other.probabilities, abs=1e-5)


@each_format
@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_evaluation_gives_the_metrics_of_the_checkpoint(exports_of, tmp_path, head, suffix):
    exports = exports_of(head)
    table = tmp_path / "labels.csv"
    table.write_text("file_name,labels\n" + "".join(f"{p},{p.parent.name}\n" for p in exports.images.rglob("*.png")))
    name = f"folder:{exports.images}" if head == "softmax" else f"csv:{table}"
    results = []
    for path in (exports.checkpoint, exports.path(suffix)):
        predictor = Predictor.from_file(path, "cpu")
        (metrics,) = score(predictor, read_labelled(name, predictor.info), 16).values()
        results.append(metrics)
    # The loss is a mean of logarithms; every other metric depends on the order of the probabilities only.
    losses = [metrics.pop("loss") for metrics in results]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4) and results[1] == results[0]
    assert 0 < min(results[0].values()) < 100


@each_format
@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_the_settings_of_the_checkpoint_are_in_the_file(exports_of, head, suffix):
    exports = exports_of(head)
    info = load_exported(exports.path(suffix), "cpu").info
    expected = Predictor.from_checkpoint(exports.checkpoint, "cpu").info
    assert info.contract.items() >= expected.contract.items()
    for name in ("classes", "multi_label", "thresholds", "temperature", "input_size", "crop_pct", "topk", "threshold"):
        assert getattr(info, name) == getattr(expected, name), name
    assert info.source == exports.path(suffix) and info.device == "cpu"


def stored_text(path: str, suffix: str) -> str:
    """The metadata as another program would find it."""
    if suffix == ".onnx":
        import onnx

        return {entry.key: entry.value for entry in onnx.load(path).metadata_props}["imgcls"]
    if suffix == ".xml":
        return ElementTree.parse(path).find("rt_info/imgcls/metadata").get("value")
    with zipfile.ZipFile(path) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("/extra/imgcls.json"))).decode()


@each_format
def test_the_metadata_is_one_json_text_that_other_programs_find(exports_of, suffix):
    exports = exports_of("sigmoid")
    content = json.loads(stored_text(exports.path(suffix), suffix))
    assert content["classes"] == ["blue", "green", "red"] and content["thresholds"] == [0.2, 0.5, 0.7]
    assert content["multi_label"] is True and content["temperature"] == 1.0
    assert content["checkpoint_sha256"] == file_digest(exports.checkpoint)
    assert content["input"] == {
        "layout": "NHWC", "shape": ["batch", 32, 32, 3], "dtype": "uint8", "value_range": [0, 255],
        "channel_order": exports.cfg.INPUT.FORMAT,
    }  # fmt: skip
    wanted = {"input_size": 32, "crop_pct": 0.8, "interpolation": "bilinear", "antialias": True}
    assert content["preprocessing"].items() >= wanted.items()


def test_onnx_has_named_dynamic_uint8_images_and_no_batch_norm(exports_of):
    import onnx

    for head, shape in (("softmax", [3, 32, 32]), ("sigmoid", [32, 32, 3])):
        model = onnx.load(exports_of(head).path(".onnx"))
        (image,), (output,) = model.graph.input, model.graph.output
        dims = image.type.tensor_type.shape.dim
        assert image.name == "images" and image.type.tensor_type.elem_type == onnx.TensorProto.UINT8
        assert dims[0].dim_param and [dim.dim_value for dim in dims[1:]] == shape
        assert output.name == "probabilities" and output.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        assert "BatchNormalization" not in {node.op_type for node in model.graph.node}


def test_torchs_own_files_have_no_batch_norm_and_no_pickle(exports):
    program = torch.export.load(exports.path(".pt2"))
    assert "batch_norm" not in str(program.graph) and "conv2d" in str(program.graph)
    assert "batch_norm" not in str(torch.jit.load(exports.path(".ts")).inlined_graph)
    with zipfile.ZipFile(exports.path(".pt2")) as archive:
        assert not [info for info in archive.infolist() if info.filename.endswith((".pt", ".pkl")) and info.file_size]


@each_format
def test_a_truncated_file_is_one_line(exports, tmp_path, suffix):
    for source in Path(exports.checkpoint).parent.glob("model.*"):
        shutil.copy(source, tmp_path)
    for share in (0, 0.5, 0.98):
        path = tmp_path / f"model{suffix}"
        data = Path(exports.path(suffix)).read_bytes()
        path.write_bytes(data[: int(share * len(data))])
        with pytest.raises(UserError, match=r"truncated|damaged") as error:
            load_exported(str(path), "cpu")
        assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_weights_of_another_export_are_refused(exports, exports_of, tmp_path):
    shutil.copy(exports.path(".xml"), tmp_path)
    shutil.copy(exports_of("sigmoid").path(".bin"), tmp_path)
    with pytest.raises(UserError, match=r"model\.bin is missing, damaged or of another export than .*model\.xml"):
        load_exported(str(tmp_path / "model.xml"), "cpu")
    (tmp_path / "model.bin").unlink()
    with pytest.raises(UserError, match=r"model\.bin is missing"):
        load_exported(str(tmp_path / "model.xml"), "cpu")


@pytest.fixture
def foreign(tmp_path):
    """``foreign(".onnx")``: a network that somebody else exported."""

    def write(suffix: str) -> str:
        path, network = str(tmp_path / f"foreign{suffix}"), torch.nn.Conv2d(3, 2, 1)
        images = (torch.zeros(1, 3, 8, 8),)
        if suffix == ".ts":
            torch.jit.save(torch.jit.trace(network, images), path)
        elif suffix == ".pt2":
            torch.export.save(torch.export.export(network, images), path)
        elif suffix == ".xml":
            import openvino

            openvino.save_model(openvino.convert_model(network, example_input=images), path)
        else:
            import onnx
            from onnx import TensorProto, helper

            values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in "xy"]
            graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", values[:1], values[1:])
            onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
        return path

    return write


@each_format
@pytest.mark.filterwarnings("ignore")
def test_a_foreign_file_is_refused_with_what_is_missing(foreign, suffix, require):
    require("openvino"), require("onnxruntime")
    path = foreign(suffix)
    for classes in (None, ["a", "b"]):
        with pytest.raises(
            UserError, match=r"was not exported by imgcls: it does not say its class names, and how"
        ) as error:
            Predictor.from_file(path, "cpu", classes)
        assert "\n" not in str(error.value) and "names alone (--classes) are not enough" in str(error.value)


def rewrite(source: str, target: Path, changes: dict[str, bytes]) -> str:
    """Copies an archive with other contents of some files; names are without the folder of the archive."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        folder = old.namelist()[0].partition("/")[0]
        for name in old.namelist():
            short = name.partition("/")[2]
            new.writestr(name, changes.pop(short) if short in changes else old.read(name))
        for short, data in changes.items():
            new.writestr(f"{folder}/{short}", data)
    return str(target)


def read_member(path: str, short: str) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.read(f"{archive.namelist()[0].partition('/')[0]}/{short}")


class Marker:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    "how", ["pickled weight", "sample inputs", "size", "power", "digits", "function", "extra member", "math"]
)
def test_a_pt2_file_with_code_is_refused_before_it_runs(exports, tmp_path, how):
    """Each of these runs, or would run, in ``torch.export.load`` or the first call."""
    marker, source = tmp_path / "marker", exports.path(".pt2")
    graph = read_member(source, "models/model.json").decode()
    weights = json.loads(read_member(source, "data/weights/model_weights_config.json"))
    poison = pickle.dumps(Marker(marker))
    touch = f"__import__('pathlib').Path('{marker}').touch()"
    changes: dict[str, bytes] = {}
    if how == "pickled weight":
        entry = next(iter(weights["config"].values()))
        entry["use_pickle"] = True
        changes = {
            "data/weights/model_weights_config.json": json.dumps(weights).encode(),
            f"data/weights/{entry['path_name']}": poison,
        }
    elif how == "sample inputs":
        changes = {"data/sample_inputs/model.pt": poison}
    elif how in ("size", "power", "digits"):
        size = {"size": touch, "power": "9**9**9**9", "digits": "1" * 500 + "!"}[how]
        start = graph.index('"expr_str": "') + len('"expr_str": "')
        changes = {"models/model.json": (graph[:start] + size + graph[graph.index('"', start) :]).encode()}
    elif how == "function":
        changes = {"models/model.json": graph.replace("torch.ops.aten.linear.default", "torch.os.system").encode()}
    elif how == "extra member":
        changes = {"data/constants/opaque_obj_0": poison}
    else:
        changes = {"models/model.json": graph.replace("torch.ops.aten.linear.default", "math.perm").encode()}
    path = rewrite(source, tmp_path / "model.pt2", changes)
    with pytest.raises(UserError, match="which could run code; it was not loaded") as error:
        load_exported(path, "cpu")
    assert not marker.exists() and "\n" not in str(error.value)


def test_a_rewritten_pt2_file_without_code_still_loads(exports, tmp_path, random_images):
    """So that the refusals above are not those of any rewritten archive."""
    path = rewrite(exports.path(".pt2"), tmp_path / "model.pt2", {})
    images = random_images(2)
    expected = load_exported(exports.path(".pt2"), "cpu").probabilities(images)
    assert torch.equal(load_exported(path, "cpu").probabilities(images), expected)


class Writer(torch.nn.Module):
    """Writes a file when it is loaded, or when it is called."""

    def __init__(self, path: str, on_load: bool):
        super().__init__()
        self.path = path
        self.on_load = on_load

    @torch.jit.export
    def __getstate__(self):
        return (self.path, self.on_load, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool, bool]):
        self.path, self.on_load, self.training = state
        if self.on_load:
            torch.save(torch.zeros(1), self.path)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        torch.save(torch.zeros(1), self.path)
        return images.float().mean((2, 3))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("on_load", [True, False])
def test_a_torchscript_file_that_writes_files_is_refused_before_it_runs(exports, tmp_path, on_load):
    marker, path = tmp_path / "marker", str(tmp_path / "model.ts")
    metadata = stored_text(exports.path(".ts"), ".ts")
    torch.jit.save(torch.jit.script(Writer(str(marker), on_load)), path, _extra_files={"imgcls.json": metadata})
    torch.jit.load(path)(torch.zeros(1, 3, 2, 2))
    assert marker.exists()  # this is what would happen
    marker.unlink()
    with pytest.raises(UserError, match=r"holds the function (torch|ops)\.\S*save, .* it was not loaded"):
        load_exported(path, "cpu")
    assert not marker.exists()


@each_format
def test_a_file_names_no_folder_of_the_machine_that_wrote_it(exports, suffix):
    path, root = exports.path(suffix), str(Path(__file__).parents[3]).encode()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            parts = [archive.read(name) for name in archive.namelist()]
    else:
        parts = [Path(path).read_bytes()]
    assert not [part for part in parts if root in part]


@each_format
def test_other_class_names(exports, suffix):
    assert load_exported(exports.path(suffix), "cpu", ["x", "y", "z"]).info.classes == ["x", "y", "z"]
    with pytest.raises(UserError, match=r"there are 2 class names, and .* has 3 outputs; give one for each"):
        load_exported(exports.path(suffix), "cpu", ["x", "y"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.update(format=3), r"has format 3, of imgcls .*, which reads 1 and 2: export it again"),
        (lambda content: content.pop("classes"), "metadata has no valid classes; export it again"),
        (lambda content: content["preprocessing"].pop("crop_pct"), r"no valid preprocessing\.crop_pct; export"),
        (
            lambda content: content.update(classes=["a", "b"], thresholds=None),
            r"outputs of shape \(1, 3\) for 2 classes",
        ),
        (None, "its imgcls metadata is damaged"),
    ],
)
def test_metadata_of_another_version_is_refused(exports, tmp_path, change, message):
    content = json.loads(stored_text(exports.path(".pt2"), ".pt2"))
    if change:
        change(content)
    text = json.dumps(content) if change else "{"
    path = rewrite(exports.path(".pt2"), tmp_path / "model.pt2", {"extra/imgcls.json": text.encode()})
    with pytest.raises(UserError, match=message) as error:
        load_exported(path, "cpu")
    assert "\n" not in str(error.value)


def test_a_runtime_that_is_too_old_for_the_file_is_one_line(exports, tmp_path):
    import onnx

    model = onnx.load(exports.path(".onnx"))
    model.opset_import[0].version = 999
    onnx.save(model, tmp_path / "later.onnx")
    with pytest.raises(
        UserError, match=r"later\.onnx cannot be read as ONNX \(.*[Oo]pset.*\); .* another version of its runtime"
    ) as error:
        load_exported(str(tmp_path / "later.onnx"), "cpu")
    assert "\n" not in str(error.value)


def test_reading_needs_no_package_that_only_writes(exports, monkeypatch):
    module = sys.modules["imgcls.inference.export.formats"]
    real = module.find_spec
    monkeypatch.setattr(module, "find_spec", lambda name: None if name in ("onnx", "onnxscript") else real(name))
    assert load_exported(exports.path(".onnx"), "cpu").info.classes
    with pytest.raises(UserError, match=r"files need onnx, onnxscript: pip install"):
        module.find_format("model.onnx", writing=True)


@pytest.mark.parametrize(("suffix", "package"), [(".onnx", "onnxruntime"), (".xml", "openvino")])
def test_a_missing_package_names_the_extra(exports, suffix, package, monkeypatch):
    module = sys.modules["imgcls.inference.export.formats"]
    real = module.find_spec
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == package else real(name))
    with pytest.raises(UserError, match=rf'{suffix} files need {package}: pip install -e "\.\[export\]"$'):
        load_exported(exports.path(suffix))


@each_format
def test_wrong_files_and_devices_are_refused(exports, tmp_path, suffix):
    with pytest.raises(UserFileNotFoundError, match="no such file"):
        load_exported(str(tmp_path / f"nothing{suffix}"))
    with pytest.raises(UserError, match="device 'cuda:99'"):
        load_exported(exports.path(suffix), "cuda:99")


def test_an_unknown_suffix_names_the_allowed_ones(exports):
    with pytest.raises(UserError, match=r"'\.pth' is no export format; allowed: \.onnx \(ONNX\), \.pt2 .*\.xml .*\.ts"):
        Predictor.from_exported(exports.checkpoint)


def test_onnx_runtime_uses_the_threads_of_torch(exports, monkeypatch, random_images):
    import onnxruntime

    seen = []
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda path, options, **rest: (seen.append(options), real(path, options, **rest))[1],
    )
    load_exported(exports.path(".onnx"), "cpu").probabilities(random_images(1))
    assert seen[0].intra_op_num_threads == torch.get_num_threads()


def test_images_in_any_memory_format(exports_of, random_images):
    images = random_images(3)
    for head in ("softmax", "sigmoid"):
        classifier = load_exported(exports_of(head).path(".onnx"), "cpu")
        other = classifier.probabilities(images.contiguous(memory_format=torch.channels_last))
        np.testing.assert_array_equal(classifier.probabilities(images).numpy(), other.numpy())
