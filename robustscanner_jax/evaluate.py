"""Benchmarks to the accuracy table."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from robustscanner_jax import accuracy
from robustscanner_jax.data.pipeline import evaluation_batches
from robustscanner_jax.metrics import SetScore, score_set, word_correct
from robustscanner_jax.reading import Reader, Reading
from robustscanner_jax.report import Sample, draw_samples

# Read as nothing, with no confidence: an image that cannot be decoded is misread.
UNREADABLE = Reading(text="", confidence=0.0, character_confidences=())
# Of a record that is damaged as a whole. Not empty: that would be read right.
LOST_LABEL = "(label lost)"
NUM_SAMPLES = 40


@dataclasses.dataclass(frozen=True)
class BenchmarkResult:
    """One benchmark, read.

    Attributes:
      score: as the table shows it.
      predictions: one a record, in order.
      unreadable: records whose image or entry is damaged; they count as misread.
      samples: images from all over the set with label and prediction, for a picture.
    """

    score: SetScore
    predictions: list[accuracy.Prediction]
    unreadable: int
    samples: list[Sample]


def parse_benchmark(text: str) -> tuple[str, str]:
    """Returns name and source of `NAME:SOURCE`.

    Raises:
      ValueError: one of them is missing, or the name cannot name a file.
    """
    name, colon, source = text.partition(":")
    if not (name and colon and source) or "/" in name:
        raise ValueError(
            f"benchmark {text!r}: expected NAME:PATH, such as IIIT5K:data/iiit5k"
        )
    return name, source


def read_benchmark(
    recognizer: Reader, name: str, source: Any, *, protocol: str
) -> BenchmarkResult:
    """Reads all of a source, whose `[i]` gives `id`, `image` and `text`, and scores it.

    The next batch is decoded by the host while the device reads this one.
    """
    rule = recognizer.preprocessing
    stride = max(1, len(source) // NUM_SAMPLES)
    predictions: list[accuracy.Prediction] = []
    samples: list[Sample] = []
    unreadable = 0

    def finish(decoded, batch, elements) -> None:
        nonlocal unreadable
        readings = recognizer.to_readings(decoded, len(elements))
        for row, (element, reading) in enumerate(zip(elements, readings, strict=True)):
            label = element.get("text", "")
            if "error" in element:
                unreadable += 1
                reading = UNREADABLE
                label = label or LOST_LABEL
            predictions.append(
                accuracy.Prediction(
                    id=element["id"],
                    label=label,
                    prediction=reading.text,
                    confidence=reading.confidence,
                    set_name=name,
                )
            )
            if len(predictions) % stride == 0 and len(samples) < NUM_SAMPLES:
                image = batch["image"][row, :, : batch["width"][row]]
                if rule.channel_order == "BGR":
                    image = image[..., ::-1]
                right = word_correct(reading.text, label, protocol)
                samples.append(
                    Sample(image, label, reading.text, reading.confidence, right)
                )
        progress.update(len(elements))

    with tqdm(total=len(source), desc=name, unit="img", disable=None) as progress:
        waiting = None
        for batch, elements in evaluation_batches(
            source, rule=rule, batch_size=recognizer.batch_size
        ):
            decoded = recognizer.decode(batch["image"], batch["width"])
            if waiting:
                finish(*waiting)
            waiting = decoded, batch, elements
        if waiting:
            finish(*waiting)

    score = score_set(
        name,
        [p.prediction for p in predictions],
        [p.label for p in predictions],
        [p.confidence for p in predictions],
        protocol,
    )
    return BenchmarkResult(score, predictions, unreadable, samples)


def run(
    recognizer: Reader,
    benchmarks: Sequence[tuple[str, Any]],
    *,
    protocol: str,
    output: Path | None = None,
) -> list[BenchmarkResult]:
    """Reads named sources and prints the accuracy table.

    Args:
      recognizer: what reads.
      benchmarks: (name, source) pairs.
      protocol: a key of `metrics.PROTOCOLS`.
      output: folder for accuracy.json, accuracy.md, predictions.tsv and a picture of
        samples for each benchmark; None writes nothing.
    """
    results = [
        read_benchmark(recognizer, name, source, protocol=protocol)
        for name, source in benchmarks
    ]
    scores = [result.score for result in results]
    print(accuracy.render_terminal(scores, protocol))
    for (name, _), result in zip(benchmarks, results, strict=True):
        if result.unreadable:
            print(f"{name}: {result.unreadable} unreadable images count as misread")
    if output:
        accuracy.write_accuracy(
            output,
            scores,
            protocol,
            predictions=(p for result in results for p in result.predictions),
        )
        (output / "samples").mkdir(parents=True, exist_ok=True)
        for (name, _), result in zip(benchmarks, results, strict=True):
            draw_samples(result.samples, output / "samples" / f"{name}.png")
    return results
