import copy
import io
from functools import partial
from multiprocessing.reduction import ForkingPickler

import pytest
import torch
from detectron2.export import TracingAdapter
from detectron2.modeling import build_model
from torch._dynamo.backends.common import aot_autograd
from torch.nn import functional

from imgcls.modeling import ClsHead, ClsNet, SigmoidLoss, SoftmaxLoss, mobilenet_v1
from imgcls.structures import stack

MEAN, STD = [100.0, 110.0, 120.0], [50.0, 60.0, 70.0]


def make_net(loss=None, classes=4, **kwargs):
    backbone = mobilenet_v1(width_mult=0.25, blocks=[1, 1, 1, 1, 1])
    head = ClsHead(backbone.output_shape()["mob5"], classes)
    torch.nn.init.normal_(head.linear.weight)
    net = ClsNet(
        backbone=backbone,
        head=head,
        loss=loss or SoftmaxLoss(),
        in_feature="mob5",
        pixel_mean=MEAN,
        pixel_std=STD,
        **kwargs,
    )
    for module in net.modules():  # as after some training
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_var.fill_(0.5)
    return net


def inputs(label=None):
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    return [{"image": p} if label is None else {"image": p, "label": label[i]} for i, p in enumerate(images)]


def test_logits_are_head_of_backbone_of_normalised_images():
    net = make_net().eval()
    images = torch.stack([x["image"] for x in inputs()])
    normalised = (images.double() - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    expected = net.head(net.backbone(normalised.float())["mob5"])
    torch.testing.assert_close(net.logits(images), expected)
    torch.testing.assert_close(net.logits(images.float()), expected)


def test_training_gives_the_loss_of_the_logits_in_both_input_forms():
    net = make_net().train()
    batch = inputs(label=[0, 3, 1])
    logits = net.logits(torch.stack([x["image"] for x in batch]))
    expected = functional.cross_entropy(logits, torch.tensor([0, 3, 1]))
    for form in (batch, stack(batch)):
        losses = net(form)
        assert list(losses) == ["loss_cls"]
        torch.testing.assert_close(losses["loss_cls"], expected)


@pytest.mark.parametrize("topk", [1, 3, 10])
def test_softmax_inference_needs_no_labels(topk):
    net = make_net(topk=topk).eval()
    batch = inputs()
    probs = net.logits(torch.stack([x["image"] for x in batch])).softmax(1)
    for result, row in zip(net(batch), probs, strict=True):
        k = min(topk, 4)
        order = row.argsort(descending=True)[:k]
        assert result["pred_classes"].dtype == torch.int64 and result["pred_classes"].tolist() == order.tolist()
        torch.testing.assert_close(result["scores"], row[order])
        assert set(result) == {"pred_classes", "scores"}


def test_sigmoid_inference_adds_all_probabilities():
    net = make_net(SigmoidLoss()).eval()
    batch = inputs()
    probs = net.logits(torch.stack([x["image"] for x in batch])).sigmoid()
    torch.testing.assert_close(torch.stack([r["probs"] for r in net(batch)]), probs)


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize("multi_label", [False, True])
def test_inference_with_labels_adds_the_plain_loss_of_each_image(multi_label, stacked):
    net = make_net(SigmoidLoss([1.0, 2.0, 3.0, 4.0]) if multi_label else SoftmaxLoss(label_smoothing=0.3)).eval()
    labels = torch.tensor([[1.0, 0, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]]) if multi_label else torch.tensor([0, 3, 1])
    batch = inputs(label=labels)
    logits = net.logits(torch.stack([x["image"] for x in batch]))
    plain = functional.binary_cross_entropy_with_logits if multi_label else functional.cross_entropy
    results = net(stack(batch) if stacked else batch)
    for result, row, label in zip(results, logits, labels, strict=True):
        assert result["loss"].shape == () and result["loss"].dtype == torch.float32
        torch.testing.assert_close(result["loss"], plain(row[None], label[None]))


def test_multi_label_training():
    net = make_net(SigmoidLoss()).train()
    labels = torch.tensor([[1.0, 0, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]])
    batch = inputs(label=labels)
    logits = net.logits(torch.stack([x["image"] for x in batch]))
    torch.testing.assert_close(net(batch)["loss_cls"], functional.binary_cross_entropy_with_logits(logits, labels))


def test_training_without_labels_is_refused():
    with pytest.raises(ValueError, match='no "label"'):
        make_net().train()(inputs())


def test_channels_last_changes_the_layout_and_not_the_numbers():
    plain = make_net().eval()
    fast = make_net(channels_last=True).eval()
    fast.load_state_dict(plain.state_dict())
    conv = fast.backbone.stages["mob5"][0].pointwise
    seen = []
    conv.register_forward_hook(lambda m, i, o: seen.append(o.is_contiguous(memory_format=torch.channels_last)))
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    torch.testing.assert_close(fast.logits(images), plain.logits(images), atol=1e-4, rtol=1e-4)
    assert seen == [True]


def test_compiled_model_has_the_same_names_losses_and_gradients(monkeypatch):
    """Only traces the graph: generating code needs a C++ compiler and a minute."""
    traced = []

    def count(graph, example):
        traced.append(graph)
        return graph

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=aot_autograd(fw_compiler=count)))
    plain, compiled = make_net(), make_net(compiled=True)
    assert compiled.load_state_dict(plain.state_dict()).missing_keys == []
    ema = copy.deepcopy(compiled)
    batch = inputs(label=[0, 1, 2])
    losses = [net.train()(batch)["loss_cls"] for net in (plain, compiled)]
    assert len(traced) == 2, "backbone and head"
    torch.testing.assert_close(losses[1], losses[0])
    for loss in losses:
        loss.backward()
    for one, other in zip(plain.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-3, atol=1e-5)
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    assert ema.eval().logits(images).shape == (2, 4)
    torch.testing.assert_close(save_and_load(compiled).eval().logits(images), plain.eval().logits(images))


def send_to_process(net):
    """What a spawned process gets, without its start."""
    return ForkingPickler.loads(ForkingPickler.dumps(net))


def save_and_load(net):
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("make_copy", [copy.deepcopy, save_and_load, send_to_process])
@pytest.mark.parametrize("compiled", [False, True])
def test_whole_model_can_be_copied_saved_and_sent_to_a_process(make_copy, compiled):
    """A copy is never compiled, which PyTorch cannot pickle: it needs no C++ compiler to run."""
    net, plain = make_net(channels_last=True, compiled=compiled), make_net(channels_last=True).eval()
    plain.load_state_dict(net.state_dict())
    other = make_copy(net).eval()
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(other.logits(images), plain.logits(images))
    for mine, theirs in zip(other.parameters(), net.parameters(), strict=True):
        assert mine.stride() == theirs.stride()


@pytest.mark.parametrize("loss", [SoftmaxLoss(), SigmoidLoss()])
def test_tracing_adapter_traces_a_batch_of_two_images(loss):
    net = make_net(loss).eval()
    batch = inputs()[:2]
    adapter = TracingAdapter(net, batch)
    traced = torch.jit.trace(adapter, adapter.flattened_inputs)
    other = inputs()[1:]
    results = adapter.outputs_schema(traced(*(sample["image"] for sample in other)))
    for result, expected in zip(results, net(other), strict=True):
        assert result.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(result[name], value)


def test_means_are_not_saved_with_the_weights():
    assert not [key for key in make_net().state_dict() if "pixel" in key or "loss" in key]


def test_from_config_reads_every_key(tiny_cfg):
    clsnet = tiny_cfg.MODEL.CLSNET
    clsnet.HEAD_CONV_DIM, clsnet.DROPOUT, clsnet.LABEL_SMOOTHING = 24, 0.3, 0.2
    tiny_cfg.MODEL.MNET.OUT_FEATURES, clsnet.IN_FEATURES, tiny_cfg.TEST.TOPK = ["mob3", "mob4"], ["mob3"], [1, 2]
    tiny_cfg.MODEL.PIXEL_MEAN, tiny_cfg.MODEL.PIXEL_STD = MEAN, STD
    net = build_model(tiny_cfg)
    assert net.in_feature == "mob3" and net.topk == 2 and net.head.num_classes == 3
    assert net.head.linear.in_features == 24 and net.head.dropout.p == 0.3 and net.loss.label_smoothing == 0.2
    assert net.pixel_mean.flatten().tolist() == MEAN and net.pixel_std.flatten().tolist() == STD
    clsnet.HEAD, clsnet.POS_WEIGHT = "sigmoid", [1.0, 2.0, 3.0]
    assert build_model(tiny_cfg).loss.pos_weight.tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("names", [["mob4"], ["mob5", "stem"], ["res5"], []])
def test_a_feature_that_the_backbone_does_not_have_is_refused(tiny_cfg, names):
    tiny_cfg.MODEL.CLSNET.IN_FEATURES = names
    with pytest.raises(ValueError, match=r"MODEL\.CLSNET\.IN_FEATURES is .*; allowed: one of \['mob5'\]"):
        build_model(tiny_cfg)


def test_unresolved_class_count_is_refused(tiny_cfg):
    tiny_cfg.MODEL.CLSNET.NUM_CLASSES = -1
    with pytest.raises(ValueError, match="resolve_from_data"):
        build_model(tiny_cfg)


def test_unknown_head_is_refused(tiny_cfg):
    tiny_cfg.MODEL.CLSNET.HEAD = "hinge"
    with pytest.raises(ValueError, match=r"MODEL\.CLSNET\.HEAD is 'hinge'; allowed"):
        build_model(tiny_cfg)


gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


@pytest.mark.gpu
@gpu
def test_same_loss_and_predictions_on_a_gpu():
    net = make_net().eval()
    images = stack(inputs(label=[0, 3, 1]))
    expected = net.logits(images["image"])
    net.to("cuda")
    torch.testing.assert_close(net.logits(images["image"]).cpu(), expected, atol=1e-3, rtol=1e-3)
    assert net.train()(images)["loss_cls"].device.type == "cuda"


@pytest.mark.gpu
@gpu
@pytest.mark.parametrize("precision", [None, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("multi_label", [False, True])
def test_a_training_step_and_inference_do_not_wait_for_the_gpu(precision, multi_label):
    """A tensor created on the CPU, an ``item()`` or a boolean test in the forward pass would be an error here."""
    loss = SigmoidLoss([1.0, 2.0, 3.0, 4.0]) if multi_label else SoftmaxLoss(label_smoothing=0.1)
    net = make_net(loss, channels_last=True).to("cuda").train()
    labels = torch.eye(4)[:3] if multi_label else torch.tensor([0, 3, 1])
    batch = {name: value.pin_memory() for name, value in stack(inputs(label=labels)).items()}
    layouts = []
    conv = net.backbone.stages["mob3"][0].pointwise
    conv.register_forward_hook(lambda m, i, o: layouts.append(o.is_contiguous(memory_format=torch.channels_last)))

    def run():
        with torch.autocast("cuda", precision, enabled=precision is not None):
            value = net.train()(batch)["loss_cls"]
            value.backward()
            with torch.no_grad():
                return value, net.eval()(batch)

    run()  # cuDNN's first calls may wait
    torch.cuda.set_sync_debug_mode("error")
    try:
        value, results = run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert value.dtype == results[0]["scores"].dtype == torch.float32 and torch.isfinite(value)
    assert all(layouts)


@pytest.mark.gpu
@gpu
def test_a_model_on_a_gpu_can_be_saved_and_loaded_on_the_cpu(tmp_path):
    net = make_net(SigmoidLoss([1.0, 2.0, 3.0, 4.0]), channels_last=True).eval().to("cuda")
    assert {buffer.device.type for buffer in net.buffers()} == {"cuda"}
    torch.save(net, tmp_path / "net.pth")
    loaded = torch.load(tmp_path / "net.pth", weights_only=False, map_location="cpu")
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(loaded.logits(images), net.logits(images).cpu(), atol=1e-3, rtol=1e-3)
