"""int8 files of small networks whose channels differ much, against the float file and ONNX Runtime's own."""

import itertools

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

from imgcls.checkpoint import build_info, write_checkpoint
from imgcls.config import get_cfg
from imgcls.errors import UserError, UserFileNotFoundError
from imgcls.inference import load_checkpoint_classifier
from imgcls.inference.export import FORMATS, load_exported
from imgcls.inference.export.graph import ExportGraph
from imgcls.inference.export.metadata import build_metadata
from imgcls.inference.quantize import quantize
from imgcls.inference.quantize_graph import FloatGraph
from imgcls.inference.quantize_weights import equalise, round_weights

SIZE = 32


@pytest.fixture(scope="module", autouse=True)
def onnx_packages(require):
    for package in ("onnx", "onnxruntime", "onnxscript"):
        require(package)


def make_images(count, seed):
    """Smooth random images in ten colours, one for each class."""
    rng = np.random.default_rng(seed)
    colours = np.random.default_rng(7).uniform(60, 195, (10, 3, 1, 1))
    small = colours[np.arange(count) % 10] + rng.normal(0, 30, (count, 3, 5, 5))
    large = torch.nn.functional.interpolate(torch.from_numpy(small), (SIZE, SIZE), mode="bicubic")
    return large.clamp(0, 255).to(torch.uint8).numpy()


CALIBRATION, OTHERS = make_images(64, 0), make_images(200, 1)


def train(model):
    """A few steps, so that images differ in their classes by more than chance, as with any network worth quantising."""
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    images, labels = torch.from_numpy(make_images(640, 2)), torch.arange(640) % 10
    if model.loss.multi_label:
        labels = torch.nn.functional.one_hot(labels, 10).float()
    model.train()
    for step in range(60):
        picked = slice(step * 64 % 640, step * 64 % 640 + 64)
        optimizer.zero_grad()
        model.loss(model.logits(images[picked]), labels[picked]).backward()
        optimizer.step()
    model.eval()


def export(path, backbone, **changes):
    cfg = get_cfg()
    values = {
        "MODEL.META_ARCHITECTURE": "ClsNet", "MODEL.DEVICE": "cpu", "MODEL.BACKBONE.NAME": backbone,
        "MODEL.BACKBONE.FREEZE_AT": 0, "MODEL.MNET.WIDTH_MULT": 0.25, "MODEL.PIXEL_STD": [57.0, 57.0, 57.0],
        "MODEL.CLSNET.NUM_CLASSES": 10, "MODEL.CLSNET.INPUT_SIZE": SIZE,
        **{key.replace("__", "."): value for key, value in changes.items()},
    }  # fmt: skip
    cfg.merge_from_list([item for pair in values.items() for item in pair])
    torch.manual_seed(0)
    model = build_model(cfg)
    for module in model.modules():
        if hasattr(module, "running_var"):
            module.weight.data.log_normal_(0.0, 0.6)
            module.momentum = 0.3
    train(model)
    checkpoint = str(path.with_suffix(".pth"))
    info = build_info(cfg, [f"class {index}" for index in range(10)])
    write_checkpoint(checkpoint, {"model": model.state_dict(), "imgcls": info})
    classifier = load_checkpoint_classifier(checkpoint, "cpu")
    metadata = build_metadata(classifier.info, "", nhwc=False)
    FORMATS[".onnx"].write(ExportGraph(classifier), metadata, str(path), None)
    return str(path)


@pytest.fixture(scope="module")
def float_file(tmp_path_factory):
    return export(
        tmp_path_factory.mktemp("float") / "v2.onnx", "build_mnetv2_backbone", MODEL__MNET__BLOCKS=[1, 2, 2, 2, 1, 1, 1]
    )


def run(path, images=OTHERS):
    import onnxruntime

    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"images": images})[0]


def shift(path, float_path):
    return np.abs(run(path) - run(float_path)).max(axis=1).mean()


def naive(float_path, out):
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        batches = iter([{"images": CALIBRATION}])

        def get_next(self):
            return next(self.batches, None)

    quantize_static(
        float_path, out, Reader(), per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8
    )
    return out


def test_predictions_are_far_nearer_to_float_than_those_of_quantize_static(float_file, tmp_path):
    import onnx

    out = str(tmp_path / "int8.onnx")
    result = quantize(float_file, out, [CALIBRATION[:40], CALIBRATION[40:]])
    agreement = (run(out).argmax(1) == run(float_file).argmax(1)).mean()
    assert agreement > 0.9
    assert shift(out, float_file) < 0.8 * shift(naive(float_file, str(tmp_path / "naive.onnx")), float_file)
    assert result.agreement > 80 and result.shift < 0.1
    kinds = [each.data_type for each in onnx.load(out).graph.initializer]
    assert kinds.count(onnx.TensorProto.INT8) >= 20
    classifier = load_exported(out, "cpu")
    assert classifier.info.classes[9] == "class 9"
    assert np.array_equal(classifier.probabilities(torch.from_numpy(OTHERS)), run(out))


def test_without_a_share_all_layers_are_int8_and_with_one_the_ends_are_float(float_file, tmp_path):
    import onnx

    paths = [str(tmp_path / f"{share}.onnx") for share in (0, 0.5)]
    results = [
        quantize(float_file, path, [CALIBRATION], float_share=share)
        for path, share in zip(paths, (0, 0.5), strict=True)
    ]
    assert results[0].float_layers == [] == results[0].stored_layers
    names = [node.name for node in FloatGraph(onnx.load(float_file)).layers]
    chosen = results[1].float_layers
    assert chosen and set(results[1].stored_layers) <= set(chosen)
    inside = [name in chosen for name in names]
    assert sum(a != b for a, b in itertools.pairwise(inside)) <= 2  # float, int8, float
    assert results[1].shift < results[0].shift
    assert shift(paths[1], float_file) < shift(paths[0], float_file)
    layers = [node for node in onnx.load(paths[0]).graph.node if node.op_type in ("Conv", "Gemm")]
    assert all(name.endswith("_d") for node in layers for name in node.input)


def test_the_same_arguments_give_the_same_file(float_file, tmp_path):
    paths = [tmp_path / "a.onnx", tmp_path / "b.onnx"]
    for path in paths:
        quantize(float_file, str(path), [CALIBRATION[:40]])
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize(
    "changes",
    [
        {"MODEL__MNET__ACTIVATION": "relu"},
        {"MODEL__MNET__ACTIVATION": "leaky_relu"},
        {"MODEL__CLSNET__HEAD": "sigmoid"},
        {"MODEL__CHANNELS_LAST": False},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_other_activations_heads_and_layouts(tmp_path, changes):
    import onnx

    path = export(tmp_path / "v1.onnx", "build_mnetv1_backbone", MODEL__MNET__BLOCKS=[1, 1, 1, 1, 1], **changes)
    out = str(tmp_path / "int8.onnx")
    result = quantize(path, out, [CALIBRATION])
    assert shift(out, path) < 0.1 and result.agreement > 90
    tight = quantize(path, out, [CALIBRATION], reduce_range=True)
    values = [onnx.numpy_helper.to_array(each) for each in onnx.load(out).graph.initializer if each.data_type == 3]
    assert max(np.abs(each).max() for each in values) == 63 and tight.agreement > 85


def test_equalised_channels_compute_the_same_with_more_equal_peaks(float_file):
    import onnx

    graph = FloatGraph(onnx.load(float_file))
    names = [node.output[0] for node in graph.model.graph.node if node.op_type == "Clip"]

    def read():
        (found,) = graph.run([CALIBRATION], [*names, "probabilities"])
        return found

    before = read()
    equalise(graph, [CALIBRATION[:32], CALIBRATION[32:]])
    after = read()
    np.testing.assert_allclose(after["probabilities"], before["probabilities"], atol=1e-4)
    spread = {id(found): [np.ptp(np.log(found[n].max((0, 2, 3)) + 0.01)) for n in names] for found in (before, after)}
    assert np.mean(spread[id(after)]) < 0.8 * np.mean(spread[id(before)])


def test_rounded_weights_change_outputs_less_than_the_nearest_ones(float_file):
    import onnx

    graph = FloatGraph(onnx.load(float_file))
    rounded = round_weights(graph, [CALIBRATION[:32], CALIBRATION[32:]], 127)
    node = next(
        node for node in graph.layers if node.op_type == "Conv" and graph.constants[node.input[1]].shape[1] >= 40
    )
    weights, bias = (graph.constants[name] for name in node.input[1:])
    layer = rounded[node.name]
    scale = np.abs(weights).max((1, 2, 3), keepdims=True) / 127
    np.testing.assert_allclose(layer.scale, scale.reshape(-1), rtol=1e-6)
    assert np.abs(layer.values).max() == 127
    (found,) = graph.run([OTHERS], [node.input[0]])
    inputs = torch.from_numpy(found[node.input[0]])

    def output(weights, bias):
        return torch.nn.functional.conv2d(inputs, torch.from_numpy(weights), torch.from_numpy(bias))

    expected = output(weights, bias)
    ours = (output(layer.weights, layer.bias) - expected).pow(2).mean()
    nearest = (output((np.round(weights / scale) * scale).astype(np.float32), bias) - expected).pow(2).mean()
    assert ours < 0.7 * nearest


def no_convolution(path):
    import onnx
    from onnx import helper

    node = helper.make_node("Cast", ["images"], ["probabilities"], to=1)
    values = [helper.make_tensor_value_info(n, t, ["n", 3]) for n, t in (("images", 2), ("probabilities", 1))]
    onnx.save(helper.make_model(helper.make_graph([node], "g", values[:1], values[1:])), path)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "^0 calibration images are too few.*at least 32"),
        ([CALIBRATION[:20], CALIBRATION[:11]], "^31 calibration images"),
        ([CALIBRATION.astype(np.float32)], "got float32"),
        ([CALIBRATION, CALIBRATION[:, :, :16]], r"\(64, 3, 16, 32\); expected uint8"),
    ],
)
def test_images_that_cannot_calibrate_are_refused(float_file, tmp_path, images, message):
    with pytest.raises(UserError, match=message):
        quantize(float_file, str(tmp_path / "int8.onnx"), images)
    assert not list(tmp_path.iterdir())


def test_files_that_cannot_be_quantised_are_refused(float_file, tmp_path):
    import onnx

    out, other = str(tmp_path / "int8.onnx"), str(tmp_path / "other.onnx")
    with pytest.raises(UserFileNotFoundError, match="no such file"):
        quantize(other, out, [CALIBRATION])
    (tmp_path / "other.onnx").write_bytes(b"not a model")
    with pytest.raises(UserError, match="is no ONNX file"):
        quantize(other, out, [CALIBRATION])
    no_convolution(other)
    with pytest.raises(UserError, match="cannot be quantised: expected one uint8 input"):
        quantize(other, out, [CALIBRATION])
    model = onnx.load(float_file)
    bias = next(each for each in model.graph.initializer if each.name.endswith("bias"))
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(tuple(bias.dims), np.nan, np.float32), bias.name))
    onnx.save(model, other)
    with pytest.raises(UserError, match="bias has values that are not finite"):
        quantize(other, out, [CALIBRATION])
    quantize(float_file, other, [CALIBRATION], float_share=0)
    with pytest.raises(UserError, match="is quantised already"):
        quantize(other, out, [CALIBRATION])
