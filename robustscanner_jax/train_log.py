"""What a stretch of training did: sums of the device, clocks and counts of the host."""

import collections
import time
from collections.abc import Mapping

import jax
import numpy as np

from robustscanner_jax import distributed
from robustscanner_jax.data.transforms import Problem
from robustscanner_jax.steps import Metrics


class ExampleCounts:
    """Examples seen since the run began, by what is wrong with them.

    Args:
      named: counts so far by name, as a checkpoint keeps them; "none" are the good.
    """

    def __init__(self, named: Mapping[str, int]):
        self._counts = collections.Counter(
            {Problem[name.upper()]: count for name, count in named.items()}
        )
        self._before = self._counts.copy()

    def everywhere(self) -> "ExampleCounts":
        """Returns the counts of all processes together; each of them must call it."""
        seen = [self._counts[p] - self._before[p] for p in Problem]
        together = distributed.total(np.array(seen, np.int32)).tolist()
        named = {
            problem.name: self._before[problem] + count
            for problem, count in zip(Problem, together, strict=True)
            if self._before[problem] + count
        }
        return ExampleCounts(named)

    def add(self, problems: np.ndarray) -> None:
        """Counts the rows of a batch."""
        values, counts = np.unique(problems, return_counts=True)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            self._counts[Problem(value)] += count

    def named(self) -> dict[str, int]:
        """Returns all counts by name, "none" included."""
        return {p.name.lower(): n for p, n in sorted(self._counts.items())}

    def left_out(self) -> dict[str, int]:
        """Returns the counts of examples that were left out, by reason."""
        return {name: n for name, n in self.named().items() if name != "none"}

    @property
    def good(self) -> int:
        """Examples that were trained on."""
        return self._counts[Problem.NONE]

    @property
    def unreadable(self) -> int:
        """Damaged records and images."""
        return self._counts[Problem.UNREADABLE]

    @property
    def total(self) -> int:
        """All examples."""
        return sum(self._counts.values())


class Interval:
    """The updates since the last line of the log.

    Attributes:
      metrics: of each update, still on the device.
      waited: seconds for which the loop waited for data.
    """

    def __init__(self):
        self.metrics: list[Metrics] = []
        self.waited = 0.0
        self._start = time.perf_counter()

    def summary(self, *, batch_size: int) -> dict[str, float]:
        """Returns means over the interval; waits for the device.

        `loss` in nats a token, `token_accuracy` and `data_wait_share` in [0, 1],
        `images_per_second`, the mean `grad_norm`, and the count `skipped_updates`.
        """
        fetched = jax.device_get(self.metrics)
        seconds = time.perf_counter() - self._start
        total = {k: float(np.sum([m[k] for m in fetched])) for k in fetched[0]}
        tokens = max(total["tokens"], 1.0)
        return {
            "loss": total["loss_sum"] / tokens,
            "token_accuracy": total["correct"] / tokens,
            "grad_norm": total["grad_norm"] / len(fetched),
            "skipped_updates": total["skipped"],
            "images_per_second": len(fetched) * batch_size / seconds,
            "data_wait_share": self.waited / seconds,
        }
