import json
import os

import pytest

from imgcls.data.readers import json_file
from imgcls.data.readers.json_file import index_json, read_json
from imgcls.errors import UserError, UserFileNotFoundError


@pytest.fixture
def read(tmp_path):
    path = tmp_path / "sub folder ü" / "records.json"
    path.parent.mkdir()

    def write_and_read(content):
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return read_json(str(path))

    write_and_read.folder = str(path.parent)
    return write_and_read


def test_single_label_with_names(read):
    raw = read(
        [
            {
                "file_name": "pics/é 1.png",
                "image_id": 7,
                "label": 2,
                "class": "dog",
                "height": 4,
                "width": 5,
                "note": "x",
            },
            {"file_name": "/abs/2.png", "image_id": "two", "label": 0, "class": "cat"},
        ]
    )
    assert raw.classes == ["cat", "unused 1", "dog"]
    assert (raw.named, raw.multi_label) == (True, False)
    assert raw.records[0] == {
        "file_name": os.path.join(read.folder, "pics/é 1.png"),
        "image_id": 7,
        "label": 2,
        "class": "dog",
        "height": 4,
        "width": 5,
        "note": "x",
    }
    assert raw.records[1]["file_name"] == "/abs/2.png"


def test_without_names_the_classes_are_the_indices(read):
    raw = read([{"file_name": "a.png", "label": 2}, {"file_name": "b.png", "label": 0}])
    assert (raw.classes, raw.named) == (["0", "1", "2"], False)
    assert [record["image_id"] for record in raw.records] == ["a.png", "b.png"]


def test_multi_label(read):
    raw = read(
        [
            {"file_name": "a.png", "labels": [1, 0], "class": ["b", "a"]},
            {"file_name": "b.png", "labels": [], "class": []},
            {"file_name": "c.png", "labels": [1]},
        ]
    )
    assert (raw.classes, raw.named, raw.multi_label) == (["a", "b"], True, True)
    assert [record["labels"] for record in raw.records] == [[1, 0], [], [1]]


def test_a_bare_file_name_of_the_json_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.json").write_text('[{"file_name": "a.png", "label": 0}]')
    assert read_json("r.json").records[0]["file_name"] == "a.png"


GOOD = {"file_name": "a.png", "label": 0}


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ([], "expected an object"),
        ({"file_name": "b.png"}, 'neither "label" nor "labels"; its keys: file_name'),
        ({"file_name": "b.png", "label": 0, "labels": [0]}, 'both "label" and "labels"'),
        ({"file_name": "b.png", "labels": [0]}, 'has "labels", but the records before it have "label"'),
        ({"label": 0}, 'needs a "file_name", got None'),
        ({"file_name": "", "label": 0}, 'needs a "file_name"'),
        ({"file_name": 3, "label": 0}, r'needs a "file_name", got 3 \(int\)'),
        ({"file_name": "b.png", "label": -1}, r"an int from 0 on, got -1"),
        ({"file_name": "b.png", "label": True}, r"an int from 0 on, got True \(bool\)"),
        ({"file_name": "b.png", "label": 1.0}, r"an int from 0 on, got 1\.0 \(float\)"),
        ({"file_name": "b.png", "label": "1"}, r"an int from 0 on, got '1' \(str\)"),
        ({"file_name": "b.png", "label": None}, r"an int from 0 on, got None"),
        ({"file_name": "b.png", "label": [1]}, r"an int from 0 on, got \[1\]"),
        ({"file_name": "b.png", "label": 0, "image_id": 1.5}, '"image_id" must be an int or a string, got 1.5'),
        ({"file_name": "b.png", "label": 0, "image_id": True}, '"image_id" must be an int or a string, got True'),
        ({"file_name": "b.png", "label": 0, "class": 3}, r'"class" must be a name, got 3 \(int\)'),
    ],
)
def test_a_bad_record_is_named(read, second, message):
    with pytest.raises(UserError, match=rf"records\.json: record 2: .*{message}"):
        read([GOOD, second])


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"label": 0, "class": "dog"}, "label 0 is 'dog' here and 'cat' before"),
        ({"label": 1, "class": "cat"}, "'cat' is label 1 here and 0 before"),
        ({"label": 1}, 'label 1 has no "class" name'),
    ],
)
def test_names_and_indices_must_agree(read, second, message):
    with pytest.raises(UserError, match=f"record 2: {message}"):
        read([{**GOOD, "class": "cat"}, {"file_name": "b.png", **second}])


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"labels": 1}, r'"labels" must be a list of class indices, got 1 \(int\)'),
        ({"labels": [0, -2]}, "an int from 0 on, got -2"),
        ({"labels": [1, 1]}, r'"labels" names a class twice: \[1, 1\]'),
        ({"labels": [0, 1], "class": ["cat"]}, r'"class" must be a list of names, one for each of "labels" \[0, 1\]'),
        ({"labels": [0], "class": "cat"}, '"class" must be a list of names'),
        ({"label": 0}, 'has "label", but the records before it have "labels"'),
    ],
)
def test_a_bad_multi_label_record_is_named(read, second, message):
    with pytest.raises(UserError, match=f"record 2: .*{message}"):
        read([{"file_name": "a.png", "labels": [0]}, {"file_name": "b.png", **second}])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": []}, "expected a list of records, got .*dict"),
        ([], "has no records"),
        ("[{]", "not valid JSON .*line 1"),
        ("", "not valid JSON"),
        ("[" * 100_000, "nested too deep|not valid JSON"),
    ],
)
def test_not_a_list_of_records(read, content, message):
    with pytest.raises(UserError, match=rf"records\.json: {message}"):
        read(content)


def test_missing_file(tmp_path):
    with pytest.raises(UserFileNotFoundError, match=r"a\.json: no such file"):
        read_json(str(tmp_path / "a.json"))


def test_a_record_that_is_nested_too_deep(read):
    with pytest.raises(UserError, match=r"records\.json: nested too deep for a list of records"):
        read('[{"file_name": "a", "label": 0, "x": ' + "[" * 100_000 + "]" * 100_000 + "}]")


def test_an_index_of_what_cannot_be_read(tmp_path):
    with pytest.raises(UserFileNotFoundError, match=r"a\.json: no such file"):
        index_json(str(tmp_path / "a.json"))
    (tmp_path / "b.json").write_text("[3]")
    with pytest.raises(UserError, match=r"b\.json: record 1: expected an object"):
        index_json(str(tmp_path / "b.json"))
    assert os.listdir(tmp_path) == ["b.json"]


def test_a_json_that_changes_while_it_is_indexed(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    path.write_text('[{"file_name": "a.png", "label": 0}]')
    build = json_file.build_table

    def build_and_change(*args):
        raw = build(*args)
        path.write_text('[{"file_name": "other.png", "label": 0}]')
        return raw

    monkeypatch.setattr(json_file, "build_table", build_and_change)
    with pytest.raises(UserError, match=r"a\.json: changed while it was read"):
        index_json(str(path))
    assert os.listdir(tmp_path) == ["a.json"]
