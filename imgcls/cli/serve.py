"""``imgcls serve``: a web page and a JSON API that predict images with a model."""

import argparse
import logging
import signal
import socket
from collections.abc import Sequence
from typing import NoReturn

from imgcls.cli import command, read_class_names
from imgcls.errors import UserError


@command(
    "Serves a classifier: a web page to drop images on, and POST /predict, which answers in JSON.",
    "imgcls serve output/model_final.pth\n  curl -F image=@cat.jpg http://127.0.0.1:7860/predict",
)
def main(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> int:
    """Serves until SIGTERM, which gives 0, or Ctrl-C, which gives 130."""
    args = _parse(parser, argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    signal.signal(signal.SIGTERM, _stop)
    try:
        _serve(args)
    except KeyboardInterrupt:
        return 130
    return 0


def _parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    parser.add_argument("model", metavar="MODEL", help="a classifier's checkpoint, or a file of imgcls export")
    parser.add_argument("--port", type=int, default=7860, help="0 takes any free one (default: %(default)s)")
    parser.add_argument(
        "--host", default="127.0.0.1",
        help="address to listen on; 0.0.0.0 lets everybody in the network use the model (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--classes", metavar="FILE", help="class names to use instead of the model's, one a line")
    parser.add_argument("--device", help="such as cpu or cuda:1 (default: the first GPU, or the CPU)")
    parser.add_argument(
        "--max-megabytes", type=float, default=20.0, metavar="M", help="largest file (default: %(default)g)"
    )
    args = parser.parse_args(argv)
    if not 0 <= args.port <= 65535:
        parser.error(f"--port is {args.port}; allowed: 0 to 65535")
    if not 0 < args.max_megabytes <= 1024:
        parser.error(f"--max-megabytes is {args.max_megabytes:g}; allowed: above 0, up to 1024")
    return args


def _serve(args: argparse.Namespace) -> None:
    from imgcls.inference.predictor import Predictor
    from imgcls.inference.serve_page import add_page, require_gradio
    from imgcls.inference.serving import PredictionService, build_app

    require_gradio()
    import uvicorn

    with _listen(args.host, args.port) as listener:
        names = read_class_names(args.classes) if args.classes else None
        service = PredictionService(Predictor.from_file(args.model, args.device, names))
        max_bytes = round(args.max_megabytes * 2**20)
        app = build_app(service, max_bytes)
        add_page(app, service, max_bytes)
        host, port = listener.getsockname()[:2]
        print(f"{args.model}: http://{f'[{host}]' if ':' in host else host}:{port} (Ctrl-C stops)", flush=True)
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=3)
        uvicorn.Server(config).run([listener])


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket. Who connects before the server runs waits for it."""
    try:
        family, kind, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen()
        except OSError:
            listener.close()
            raise
    except (OSError, UnicodeError) as error:
        raise UserError(
            f"--host {host} --port {port}: {getattr(error, 'strerror', error)}; give another port, or 0 for any free "
            "one, or an address of this machine"
        ) from error
    return listener


def _stop(number: int, frame: object) -> NoReturn:
    raise SystemExit(0)
