"""A source is read whole, in batches of one shape, while the next one is prepared."""

import dataclasses
import itertools
import threading

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training import RULE, ListSource, encode, noise_image, reader

from robustscanner_jax.charset import Charset
from robustscanner_jax.reading import DecodedRows, Reader
from robustscanner_jax.views import Views
from robustscanner_jax.word_stream import LOST_LABEL, UNREADABLE, read_words

TALL, WIDE = (48, 24), (24, 40)
TURNING = Views(rotate_tall=1.0)
VIEWS = [Views(), TURNING, Views(look_closer=True)]
VIEWS += [Views(rotate_tall=1.0, look_closer=True)]


class Spy(Reader):
    """Reads the width of each row as one character, and keeps the shapes it saw."""

    charset = Charset.of("".join(map(chr, range(0x4E00, 0x4E00 + 64))))
    preprocessing = RULE

    def __init__(self, batch_size=4):
        self.batch_size = batch_size
        self.shapes = []

    def decode(self, image, width):
        self.shapes.append((image.shape, width.shape, image.dtype, width.dtype))
        ids = np.full((len(width), 3), self.charset.end_id)
        ids[:, 0] = width
        return DecodedRows(ids, np.full(ids.shape, 0.5, np.float32))


def read_all(*arguments, **options):
    """Returns the words of all batches in one list."""
    return list(itertools.chain(*read_words(*arguments, **options)))


def source_of(shapes):
    return ListSource(
        {"id": f"n/{i}", "image": encode(noise_image(i, *shape)), "text": f"t{i}"}
        for i, shape in enumerate(shapes)
    )


@settings(max_examples=40)
@given(
    st.lists(st.sampled_from([TALL, WIDE]), min_size=1, max_size=14),
    st.sampled_from(VIEWS),
)
def test_every_batch_has_one_shape_and_every_word_comes_once(shapes, views):
    spy = Spy()
    words = read_all(spy, source_of(shapes), views=views)
    assert sorted(word.number for word in words) == list(range(len(shapes)))
    assert len(set(spy.shapes)) == 1
    turning = views.rotate_tall is not None
    rows = len(shapes) + 2 * shapes.count(TALL) * turning
    rows += 2 * len(shapes) * views.look_closer  # Spy is never sure
    # At most the last batch of each kind is not full: as it is, turned, closer.
    assert len(spy.shapes) <= rows // 4 + 1 + turning + views.look_closer
    for word in words:
        assert word.id == f"n/{word.number}" and word.label == f"t{word.number}"
        assert word.size == shapes[word.number]
        assert word.turned == (turning and shapes[word.number] == TALL)
        assert word.looked_closer == views.look_closer


@settings(max_examples=20)
@given(st.lists(st.booleans(), min_size=1, max_size=12), st.sampled_from(VIEWS))
def test_a_stream_reads_what_reading_the_images_gives(tall, views):
    shapes = [TALL if t else WIDE for t in tall]
    words = read_all(reader(), source_of(shapes), views=views)
    images = [noise_image(i, *shape)[..., ::-1] for i, shape in enumerate(shapes)]
    expected = reader().read(images, **dataclasses.asdict(views))
    for word in words:
        assert word.reading.text == expected[word.number].text
        assert word.reading.confidence == pytest.approx(
            expected[word.number].confidence, abs=1e-5
        )
        seen = expected[word.number].angle, expected[word.number].closer
        assert (word.reading.angle, word.reading.closer) == seen


def test_without_rotation_the_words_come_in_order_and_tall_ones_as_they_are():
    spy = Spy()
    words = read_all(spy, source_of([TALL, WIDE] * 5))
    assert [word.number for word in words] == list(range(10))
    assert len(spy.shapes) == 3
    assert not any(word.turned or word.view.angle for word in words)


def test_the_row_of_a_word_is_the_crop_turned_by_the_angle_that_won():
    angles = set()
    for word in read_all(reader(), source_of([TALL] * 12), views=TURNING):
        image = np.rot90(noise_image(word.number, *TALL), word.view.angle // 90)
        pixels, width = word.view.row
        scaled = cv2.resize(np.ascontiguousarray(image), (width, RULE.height))
        np.testing.assert_array_equal(pixels[:, :width], scaled)
        angles.add(word.view.angle)
    assert angles == {0, 90, 270}


def test_the_row_of_a_word_is_the_closer_view_where_that_won():
    closer = Views(look_closer=True)
    won = set()
    for word in read_all(reader(), source_of([(40, 80)] * 16), views=closer):
        views = closer.of(noise_image(word.number, 40, 80), RULE)
        same = [np.array_equal(word.view.row[0], view.row[0]) for view in views]
        assert same.count(True) == 1
        assert views[same.index(True)].closer == word.view.closer <= word.looked_closer
        won.add(same.index(True))
    assert won == {0, 1, 2}


def test_damaged_records_keep_their_place_and_are_read_as_nothing():
    elements = [source_of([TALL, WIDE] * 3)[i] for i in range(6)]
    elements[0] |= {"image": b""}
    elements[3] = ValueError("torn")
    elements[4] = {"id": "lost", "error": "gone", "text": ""}
    for views in VIEWS:
        source = ListSource(elements, "damaged")
        words = read_all(Spy(), source, views=views)
        words.sort(key=lambda word: word.number)
        assert [bool(word.error) for word in words] == [1, 0, 0, 1, 1, 0]
        for word in words:
            assert (word.reading == UNREADABLE) == (word.error is not None)
            assert (word.size is None) == (word.error is not None)
        assert "zero bytes" in words[0].error and "torn" in words[3].error
        assert [words[i].label for i in (0, 3, 4)] == ["t0", LOST_LABEL, LOST_LABEL]


def test_a_source_that_reads_many_records_at_once_is_asked_for_many():
    asked: list[list[int]] = []

    class Shards(ListSource):
        def read_many(self, indices):
            asked.append(list(indices))
            return [self[i] for i in indices]

    images = [encode(noise_image(i)) for i in range(20)]
    elements = [{"id": str(i), "image": im, "text": ""} for i, im in enumerate(images)]
    words = read_all(reader(), Shards(elements))
    assert [word.id for word in words] == [str(i) for i in range(20)]
    assert sorted(itertools.chain(*asked)) == list(range(20))
    assert len(asked) < 20


def test_the_first_batch_is_finished_before_the_second_is_begun_and_no_other_is():
    spy = Spy()
    begun = []
    for words in read_words(spy, source_of([WIDE] * 14)):
        begun.append((len(spy.shapes), len(words)))
    # Batches begun when a batch is finished, and its words.
    assert begun == [(1, 4), (3, 4), (4, 4), (4, 2)]


@pytest.mark.parametrize("views", [TURNING, Views(look_closer=True)])
def test_a_batch_that_ends_no_word_is_an_empty_list(views):
    found = list(read_words(Spy(), source_of([TALL] * 4), views=views))
    assert [len(words) for words in found] == [0, 2, 2]


def test_the_next_batch_is_decoded_while_the_device_reads_this_one():
    asked = [threading.Event() for _ in range(12)]

    class Watched(ListSource):
        def __getitem__(self, index):
            asked[index].set()
            return super().__getitem__(index)

    class Slow(Spy):
        def decode(self, image, width):
            if not self.shapes:  # the first batch is read until the second is there
                assert all(asked[i].wait(timeout=20) for i in range(4, 8))
            return super().decode(image, width)

    elements = source_of([WIDE] * 12)
    source = Watched((elements[i] for i in range(12)), "watched")
    assert len(read_all(Slow(), source)) == 12


@pytest.mark.parametrize("views", VIEWS[1:])
def test_what_is_put_aside_is_read_soon_and_the_first_put_aside_first(views):
    class SureOfWide(Spy):
        def decode(self, image, width):
            decoded = super().decode(image, width)
            decoded.probabilities[width > 20] = 1.0
            return decoded

    spy, count, ended = SureOfWide(), 300, []
    waiting_most = 0
    for words in read_words(spy, source_of([TALL, WIDE, WIDE] * 100), views=views):
        ended += [word.number for word in words]
        # Else it would hold its batch.
        assert all(word.view.row[0].base is None for word in words)
        first_missing = next(i for i in itertools.count() if i not in ended)
        waiting_most = max(waiting_most, max(ended, default=0) - first_missing)
    assert sorted(ended) == list(range(count))
    assert waiting_most < 40
