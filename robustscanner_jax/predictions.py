r"""What was read of each word, as lines of predictions.tsv.

A backslash, tab, line feed and carriage return inside a field are written as `\\`,
`\t`, `\n`, `\r`.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Prediction(NamedTuple):
    """One line of predictions.tsv.

    Attributes:
      id, label: of the record.
      prediction: what was read.
      confidence: probability of the whole text, in [0, 1].
      set_name: of the benchmark.
    """

    id: str
    label: str
    prediction: str
    confidence: float
    set_name: str


def tsv_lines(predictions: Iterable[Prediction]) -> Iterator[str]:
    """Yields the lines of predictions.tsv with their ends, the header first."""
    yield "id\tlabel\tprediction\tconfidence\tset\n"
    for word in predictions:
        texts = [escape_field(x) for x in (word.id, word.label, word.prediction)]
        confidence = f"{word.confidence:.6f}"
        yield "\t".join([*texts, confidence, escape_field(word.set_name)]) + "\n"


def escape_field(text: str) -> str:
    r"""Returns a text that fits one field of a TSV: `\\`, `\t`, `\n`, `\r` escaped."""
    text = text.replace("\\", "\\\\").replace("\t", "\\t")
    return text.replace("\n", "\\n").replace("\r", "\\r")
