"""Worker processes that end with their parent, and whose death is one sentence."""

import concurrent.futures
import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from robustscanner_jax.cores import allowed_cores


def count(asked: int, tasks: int) -> int:
    """Returns how many workers to open: one at least, and no more than tasks.

    Args:
      asked: workers; 0 takes one for each core that this process may use.
      tasks: what there is to do.
    """
    return max(1, min(asked or allowed_cores(), tasks))


@contextlib.contextmanager
def open_workers(
    processes: int, work: Callable[..., Any], *, where: str, advice: str
) -> Iterator[concurrent.futures.ProcessPoolExecutor]:
    """Yields a pool in which `pool.submit(call, ...)` calls `work` in a worker.

    Args:
      processes: workers.
      work: must survive pickling; pickled once a worker, not once a call.
      where: begins the error of a worker that is killed.
      advice: ends it.

    Raises `OSError` where a worker is killed.
    """
    # A forked child of a threaded parent can hang, so each worker starts afresh.
    pool = concurrent.futures.ProcessPoolExecutor(
        processes,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start,
        initargs=(work,),
    )
    with pool:
        try:
            yield pool
        except BrokenProcessPool:
            raise OSError(
                f"{where}: a worker process was killed, perhaps for want of memory; "
                f"{advice}"
            ) from None
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


_work: Callable[..., Any] | None = None  # of this worker process


def call(*arguments: Any) -> Any:
    """Returns what the work of this worker process returns for the arguments."""
    if _work is None:
        raise RuntimeError("the worker process was not prepared")
    return _work(*arguments)


def _start(work: Callable[..., Any]) -> None:
    global _work
    _work = work
    # Stopped from the keyboard, the parent reports; a worker just ends.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Ends this worker when its parent is killed: it would wait for work forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
