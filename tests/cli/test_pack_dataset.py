"""`imgcls pack`: what it prints, and mistakes. The packing itself: tests/data/shards."""

import sys
from functools import partial

import pytest

from imgcls.data.catalog import get_dataset


@pytest.fixture
def tool(run_verb):
    return partial(run_verb, "pack")


@pytest.fixture
def source(tmp_path, write_folder):
    return f"folder:{write_folder(tmp_path / 'source', {'cat': 10, 'dog': 10})}"


def test_packs_verifies_and_prints_the_name_to_train_on(tool, source, tmp_path):
    code, out, _ = tool(source, tmp_path / "out", "--shard-size", "25KB", "-j", 2, "--verify")
    lines = out.splitlines()
    assert code == 0 and lines[0].startswith("20 images in 5 shards, 0.")
    assert lines[1] == f"shards:{tmp_path / 'out'}/{{000000..000004}}.tar"
    assert lines[2] == f"{tmp_path / 'out'}: 20 images are as they were packed"
    assert len(get_dataset(lines[1]).records) == 20


def test_one_shard_and_a_builtin_name(tool, tmp_path):
    code, out, _ = tool("digits_test", tmp_path / "out")
    assert code == 0 and out.splitlines()[0].startswith("360 images in 1 shards")
    name = out.splitlines()[1]
    assert name == f"shards:{tmp_path / 'out'}/000000.tar" and len(get_dataset(name).records) == 360


def test_verify_alone(tool, source, tmp_path):
    tool(source, tmp_path / "out")
    assert tool("--verify", tmp_path / "out")[0] == 0
    (tmp_path / "out" / "000000.index").unlink()
    code, _, err = tool("--verify", tmp_path / "out")
    assert code == 2 and "error: " in err and "000000.index: No such file" in err


def test_a_complete_folder_is_refused(tool, source, tmp_path):
    tool(source, tmp_path / "out")
    code, out, err = tool(source, tmp_path / "out")
    assert (code, out) == (2, "") and "out: is complete and is not overwritten" in err


def test_a_bad_image(tool, source, tmp_path):
    (tmp_path / "source" / "cat" / "1.png").write_bytes(b"")
    code, _, err = tool(source, tmp_path / "out")
    assert code == 2 and "cat/1.png: the file is empty" in err and "--skip-bad-images" in err
    code, out, _ = tool(source, tmp_path / "other", "--skip-bad-images")
    assert code == 0 and "19 images" in out and "1 left out" in out


@pytest.mark.parametrize(
    ("text", "size"), [("256MB", 256 * 10**6), ("1gb", 10**9), ("500K", 500_000), ("70000", 70_000), (" 2 MB", None)]
)
def test_sizes(tool, source, tmp_path, monkeypatch, text, size):
    seen = []
    monkeypatch.setattr(
        "imgcls.data.shards.pack.pack_dataset", lambda *_, shard_size, **__: seen.append(shard_size) or 1 / 0
    )
    if size is None:
        assert "--shard-size is ' 2 MB'; expected bytes" in tool(source, tmp_path / "out", "--shard-size", text)[2]
    else:
        with pytest.raises(ZeroDivisionError):
            tool(source, tmp_path / "out", "--shard-size", text)
        assert seen == [size]


def test_mistakes_on_the_command_line(tool, tmp_path, monkeypatch):
    code, _, err = tool(tmp_path / "out")
    assert code == 2 and "SOURCE is missing" in err
    code, _, err = tool("nothing", tmp_path / "out")
    assert code == 2 and "unknown dataset 'nothing'" in err
    monkeypatch.setitem(sys.modules, "webdataset", None)
    code, _, err = tool("digits_test", tmp_path / "out")
    assert code == 2 and 'packing needs webdataset: pip install -e ".[shards]"' in err
