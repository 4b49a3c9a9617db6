"""A profiler trace of a range of updates, for TensorBoard or Perfetto."""

from pathlib import Path

import jax


class ProfiledUpdates:
    """Traces what host and devices do from one update to another.

    Args:
      folder: of the trace, in TensorBoard's layout.
      first, last: updates, both included; (0, 0) traces nothing.
    """

    def __init__(self, folder: Path, first: int, last: int):
        self._folder, self._first, self._last = folder, first, last
        self._running = False

    def before(self, step: int) -> None:
        """Starts the trace before its first update, or the first of a resumed run."""
        if self._first <= step <= self._last and not self._running:
            jax.profiler.start_trace(self._folder)
            self._running = True

    def after(self, step: int, results: object) -> None:
        """Ends the trace after its last update, once `results` are computed."""
        if self._running and step >= self._last:
            jax.block_until_ready(results)
            self.__exit__()

    def __enter__(self) -> "ProfiledUpdates":
        """Returns itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Ends a trace that is still running."""
        if self._running:
            jax.profiler.stop_trace()
            self._running = False
