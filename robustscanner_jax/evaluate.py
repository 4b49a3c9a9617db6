"""Benchmarks to the accuracy table."""

import collections
import dataclasses
import heapq
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from robustscanner_jax import accuracy
from robustscanner_jax.error_page.breakdown import scored_words
from robustscanner_jax.error_page.build import SetErrors, build_page
from robustscanner_jax.metrics import (
    NothingToScore,
    SetScore,
    get_protocol,
    normalise_label,
    score_set,
    word_correct,
)
from robustscanner_jax.published import is_contextless
from robustscanner_jax.reading import Reader
from robustscanner_jax.report import Sample, draw_samples
from robustscanner_jax.word_stream import ReadWord, read_words

NUM_SAMPLES = 40
NUM_MISTAKES = 24


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
    predictions: list[accuracy.Prediction]
    sizes: list[tuple[int, int] | None]
    unreadable: int
    samples: list[Sample]
    mistakes: list[ReadWord]
    timed_images: int
    seconds: float


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


class _Tally:
    """Collects the words of one benchmark, in whatever order they come."""

    def __init__(self, name: str, count: int, protocol: str, channel_order: str):
        self.unreadable = self.turned = self.turned_won = 0
        self._name, self._protocol = name, protocol
        self._stride = max(1, count // NUM_SAMPLES)
        self._bgr = channel_order == "BGR"
        self._predictions: dict[int, accuracy.Prediction] = {}
        self._sizes: dict[int, tuple[int, int] | None] = {}
        self._samples: dict[int, Sample] = {}
        self._mistakes: list[tuple[float, int, ReadWord]] = []

    def add(self, word: ReadWord) -> None:
        reading = word.reading
        self._predictions[word.number] = accuracy.Prediction(
            word.id, word.label, reading.text, reading.confidence, self._name
        )
        self._sizes[word.number] = word.size
        self.unreadable += word.error is not None
        self.turned += word.turned
        self.turned_won += word.angle != 0
        right = word_correct(reading.text, word.label, self._protocol)
        place, rest = divmod(word.number + 1, self._stride)
        if rest == 0 and place <= NUM_SAMPLES:
            self._samples[word.number] = self._sample(word, right)
        scored = normalise_label(word.label, self._protocol) is not None
        if scored and not right and word.error is None:
            # Of two that are equally sure, the earlier one stays.
            entry = reading.confidence, -word.number, word
            heapq.heappush(self._mistakes, entry)
            if len(self._mistakes) > NUM_MISTAKES:
                heapq.heappop(self._mistakes)

    def _sample(self, word: ReadWord, right: bool) -> Sample:
        pixels, width = word.row
        image = pixels[:, :width, ::-1] if self._bgr else pixels[:, :width]
        reading = word.reading
        return Sample(image, word.label, reading.text, reading.confidence, right)

    @property
    def predictions(self) -> list[accuracy.Prediction]:
        return _in_order(self._predictions)

    @property
    def sizes(self) -> list[tuple[int, int] | None]:
        return _in_order(self._sizes)

    @property
    def samples(self) -> list[Sample]:
        return _in_order(self._samples)

    @property
    def mistakes(self) -> list[ReadWord]:
        return [word for _, _, word in sorted(self._mistakes, reverse=True)]


def _in_order(by_number: dict[int, Any]) -> list[Any]:
    return [by_number[number] for number in sorted(by_number)]


def read_benchmark(
    reader: Reader,
    name: str,
    source: Any,
    *,
    protocol: str,
    rotate_tall: float | None = None,
    warm: bool = False,
) -> BenchmarkResult:
    """Reads all of a source, whose `[i]` gives `id`, `image` and `text`, and scores it.

    Args:
      reader: what reads.
      name: of the benchmark.
      source: its records.
      protocol: a key of `metrics.PROTOCOLS`.
      rotate_tall: see `rotation.turned_rows`.
      warm: whether the reader has read a batch before; otherwise the first one compiles
        and is left out of the timing.
    """
    rule = reader.preprocessing
    tally = _Tally(name, len(source), protocol, rule.channel_order)
    started = time.perf_counter() if warm else None
    with tqdm(total=len(source), desc=name, unit="img", disable=None) as progress:
        for word in read_words(reader, source, rotate_tall=rotate_tall):
            if started is None:
                started = time.perf_counter()  # the first batch is done
            tally.add(word)
            progress.update()
    untimed = 0 if warm else min(reader.batch_size, len(source))
    score = score_set(
        name,
        [p.prediction for p in tally.predictions],
        [p.label for p in tally.predictions],
        [p.confidence for p in tally.predictions],
        protocol,
    )
    return BenchmarkResult(
        score=dataclasses.replace(
            score,
            contextless=is_contextless(name) or is_contextless(source.name),
            turned=None if rotate_tall is None else tally.turned,
            turned_won=None if rotate_tall is None else tally.turned_won,
        ),
        predictions=tally.predictions,
        sizes=tally.sizes,
        unreadable=tally.unreadable,
        samples=tally.samples,
        mistakes=tally.mistakes,
        timed_images=len(source) - untimed,
        seconds=time.perf_counter() - started if started else 0.0,
    )


def images_per_second(results: Sequence[BenchmarkResult]) -> float | None:
    """Returns how fast the benchmarks were read, decoding of images included.

    None where there was nothing after the first batch, which compiles.
    """
    images = sum(result.timed_images for result in results)
    seconds = sum(result.seconds for result in results if result.timed_images)
    return images / seconds if images else None


def run(
    reader: Reader,
    benchmarks: Sequence[tuple[str, Any]],
    *,
    protocol: str,
    output: Path | None = None,
    errors: bool = False,
    rotate_tall: float | None = None,
    step: int | None = None,
) -> list[BenchmarkResult]:
    """Reads named sources and prints the accuracy table.

    Args:
      reader: what reads.
      benchmarks: (name, source) pairs.
      protocol: a key of `metrics.PROTOCOLS`.
      output: folder for accuracy.json, accuracy.md, predictions.tsv, and a picture of
        samples for each benchmark; None writes nothing.
      errors: whether the folder gets errors.html as well, the page on what was misread.
      rotate_tall: see `rotation.turned_rows`.
      step: of the training run that the network comes from, kept in accuracy.json.

    Raises:
      NothingToScore: the protocol skips every word of every benchmark. Where it does so
        in some alone, they are named and left out.
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
                rotate_tall=rotate_tall,
                warm=bool(results),
            )
        except NothingToScore as error:
            unscored.append(str(error))
        else:
            results.append(result)
    if benchmarks and not results:
        raise NothingToScore("; ".join(unscored))
    scores = [result.score for result in results]
    extra = {
        "rotate_tall": rotate_tall,
        "images_per_second": images_per_second(results),
    }
    if step is not None:
        extra["step"] = step
    print(accuracy.render_terminal(scores, protocol, extra))
    for line in unscored:
        print(f"left out: {line}")
    for result in results:
        if result.unreadable:
            print(
                f"{result.score.name}: {result.unreadable} unreadable images count as "
                "misread"
            )
    if output:
        accuracy.write_accuracy(
            output,
            scores,
            protocol,
            extra,
            predictions=(p for result in results for p in result.predictions),
        )
        (output / "samples").mkdir(parents=True, exist_ok=True)
        for result in results:
            draw_samples(
                result.samples, output / "samples" / f"{result.score.name}.png"
            )
        if errors:
            facts = accuracy.notes(scores, protocol, extra)
            _write_errors(output / "errors.html", reader, results, protocol, facts)
    return results


def _write_errors(
    path: Path,
    reader: Reader,
    results: Sequence[BenchmarkResult],
    protocol: str,
    facts: Sequence[str],
) -> None:
    sets = [
        SetErrors(
            result.score,
            scored_words(result.predictions, result.sizes, protocol),
            result.mistakes,
            result.unreadable,
        )
        for result in results
    ]
    html = build_page(
        sets,
        facts=facts,
        ignore_case=get_protocol(protocol).lower_case,
        channel_order=reader.preprocessing.channel_order,
        explain=getattr(reader, "explain", None),  # an export has no attention maps
    )
    accuracy.write_atomically(path, lambda file: file.write(html))
