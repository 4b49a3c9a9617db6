"""Benchmarks to the accuracy table."""

import collections
import dataclasses
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from robustscanner_jax import accuracy
from robustscanner_jax.data.reads import Source
from robustscanner_jax.metrics import NothingToScore, SetScore, score_set
from robustscanner_jax.predictions import Prediction
from robustscanner_jax.published import is_contextless
from robustscanner_jax.reading import Reader
from robustscanner_jax.report import Sample, draw_samples
from robustscanner_jax.tally import Tally
from robustscanner_jax.views import AS_IT_IS, Views
from robustscanner_jax.word_stream import ReadWord, read_words


@dataclasses.dataclass(frozen=True)
class BenchmarkResult:
    """One benchmark, read.

    Attributes:
      score: as the table shows it.
      predictions: one a record, in order.
      sizes: height and width of each crop in pixels; None where it is unreadable.
      unreadable: records whose image or entry is damaged; they count as misread.
      samples: images from all over the set with label and prediction, for a picture.
      mistakes: the words misread with the highest confidence, that first.
      timed_images, seconds: how long reading took, without a first batch that compiled.
    """

    score: SetScore
    predictions: list[Prediction]
    sizes: list[tuple[int, int] | None]
    unreadable: int
    samples: list[Sample]
    mistakes: list[ReadWord]
    timed_images: int
    seconds: float


class WeightsRead(NamedTuple):
    """Which weights were read.

    Attributes:
      path: file or folder as it was given, or the name of weights that ship.
      step: of the training run that they come from; None where it is not known.
      allowlist: the characters they were restricted to; None where to none.
    """

    path: str
    step: int | None = None
    allowlist: str | None = None


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Some benchmarks, read with one reader.

    Attributes:
      results: one a benchmark that is scored, in order.
      unscored: a sentence on each benchmark of which the protocol skips every word.
      protocol: a key of `metrics.PROTOCOLS`.
      views: of a crop that could be read.
      weights: what was read; None where the caller did not say.
    """

    results: list[BenchmarkResult]
    unscored: list[str]
    protocol: str
    views: Views = AS_IT_IS
    weights: WeightsRead | None = None

    @property
    def scores(self) -> list[SetScore]:
        """The rows of the table."""
        return [result.score for result in self.results]

    def facts(self) -> dict[str, Any]:
        """Returns what the table says besides: `extra` in accuracy.json."""
        facts: dict[str, Any] = {
            "rotate_tall": self.views.rotate_tall,
            "look_closer": self.views.look_closer,
            "images_per_second": images_per_second(self.results),
        }
        if self.weights:
            facts["weights"] = self.weights.path
            if self.weights.step is not None:
                facts["step"] = self.weights.step
            if self.weights.allowlist is not None:
                facts["allowlist"] = self.weights.allowlist
        return facts


def parse_benchmarks(texts: Iterable[str]) -> list[tuple[str, str]]:
    """Returns name and source of each `NAME:SOURCE`.

    Raises:
      ValueError: one of them is missing, or a name cannot name a file or comes twice.
    """
    benchmarks = [_parse_benchmark(text) for text in texts]
    for name, times in collections.Counter(name for name, _ in benchmarks).items():
        if times > 1:
            raise ValueError(f"benchmark {name}: {times} have this name, expected one")
    return benchmarks


def _parse_benchmark(text: str) -> tuple[str, str]:
    name, colon, source = text.partition(":")
    if not (name and colon and source) or "/" in name:
        raise ValueError(
            f"benchmark {text!r}: expected NAME:PATH, such as IIIT5K:data/iiit5k"
        )
    return name, source


def read_benchmark(
    reader: Reader,
    name: str,
    source: Source,
    *,
    protocol: str,
    views: Views = AS_IT_IS,
    warm: bool = False,
) -> BenchmarkResult:
    """Reads all of a source and scores it.

    Args:
      reader: what reads.
      name: of the benchmark.
      source: its records.
      protocol: a key of `metrics.PROTOCOLS`.
      views: of a crop that may be read.
      warm: whether the reader has read a batch before; otherwise the first one compiles
        and is left out of the timing.

    Raises:
      NothingToScore: the protocol skips every word.
    """
    rule = reader.preprocessing
    tally = Tally(name, len(source), protocol, rule.channel_order)
    started = time.perf_counter()
    with tqdm(total=len(source), desc=name, unit="img", disable=None) as progress:
        batches = read_words(reader, source, views=views)
        for number, words in enumerate(batches):
            for word in words:
                tally.add(word)
            progress.update(len(words))
            if number == 0 and not warm:
                started = time.perf_counter()  # none of the second batch is read
    untimed = 0 if warm else min(reader.batch_size, len(source))
    score = score_set(
        name,
        [p.prediction for p in tally.predictions],
        [p.label for p in tally.predictions],
        [p.confidence for p in tally.predictions],
        protocol,
    )
    counted: dict[str, int] = {}
    if views.rotate_tall is not None:
        counted |= {"turned": tally.turned, "turned_won": tally.turned_won}
    if views.look_closer:
        counted |= {"closer": tally.closer, "closer_won": tally.closer_won}
    return BenchmarkResult(
        score=dataclasses.replace(
            score,
            contextless=is_contextless(name) or is_contextless(source.name),
            **counted,
        ),
        predictions=tally.predictions,
        sizes=tally.sizes,
        unreadable=tally.unreadable,
        samples=tally.samples,
        mistakes=tally.mistakes,
        timed_images=len(source) - untimed,
        seconds=time.perf_counter() - started,
    )


def images_per_second(results: Sequence[BenchmarkResult]) -> float | None:
    """Returns how fast the benchmarks were read, decoding of images included.

    None where there was nothing after the first batch, which compiles.
    """
    images = sum(result.timed_images for result in results)
    seconds = sum(result.seconds for result in results if result.timed_images)
    return images / seconds if images else None


def read_benchmarks(
    reader: Reader,
    benchmarks: Sequence[tuple[str, Source]],
    *,
    protocol: str,
    views: Views = AS_IT_IS,
    weights: WeightsRead | None = None,
) -> Evaluation:
    """Reads named sources; neither prints nor writes.

    Args:
      reader: what reads.
      benchmarks: (name, source) pairs.
      protocol: a key of `metrics.PROTOCOLS`.
      views: of a crop that could be read.
      weights: what `reader` was made of, kept with the results.

    Raises:
      NothingToScore: the protocol skips every word of every benchmark. Where it does so
        in some alone, they are among the `unscored`.
    """
    results: list[BenchmarkResult] = []
    unscored: list[str] = []
    for name, source in benchmarks:
        try:
            result = read_benchmark(
                reader,
                name,
                source,
                protocol=protocol,
                views=views,
                warm=bool(results),
            )
        except NothingToScore as error:
            unscored.append(str(error))
        else:
            results.append(result)
    if benchmarks and not results:
        raise NothingToScore("; ".join(unscored))
    return Evaluation(results, unscored, protocol, views, weights)


def print_table(evaluation: Evaluation) -> None:
    """Prints the accuracy table, and what was left out of it or could not be read."""
    table = accuracy.render_terminal(
        evaluation.scores, evaluation.protocol, evaluation.facts()
    )
    print(table)
    for line in evaluation.unscored:
        print(f"left out: {line}")
    for result in evaluation.results:
        if result.unreadable:
            print(
                f"{result.score.name}: {result.unreadable} unreadable images count as "
                "misread"
            )


def write_results(evaluation: Evaluation, output: Path) -> None:
    """Writes accuracy.json, accuracy.md, predictions.tsv and a picture of each set.

    Args:
      evaluation: at least one of its benchmarks is scored.
      output: the folder; made if need be. In its accuracy.json the weights of the run
        whose folder it is are ".", wherever that folder is moved.
    """
    facts = evaluation.facts()
    if evaluation.weights and _same_folder(evaluation.weights.path, output):
        facts["weights"] = "."
    accuracy.write_accuracy(
        output,
        evaluation.scores,
        evaluation.protocol,
        facts,
        predictions=(p for result in evaluation.results for p in result.predictions),
    )
    (output / "samples").mkdir(exist_ok=True)
    for result in evaluation.results:
        path = output / "samples" / f"{result.score.name}.png"
        draw_samples(result.samples, path)


def _same_folder(path: str, folder: Path) -> bool:
    # A weights file is no folder, and a name that ships need not be a path.
    return os.path.isdir(path) and folder.is_dir() and folder.samefile(path)
