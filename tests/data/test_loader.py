import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import pytest
import torch

from imgcls.data import build_test_loader, build_train_loader
from imgcls.data import loader as loader_module
from imgcls.data.catalog import read_datasets
from imgcls.data.loader import init_worker, prefetch


def train_loader(cfg):
    return build_train_loader(cfg, read_datasets(cfg.DATASETS.TRAIN, ()).train)


def evaluation_loader(cfg):
    return build_test_loader(cfg, read_datasets(cfg.DATASETS.TRAIN, cfg.DATASETS.TEST).test[0])


def drawn(loader, count):
    """The first batches' ids and pixels."""
    return [(batch["image_id"], batch["image"]) for batch in islice(iter(loader), count)]


def assert_same(one, other):
    assert [ids for ids, _ in one] == [ids for ids, _ in other]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(one, other, strict=True))


def test_training_batches_are_stacked(tiny_cfg):
    batch = next(iter(train_loader(tiny_cfg)))
    assert batch["image"].shape == (4, 3, 32, 32) and batch["image"].dtype == torch.uint8
    assert batch["label"].shape == (4,) and batch["label"].dtype == torch.int64
    assert len(batch["image_id"]) == len(batch["file_name"]) == 4 and "bad_images" not in batch


def test_labels_match_the_files(tiny_cfg):
    for batch in islice(iter(train_loader(tiny_cfg)), 4):
        for file_name, label, pixels in zip(batch["file_name"], batch["label"], batch["image"], strict=True):
            name = ["blue", "green", "red"][label]
            assert f"/{name}/" in file_name
            # In conftest, images of class i are bright in RGB channel i; the default format here is BGR.
            assert pixels.float().mean((1, 2)).argmax() == 2 - label


def test_pixels_do_not_depend_on_the_number_of_workers(tiny_cfg):
    none = drawn(train_loader(tiny_cfg), 5)
    tiny_cfg.DATALOADER.NUM_WORKERS = 2
    assert_same(none, drawn(train_loader(tiny_cfg), 5))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_resumed_loader_continues_the_stream(tiny_cfg, workers):
    tiny_cfg.DATALOADER.NUM_WORKERS = workers
    resumed = train_loader(tiny_cfg)
    resumed.start_at(4)
    assert_same(drawn(resumed, 3), drawn(train_loader(tiny_cfg), 7)[4:])


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 64])
def test_evaluation_gives_every_image_once(tiny_cfg, batch_size):
    tiny_cfg.SOLVER.IMS_PER_BATCH = batch_size
    loader = evaluation_loader(tiny_cfg)
    ids = [image_id for batch in loader for image_id in batch["image_id"]]
    assert len(ids) == len(set(ids)) == 5 and len(loader) == -(-5 // batch_size)


def test_evaluation_uses_the_classes_of_training(tiny_cfg, tmp_path, write_folder):
    """The 2020 project numbered the classes of a validation folder itself: one missing class shifted all labels."""
    test = write_folder(tmp_path / "fewer", {"green": 1, "red": 1})
    tiny_cfg.DATASETS.TEST = (f"folder:{test}",)
    assert next(iter(evaluation_loader(tiny_cfg)))["label"].tolist() == [1, 2]


def test_several_training_sets_are_joined(tiny_cfg):
    tiny_cfg.DATASETS.TRAIN = (*tiny_cfg.DATASETS.TRAIN, *tiny_cfg.DATASETS.TEST)
    names = {name for batch in islice(iter(train_loader(tiny_cfg)), 5) for name in batch["file_name"]}
    assert len(names) == 17


@pytest.fixture
def two_bad(tiny_cfg, tmp_path):
    for folder in ("train", "test"):
        (tmp_path / folder / "green" / "0.png").write_bytes(b"")
        cut = tmp_path / folder / "red" / "0.png"
        cut.write_bytes(cut.read_bytes()[:100])
    return tiny_cfg


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_image_is_an_error_by_default(two_bad, workers):
    two_bad.DATALOADER.NUM_WORKERS = workers
    with pytest.raises(ValueError, match=r"(green|red)/0\.png: .*DATALOADER\.BAD_IMAGES"):
        drawn(train_loader(two_bad), 6)
    with pytest.raises(ValueError, match=r"0\.png"):
        drawn(evaluation_loader(two_bad), 2)


@pytest.mark.parametrize("workers", [0, 2])
def test_skip_replaces_logs_and_counts_bad_images(two_bad, workers, caplog):
    two_bad.DATALOADER.NUM_WORKERS, two_bad.DATALOADER.BAD_IMAGES = workers, "skip"
    loader = train_loader(two_bad)
    with caplog.at_level(logging.WARNING, "imgcls.data.loader"):
        batches = list(islice(iter(loader), 9))
    assert all(len(batch["image"]) == 4 for batch in batches)
    assert not any("green/0.png" in name for batch in batches for name in batch["file_name"])
    assert len(loader.bad_images) == len(caplog.records) == 2
    assert "bad image number 2" in caplog.records[1].getMessage()


def test_each_bad_image_is_logged_once_per_run(two_bad, caplog):
    """Every evaluation builds a new loader, and a set may be used for training and for evaluation."""
    two_bad.DATALOADER.BAD_IMAGES = "skip"
    datasets = read_datasets(two_bad.DATASETS.TRAIN, two_bad.DATASETS.TEST + two_bad.DATASETS.TRAIN)
    with caplog.at_level(logging.WARNING, "imgcls.data.loader"):
        list(islice(iter(build_train_loader(two_bad, datasets.train)), 9))
        for _ in range(2):
            for dataset in datasets.test:
                loader = build_test_loader(two_bad, dataset)
                list(loader)
                assert len(loader.bad_images) == 2
        assert len(caplog.records) == 4
        list(build_test_loader(two_bad, read_datasets(two_bad.DATASETS.TRAIN, two_bad.DATASETS.TEST).test[0]))
    assert len(caplog.records) == 6, "a second run in the same process logs them again"


def test_evaluation_skips_bad_images(two_bad):
    two_bad.DATALOADER.BAD_IMAGES, two_bad.SOLVER.IMS_PER_BATCH = "skip", 1
    ids = [i for batch in evaluation_loader(two_bad) for i in batch["image_id"]]
    assert sorted(ids) == ["blue/0.png", "blue/1.png", "green/1.png"]


def test_batch_size_must_divide_by_the_processes(tiny_cfg, monkeypatch):
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 3)
    with pytest.raises(ValueError, match=r"IMS_PER_BATCH is 4 on 3 processes .*; allowed: a multiple of 3"):
        train_loader(tiny_cfg)
    tiny_cfg.SOLVER.IMS_PER_BATCH, tiny_cfg.SOLVER.ACCUM_STEPS = 15, 2
    with pytest.raises(ValueError, match=r"with SOLVER\.ACCUM_STEPS 2; allowed: a multiple of 6"):
        train_loader(tiny_cfg)


def test_only_the_parent_can_terminate_a_worker(tiny_cfg):
    """A scheduler signals all processes of a run, but training needs its workers until the next checkpoint."""
    tiny_cfg.DATALOADER.NUM_WORKERS = 2
    batches = iter(train_loader(tiny_cfg))
    next(batches)
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    send = "import os, sys; [os.kill(int(pid), int(sys.argv[1])) for pid in sys.argv[2:]]"
    for number in (signal.SIGTERM, signal.SIGUSR1):
        command = [sys.executable, "-c", send, str(int(number)), *(str(worker.pid) for worker in workers)]
        subprocess.run(command, check=True)
    for _ in range(20):
        next(batches)
    assert all(worker.is_alive() for worker in workers)
    workers[0].terminate()
    workers[0].join(timeout=10)
    assert not workers[0].is_alive()


def _signal_itself_and_start(worker_id):
    for number in (signal.SIGTERM, signal.SIGUSR1):
        os.kill(os.getpid(), number)
    init_worker(worker_id)


def test_a_signal_does_not_end_a_worker_that_is_only_starting(tiny_cfg):
    tiny_cfg.DATALOADER.NUM_WORKERS = 1
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    loader = train_loader(tiny_cfg)
    loader.loader.worker_init_fn = _signal_itself_and_start
    batches = iter(loader)
    for _ in range(3):
        next(batches)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == blocked


def _wait_forever(delay):
    time.sleep(delay)
    init_worker(0)
    while True:  # as a worker that waits for a lock that nobody will release
        time.sleep(60)


def _start_worker_and_die(connection, delay):
    worker = multiprocessing.get_context("fork").Process(target=_wait_forever, args=(delay,))
    worker.start()
    connection.send(worker.pid)
    os.kill(os.getpid(), signal.SIGKILL)


def _is_running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.skipif(sys.platform != "linux", reason="processes are read from /proc")
@pytest.mark.parametrize("delay", [0, 0.5])
def test_a_worker_does_not_outlive_its_parent(monkeypatch, delay):
    """Even if the parent was killed, perhaps before the worker had started, and the worker hangs.

    It ignores SIGTERM, so only this can end it.
    """
    monkeypatch.setattr(loader_module, "_PARENT_CHECK_SECONDS", 0.2)
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe()
    parent = fork.Process(target=_start_worker_and_die, args=(there, delay))
    parent.start()
    worker = here.recv()
    parent.join()
    assert parent.exitcode == -signal.SIGKILL
    deadline = time.monotonic() + 30
    while _is_running(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    if _is_running(worker):
        os.kill(worker, signal.SIGKILL)
        pytest.fail("the worker was still running after its parent's death")


def forbid_cuda(monkeypatch):
    """A machine with a GPU, on which nothing may create a CUDA context."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name in ("current_device", "init", "_lazy_init", "Stream", "current_stream", "set_device"):
        monkeypatch.setattr(torch.cuda, name, lambda *_, name=name: pytest.fail(f"torch.cuda.{name} was called"))


def test_a_cpu_run_leaves_the_gpu_alone(tiny_cfg, monkeypatch):
    forbid_cuda(monkeypatch)
    for loader in (train_loader(tiny_cfg), evaluation_loader(tiny_cfg)):
        assert not loader.loader.pin_memory and loader.device == torch.device("cpu")
        next(iter(loader))


@pytest.mark.parametrize(("device", "expected"), [("cuda:1", "cuda:1"), ("cuda:0", "cuda:0"), ("cuda", "cuda:3")])
def test_the_index_of_the_device_is_used(tiny_cfg, monkeypatch, device, expected):
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    tiny_cfg.MODEL.DEVICE = device
    loader = train_loader(tiny_cfg)
    assert loader.device == torch.device(expected) and loader.loader.pin_memory
    assert evaluation_loader(tiny_cfg).loader.pin_memory


def numbered(count):
    for number in range(count):
        yield {"image": torch.full((2, 3, 64, 64), number, dtype=torch.uint8), "image_id": [number, -number]}


def test_prefetch_changes_nothing_on_a_cpu():
    given = list(numbered(3))
    assert all(one is other for one, other in zip(prefetch(given, torch.device("cpu")), given, strict=True))


class FakeStream:
    """Records the order of stream operations, which no CPU could check otherwise."""

    def __init__(self, name, calls):
        self.name, self.calls = name, calls

    def record_event(self):
        self.calls.append(f"{self.name}: record event")
        return "event"

    def wait_event(self, event):
        self.calls.append(f"{self.name}: wait for {event}")


@pytest.fixture
def stream_calls(monkeypatch):
    calls, active = [], ["main"]
    main, side = FakeStream("main", calls), FakeStream("side", calls)

    @contextmanager
    def stream(entered):
        active.append(entered.name)
        yield
        active.pop()

    def to(tensor, device, non_blocking):
        assert device == torch.device("cuda:1") and non_blocking
        calls.append(f"{active[-1]}: copy {tensor.flatten()[0].item()}")
        return tensor.clone()

    def of_device(result):
        def get(device):
            assert device == torch.device("cuda:1")
            return result

        return get

    monkeypatch.setattr(torch.cuda, "Stream", of_device(side))
    monkeypatch.setattr(torch.cuda, "current_stream", of_device(main))
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.Tensor, "to", to)
    monkeypatch.setattr(
        torch.Tensor, "record_stream", lambda self, used: calls.append(f"{used.name}: use {self.flatten()[0].item()}")
    )
    return calls


def test_prefetch_copies_one_batch_ahead_and_waits_for_the_copy(stream_calls):
    for batch in prefetch(numbered(2), torch.device("cuda:1")):
        stream_calls.append(f"step {batch['image_id'][0]}")
    assert stream_calls == [
        "side: copy 0", "side: record event", "side: copy 1", "side: record event",
        "main: wait for event", "main: use 0", "step 0",
        "main: wait for event", "main: use 1", "step 1",
    ]  # fmt: skip


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("count", [0, 1, 5])
def test_prefetch_gives_every_batch_complete_and_in_order(count):
    device = torch.device("cuda", torch.cuda.device_count() - 1)
    pinned = ({**batch, "image": batch["image"].pin_memory()} for batch in numbered(count))
    work = torch.rand(2000, 2000, device=device)
    numbers = []
    for batch in prefetch(pinned, device):
        assert batch["image"].device == device
        mean = batch["image"].double().mean()
        work = work @ work / 1000  # runs while the next batch is copied
        numbers.append((mean, batch["image_id"][0]))
    assert [(mean.item(), number) for mean, number in numbers] == [(number, number) for number in range(count)]


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_on_a_gpu_gives_the_batches_of_the_cpu(tiny_cfg, workers):
    expected = drawn(train_loader(tiny_cfg), 5)
    tiny_cfg.DATALOADER.NUM_WORKERS = workers
    for index in range(torch.cuda.device_count()):
        tiny_cfg.MODEL.DEVICE = f"cuda:{index}"
        batches = list(islice(iter(train_loader(tiny_cfg)), 5))
        assert all(batch[key].device == torch.device("cuda", index) for batch in batches for key in ("image", "label"))
        assert_same(expected, [(batch["image_id"], batch["image"].cpu()) for batch in batches])
