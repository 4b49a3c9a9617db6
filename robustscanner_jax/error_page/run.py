"""From an evaluation to errors.html."""

from pathlib import Path

from robustscanner_jax import accuracy
from robustscanner_jax.error_page.breakdown import scored_words
from robustscanner_jax.error_page.build import SetErrors, build_page
from robustscanner_jax.evaluate import Evaluation
from robustscanner_jax.metrics import get_protocol
from robustscanner_jax.reading import Reader
from robustscanner_jax.whole_file import write_whole_escaped


def write_errors(evaluation: Evaluation, reader: Reader, path: Path) -> None:
    """Writes the page on what was misread.

    Args:
      evaluation: at least one of its benchmarks is scored.
      reader: what read them; shows where it looked, if it can.
      path: of the page, in a folder that exists.
    """
    protocol = evaluation.protocol
    sets = [
        SetErrors(
            result.score,
            scored_words(result.predictions, result.sizes, protocol),
            result.mistakes,
            result.unreadable,
        )
        for result in evaluation.results
    ]
    html = build_page(
        sets,
        facts=accuracy.notes(evaluation.scores, protocol, evaluation.facts()),
        ignore_case=get_protocol(protocol).lower_case,
        channel_order=reader.preprocessing.channel_order,
        # An export has no attention maps.
        explain=getattr(reader, "explain_view", None),
    )
    write_whole_escaped(path, html)
