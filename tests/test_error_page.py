"""The page on what was misread: its numbers, and that labels stay text."""

import dataclasses
import html
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training import ListSource, encode, noise_image, reader

from robustscanner_jax import evaluate
from robustscanner_jax.error_page import breakdown
from robustscanner_jax.error_page.breakdown import CASES, Word
from robustscanner_jax.error_page.build import SetErrors, build_page
from robustscanner_jax.error_page.run import write_errors
from robustscanner_jax.html_page import bars, visible
from robustscanner_jax.metrics import score_set
from robustscanner_jax.predictions import Prediction
from robustscanner_jax.reading import Reading
from robustscanner_jax.views import View
from robustscanner_jax.word_stream import ReadWord

TEXT = st.text(max_size=12)
# What would run, load or break out of its place if it were not escaped.
ATTACKS = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "</title></style><svg onload=alert(1)>",
    "&lt;b&gt;",
    "'onmouseover='alert(1)",
    "https://example.org/",
    "a\x00b\u202ec\ud800",
]


def word(label, read, size=(20, 50)):
    return Word(label, label, read, size)


def mistake(number, label, text, confidence=0.5, angle=0, closer=None):
    steps = (confidence,) * len(text)
    row = np.full((16, 32, 3), 90, np.uint8), 24
    return ReadWord(
        number=number,
        id=f"{label}/{number}",
        label=label,
        reading=Reading(text, confidence, steps),
        error=None,
        size=(20, 30),
        view=View(row, angle, closer=bool(closer)),
        turned=angle != 0,
        looked_closer=closer is not None,
    )


def page_of(labels, texts, name="set", explain=None):
    score = score_set(name, texts, labels, [0.5] * len(labels), "exact")
    pairs = list(zip(labels, texts, strict=True))
    words = [word(label, text) for label, text in pairs]
    mistakes = [mistake(i, *pair) for i, pair in enumerate(pairs)]
    return build_page(
        [SetErrors(score, words, mistakes, 0)],
        facts=[name],
        ignore_case=False,
        channel_order="BGR",
        explain=explain,
    )


def test_substitutions_missed_and_added_characters_are_counted():
    pairs = [
        ("hello", "hallo"),  # e -> a
        ("hello", "hello"),
        ("shell", "shel"),  # an l is missed
        ("cat", "cart"),  # an r is added
        ("b0at", "boat"),  # 0 -> o
    ]
    found = breakdown.confusions(pairs)
    assert found.substituted == {("e", "a"): 1, ("0", "o"): 1}
    assert found.missed == {"l": 1} and found.added == {"r": 1}
    assert found.occurrences["l"] == 6 and found.right("l") == 5
    assert found.right("e") == 2 and found.right("0") == 0
    assert found.words == 5 and found.unlike == 0


def test_words_with_little_in_common_are_left_out_and_counted():
    found = breakdown.confusions([("hello", "xyz"), ("ab", "ab"), ("word", "")])
    assert (found.words, found.unlike) == (1, 2)
    assert not found.substituted and not found.missed and not found.added


@given(st.lists(st.tuples(st.text("abc1", max_size=8), st.text("abc1", max_size=8))))
def test_every_character_is_right_confused_or_missed(pairs):
    found = breakdown.confusions(pairs)
    assert found.words + found.unlike == len(pairs)
    for character, times in found.occurrences.items():
        substituted = sum(
            n for (true, _), n in found.substituted.items() if true == character
        )
        right = found.right(character)
        assert right >= 0 and right + substituted + found.missed[character] == times
    # What was read, character by character, is made of the same parts.
    kept = [p for p in pairs if breakdown.one_ned(*p) >= breakdown.LEAST_SIMILARITY]
    read = Counter("".join(read for _, read in kept))
    for character in read:
        arrived = sum(n for (_, r), n in found.substituted.items() if r == character)
        total = found.right(character) + arrived + found.added[character]
        assert total == read[character]


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("HOTEL", "UPPER"),
        ("A", "UPPER"),
        ("B2B", "UPPER"),
        ("Hotel", "Title"),
        ("hotel", "lower"),
        ("iPhone", "mIxed"),
        ("McDonald", "mIxed"),
        ("2024", "digits"),
        ("U.S.", "punctuation"),
        ("two words", "punctuation"),
        ("£5", "punctuation"),
        ("", "punctuation"),
    ],
)
def test_a_label_is_of_one_spelling(label, expected):
    assert breakdown.case_of(label) == expected


@given(
    st.lists(st.tuples(TEXT, TEXT, st.none() | st.tuples(*[st.integers(1, 99)] * 2)))
)
def test_every_word_is_in_one_group_of_each_kind(triples):
    words = [word(*triple) for triple in triples]
    right = sum(w.expected == w.read for w in words)
    for kind in (breakdown.by_length, breakdown.by_aspect, breakdown.by_case):
        groups = kind(words)
        assert sum(group.words for group in groups) == len(words)
        assert sum(group.correct for group in groups) == right
        for group in groups:
            low, high = group.interval
            assert 0 <= low <= group.accuracy <= high <= 1
        assert len({group.name for group in groups}) == len(groups)


def test_groups_are_named_and_come_in_order():
    sizes = [(30, 20), (20, 20), (20, 39), (20, 40), (20, 130), None]
    labels = ["it", "a" * 12, "Title", "x.y", "42", ""]
    words = [word(t, t, s) for t, s in zip(labels, sizes, strict=True)]
    names = [g.name for g in breakdown.by_aspect(words)]
    assert names == ["under 1", "1-1.5", "1.5-2", "2-3", "6 and more", "unreadable"]
    names = [g.name for g in breakdown.by_length(words)]
    assert names == ["0", "2", "3", "5", "11-14"]
    names = [g.name for g in breakdown.by_case(words)]
    assert names == [c for c in CASES if c in {*map(breakdown.case_of, labels)}]


def test_words_that_the_protocol_skips_are_in_no_group():
    predictions = [
        Prediction("1", "Word", "word", 0.5, "s"),
        Prediction("2", "!?", "", 0.5, "s"),
    ]
    words = breakdown.scored_words(predictions, [(1, 2), None], "36")
    assert words == [Word("Word", "word", "word", (1, 2))]


@pytest.mark.parametrize("attack", ATTACKS)
def test_labels_readings_ids_and_names_stay_text(attack):
    page = page_of([attack, "a"], ["b", attack], name=attack)
    tags = set(re.findall(r"<([a-z0-9]+)", page))
    assert not tags & {"script", "svg", "iframe", "object", "link", "base"}
    # A text may show an address or an event handler; an attribute must not hold one.
    for attributes in re.findall(r"<[a-z0-9]+((?: [^<>]*)?)>", page):
        assert not re.search(r"\bon[a-z]+ ?=|alert|example\.org", attributes)
    for source in re.findall(r'\bsrc="([^"]*)', page):
        assert source.startswith("data:image/jpeg;base64,")
    assert page.count("</title>") == page.count("</style>") == 1
    page.encode("utf-8", "backslashreplace")
    shown = html.unescape(re.sub(r"</?mark>", "", page))
    assert shown.count(attack) >= 3


def test_the_page_asks_nobody_for_anything():
    page = page_of(["a"], ["b"])
    assert "default-src 'none'" in page and "://" not in page


@settings(max_examples=50)
@given(st.text("aBc<&", max_size=8), st.text("abC<&", max_size=8))
def test_the_marked_characters_are_those_that_differ(label, text):
    page = page_of(["x" + label], [text])
    (shown,) = re.findall(r'<span class="read">(.*?)</span>', page)
    plain = html.unescape(re.sub(r"<[a-z/]+>", "", shown))
    assert plain == (text or "nothing")
    if label == text:
        assert "<mark>" not in shown


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ({"angle": 270}, "tall: surest when turned by 270°"),
        ({"closer": True}, "unsure at first: surest in a closer view"),
        ({"closer": False}, "unsure at first: surest in the whole crop"),
    ],
)
def test_a_word_says_in_which_view_it_was_read(seen, expected):
    score = score_set("s", ["b"], ["a"], [0.5], "exact")
    entry = SetErrors(score, [word("a", "b")], [mistake(0, "a", "b", **seen)], 0)
    page = build_page(
        [entry], facts=[], ignore_case=False, channel_order="BGR", explain=None
    )
    assert expected in page and page.count("surest") == 1
    assert "surest" not in page_of(["a"], ["b"])


def test_the_overview_counts_the_views_that_were_asked_for():
    score = score_set("s", ["b"], ["a"], [0.5], "exact")
    score = dataclasses.replace(score, closer=1_234, closer_won=56)
    page = build_page(
        [SetErrors(score, [word("a", "b")], [], 0)],
        facts=[],
        ignore_case=False,
        channel_order="BGR",
        explain=None,
    )
    heads = "<th class=n>closer</th><th class=n>closer won</th>"
    assert heads in page and "<th class=n>turned" not in page
    assert '<td class="n">1,234</td><td class="n">56</td>' in page


def test_the_overview_has_a_row_a_set_and_marks_the_contextless_one():
    labels, texts = ["ab", "cd"], ["ab", "cx"]
    words = [word(*pair) for pair in zip(labels, texts, strict=True)]
    entries = []
    for name, contextless in (("dev", False), ("RandText", True)):
        score = score_set(name, texts, labels, [0.5] * 2, "exact")
        score = dataclasses.replace(score, contextless=contextless)
        entries.append(SetErrors(score, words, [mistake(1, "cd", "cx")], 0))
    page = build_page(
        entries, facts=[], ignore_case=False, channel_order="RGB", explain=None
    )
    assert page.count("50.0 %") >= 2
    assert page.count("RandText") == page.count(">contextless</span>") == 2
    assert "All sets" in page and "An export has no attention maps" in page
    assert "<details>" not in page


def test_the_page_of_an_evaluation_shows_where_the_network_looked(tmp_path):
    elements = [
        {"id": f"<i>{i}", "image": encode(noise_image(i)), "text": "<b>bold"}
        for i in range(3)
    ]
    source = ListSource([*elements, elements[0] | {"image": b""}])
    evaluation = evaluate.read_benchmarks(reader(), [("a<b", source)], protocol="exact")
    write_errors(evaluation, reader(), tmp_path / "errors.html")
    page = (tmp_path / "errors.html").read_text(encoding="utf-8")
    assert page.count('<div class="mistake">') == 3  # the unreadable one has no picture
    assert page.count("<details>") == 3
    readings = reader().read([noise_image(i)[..., ::-1] for i in range(3)])
    lines = sum(min(len(r.text) + 1, reader().model.max_len) for r in readings)
    assert page.count('class="look"') == 2 * lines
    assert "<b>" not in page and "a<b" not in page and "<i>0" not in page
    assert "a&lt;b" in page and "&lt;i&gt;0" in page


def test_blanks_and_control_characters_are_shown_by_name():
    assert visible(" ") == "&#x27; &#x27;" and "\\x00" in visible("\x00")
    assert visible("<") == "&lt;" and visible("é") == "é"


def test_bars_are_as_long_as_their_counts():
    chart = bars([("<a", 4), ("b", 1), ("c", 0)])
    assert re.findall(r"width:([\d.]+)%", chart) == ["100.00", "25.00", "0.00"]
    assert "&lt;a" in chart
    assert bars([]) == "<p>none</p>"
