"""`imgcls serve` as a process: what it prints, its exit codes, and how it stops."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from detectron2.modeling import build_model

from imgcls.checkpoint import build_info, write_checkpoint
from imgcls.inference import Predictor
from imgcls.inference.export import export_classifier

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def model(tiny_cfg, tmp_path) -> str:
    path = str(tmp_path / "model.pth")
    net = build_model(tiny_cfg)
    write_checkpoint(path, {"model": net.state_dict(), "imgcls": build_info(tiny_cfg, ["blue", "green", "red"])})
    return path


@pytest.fixture
def start(require):
    """``start(MODEL, "--port", "0")``: the process, and the port that its one line names."""
    require("gradio")
    started = []

    def run(*arguments: str) -> tuple[subprocess.Popen[str], int]:
        variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        command = [sys.executable, "-m", "imgcls", "serve", *arguments]
        process = subprocess.Popen(command, env=variables, stdout=-1, stderr=-1, text=True)
        started.append(process)
        line = process.stdout.readline()
        assert line.startswith(f"{arguments[0]}: http://127.0.0.1:"), (line, process.stderr.read())
        return process, int(line.split(":")[3].split()[0])

    yield run
    for process in started:
        process.kill()
        process.communicate()


def post(port: int, path: Path) -> dict:
    body = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    body += path.read_bytes() + b"\r\n--b--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/predict", body, headers)
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


@pytest.mark.parametrize(
    ("number", "code", "suffix"), [(signal.SIGTERM, 0, ".pth"), (signal.SIGINT, 130, ".ts")], ids=["sigterm", "sigint"]
)
def test_it_answers_and_stops_at_a_signal_within_5_seconds(start, model, write_folder, tmp_path, number, code, suffix):
    images = write_folder(tmp_path / "images", {"blue": 22, "green": 22, "red": 22})
    image = images / "red" / "0.png"
    if suffix != ".pth":
        checkpoint, model = model, str(tmp_path / f"model{suffix}")
        export_classifier(checkpoint, model, f"folder:{images}")
    process, port = start(model, "--port", "0", "--device", "cpu")
    answer = post(port, image)
    expected = Predictor.from_file(model, "cpu")(str(image))
    assert (answer["classes"], answer["probabilities"]) == (expected.classes, expected.probabilities)
    with socket.create_connection(("127.0.0.1", port)) as client:  # a client that neither sends all nor leaves
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n")
        time.sleep(0.2)
        begin = time.monotonic()
        process.send_signal(number)
        out, error = process.communicate(timeout=20)
        assert time.monotonic() - begin < 5
    assert (process.returncode, out) == (code, "")
    assert "Traceback" not in error
    socket.create_server(("127.0.0.1", port)).close()


def test_other_class_names(start, model, write_folder, tmp_path):
    image = write_folder(tmp_path / "images", {"blue": 1}) / "blue" / "0.png"
    (tmp_path / "names.txt").write_text("bleu\nvert\nrouge\n")
    _, port = start(model, "--port", "0", "--device", "cpu", "--classes", str(tmp_path / "names.txt"))
    assert sorted(post(port, image)["classes"]) == ["bleu", "rouge", "vert"]


def test_ctrl_c_while_the_model_loads_is_no_traceback(run_verb, require, monkeypatch):
    require("gradio")

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Predictor, "from_file", interrupt)
    assert run_verb("serve", "model.pth", "--port", 0) == (130, "", "")


def test_a_port_in_use_is_one_line(run_verb, require, model):
    require("gradio")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, out, error = run_verb("serve", model, "--port", port)
    assert (code, out) == (2, "") and error.count("\n") == 1
    assert error.startswith(f"error: --host 127.0.0.1 --port {port}: Address already in use; give another port")


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host", ".."])
def test_a_host_that_is_not_this_machine_is_one_line(run_verb, require, model, host):
    require("gradio")
    code, out, error = run_verb("serve", model, "--host", host, "--port", 0)
    assert (code, out) == (2, "") and error.startswith(f"error: --host {host} --port 0: ") and error.count("\n") == 1


def test_a_model_that_cannot_be_read_is_one_line(run_verb, require, tmp_path):
    require("gradio")
    code, out, error = run_verb("serve", tmp_path / "none.pth", "--port", 0)
    assert (code, out) == (2, "") and "none.pth" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--port", "65536", "--port is 65536; allowed: 0 to 65535"),
        ("--max-megabytes", "0", "--max-megabytes is 0; allowed: above 0, up to 1024"),
        ("--max-megabytes", "nan", "--max-megabytes is nan; allowed"),
    ],
)
def test_flags_out_of_range_are_refused(run_verb, flag, value, message):
    code, _, error = run_verb("serve", "model.pth", flag, value)
    assert code == 2 and message in error


def test_without_gradio_one_line_names_the_extra(run_verb, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    code, out, error = run_verb("serve", "model.pth")
    assert (code, out) == (2, "") and error.count("\n") == 1
    assert error.startswith("error: imgcls serve needs gradio") and 'pip install -e ".[serve]"' in error
