"""The page of ``imgcls serve``, made with gradio."""

from pathlib import Path
from typing import TYPE_CHECKING

from imgcls.errors import UserError
from imgcls.inference.serving import PredictionService, too_large_message

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_STATIC = Path(__file__).parent / "static"
_ROWS = 5  # classes of an image; more only if they are above their thresholds
_TOPK = 100  # classes that the page gets for an image of a multi-label model
# Moving the slider unchecks the box.
_CHECK = "(own, value) => imgclsThreshold(own ? null : value)"
_SLIDE = "(value) => (imgclsThreshold(value), false)"
# What a browser needs of gradio. Its other routes take and give files, fetch addresses, and call functions.
_FILES = ("/", "/theme.css", "/favicon.ico")
_FOLDERS = ("/static/", "/assets/")
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; object-src 'none'; base-uri 'self'; frame-ancestors 'none'"
)


def add_page(app: "FastAPI", service: PredictionService, max_bytes: int) -> None:
    """Adds the page at ``/`` to the application of ``build_app``.

    The page sends images to ``/predict``. gradio only draws it: it gets no images, calls no functions and asks no other
    server, and all routes of gradio that the page does not need are closed.

    Args:
        app: changed in place.
        service: whose model the page names.
        max_bytes: of a file.
    """
    import gradio

    info = service.info
    settings = {
        "heading": f"{Path(info.source).name}: {len(info.classes)} classes",
        "note": f"Without heat maps: {service.without_cam}" if service.without_cam else "",
        "cam": not service.without_cam,
        "max_bytes": max_bytes,
        "too_large": too_large_message(max_bytes),
        "rows": _ROWS,
        "topk": _TOPK if info.multi_label else _ROWS,
    }
    with gradio.Blocks(title="imgcls", analytics_enabled=False) as page:
        gradio.HTML(
            html_template=_read("serve.html"), css_template=_read("serve.css"), js_on_load=_read("serve.js"),
            settings=settings, elem_id="imgcls",
        )  # fmt: skip
        if info.multi_label:
            with gradio.Row():
                own = gradio.Checkbox(True, label="thresholds of the model")
                slider = gradio.Slider(0, 1, 0.5, step=0.01, label="threshold for all classes", interactive=True)
            own.change(None, [own, slider], None, js=_CHECK)
            slider.change(None, [slider], [own], js=_SLIDE)
        gradio.HTML(
            html_template='<div class="answers"></div>', css_template=_read("serve_answers.css"), js_on_load=None,
            elem_id="imgcls-answers",
        )  # fmt: skip
    gradio.mount_gradio_app(
        app, page, "/", footer_links=[], run_history=False, ssr_mode=False, mcp_server=False, pwa=False,
        enable_monitoring=False, show_error=False,
    )  # fmt: skip
    app.add_middleware(PageGuard)


def require_gradio() -> None:
    """Raises a UserError that names the extra if gradio is not installed."""
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise UserError(f'imgcls serve needs gradio ({error}): pip install -e ".[serve]"') from None


class PageGuard:
    """Answers 404 for every address except ``/predict`` and what the page loads, which gets a content security policy.

    Args:
        app: the application.
    """

    def __init__(self, app: "ASGIApp"):
        self.app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answers one request, see ASGI."""
        if scope["type"] == "lifespan" or (scope["type"] == "http" and scope["path"] == "/predict"):
            await self.app(scope, receive, send)
            return
        path, method = scope["path"], scope.get("method")
        if method not in ("GET", "HEAD") or not (path in _FILES or path.startswith(_FOLDERS)):
            await _refuse(scope, receive, send)
            return

        async def send_with_policy(message: "Message") -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    (b"content-security-policy", _POLICY.encode()),
                    (b"x-content-type-options", b"nosniff"),
                    (b"referrer-policy", b"no-referrer"),
                ]
            await send(message)

        # gradio would read files for some of the parameters of an address.
        await self.app({**scope, "query_string": b""}, receive, send_with_policy)


async def _refuse(scope: "Scope", receive: "Receive", send: "Send") -> None:
    from starlette.responses import JSONResponse
    from starlette.websockets import WebSocketClose

    if scope["type"] == "websocket":
        await WebSocketClose()(scope, receive, send)
    else:
        await JSONResponse({"error": "not found"}, 404)(scope, receive, send)


def _read(name: str) -> str:
    return (_STATIC / name).read_text(encoding="utf-8")
