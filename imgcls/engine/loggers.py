"""The experiment trackers of ``OUTPUT.LOGGERS``, which get the config and the scalars of a run.

A tracker works in a thread of its own, so that neither an error nor a slow network holds up the training.
"""

import importlib.util
import json
import logging
import os
import queue
import sys
import threading
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import yaml
from detectron2.config import CfgNode
from detectron2.utils.events import EventWriter, get_event_storage

from imgcls.disk import write_text
from imgcls.engine.run_state import WINDOW
from imgcls.errors import UserError

RUNS = "loggers.json"  # in OUTPUT_DIR: the id of the run in each tracker
PROJECT = "imgcls"  # where the tracker's own settings name none
# How long the training waits for a tracker, at its start and at its end.
_START_SECONDS, _END_SECONDS = 30.0, 60.0
_logger = logging.getLogger(__name__)


class Tracker(Protocol):
    """The library of one tracker. All methods are called in one thread, and may raise anything."""

    def start(self, run_id: str) -> tuple[str, str]:
        """Starts a run, or continues the one of an id.

        Args:
            run_id: empty for a new run.

        Returns:
            Its id, and where a person finds it.
        """

    def log(self, scalars: Mapping[str, float], iteration: int) -> None:
        """Writes the scalars of an iteration."""

    def finish(self, completed: bool) -> None:
        """Ends the run; ``completed`` is False if the training was interrupted or has failed."""


class WandbTracker:
    """W&B, with the settings of its own environment variables. Its files are in ``OUTPUT_DIR/wandb``."""

    def __init__(self, cfg: CfgNode):
        self.cfg = cfg
        self._run: Any = None

    def start(self, run_id: str) -> tuple[str, str]:
        """See ``Tracker``."""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # also the measurements of W&B about its own use
        import wandb

        run_id = run_id or uuid.uuid4().hex[:8]
        # Only what OUTPUT.LOGGERS is documented to send: neither the terminal, nor code, command line and packages.
        settings = wandb.Settings(
            console="off",
            save_code=False,
            disable_git=True,
            x_disable_meta=True,
            x_save_requirements=False,
            silent=True,
            finish_timeout=_END_SECONDS,
        )
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=os.environ.get("WANDB_NAME", _run_name(self.cfg)),
            id=run_id,
            resume="allow",
            dir=self.cfg.OUTPUT_DIR,
            config=yaml.safe_load(self.cfg.dump()),
            allow_val_change=True,  # a resumed run may be longer
            settings=settings,
        )
        return run_id, self._run.dir if self._run.offline else self._run.url

    def log(self, scalars: Mapping[str, float], iteration: int) -> None:
        """See ``Tracker``."""
        self._run.log(dict(scalars), step=iteration)

    def finish(self, completed: bool) -> None:
        """See ``Tracker``."""
        self._run.finish(exit_code=0 if completed else 1)


class MlflowTracker:
    """MLflow, at ``MLFLOW_TRACKING_URI`` and in the experiment ``MLFLOW_EXPERIMENT_NAME``."""

    def __init__(self, cfg: CfgNode):
        self.cfg = cfg
        self._client: Any = None
        self._run_id = ""

    def start(self, run_id: str) -> tuple[str, str]:
        """See ``Tracker``."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient
        from mlflow.entities import Param
        from mlflow.exceptions import MlflowException

        client = self._client = MlflowClient()
        if run_id:
            with suppress(MlflowException):  # this run was deleted, or is in another store
                client.update_run(run_id, status="RUNNING")
                self._run_id = run_id
        if not self._run_id:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
            experiment = client.get_experiment_by_name(name)
            number = experiment.experiment_id if experiment else client.create_experiment(name)
            self._run_id = client.create_run(number, run_name=_run_name(self.cfg)).info.run_id
            params = _flatten(yaml.safe_load(self.cfg.dump()))
            # MLflow refuses longer values; config.yaml has the whole ones.
            client.log_batch(self._run_id, params=[Param(key, str(value)[:500]) for key, value in params.items()])
        return self._run_id, f"{client.tracking_uri}, run {self._run_id}"

    def log(self, scalars: Mapping[str, float], iteration: int) -> None:
        """See ``Tracker``."""
        for name, value in scalars.items():
            self._client.log_metric(self._run_id, name, value, step=iteration)

    def finish(self, completed: bool) -> None:
        """See ``Tracker``."""
        self._client.set_terminated(self._run_id, "FINISHED" if completed else "KILLED")


class TrackerWriter(EventWriter):
    """Hands the scalars of each line of metrics.json to a tracker. After an error, the training continues without it.

    Args:
        name: of the tracker, as in ``OUTPUT.LOGGERS``.
        tracker: used only in the thread of this writer.
        folder: ``OUTPUT_DIR``, where the id of the run is kept.
        resumed: whether to continue the run whose id is there.
    """

    def __init__(self, name: str, tracker: Tracker, folder: str, resumed: bool):
        self.name = name
        self.tracker = tracker
        self.folder = folder
        self._last = -1  # the last iteration that was handed over
        self._lines: queue.SimpleQueue[tuple[dict[str, float], int] | None] = queue.SimpleQueue()
        self._started, self._failed, self._completed = threading.Event(), False, True
        self._thread = threading.Thread(target=self._work, args=(resumed,), name=f"imgcls-{name}", daemon=True)
        self._thread.start()
        self._started.wait(_START_SECONDS)

    def write(self) -> None:
        """Queues the scalars that are newer than those of the last call."""
        if self._failed:
            return
        rows: dict[int, dict[str, float]] = defaultdict(dict)
        for name, (value, iteration) in get_event_storage().latest_with_smoothing_hint(WINDOW).items():
            if iteration > self._last:
                rows[iteration][name] = value
        for iteration, scalars in sorted(rows.items()):
            self._lines.put((scalars, iteration))
            self._last = iteration

    def close(self) -> None:
        """Waits until everything was handed over, but not forever."""
        self._completed = sys.exc_info()[0] is None  # the loop closes its writers while an exception propagates
        self._lines.put(None)
        self._thread.join(_END_SECONDS)
        if self._thread.is_alive():
            self._warn(f"not finished after {_END_SECONDS:.0f} seconds; what is missing there is in metrics.json")

    def _work(self, resumed: bool) -> None:
        try:
            run_id, place = self.tracker.start(self._known_runs().get(self.name, "") if resumed else "")
            write_text(Path(self.folder, RUNS), json.dumps(self._known_runs() | {self.name: run_id}, indent=1) + "\n")
            _logger.info("%s: %s", self.name, place)
            self._started.set()
            while (line := self._lines.get()) is not None:
                self.tracker.log(*line)
            self.tracker.finish(self._completed)
        except BaseException as error:  # a library may even raise SystemExit, and the training must not depend on it
            self._failed = True
            self._warn(
                f"{type(error).__name__}: {' '.join(str(error).split())[:300]}; the training continues without it"
            )
        finally:
            self._started.set()

    def _known_runs(self) -> dict[str, str]:
        try:
            known = json.loads(Path(self.folder, RUNS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return {name: str(run_id) for name, run_id in known.items()} if isinstance(known, dict) else {}

    def _warn(self, problem: str) -> None:
        _logger.warning("OUTPUT.LOGGERS %s: %s", self.name, problem)


def check_loggers(cfg: CfgNode) -> None:
    """Refuses a tracker of ``OUTPUT.LOGGERS`` whose library is not installed.

    Raises:
        UserError: names the library and how to install it.
    """
    for name in cfg.OUTPUT.LOGGERS:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:  # without an origin, it is a folder of that name, such as ./wandb
            raise UserError(f'OUTPUT.LOGGERS has {name!r}, whose library is missing: pip install -e ".[{name}]"')


def build_loggers(cfg: CfgNode, resumed: bool) -> list[EventWriter]:
    """The writers of ``OUTPUT.LOGGERS``, for the main process only.

    Args:
        cfg: of the run.
        resumed: whether the run continues from a checkpoint in its own folder.

    Raises:
        UserError: as ``check_loggers``.
    """
    check_loggers(cfg)
    trackers: dict[str, Callable[[CfgNode], Tracker]] = {"wandb": WandbTracker, "mlflow": MlflowTracker}
    os.makedirs(cfg.OUTPUT_DIR, exist_ok=True)
    return [TrackerWriter(name, trackers[name](cfg), cfg.OUTPUT_DIR, resumed) for name in cfg.OUTPUT.LOGGERS]


def _run_name(cfg: CfgNode) -> str:
    return os.path.basename(os.path.abspath(cfg.OUTPUT_DIR))


def _flatten(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in node.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
