"""The web service of ``imgcls serve``: the file of an image in, its prediction as JSON out."""

import base64
import io
import threading
import warnings
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from PIL import Image
from torch import Tensor

from imgcls.data.image import BadImageError, EncodedImage
from imgcls.errors import UserError
from imgcls.inference.cam import GradCam, overlay
from imgcls.inference.prediction import Ranking
from imgcls.inference.predictor import Predictor, reason

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.datastructures import FormData

_THREADS = 4  # images that are in memory at one time
_FORM_BYTES = 64 * 1024  # of a request besides its file
_FIELDS = ("image", "topk", "threshold", "cam")
_FORM = "send the file of one image as the form field 'image': curl -F image=@cat.jpg"


class PredictionService:
    """Predicts single images for any number of threads, each exactly as the predictor does.

    Args:
        predictor: of the model.

    Attributes:
        without_cam: why there is no Grad-CAM; empty if there is.
    """

    def __init__(self, predictor: Predictor):
        self.predictor = predictor
        self.info = predictor.info
        self._index = {name: index for index, name in enumerate(self.info.classes)}
        self._network = threading.Lock()  # Grad-CAM hooks into the network
        self._cam: GradCam | None = None
        self.without_cam = ""
        try:
            self._cam = GradCam(predictor.classifier)
        except UserError as error:
            self.without_cam = str(error)

    def answer(self, file: BinaryIO, name: str, ranking: Ranking, with_cam: bool = False) -> dict[str, Any]:
        """The prediction for one image.

        Args:
            file: its bytes.
            name: for the answer and for messages.
            ranking: of the service's ``info``.
            with_cam: add the Grad-CAM of the best class, if there is one.

        Returns:
            ``"file_name"``; ``"classes"``, best first, their ``"probabilities"`` and ``"thresholds"``;
            ``"above_threshold"``, all classes above their thresholds. Without thresholds the last two are None.
            ``with_cam`` adds ``"heat_map"``, a JPEG as a data URI: the map over what the network saw.

        Raises:
            BadImageError: the image is damaged or has too many pixels.
            UserError: the weights are damaged.
        """
        data = file.read()
        _check_header(data, name)
        crop = self.predictor.crop(EncodedImage(data, name, self.info.contract["format"]))
        with self._network:
            (prediction,) = self.predictor.predict_crops([crop], [name], ranking)
            labels = [self._index[each] for each in prediction.classes]
            heat = self._cam(crop[None], labels[:1])[0] if with_cam and self._cam else None
        answer = {
            "file_name": name,
            "classes": prediction.classes,
            "probabilities": prediction.probabilities,
            "thresholds": None if ranking.thresholds is None else ranking.thresholds[labels].tolist(),
            "above_threshold": prediction.above_threshold,
        }
        return answer if heat is None else answer | {"heat_map": self._draw(crop, heat)}

    def _draw(self, crop: Tensor, heat: Tensor) -> str:
        pixels = crop.permute(1, 2, 0).numpy()
        file = io.BytesIO()
        drawing = overlay(pixels if self.info.contract["format"] == "RGB" else pixels[:, :, ::-1], heat)
        Image.fromarray(np.ascontiguousarray(drawing)).save(file, "JPEG", quality=90)
        return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def build_app(service: PredictionService, max_bytes: int) -> "FastAPI":
    """The web application. Its one route is ``POST /predict``.

    The route takes a form with the file ``image`` and optionally ``topk``, ``threshold`` and ``cam`` (1 or 0). It gives
    what ``PredictionService.answer`` returns, or ``{"error": MESSAGE}`` with status 400 for a wrong form, 413 for a
    file that is too large, 422 for an image that cannot be read, and 500 for a damaged model.

    Args:
        service: predicts the images.
        max_bytes: of a file.
    """
    from anyio import CapacityLimiter, to_thread
    from fastapi import FastAPI, Request
    from starlette.datastructures import UploadFile
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect
    from starlette.responses import JSONResponse
    from starlette.types import Message

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)  # these pages load scripts from a network
    limiter = CapacityLimiter(_THREADS)

    @app.post("/predict", response_model=None)
    async def predict(request: Request) -> JSONResponse:
        received = 0

        async def receive() -> Message:
            nonlocal received
            message = await request.receive()
            received += len(message.get("body", b""))
            if received > max_bytes + _FORM_BYTES:
                raise HTTPException(413, too_large_message(max_bytes))
            return message

        async with Request(request.scope, receive).form(max_files=1, max_fields=len(_FIELDS)) as form:
            image = form.get("image")
            if not isinstance(image, UploadFile):
                raise HTTPException(400, _FORM)
            if image.size is None or image.size > max_bytes:
                raise HTTPException(413, too_large_message(max_bytes))
            name = (image.filename or "image").replace("\\", "/").rpartition("/")[2]
            try:
                ranking, with_cam = _read_fields(form, service)
            except UserError as error:
                raise HTTPException(400, str(error)) from error
            answer = await to_thread.run_sync(service.answer, image.file, name, ranking, with_cam, limiter=limiter)
        return JSONResponse(answer)

    @app.exception_handler(HTTPException)
    async def refuse(request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": error.detail}, error.status_code)

    @app.exception_handler(UserError)
    async def report(request: Request, error: UserError) -> JSONResponse:
        if isinstance(error, BadImageError):
            return JSONResponse({"error": reason(error)}, 422)
        return JSONResponse({"error": str(error)}, 500)

    @app.exception_handler(ClientDisconnect)
    async def drop(request: Request, error: ClientDisconnect) -> JSONResponse:
        return JSONResponse({"error": "the client has closed the connection"}, 400)

    return app


def too_large_message(max_bytes: int) -> str:
    """What a client reads whose file has more bytes."""
    return f"the file is too large; allowed: up to {max_bytes / 2**20:.3g} MiB (--max-megabytes)"


def _read_fields(form: "FormData", service: PredictionService) -> tuple[Ranking, bool]:
    """The settings of one request."""
    unknown = sorted(form.keys() - set(_FIELDS))
    if unknown:
        raise UserError(f"the form has the unknown field {unknown[0]!r}; allowed: {', '.join(_FIELDS)}")
    cam, topk, threshold = form.get("cam", "0"), form.get("topk", "5"), form.get("threshold")
    if cam not in ("0", "1"):
        raise UserError(f"cam is {cam!r}; allowed: 0 or 1")
    if cam == "1" and service.without_cam:
        raise UserError(service.without_cam)
    try:
        count = int(str(topk))
    except ValueError:
        raise UserError(f"topk is {topk!r}; allowed: a whole number from 1") from None
    try:
        common = float(str(threshold)) if threshold else None
    except ValueError:
        raise UserError(f"threshold is {threshold!r}; allowed: a probability, from 0 to 1") from None
    return Ranking(service.info, count, common), cam == "1"


def _check_header(data: bytes, name: str) -> None:
    """Refuses what should not be decoded for strangers.

    Pillow's limit of pixels holds for every image, because OpenCV's is six times as large. Pillow would let Ghostscript
    run the program that a PostScript file is.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                kind = image.format
    except Image.DecompressionBombError as error:
        raise BadImageError(f"{name}: has too many pixels ({error})") from error
    except Exception:  # what Pillow cannot open is refused with its reason when it is decoded
        return
    if kind == "EPS":
        raise BadImageError(f"{name}: is PostScript, which is not read here")
