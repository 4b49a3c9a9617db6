"""When a run must stop, because going on would hide that something is wrong."""

import logging
from collections.abc import Sequence

from robustscanner_jax.data.reads import Source
from robustscanner_jax.train_log import ExampleCounts, Interval

logger = logging.getLogger(__name__)

# Examples seen before the share of unreadable ones means anything.
MIN_EXAMPLES_FOR_SHARE = 1_000
# Unreadable ones among the latest, whatever the share that a dataset may have.
OUTAGE_SHARE = 0.5
MIN_RECENT_EXAMPLES = 100


class TrainingStopped(RuntimeError):
    """Training cannot go on; the last good checkpoint is in place."""


def check(
    examples: ExampleCounts,
    recent: ExampleCounts,
    interval: Interval,
    *,
    skipped_in_row: int,
    max_skipped: int,
    max_bad_share: float,
) -> None:
    """Looks at data and updates after a line of the log.

    Args:
      examples: since the run was started or resumed.
      recent: since the last line of the log.
      interval: the updates since then.
      skipped_in_row: updates left out, one after the other, up to now.
      max_skipped, max_bad_share: as in the config.

    Raises:
      TrainingStopped: examples cannot be read, or updates are not finite.
    """
    if not examples.good:
        raise TrainingStopped(
            f"all {examples.total} examples were left out: {examples.left_out()}"
        )
    many = examples.total >= MIN_EXAMPLES_FOR_SHARE
    if many and examples.unreadable > max_bad_share * examples.total:
        raise TrainingStopped(
            f"{examples.unreadable} of {examples.total} examples are unreadable, more "
            f"than config.data.max_bad_share={max_bad_share:.1%}; the log names them"
        )
    stop = skipped_in_row >= max_skipped
    outage = recent.unreadable > OUTAGE_SHARE * recent.total
    empty = interval.without_examples()
    if (outage and recent.total >= MIN_RECENT_EXAMPLES) or (stop and empty):
        raise TrainingStopped(
            f"left out of the last {recent.total} examples: {recent.left_out()}; "
            f"{empty} of the last {len(interval.metrics)} updates had none that "
            "counts; is the storage still there? The same command goes on"
        )
    if stop:
        raise TrainingStopped(
            f"loss or gradient were not finite in {skipped_in_row} updates in a row; "
            "lower config.train.peak_lr, or look at the data"
        )


def compare_lengths(sources: Sequence[Source], before: Sequence[int]) -> None:
    """Warns of data that changed: every epoch's order depends on how many they are.

    Args:
      sources: of the run.
      before: their lengths at the checkpoint; empty where it does not know them.
    """
    for source, length in zip(sources, before, strict=bool(before)):
        if len(source) != length:
            logger.warning(
                "source %s had %s examples at the checkpoint and has %s now: its order "
                "is another, and in this epoch some come twice or not at all",
                source.name,
                f"{length:,}",
                f"{len(source):,}",
            )
