"""Ends a run that hangs, so that whoever started it can start it again."""

import faulthandler
import sys


class Watchdog:
    """Ends the process with status 1 where nothing is finished for too long.

    Python's own fault handler watches from a thread that needs no lock; before it ends
    the process it prints what every thread was doing.

    Args:
      seconds: from one call of `alive` to the next, compiling included; 0 watches
        nothing.
    """

    def __init__(self, seconds: int):
        self._seconds = seconds

    def alive(self) -> None:
        """Gives what comes next its time."""
        if self._seconds:
            # Not `sys.stderr`, which may be anything.
            faulthandler.dump_traceback_later(
                self._seconds, exit=True, file=sys.__stderr__ or sys.stderr
            )

    def rest(self) -> None:
        """Stops watching until the next call of `alive`."""
        if self._seconds:
            faulthandler.cancel_dump_traceback_later()

    def __enter__(self) -> "Watchdog":
        """Returns itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Stops watching."""
        self.rest()
