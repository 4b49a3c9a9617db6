"""The lines of predictions.tsv."""

from hypothesis import given
from hypothesis import strategies as st

from robustscanner_jax.predictions import Prediction, escape_field, tsv_lines


def unescape(field):
    plain = {"\\": "\\", "t": "\t", "n": "\n", "r": "\r"}
    characters = iter(field)
    return "".join(plain[next(characters)] if c == "\\" else c for c in characters)


@given(st.text(st.one_of(st.sampled_from("\\\t\n\rtnr"), st.characters())))
def test_an_escaped_field_holds_no_separator_and_loses_nothing(text):
    field = escape_field(text)
    assert not set(field) & set("\t\n\r")
    assert unescape(field) == text


TEXT = st.text(st.one_of(st.sampled_from("\\\t\n\r"), st.characters()))


@given(st.lists(st.builds(Prediction, TEXT, TEXT, TEXT, st.floats(0, 1), TEXT)))
def test_every_prediction_is_one_line_of_five_fields(words):
    header, *lines = list(tsv_lines(words))
    assert header == "id\tlabel\tprediction\tconfidence\tset\n"
    assert len(lines) == len(words)
    for line, word in zip(lines, words, strict=True):
        assert line.index("\n") == len(line) - 1
        fields = line[:-1].split("\t")
        assert float(fields.pop(3)) == round(word.confidence, 6)
        assert tuple(map(unescape, fields)) == (*word[:3], word.set_name)
