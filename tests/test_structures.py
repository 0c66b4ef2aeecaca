import pytest
import torch

from imgcls.structures import as_batch, stack


def samples(**extra):
    return [
        {"image": torch.full((3, 4, 4), n, dtype=torch.uint8), "image_id": n, "file_name": f"{n}.png", **extra}
        for n in range(3)
    ]


def test_list_and_stacked_form_are_the_same_batch():
    listed = [{**sample, "label": sample["image_id"]} for sample in samples()]
    one, other = as_batch(listed), as_batch(stack(listed))
    for batch in (one, other):
        assert batch.images.shape == (3, 3, 4, 4) and batch.images.dtype == torch.uint8
        assert batch.labels.tolist() == [0, 1, 2] and batch.labels.dtype == torch.int64
        assert batch.image_ids == [0, 1, 2] and batch.file_names == ["0.png", "1.png", "2.png"]
        assert len(batch) == 3
    assert torch.equal(one.images, other.images)


def test_multi_label_targets_are_stacked():
    batch = as_batch(samples(label=torch.tensor([1.0, 0.0])))
    assert batch.labels.shape == (3, 2) and batch.labels.dtype == torch.float32


def test_labels_are_optional():
    assert as_batch(samples()).labels is None


def test_images_of_different_size_are_refused():
    mixed = [{"image": torch.zeros(3, 4, 4)}, {"image": torch.zeros(3, 5, 4)}]
    with pytest.raises(ValueError, match=r"\(3, 4, 4\), \(3, 5, 4\)"):
        as_batch(mixed)


def test_images_of_any_memory_format_are_stacked_in_channels_last_order():
    rows = torch.arange(3 * 4 * 5, dtype=torch.uint8).reshape(4, 5, 3).permute(2, 0, 1)
    for image in (rows, rows.contiguous()):
        stacked = stack([{"image": image}, {"image": image + 1}])["image"]
        assert stacked.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(stacked[0], rows) and torch.equal(stacked[1], rows + 1)
