"""What became of every record of a conversion: counted per shard, then merged.

The counts of a shard are written just before the shard itself, so that a run that was
killed still ends with a report over everything, equal to that of a run that was not.
"""

import collections
import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.checks import REASONS, Dropped
from data_prep.overlap import repeats
from robustscanner_jax.data.records import Record
from robustscanner_jax.whole_file import write_whole

NUM_EXAMPLES = 5  # of each reason, in the report
_BAR = 40  # characters, of a histogram in the text


def digest(data: bytes) -> int:
    """Returns 64 bits of a hash: among 10 million records, a collision in 370,000."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


class ShardCounts:
    """The counts of one shard, filled record by record."""

    def __init__(self):
        self.came = 0
        self.dropped = collections.Counter[str]()
        self.examples: dict[str, list[dict[str, str]]] = {}
        self.lengths = collections.Counter[str]()
        self.characters = collections.Counter[str]()
        self.image_bytes = 0
        self._digests: list[tuple[int, int]] = []

    def drop(self, dropped: Dropped) -> None:
        """Counts a record that does not enter."""
        self.came += 1
        self.dropped[dropped.reason] += 1
        examples = self.examples.setdefault(dropped.reason, [])
        if len(examples) < NUM_EXAMPLES:
            examples.append({"id": dropped.id, "detail": dropped.detail})

    def keep(self, record: Record) -> None:
        """Counts a record that was written."""
        self.came += 1
        self.lengths[str(len(record.text))] += 1
        self.characters.update(record.text)
        self.image_bytes += len(record.image)
        self._digests.append((digest(record.image), digest(record.text.encode())))

    def save(self, folder: Path, shard: int) -> None:
        """Writes the counts and the digests of the images and labels."""
        folder.mkdir(parents=True, exist_ok=True)
        digests = np.array(self._digests, np.uint64).reshape(-1, 2)
        write_whole(folder / f"{shard:05d}.digests", digests.tobytes())
        counts = {k: v for k, v in vars(self).items() if not k.startswith("_")}
        write_whole(folder / f"{shard:05d}.json", json.dumps(counts))


def merge(folder: Path, num_shards: int) -> tuple[dict[str, Any], np.ndarray]:
    """Returns the counts of all shards as a report, and the digests `[n, 2]` uint64."""
    came, image_bytes = 0, 0
    dropped, lengths = collections.Counter(), collections.Counter()
    characters, examples, digests = collections.Counter(), {}, []
    for shard in range(num_shards):
        counts = json.loads((folder / f"{shard:05d}.json").read_text())
        came += counts["came"]
        image_bytes += counts["image_bytes"]
        dropped.update(counts["dropped"])
        lengths.update(counts["lengths"])
        characters.update(counts["characters"])
        for reason, more in counts["examples"].items():
            examples[reason] = (examples.get(reason, []) + more)[:NUM_EXAMPLES]
        raw = (folder / f"{shard:05d}.digests").read_bytes()
        digests.append(np.frombuffer(raw, np.uint64).reshape(-1, 2))
    reasons = [reason for reason in REASONS if reason in dropped]
    report = {
        "in": came,
        "out": came - dropped.total(),
        "dropped": {
            reason: {"count": dropped[reason], "examples": examples[reason]}
            for reason in reasons
        },
        "image_bytes": image_bytes,
        "label_lengths": {key: lengths[key] for key in sorted(lengths, key=int)},
        "characters": dict(sorted(characters.items(), key=lambda i: (-i[1], i[0]))),
    }
    return report, np.concatenate(digests)


def count_duplicates(
    digests: np.ndarray, identify: Callable[[int], str]
) -> dict[str, Any]:
    """Returns how many records repeat an earlier image, to the byte.

    Args:
      digests: of image and label, `[n, 2]` uint64. 16 bytes a record, and as much
        again for sorting.
      identify: the id of a record, for the examples.
    """
    first = repeats(digests[:, 0])
    repeated = np.flatnonzero(first != np.arange(len(first)))
    originals = first[repeated]
    other_label = digests[repeated, 1] != digests[originals, 1]
    pairs = list(zip(repeated.tolist(), originals.tolist(), strict=True))
    return {
        "images": len(repeated),
        "with_another_label": int(other_label.sum()),
        "examples": [
            {"id": identify(again), "repeats": identify(original)}
            for again, original in pairs[:NUM_EXAMPLES]
        ],
    }


def as_text(report: dict[str, Any]) -> str:
    """Returns the report as lines for a terminal."""
    run = report["run"]
    out, came = report["out"], report["in"]
    lines = [
        f"{report['name']}: {out:,} of {came:,} records, "
        f"{report['image_bytes'] / 1e6:,.1f} MB of images in {report['shards']} shards",
        f"this run: {run['entries']:,} entries in {run['seconds']:.1f} s, "
        f"{run['entries_per_second']:,.0f} a second, {run['workers']}",
    ]
    for reason, entry in report["dropped"].items():
        lines.append(f"dropped, {reason}: {entry['count']:,}")
        lines += [f"    {e['id']}: {e['detail'][:200]}" for e in entry["examples"]]
    twins = report["duplicates"]
    lines.append(
        f"images that repeat an earlier one: {twins['images']:,}, of them "
        f"{twins['with_another_label']:,} with another label"
    )
    lines += [f"    {e['id']} repeats {e['repeats']}" for e in twins["examples"]]
    lines += ["label lengths:", *histogram(report["label_lengths"].items())]
    characters = list(report["characters"].items())
    lines.append(f"characters, {len(characters)} different:")
    lines.append("    " + " ".join(f"{c!r}:{n:,}" for c, n in characters[:100]))
    return "\n".join(lines)


def histogram(counts: Iterable[tuple[str, int]]) -> list[str]:
    """Returns one line with a bar for each (name, count)."""
    pairs = list(counts)
    most = max((count for _, count in pairs), default=1)
    return [
        f"    {name:>6} {count:>10,} {'#' * round(_BAR * count / most)}"
        for name, count in pairs
    ]
