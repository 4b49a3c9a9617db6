"""Training metrics as JSON lines and TensorBoard events."""

import json
import math
import time
from pathlib import Path

from tensorboardX import SummaryWriter


class MetricWriter:
    """Appends one line a call to `metrics.jsonl`, and the same to an event file.

    The file survives resuming; a step that is trained again comes again. Values that
    are not finite become null: JSON has no NaN.

    Args:
      workdir: the run folder.
      enabled: False writes nothing, for all processes but one.
    """

    def __init__(self, workdir: Path, *, enabled: bool = True):
        self._enabled = enabled
        if enabled:
            self._file = (workdir / "metrics.jsonl").open("a", encoding="utf-8")
            self._events = SummaryWriter(str(workdir), flush_secs=30)

    def write(self, step: int, **values: float) -> None:
        """Writes the values of one step, with the seconds since the epoch."""
        if not self._enabled:
            return
        known = {k: v if math.isfinite(v) else None for k, v in values.items()}
        line = {"step": step, "time": round(time.time(), 3), **known}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def __enter__(self) -> "MetricWriter":
        """Returns itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Finishes both files."""
        if self._enabled:
            self._file.close()
            self._events.close()
