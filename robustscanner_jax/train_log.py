"""What a run says of itself: sums of the device, clocks and counts of the host."""

import collections
import contextlib
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import jax
import jax.monitoring
import numpy as np
from tqdm import tqdm

from robustscanner_jax import distributed
from robustscanner_jax.data.transforms import Problem
from robustscanner_jax.metric_writer import MetricWriter
from robustscanner_jax.metrics import SetScore
from robustscanner_jax.steps import Metrics

logger = logging.getLogger(__name__)

# What JAX calls a finished compilation.
COMPILED = "/jax/core/compile/backend_compile_duration"


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
        together = distributed.total(np.array(seen, np.int64)).tolist()
        named = {
            problem.name: self._before[problem] + count
            for problem, count in zip(Problem, together, strict=True)
            if self._before[problem] + count
        }
        return ExampleCounts(named)

    def since(self, before: "ExampleCounts") -> "ExampleCounts":
        """Returns the counts of what came after an earlier state of them."""
        counts = self._counts - before._counts
        return ExampleCounts({p.name: n for p, n in counts.items()})

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


class Clock:
    """Where the time of a run goes.

    Attributes:
      compilations: computations compiled, or fetched from the cache, since it began.
    """

    PARTS = ("data_wait", "saving", "evaluating", "compiling")

    def __init__(self):
        self.compilations = 0
        self.began = time.perf_counter()
        self._seconds: dict[str, float] = dict.fromkeys(self.PARTS, 0.0)

    def __enter__(self) -> "Clock":
        """Starts to count compilations."""
        jax.monitoring.register_event_duration_secs_listener(self._notice)
        return self

    def __exit__(self, *exception: object) -> None:
        """Stops to count compilations."""
        jax.monitoring.unregister_event_duration_listener(self._notice)

    def _notice(self, event: str, duration_secs: float, **kwargs: object) -> None:
        del duration_secs, kwargs
        self.compilations += event == COMPILED

    @contextlib.contextmanager
    def spent(self, part: str) -> Iterator[None]:
        """Adds the time of its body to a part."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[part] += time.perf_counter() - began

    @contextlib.contextmanager
    def maybe_compiling(self) -> Iterator[None]:
        """Adds the time of its body to "compiling" if anything was compiled in it."""
        before, began = self.compilations, time.perf_counter()
        yield
        if self.compilations > before:
            self._seconds["compiling"] += time.perf_counter() - began

    def seconds(self) -> dict[str, float]:
        """Returns the seconds of each part so far, and "total" since it began."""
        return self._seconds | {"total": time.perf_counter() - self.began}

    def goodput(self) -> float:
        """Returns the share of time since it began that went into training proper.

        At least: while the host waits for data, the device may still be busy with the
        update before.
        """
        seconds = self.seconds()
        lost = sum(seconds[part] for part in self.PARTS)
        return max(0.0, 1 - lost / max(seconds["total"], 1e-9))


class Interval:
    """The updates since the last line of the log.

    Args:
      clock: of the run.

    Attributes:
      metrics: of each update, still on the device.
    """

    def __init__(self, clock: Clock):
        self.metrics: list[Metrics] = []
        self._clock = clock
        self._before = clock.seconds()

    def without_examples(self) -> int:
        """Returns how many updates had no example that counts; waits for the device."""
        rows = jax.device_get([metrics["rows"] for metrics in self.metrics])
        return sum(int(count) == 0 for count in rows)

    def summary(self, *, batch_size: int) -> dict[str, float]:
        """Returns means over the interval; waits for the device.

        Over the updates that were applied, NaN where none was: `loss` in nats a token,
        `token_accuracy` and the mean `grad_norm`; `skipped_updates` counts the others.
        `images_per_second` over the time that was not spent on
        saving, evaluating and compiling. Of the whole time, the shares
        `data_wait_share`, `saving_share`, `evaluating_share` and `compiling_share`.
        """
        fetched = jax.device_get(self.metrics)
        after = self._clock.seconds()
        spent = {part: after[part] - self._before[part] for part in after}
        total = {k: float(np.sum([m[k] for m in fetched])) for k in fetched[0]}
        applied = len(fetched) - total["skipped"]
        pauses = spent["saving"] + spent["evaluating"] + spent["compiling"]
        return {
            "loss": _mean(total["loss_sum"], total["tokens"]),
            "token_accuracy": _mean(total["correct"], total["tokens"]),
            "grad_norm": _mean(total["grad_norm"], applied),
            "skipped_updates": total["skipped"],
            "images_per_second": (
                len(fetched) * batch_size / max(spent["total"] - pauses, 1e-9)
            ),
        } | {
            f"{part}_share": spent[part] / max(spent["total"], 1e-9)
            for part in Clock.PARTS
        }


def _mean(total: float, count: float) -> float:
    return total / count if count else math.nan


def accuracies(scores: Sequence[SetScore]) -> dict[str, float]:
    """Returns the accuracy of each set, in [0, 1], by its name in the metrics."""
    return {f"accuracy/{score.name}": score.accuracy for score in scores}


class RunLog:
    """What a run says while it trains: progress, metrics.jsonl and TensorBoard.

    Args:
      workdir: the run folder.
      steps: updates done before, and in all.
      batch_size: examples an update.
      rates: the learning rate of each update of the run.
      clock: of the run.
      peak_images: images a second at which the devices would reach their peak, the
        denominator of MFU; None where it is unknown.
      enabled: False says nothing, for all processes but one.
    """

    def __init__(
        self,
        workdir: Path,
        *,
        steps: tuple[int, int],
        batch_size: int,
        rates: Sequence[float] | np.ndarray,
        clock: Clock,
        peak_images: float | None,
        enabled: bool,
    ):
        first, last = steps
        self._batch_size, self._rates = batch_size, rates
        self._clock, self._peak_images, self._enabled = clock, peak_images, enabled
        self._writer = MetricWriter(workdir, enabled=enabled)
        # None: where it is a terminal that reads it.
        self._progress = tqdm(
            total=last,
            initial=first,
            desc="train",
            unit="step",
            disable=None if enabled else True,
        )
        self._closing = contextlib.ExitStack()

    def step(self) -> None:
        """Moves the progress bar."""
        self._progress.update()

    def write(self, step: int, interval: Interval, examples: ExampleCounts) -> None:
        """Writes the line of an interval that ends with this update."""
        values = interval.summary(batch_size=self._batch_size)
        values["learning_rate"] = float(self._rates[step - 1])
        if self._peak_images:
            values["mfu"] = values["images_per_second"] / self._peak_images
        values["goodput"] = self._clock.goodput()
        values["compilations"] = self._clock.compilations
        values |= {f"left_out/{name}": n for name, n in examples.left_out().items()}
        self._writer.write(step, **values)
        mfu = f"{values['mfu']:.0%} MFU, " if "mfu" in values else ""
        line = (
            f"loss {values['loss']:.4f}, tokens right {values['token_accuracy']:.1%}, "
            f"{values['images_per_second']:.0f} img/s, {mfu}"
            f"waiting for data {values['data_wait_share']:.0%}"
        )
        if left_out := examples.total - examples.good:
            line += f", {left_out / examples.total:.2%} left out"
        self._progress.set_postfix_str(line)
        if self._progress.disable and self._enabled:
            logger.info("step %d: %s", step, line)

    def begin(self, step: int) -> None:
        """Says that the first update went out: compiling it may have taken minutes."""
        if self._progress.disable and self._enabled:
            seconds = self._clock.seconds()
            logger.info(
                "step %d: %.0f s to here, of which %.0f s compiling and %.0f s waiting "
                "for data",
                step,
                seconds["total"],
                seconds["compiling"],
                seconds["data_wait"],
            )

    def write_accuracies(self, step: int, scores: Sequence[SetScore]) -> None:
        """Writes the accuracy of each set."""
        self._writer.write(step, **accuracies(scores))

    def __enter__(self) -> "RunLog":
        """Returns itself."""
        self._closing.callback(self._say_where_the_time_went)  # comes last
        self._closing.enter_context(self._writer)
        self._closing.enter_context(self._progress)
        return self

    def __exit__(self, *exception: object) -> None:
        """Finishes the files, and says where the time went."""
        self._closing.close()

    def _say_where_the_time_went(self) -> None:
        seconds = self._clock.seconds()
        if self._enabled:
            logger.info(
                "%.0f s, goodput %.0f %%; %s; %d compilations",
                seconds["total"],
                100 * self._clock.goodput(),
                ", ".join(
                    f"{part.replace('_', ' ')} {seconds[part] / seconds['total']:.0%}"
                    for part in Clock.PARTS
                ),
                self._clock.compilations,
            )
