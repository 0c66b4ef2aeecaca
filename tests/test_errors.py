import pytest
from torch.utils.data import DataLoader, Dataset

from imgcls.data.image import BadImageError
from imgcls.errors import UserError, UserFileNotFoundError, exit_on_user_error, printable, user_message


class Broken(Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        raise BadImageError("image.png: damaged")


def test_user_error_is_one_line_and_exit_code_2(capsys):
    with pytest.raises(SystemExit) as stop, exit_on_user_error():
        raise UserError("KEY is 3; allowed: 1 or 2")
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: KEY is 3; allowed: 1 or 2\n"


def test_other_exceptions_keep_their_traceback():
    with pytest.raises(ValueError, match="a bug"), exit_on_user_error():
        raise ValueError("a bug")


def test_user_errors_can_be_caught_as_built_in_exceptions():
    assert issubclass(UserError, ValueError)
    assert issubclass(UserFileNotFoundError, FileNotFoundError)


def test_message_from_a_loader_worker_is_its_last_line():
    with pytest.raises(UserError) as raised:
        next(iter(DataLoader(Broken(), num_workers=1)))
    assert "Traceback" in str(raised.value)
    assert user_message(raised.value) == "image.png: damaged"


def test_message_from_a_spawned_process():
    class ProcessRaisedException(Exception):  # noqa: N818  (torch's name)
        pass

    text = "-- Process 1 terminated\nTraceback\nimgcls.errors.UserError: KEY is 3\n"
    assert user_message(ProcessRaisedException(text)) == "KEY is 3"
    assert user_message(ProcessRaisedException("RuntimeError: a bug")) is None


def test_a_name_out_of_a_file_cannot_steer_the_terminal():
    assert printable("cat\x1b[2J\r\n\u202egpj.exe\ud800") == r"cat\x1b[2J\r\n\u202egpj.exe\ud800"
    assert printable("Katze \U0001f408 猫") == "Katze \U0001f408 猫"
    assert user_message(UserError("class \x1b[31mred")) == r"class \x1b[31mred"


def test_long_input_is_quoted_without_its_middle():
    text = printable("a" * 1000 + "end", limit=30)
    assert text == "a" * 20 + "..." + "a" * 7 + "end"
    assert len(user_message(UserError("x" * 10**6))) < 1300
