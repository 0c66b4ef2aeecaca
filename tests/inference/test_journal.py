import subprocess
import sys

import pytest

from imgcls.errors import UserError
from imgcls.inference.journal import PredictionJournal

RECORDS = [{"file_name": f"{number}.png"} for number in range(7)]
ROWS = [{"file_name": record["file_name"], "classes": ["blüe"]} for record in RECORDS]


@pytest.fixture
def output(tmp_path):
    return str(tmp_path / "out.csv")


def write(output, rows, **settings) -> PredictionJournal:
    journal = PredictionJournal(output, {"topk": 5, **settings})
    journal.start()
    for row in rows:
        journal.append([row])
    return journal


def test_rows_are_read_as_they_were_written(output):
    journal = write(output, ROWS)
    assert list(journal.rows()) == ROWS
    journal.append([{"file_name": "more"}])
    assert [row["file_name"] for row in journal.rows()][6:] == ["6.png", "more"]


@pytest.mark.parametrize(("written", "kept"), [(0, 0), (1, 0), (3, 3), (5, 3), (6, 6), (7, 7)])
def test_complete_batches_are_kept(output, written, kept):
    write(output, ROWS[:written]).close()
    journal = PredictionJournal(output, {"topk": 5})
    assert journal.resume(RECORDS, batch_size=3) == kept
    assert list(journal.rows()) == ROWS[:kept]
    for row in ROWS[kept:]:
        journal.append([row])
    assert list(journal.rows()) == ROWS


@pytest.mark.parametrize("tail", [b'{"file_name": "3.p', b"\x00\x00\n", b'{"file_name": "3.png"}', b"[1]\n"])
def test_an_incomplete_last_line_is_dropped(output, tail):
    journal = write(output, ROWS[:3])
    journal.close()
    with open(journal.path, "ab") as file:
        file.write(tail)
    journal = PredictionJournal(output, {"topk": 5})
    assert journal.resume(RECORDS, 1) == 3
    journal.append(ROWS[3:4])
    assert list(journal.rows()) == ROWS[:4]


@pytest.mark.parametrize("content", [b"", b'{"top'])
def test_a_journal_without_a_complete_line_starts_again(output, content):
    with open(output + ".partial", "wb") as file:
        file.write(content)
    journal = PredictionJournal(output, {"topk": 5})
    assert journal.resume(RECORDS, 1) == 0
    journal.append(ROWS[:1])
    assert list(journal.rows()) == ROWS[:1]


def test_other_settings_and_other_images_are_refused(output):
    write(output, ROWS[:4], threshold=None).close()
    journal = PredictionJournal(output, {"topk": 3, "threshold": None})
    with pytest.raises(UserError, match=r"with other settings \(topk was 5 and is now 3\); give the same"):
        journal.resume(RECORDS, 1)
    journal.close()
    journal = PredictionJournal(output, {"topk": 5, "threshold": None})
    with pytest.raises(UserError, match=r"row 2 of .* is 1\.png, and the sources now have 2\.png there"):
        journal.resume([RECORDS[0], *RECORDS[2:]], 1)
    with pytest.raises(UserError, match=r"row 3 of .* is 2\.png, and the sources now have no image there"):
        journal.resume(RECORDS[:2], 1)
    assert list(journal.rows()) == ROWS[:4]


def test_a_second_process_is_refused_even_after_reading(output):
    journal = write(output, ROWS)
    list(journal.rows())
    code = f"from imgcls.inference.journal import PredictionJournal; PredictionJournal({output!r}, {{}})"
    second = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert second.returncode == 1 and "another command is writing it" in second.stderr
    journal.close(remove=True)
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code]).returncode == 0


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"out\.csv: cannot be written \(No such file"):
        PredictionJournal(str(tmp_path / "no" / "out.csv"), {})
