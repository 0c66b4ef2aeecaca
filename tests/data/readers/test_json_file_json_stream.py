import json

import pytest

from imgcls.data.readers import json_file as json_stream
from imgcls.data.readers.json_file import iterate_json
from imgcls.errors import UserError, UserFileNotFoundError

GOOD = [
    "[]",
    " [ ] \n",
    '[{"a": 1}]',
    '[{"a": "},{\\"]"},\r\n\t{"b": [{}, [[]], null, true, -1.5e-3]} , {}]\n\n',
    '["text", 12, null, [1, 2], {"é日😀": "\\u00e9\\ud83d\\ude00"}]',
    '\ufeff[{"a": "byte order mark"}]',
    json.dumps([{"file_name": f"{i}/" + "x" * (i % 40), "label": i} for i in range(200)], indent=1),
]
BAD = [
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


@pytest.fixture(params=[1, 2, 3, 7, 1 << 20])
def path(request, tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "_CHUNK", request.param)
    return tmp_path / "x.json"


@pytest.mark.parametrize("text", GOOD)
def test_the_items_are_those_of_the_whole_list(path, text):
    path.write_bytes(text.encode())
    assert list(iterate_json(str(path))) == json.loads(text.removeprefix("\ufeff"))


@pytest.mark.parametrize("text", BAD)
def test_the_message_is_that_of_the_whole_text(path, text):
    path.write_bytes(text.encode())
    with pytest.raises(json.JSONDecodeError) as wanted:
        json.loads(text)
    with pytest.raises(UserError) as caught:
        list(iterate_json(str(path)))
    assert str(caught.value) == f"{path}: not valid JSON ({wanted.value})"


@pytest.mark.parametrize(
    ("text", "shown"), [('{"images": []}', r"\{'images': \[\]\} \(dict\)"), ("12", r"12 \(int\)"), ('"a"', "'a'")]
)
def test_something_else_than_a_list(path, text, shown):
    path.write_text(text)
    with pytest.raises(UserError, match=rf"x\.json: expected a list of records, got {shown}"):
        list(iterate_json(str(path)))


def test_items_before_a_fault_are_handed_out_and_little_is_read_for_them(tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "_CHUNK", 10)
    path = tmp_path / "x.json"
    path.write_bytes(b"[1, 2, 3, " + b" " * 100_000 + b"\xff")
    items = iterate_json(str(path))
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(UserError, match=r"not UTF-8 text \(byte 100010\)"):
        list(items)


def test_a_missing_file(tmp_path):
    with pytest.raises(UserFileNotFoundError, match=r"a\.json: no such file"):
        next(iterate_json(str(tmp_path / "a.json")))
