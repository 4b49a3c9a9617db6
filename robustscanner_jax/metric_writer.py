"""Training metrics as JSON lines and TensorBoard events."""

import contextlib
import json
import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2
from tensorboardX.summary import scalar

logger = logging.getLogger(__name__)


class MetricWriter:
    """Appends one line a call to `metrics.jsonl`, and the same to an event file.

    A disk that is full costs lines and not the run: the log says so, once.

    The file survives resuming; a step that is trained again comes again. Values that
    are not finite become null: JSON has no NaN.

    Args:
      workdir: the run folder.
      enabled: False writes nothing, for all processes but one.
    """

    def __init__(self, workdir: Path, *, enabled: bool = True):
        self._enabled, self._failed = enabled, False
        if enabled:
            self._path = workdir / "metrics.jsonl"
            self._file = self._path.open("a", encoding="utf-8")
            # Not `SummaryWriter`: a full disk ends its thread, and then the queue to
            # that thread fills up and blocks the run.
            self._events = EventsWriter(str(workdir / "events"))

    def write(self, step: int, **values: float) -> None:
        """Writes the values of one step, with the seconds since the epoch."""
        if not self._enabled:
            return
        known = {k: v if math.isfinite(v) else None for k, v in values.items()}
        line = {"step": step, "time": round(time.time(), 3), **known}
        with self._full_disk_is_no_end():
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
            for name, value in values.items():
                event = event_pb2.Event(  # pyright: ignore[reportAttributeAccessIssue]
                    wall_time=time.time(), step=step, summary=scalar(name, value)
                )
                self._events.write_event(event)
            self._events.flush()

    @contextlib.contextmanager
    def _full_disk_is_no_end(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self._failed:
                logger.error("%s: %s; lines are missing, going on", self._path, error)
            self._failed = True

    def __enter__(self) -> "MetricWriter":
        """Returns itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Finishes both files."""
        if self._enabled:
            for file in (self._file, self._events):
                with self._full_disk_is_no_end():
                    file.close()
