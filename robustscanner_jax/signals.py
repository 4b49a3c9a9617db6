"""Leaving on request: SIGTERM and Ctrl-C end a run after the step that is running."""

import logging
import signal
from types import FrameType

logger = logging.getLogger(__name__)


class StopSignals:
    """Notices SIGTERM and SIGINT while it is entered; a second one ends the process.

    Attributes:
      received: whether one came.
    """

    received: bool = False

    def __enter__(self) -> "StopSignals":
        """Takes over both signals."""
        self._before = {
            number: signal.signal(number, self._note)
            for number in (signal.SIGTERM, signal.SIGINT)
        }
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        logger.warning(
            "%s: leaving once the running update is saved, which waits for its data "
            "and for compilation; another one ends at once",
            signal.Signals(number).name,
        )
        self.received = True
        signal.signal(number, self._before[signal.Signals(number)])

    def __exit__(self, *exception: object) -> None:
        """Gives both signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
