"""Text to ids and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustscanner_jax.charset import DICT90, UNKNOWN_TEXT, Charset

DEFAULT = Charset.of(DICT90)
GREEK = Charset.of("αβγδ ε")


@given(data=st.data(), charset=st.sampled_from([DEFAULT, GREEK]))
def test_any_text_over_the_charset_comes_back(data, charset):
    text = data.draw(st.text(charset.characters, max_size=29))
    tokens = charset.to_tokens(text, 30)
    assert len(tokens) == 31
    assert tokens[0] == charset.end_id  # what the network reads first
    assert charset.to_text(tokens[1:]) == text
    assert charset.length(tokens[1:]) == len(text)
    assert charset.to_text(charset.encode(text)) == text  # without an end token
    assert charset.unknown_characters(text) == ""
    assert all(token == charset.pad_id for token in tokens[len(text) + 2 :])


@given(text=st.text(max_size=29))
def test_every_character_outside_the_charset_is_reported_and_becomes_unknown(text):
    reported = DEFAULT.unknown_characters(text)
    assert len(set(reported)) == len(reported)
    assert set(reported) == set(text) - set(DICT90)
    ids = DEFAULT.encode(text)
    assert len(ids) == len(text)  # nothing is dropped in silence
    for character, i in zip(text, ids, strict=True):
        assert (i == DEFAULT.unknown_id) == (character in reported)
    expected = "".join(UNKNOWN_TEXT if c in reported else c for c in text)
    assert DEFAULT.to_text(DEFAULT.to_tokens(text, 30)[1:]) == expected


def test_unknown_characters_are_reported_in_their_order():
    assert DEFAULT.unknown_characters("a^b{^ é") == "^{ é"


@given(data=st.data(), max_len=st.integers(1, 40))
def test_the_longest_word_fits_and_one_character_more_is_refused(data, max_len):
    text = data.draw(st.text(DICT90, min_size=max_len - 1, max_size=max_len - 1))
    tokens = DEFAULT.to_tokens(text, max_len)
    assert tokens == [DEFAULT.end_id, *DEFAULT.encode(text), DEFAULT.end_id]
    with pytest.raises(ValueError, match=f"at most {max_len - 1} characters"):
        DEFAULT.to_tokens(text + "x", max_len)


def test_the_empty_word_is_an_end_token_and_padding():
    tokens = DEFAULT.to_tokens("", 4)
    assert tokens == [90, 90, 91, 91, 91]
    assert DEFAULT.to_text(tokens[1:]) == ""
    assert DEFAULT.length(tokens[1:]) == 0


@given(st.lists(st.integers(0, DEFAULT.num_tokens - 1), max_size=40))
def test_any_ids_that_a_network_can_predict_become_text(ids):
    text = DEFAULT.to_text(ids)
    kept = ids[: ids.index(90)] if 90 in ids else ids
    assert DEFAULT.length(ids) == len(kept)
    expected = [
        UNKNOWN_TEXT if i == 92 else DICT90[i] for i in kept if i != DEFAULT.pad_id
    ]
    assert text == "".join(expected)


@given(st.lists(st.integers(0, DEFAULT.num_tokens - 1), max_size=40))
def test_each_character_has_its_step_and_padding_within_a_text_has_none(ids):
    found = DEFAULT.characters_of(ids)
    assert "".join(character for _, character in found) == DEFAULT.to_text(ids)
    padding = [i for i in range(DEFAULT.length(ids)) if ids[i] == DEFAULT.pad_id]
    steps = [step for step, _ in found]
    assert sorted(steps + padding) == list(range(DEFAULT.length(ids)))
    for step, character in found:
        assert (character == UNKNOWN_TEXT) == (ids[step] == DEFAULT.unknown_id)


def test_the_default_ids_are_those_of_mmocr_1():
    assert len(DICT90) == 90
    assert (DEFAULT.end_id, DEFAULT.pad_id, DEFAULT.unknown_id) == (90, 91, 92)
    assert DEFAULT.num_tokens == DEFAULT.num_classes == 93
    assert set("^{|} ").isdisjoint(DICT90)  # an evaluation on 94 characters has them


def test_the_ids_of_mmocr_0_and_paddle_round_trip_as_well():
    charset = Charset(DICT90, end_id=91, pad_id=92, unknown_id=90, num_classes=92)
    assert charset.to_tokens("a^", 4) == [91, 10, 90, 91, 92]
    assert charset.to_text([10, 90, 91, 92]) == f"a{UNKNOWN_TEXT}"
    assert charset.num_tokens == 93
    assert charset.pad_id >= charset.num_classes  # never predicted


@pytest.mark.parametrize(
    ("characters", "specials", "message"),
    [
        ("", (0, 1, 2), "at least one character"),
        ("abca", (4, 5, 6), r"more than once: \['a'\]"),
        ("abc", (3, 3, 4), "special ids must be 3, 4 and 5"),
        ("abc", (0, 1, 2), "special ids must be 3, 4 and 5"),
        ("abc", (4, 5, 6), "after 3 characters, got end 4, pad 5, unknown 6"),
    ],
)
def test_a_charset_that_cannot_work_is_refused(characters, specials, message):
    with pytest.raises(ValueError, match=message):
        Charset(characters, *specials, num_classes=len(characters) + 3)


@given(
    characters=st.lists(
        st.characters(codec="utf-8", exclude_characters="\n\r\ufeff"),
        min_size=1,
        max_size=20,
        unique=True,
    ),
    end=st.sampled_from(["", "\n", "\r\n"]),
    mark=st.booleans(),
)
def test_a_file_gives_its_characters_in_order(tmp_path_factory, characters, end, mark):
    path = tmp_path_factory.mktemp("charset") / "dict.txt"
    text = (end or "\n").join(characters) + end
    path.write_bytes(text.encode("utf-8-sig" if mark else "utf-8"))
    assert Charset.from_file(path) == Charset.of("".join(characters))


def test_line_separators_of_unicode_are_characters_like_any_other(tmp_path):
    path = tmp_path / "dict.txt"
    path.write_text("a\n\x85\n\u2028\n\u3000\n", encoding="utf-8")
    assert Charset.from_file(path).characters == "a\x85\u2028\u3000"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\nbc\nd\n", "line 2: expected one character, got 'bc'"),
        (b"a\n\nb\n", "line 2: expected one character, got ''"),
        (b"a\nb \n", "line 2: expected one character, got 'b '"),
        (b"a\nb\na\n", r"occur more than once: \['a'\]"),
        (b"", "at least one character"),
        (b"\n", "line 1: expected one character, got ''"),
        (b"a\nb\n\n", "line 3: expected one character, got ''"),
        ("a\né\n".encode("latin-1"), "not UTF-8"),
        ("a\nb\n".encode("utf-16"), "not UTF-8"),
    ],
)
def test_a_file_that_is_no_dictionary_is_refused_by_name(tmp_path, content, message):
    path = tmp_path / "dict.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        Charset.from_file(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused_by_name(tmp_path):
    missing = tmp_path / "none.txt"
    with pytest.raises(ValueError, match=r"none\.txt: No such file or directory"):
        Charset.from_file(missing)
    with pytest.raises(ValueError, match=f"{tmp_path}: Is a directory"):
        Charset.from_file(str(tmp_path))
