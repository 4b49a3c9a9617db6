"""What rendered pictures say."""

import collections
import string
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.synthetic import words
from data_prep.synthetic.dice import Dice
from data_prep.synthetic.presets import PRESETS, get_settings
from data_prep.synthetic.settings import plain
from data_prep.synthetic.vocabulary import (
    WORDS_VARIABLE,
    Vocabulary,
    is_blocked,
    load_vocabulary,
)

LIST = [(word, 1.0 / rank) for rank, word in enumerate(
    "the of house street sign river mountain garden don't o'clock a in "
    "window station market bridge castle silver".split(), 1)]  # fmt: skip


@pytest.fixture(scope="module")
def options():
    return plain(get_settings("full")).words


@pytest.fixture(scope="module")
def vocabulary(options):
    return Vocabulary(LIST, options)


def draw_many(vocabulary, options, count, split="any", seed=0):
    return [
        words.draw_text(Dice(seed, index), vocabulary, options, split)
        for index in range(count)
    ]


def test_the_characters_are_those_of_the_published_dictionary():
    assert len(words.CHARACTERS) == 90
    assert not set("^{|} £€°") & set(words.CHARACTERS)
    assert len(words.PUNCTUATION) == 28


def test_labels_use_the_charset_and_keep_the_length_limit(vocabulary, options):
    for label in draw_many(vocabulary, options, 3000):
        assert set(label) <= set(words.CHARACTERS)
        assert 1 <= len(label) <= options.max_label


@pytest.mark.parametrize("split", words.SPLITS)
def test_every_kind_of_label_comes_in_its_share(
    vocabulary, options, monkeypatch, split
):
    made = {}

    def note(kind):
        draw = words._KINDS[kind]

        def drawn(*arguments):
            label = draw(*arguments)
            made[label] = kind
            return label

        return drawn

    monkeypatch.setattr(words, "_KINDS", {kind: note(kind) for kind in words._KINDS})
    count = 5_000
    counts = collections.Counter()
    for index in range(count):
        label = words.draw_text(Dice(0, index), vocabulary, options, split)
        counts[made[label]] += 1
    # Labels of one character are never held out.
    kinds = {
        k: s for k, s in options.shares.items() if (split, k) != ("heldout", "single")
    }
    assert set(counts) <= set(kinds)
    for kind, share in kinds.items():
        expected = count * share / sum(kinds.values())
        slack = 4 * expected**0.5  # four standard deviations of a binomial count
        assert abs(counts[kind] - expected) < slack, kind


def test_without_random_strings_held_out_labels_are_none_either(vocabulary):
    options = plain(get_settings("no-random")).words
    random = words._KINDS["random"]
    try:
        words._KINDS["random"] = None  # calling it fails
        assert len(draw_many(vocabulary, options, 400, "heldout")) == 400
    finally:
        words._KINDS["random"] = random


def test_a_label_that_no_font_shows_is_drawn_again(vocabulary, options):
    for index in range(300):
        label = words.draw_text(
            Dice(3, index), vocabulary, options, can_show=lambda text: "e" not in text
        )
        assert "e" not in label
    with pytest.raises(ValueError, match=r"the fonts can show; see .*fonts\.families"):
        words.draw_text(Dice(3, 0), vocabulary, options, can_show=lambda text: False)


def test_every_kind_makes_labels_of_its_own_form(vocabulary, options):
    def draw(kind):
        options.shares = {kind: 1.0}
        return draw_many(vocabulary, options, 200)

    kept = options.shares
    try:
        assert all(len(label) == 1 for label in draw("single"))
        assert all(any(c.isdigit() for c in label) for label in draw("number"))
        marks = set(words.PUNCTUATION)
        assert all(marks & set(label) for label in draw("punctuated"))
        known = {word for word, _ in LIST}
        assert all(label.lower() in known for label in draw("word"))
    finally:
        options.shares = kept


def test_train_and_heldout_never_share_a_label(vocabulary, options):
    train = draw_many(vocabulary, options, 1500, "train")
    heldout = draw_many(vocabulary, options, 1500, "heldout", seed=1)
    spellings = {label.casefold() for label in train}
    assert spellings.isdisjoint(label.casefold() for label in heldout)
    assert all(len(label) > 2 for label in heldout)


@pytest.mark.parametrize("preset", ["full", "randtext"])
def test_heldout_labels_are_as_long_as_those_of_training(preset):
    options = plain(get_settings(preset)).words
    vocabulary = load_vocabulary(options)
    train, heldout = (
        [len(x) for x in draw_many(vocabulary, options, 800, split) if len(x) > 2]
        for split in ("train", "heldout")
    )
    assert np.mean(heldout) == pytest.approx(np.mean(train), abs=0.5)


@given(st.text(words.CHARACTERS, min_size=1, max_size=12))
def test_a_label_belongs_to_one_split_in_any_case(label):
    for spelling in (label, label.upper(), label.lower(), label.swapcase()):
        assert words.is_heldout(spelling) == words.is_heldout(label)
    splits = [split for split in ("train", "heldout") if words.belongs(label, split)]
    assert len(splits) == 1
    assert words.belongs(label, "any")


def test_about_one_spelling_in_twenty_is_held_out():
    share = sum(words.is_heldout(f"word{number}") for number in range(4000)) / 4000
    assert 0.035 < share < 0.065


def test_an_unknown_split_is_refused_by_name():
    with pytest.raises(ValueError, match=r"split: expected one of train.*'test'"):
        words.belongs("word", "test")


def test_random_strings_are_no_words_of_the_list(options):
    options = plain(get_settings("randtext")).words
    letters = string.ascii_lowercase
    short = [(a + b + c, 1.0) for a in letters for b in "aeiou" for c in letters]
    vocabulary = Vocabulary(short, options)
    labels = draw_many(vocabulary, options, 4000)
    known = {word for word, _ in short}
    assert not known & {label.lower() for label in labels}
    assert sum(len(label) == 3 for label in labels) > 100


@pytest.mark.parametrize("by_frequency", [1.0, 0.0])
def test_words_come_by_their_frequency_and_odd_ones_less_often(options, by_frequency):
    """Long, short and marked words are drawn again, but for a share, thrice at most."""
    changes = dict(by_frequency=by_frequency, frequency_power=0.5, long_over=6)
    kept = dict(long_kept=0.3, short_kept=0.45, marked_kept=0.35)
    chosen = SimpleNamespace(**vars(options) | changes | kept)
    listed = {"house": 0.16, "river": 0.01, "mountain": 0.09, "of": 0.09, "o'er": 0.04}
    share = np.sqrt(list(listed.values())) if by_frequency else np.ones(5)
    share = share / share.sum()
    taken = share * [1, 1, 0.3, 0.45, 0.35]
    again = 1 - taken.sum()
    expected = taken * (1 + again + again**2) + again**3 * share

    vocabulary, count = Vocabulary(listed.items(), chosen), 4_000
    drawn = collections.Counter(
        vocabulary.draw(Dice(4, index), chosen) for index in range(count)
    )
    found = [drawn[word] / count for word in listed]
    np.testing.assert_allclose(found, expected, atol=0.03)


def test_blocked_words_are_dropped_wherever_they_come_from(monkeypatch, options):
    assert is_blocked("xx" + "shi" + "t")
    assert not is_blocked("house")
    monkeypatch.setattr(words, "is_blocked", lambda label: "o" in label.lower())
    vocabulary = Vocabulary(LIST, options)
    labels = draw_many(vocabulary, options, 500)
    assert not any("o" in label.lower() for label in labels)


def test_the_easy_preset_shows_short_words_in_lower_case():
    options = plain(get_settings("easy")).words
    vocabulary = Vocabulary(LIST, options)
    for label in draw_many(vocabulary, options, 300):
        assert label.islower() and label.isalpha() and 3 <= len(label) <= 5


def test_a_word_list_is_read_from_the_file_that_the_environment_names(
    tmp_path, monkeypatch, options
):
    path = tmp_path / "words.tsv"
    path.write_text("house\t0.1\nriver\t0.01\n")
    monkeypatch.setenv(WORDS_VARIABLE, str(path))
    assert load_vocabulary(options).words == ["house", "river"]
    monkeypatch.setenv(WORDS_VARIABLE, str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError, match=r"word list: .*none does not exist"):
        load_vocabulary(options)


def test_words_outside_the_charset_are_left_out_with_one_warning(
    tmp_path, caplog, options
):
    path = tmp_path / "words.tsv"
    lines = "house\t0.1\ncaf\u00e9\t0.5\ntwo words\nriver\t0.01\n\u20ac\tx\nsea\n"
    path.write_bytes(b"\xef\xbb\xbf" + lines.encode() + b"caf\xe9\n\n")
    named = SimpleNamespace(**vars(options) | {"file": str(path)})
    for _ in range(2):
        assert load_vocabulary(named).words == ["house", "river", "sea"]
    (warning,) = caplog.messages
    assert "words.tsv: 4 words left out" in warning and "'caf\u00e9'" in warning


def test_an_own_list_is_folded_and_rid_of_blocked_words(options):
    blocked = "shi" + "t"
    listed = [("HOUSE", 1.0), (blocked, 9.0), ("River", 0.5)]
    vocabulary = Vocabulary(listed, options)
    assert vocabulary.words == ["house", "river"]
    assert vocabulary.known == {"house", "river"}


def test_a_good_list_gives_the_words_of_always(tmp_path, options):
    path = tmp_path / "words.tsv"
    path.write_text("".join(f"{word}\t{f!r}\n" for word, f in LIST))
    named = SimpleNamespace(**vars(options) | {"file": str(path)})
    read = draw_many(load_vocabulary(named), options, 300)
    assert read == draw_many(Vocabulary(LIST, options), options, 300)


@pytest.mark.parametrize("frequency", ["0,5", "many", "-1", "nan", "inf", "0.5\t1"])
def test_a_bad_frequency_is_named_with_its_line(tmp_path, options, frequency):
    path = tmp_path / "words.tsv"
    path.write_text(f"house\t0.1\nriver\t{frequency}\n")
    named = SimpleNamespace(**vars(options) | {"file": str(path)})
    message = r"words\.tsv, line 2: expected a word, .* such as 0\.5, got 'river"
    with pytest.raises(ValueError, match=message):
        load_vocabulary(named)


def test_a_limit_on_the_list_keeps_its_most_frequent_words(options):
    chosen = SimpleNamespace(**vars(options) | {"most_frequent": 3})
    assert Vocabulary(LIST, chosen).words == ["the", "of", "house"]


def test_a_list_without_a_usable_word_is_refused(options):
    with pytest.raises(ValueError, match="no word has 1 to 22 letters"):
        Vocabulary([("a" * 40, 1.0)], options)


def test_an_unknown_preset_or_key_is_refused():
    with pytest.raises(ValueError, match="preset: expected one of full"):
        get_settings("fulll")
    with pytest.raises(AttributeError):
        get_settings("full").words.wrong = 1
    for preset in PRESETS:
        assert get_settings(preset).attempts > 0


def test_the_easy_strings_have_the_look_and_the_letters_of_the_easy_words():
    easy = get_settings("easy").to_dict()
    for preset in ("easy-randtext", "easy-mixed"):
        other = get_settings(preset).to_dict()
        assert {name for name in easy if easy[name] != other[name]} == {"words"}
    options = plain(get_settings("easy-randtext")).words
    vocabulary = load_vocabulary(options)
    for label in draw_many(vocabulary, options, 300):
        assert label.islower() and label.isalpha() and 3 <= len(label) <= 5
        assert label not in vocabulary.known


def test_a_preset_that_stands_for_one_thing_changes_nothing_else():
    full = get_settings("full").to_dict()
    for preset, section in (
        ("no-random", {"words"}),
        ("few-fonts", {"fonts"}),
        ("no-textures", {"background", "fill"}),
        ("loose", {"box", "neighbours", "geometry"}),
    ):
        other = get_settings(preset).to_dict()
        assert {name for name in full if full[name] != other[name]} == section
    assert get_settings("no-random").words.shares.random == 0
    assert get_settings("no-textures").background.shares.texture == 0
    for name in ("no-random", "no-textures"):
        chosen = get_settings(name)
        for shares in (chosen.words.shares, chosen.background.shares):
            assert sum(shares.values()) == pytest.approx(1.005, abs=0.01)


@given(st.integers(0, 2**63), st.integers(0, 2**40))
def test_dice_of_a_pair_repeat_and_stay_in_range(seed, index):
    first, second = Dice(seed, index), Dice(seed, index)
    for _ in range(200):
        value = first.random()
        assert value == second.random() and 0 <= value < 1
    assert Dice(seed, index + 1).random() != Dice(seed, index).random()
    assert 3 <= first.integer(3, 5) <= 5
    assert first.below(4) in range(4)
