import os

import pytest

from imgcls.data.readers.csv_file import read_csv
from imgcls.errors import UserError


@pytest.fixture
def read(tmp_path):
    def write_and_read(text, encoding="utf-8"):
        (tmp_path / "set ß.csv").write_bytes(text.encode(encoding))
        return read_csv(str(tmp_path / "set ß.csv"))

    return write_and_read


def test_names_are_sorted_alphabetically(read, tmp_path):
    raw = read('file_name,label,note\n"a, b é.png",dog,x\n/abs/c.png,10,\nd.png, dog ,y\n')
    assert raw.classes == ["10", "dog"]
    assert raw.records == [
        {"file_name": os.path.join(tmp_path, "a, b é.png"), "image_id": "a, b é.png", "label": 1, "note": "x"},
        {"file_name": "/abs/c.png", "image_id": "/abs/c.png", "label": 0, "note": ""},
        {"file_name": os.path.join(tmp_path, "d.png"), "image_id": "d.png", "label": 1, "note": "y"},
    ]
    assert (raw.named, raw.multi_label) == (True, False)


def test_whole_numbers_are_sorted_by_value(read):
    raw = read("file_name,label\na,10\nb,9\nc,2\n")
    assert raw.classes == ["2", "9", "10"]
    assert [record["label"] for record in raw.records] == [2, 1, 0]


def test_several_labels(read):
    raw = read("file_name,labels\na,dog;cat\nb,\nc, cat ; ;cat\n")
    assert (raw.classes, raw.multi_label) == (["cat", "dog"], True)
    assert [record["labels"] for record in raw.records] == [[0, 1], [], [0]]


def test_a_file_from_a_spreadsheet(read):
    raw = read("file_name,label\r\na.png,cat\r\n\r\n", encoding="utf-8-sig")
    assert (raw.classes, len(raw.records)) == (["cat"], 1)


def test_image_id_and_size_columns(read):
    records = read("image_id,file_name,label,height,width\n7,a,x,30,40\n,b,x,1,2\n").records
    assert [record["image_id"] for record in records] == ["7", "b"]
    assert (records[0]["height"], records[0]["width"]) == (30, 40)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "needs the columns .*got: none"),
        ("path,label\na,b\n", "needs the columns file_name and label, .*got: path, label"),
        ("file_name;label\na;b\n", "needs the columns .*got: file_name;label"),
        ("file_name,label,labels\na,b,c\n", "needs the columns .*got: file_name, label, labels"),
        ("file_name,label,label\na,b,c\n", "a column comes twice"),
        ("file_name,label\n", "has no rows below the header"),
        ("file_name,label\na,b\nc,-1\n", "line 3: the label -1 is negative"),
        ("file_name,labels\na,1;-2\n", "line 2: the label -2 is negative"),
        ("file_name,label\na,b\nc, \n", "line 3: the label is empty"),
        ("file_name,label\n,b\n", "line 2: the file_name is empty"),
        ("file_name,label\na,b,c\n", "line 2: has more cells than the header"),
        ("file_name,label\na\n", "line 2: has fewer cells than the header"),
        ('file_name,label\n"a,b\n', "line 2: not valid CSV"),
        ("file_name,label,width\na,b,wide\n", "line 2: width must be a whole number of pixels, got 'wide'"),
    ],
)
def test_a_bad_table_is_named(read, text, message):
    with pytest.raises(UserError, match=rf"set ß\.csv: {message}"):
        read(text)
