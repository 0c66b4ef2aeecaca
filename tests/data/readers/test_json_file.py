import json
import os

import pytest

from imgcls.data.readers import json_file
from imgcls.data.readers.json_file import index_json, iterate_json, read_json
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
def test_an_invalid_record_is_named(read, second, message):
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
def test_an_invalid_multi_label_record_is_named(read, second, message):
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


def test_a_record_nested_too_deep(read):
    with pytest.raises(UserError, match=r"records\.json: nested too deep for a list of records"):
        read('[{"file_name": "a", "label": 0, "x": ' + "[" * 100_000 + "]" * 100_000 + "}]")


def test_index_of_an_invalid_file(tmp_path):
    with pytest.raises(UserFileNotFoundError, match=r"a\.json: no such file"):
        index_json(str(tmp_path / "a.json"))
    (tmp_path / "b.json").write_text("[3]")
    with pytest.raises(UserError, match=r"b\.json: record 1: expected an object"):
        index_json(str(tmp_path / "b.json"))
    assert os.listdir(tmp_path) == ["b.json"]


def test_a_file_that_changes_during_indexing(tmp_path, monkeypatch):
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


LISTS = [
    "[]",
    " [ ] \n",
    '[{"a": 1}]',
    '[{"a": "},{\\"]"},\r\n\t{"b": [{}, [[]], null, true, -1.5e-3]} , {}]\n\n',
    '["text", 12, null, [1, 2], {"é日😀": "\\u00e9\\ud83d\\ude00"}]',
    '\ufeff[{"a": "byte order mark"}]',
    '[{"a": {"a": 1}, "b": 2}, {"a": {"a": [{"a": 1}, {"a": 2}]}, "b": 2}, {"a": 3}, {"a": 4}, {"b": 5}, 6]',
    '[{"a": 1}, {"a": "}, {\\"a"}, {"a": "}, {"}, {"a": 3}]',
    json.dumps([{"file_name": f"{i}/" + "x" * (i % 40), "label": i} for i in range(200)], indent=1),
]
BROKEN = [
    "",
    "  \n",
    "[",
    "[1",
    "[1,",
    '[{"a": 1}\n{"a": 2}]',
    '[{"a": 1},\n {"a": }]',
    '[{"a": 1}]\n x',
    '[{"a": 1}] []',
    "[{]",
    '["open',
    '[{"a": 1}}',
    "nonsense",
    '[{"é": 1},\n\n {"日": 2} {"😀": 3}]',
    '[{"a": "tab\there"}]',
]


@pytest.fixture(params=[1, 7, 64, 1 << 20])
def path(request, tmp_path, monkeypatch):
    monkeypatch.setattr(json_file, "_CHUNK", request.param)
    return tmp_path / "x.json"


def items(path):
    return [item for batch in iterate_json(str(path)) for item in batch]


@pytest.mark.parametrize("text", LISTS)
def test_batches_hold_the_items_of_the_whole_list(path, text):
    path.write_bytes(text.encode())
    assert items(path) == json.loads(text.removeprefix("\ufeff"))


@pytest.mark.parametrize("text", BROKEN)
def test_error_message_equals_that_of_json_loads(path, text):
    path.write_bytes(text.encode())
    with pytest.raises(json.JSONDecodeError) as wanted:
        json.loads(text)
    with pytest.raises(UserError) as caught:
        items(path)
    assert str(caught.value) == f"{path}: not valid JSON ({wanted.value})"


@pytest.mark.parametrize(
    ("text", "shown"), [('{"images": []}', r"\{'images': \[\]\} \(dict\)"), ("12", r"12 \(int\)"), ('"a"', "'a'")]
)
def test_not_a_list(path, text, shown):
    path.write_text(text)
    with pytest.raises(UserError, match=rf"x\.json: expected a list of records, got {shown}"):
        items(path)


def test_items_before_an_error_are_yielded_first(tmp_path, monkeypatch):
    monkeypatch.setattr(json_file, "_CHUNK", 10)
    path = tmp_path / "x.json"
    path.write_bytes(b"[1, 2, 3, " + b" " * 100_000 + b"\xff")
    batches = iterate_json(str(path))
    assert next(batches) == [1]
    with pytest.raises(UserError, match=r"not UTF-8 text \(byte 100010\)"):
        list(batches)


def test_an_invalid_record_is_reported_before_a_later_syntax_error(read):
    with pytest.raises(UserError, match="record 2: expected an object"):
        read('[{"file_name": "a", "label": 0}, 3, {"file_name": "b", "label": 0}, }')


def test_most_items_are_parsed_in_large_batches(tmp_path):
    path = tmp_path / "x.json"
    for separators, nested in (
        ((",", ":"), 1),
        ((" , ", " : "), {"a": {"label": 3}}),
        ((", ", ": "), [{"b": 1}, {"b": 2}]),
    ):
        records = [{"file_name": f"{i}.png", "label": i, "box": nested} for i in range(30_000)]
        path.write_text(json.dumps(records, separators=separators))
        batches = list(iterate_json(str(path)))
        assert [record for batch in batches for record in batch] == records
        assert len(batches) < 2 * path.stat().st_size / json_file._CHUNK + 5
