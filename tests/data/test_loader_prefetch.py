import pytest
import torch

from imgcls.data.loader import prefetch


def batches(count):
    for number in range(count):
        yield {"image": torch.full((2, 3, 64, 64), number, dtype=torch.uint8), "image_id": [number, -number]}


def test_on_a_cpu_batches_pass_as_they_are():
    given = list(batches(3))
    assert all(one is other for one, other in zip(prefetch(given, torch.device("cpu")), given, strict=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("count", [0, 1, 5])
def test_on_a_gpu_every_batch_arrives_whole_and_in_order(count):
    device = torch.device("cuda", torch.cuda.current_device())
    pinned = ({**batch, "image": batch["image"].pin_memory()} for batch in batches(count))
    numbers = []
    for batch in prefetch(pinned, device):
        assert batch["image"].device == device
        total = batch["image"].double().mean()
        torch.rand(2000, 2000, device=device).matmul(torch.rand(2000, 2000, device=device))  # something to overlap with
        numbers.append((total.item(), batch["image_id"][0]))
    assert numbers == [(number, number) for number in range(count)]
