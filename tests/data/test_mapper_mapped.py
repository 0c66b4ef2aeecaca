import pytest
import torch

from imgcls.data.image import BadImageError
from imgcls.data.mapper import MappedDataset


def noisy(record):
    if record["bad"]:
        raise BadImageError(f"{record['name']}: bad")
    return {"image": torch.rand(2), "name": record["name"]}


def dataset(bad=(), **kwargs):
    return MappedDataset([{"name": n, "bad": n in bad} for n in range(5)], noisy, **kwargs)


def test_randomness_depends_on_seed_and_position_only():
    one, other = dataset(seed=1), dataset(seed=1)
    first = one[3, 0]["image"]
    other[9, 4]
    torch.manual_seed(99)
    assert torch.equal(other[3, 0]["image"], first)
    assert not torch.equal(one[4, 0]["image"], first)
    assert not torch.equal(dataset(seed=2)[3, 0]["image"], first)


def test_the_callers_random_numbers_are_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    dataset()[0, 0]
    assert torch.equal(torch.rand(3), expected)


def test_an_index_alone_is_its_own_position():
    assert torch.equal(dataset()[2]["image"], dataset()[2, 2]["image"])


def test_error_stops():
    with pytest.raises(BadImageError, match="1: bad"):
        dataset(bad=[1])[0, 1]


def test_next_takes_the_next_readable_record_and_says_what_it_left_out():
    sample = dataset(bad=[3, 4], on_bad="next")[7, 3]
    assert sample["name"] == 0 and sample["bad_images"] == ["3: bad", "4: bad"]


def test_next_stops_when_nothing_can_be_read():
    with pytest.raises(BadImageError):
        dataset(bad=range(5), on_bad="next")[0, 2]


def test_drop_gives_no_image():
    assert dataset(bad=[1], on_bad="drop")[1] == {"bad_images": ["1: bad"]}
