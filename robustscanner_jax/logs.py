"""How this package's own lines look on stderr."""

import logging


def show() -> None:
    """Sends them there from information on, each with its time; once is enough."""
    ours = logging.getLogger("robustscanner_jax")
    if ours.handlers:
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    ours.propagate = False
