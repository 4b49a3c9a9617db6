"""What every reader does with what it is given, whatever computes."""

import io
import pickle
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageSequence
from training import RULE

from robustscanner_jax import reading as reading_module
from robustscanner_jax.charset import UNKNOWN_TEXT, Charset
from robustscanner_jax.image_like import ImageError, is_image, to_bgr
from robustscanner_jax.reading import DecodedRows, Reader, Reading

# Characters of which the text of the unknown token can be spelled.
CHARSET = Charset.of("<>UKN")
STEPS = 6


class GreyReader(Reader):
    """Reads an image of one grey value: 10 is "<", 20 is ">", 30 is "U"."""

    charset, preprocessing = CHARSET, RULE

    def __init__(self, batch_size=4):
        self.batch_size = batch_size
        self.sizes = []

    def decode(self, image, width):
        self.sizes.append(len(image))
        ids = np.full((len(image), STEPS), CHARSET.pad_id, np.int32)
        ids[:, 0] = np.round(image[:, 0, 0, 0] / 10) - 1
        ids[:, 1] = CHARSET.end_id
        return DecodedRows(ids, np.full(ids.shape, 0.5, np.float32))


def grey(value, shape=(16, 32, 3)):
    return np.full(shape, value, np.uint8)


def png(value):
    return cv2.imencode(".png", grey(value))[1].tobytes()


KINDS = {
    "path": lambda folder: folder / "20.png",
    "name": lambda folder: str(folder / "20.png"),
    "bytes": lambda folder: png(20),
    "picture": lambda folder: Image.fromarray(grey(20)),
    "open file": lambda folder: Image.open(io.BytesIO(png(20))),
    "RGB": lambda folder: grey(20),
    "grey": lambda folder: grey(20, (16, 32)),
    "grey, one channel": lambda folder: grey(20, (16, 32, 1)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_one_image_of_any_kind_gives_one_reading(kind, tmp_path):
    (tmp_path / "20.png").write_bytes(png(20))
    image = KINDS[kind](tmp_path)
    assert is_image(image)
    found = GreyReader().read(image)
    assert isinstance(found, Reading) and found.text == ">"
    assert GreyReader().read([image]) == [found]


def test_a_batch_array_is_as_many_images_as_it_holds():
    batch = np.stack([grey(value) for value in (10, 20, 30)])
    assert [r.text for r in GreyReader().read(batch)] == ["<", ">", "U"]
    assert [r.text for r in GreyReader().read(batch[:1])] == ["<"]
    assert GreyReader().read(batch[:0]) == []


@pytest.mark.parametrize("make", [list, tuple, iter, lambda some: (i for i in some)])
def test_any_iterable_is_read_in_batches(make):
    values = [10, 20, 30, 10, 20, 30, 10]
    reader = GreyReader()
    found = reader.read(make([png(value) for value in values]))
    assert [r.text for r in found] == ["<>U"[value // 10 - 1] for value in values]
    assert reader.sizes == [4, 4]  # three images and one to fill


def test_the_frames_of_a_film_are_read_though_pillow_gives_one_object_for_all():
    frames = [Image.fromarray(grey(value)) for value in (10, 20, 30)]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    found = GreyReader().read(ImageSequence.Iterator(Image.open(file)))
    assert [r.text for r in found] == ["<", ">", "U"]


@pytest.mark.parametrize("wrong", [None, 7, {"image": 1}, ["a.png"], bytearray(3)])
def test_what_is_no_image_is_named_with_what_was_expected(wrong):
    message = "^image 1: expected a path, .* a numpy array or a Region, got "
    with pytest.raises(TypeError, match=message + type(wrong).__name__):
        GreyReader().read([grey(10), wrong])


def test_what_is_neither_an_image_nor_many_is_refused():
    with pytest.raises(TypeError, match="an iterable of images, got NoneType"):
        GreyReader().read(None)
    with pytest.raises(TypeError, match="an iterable of images, got int"):
        GreyReader().read_each(7)  # before the first is asked for


@pytest.mark.parametrize(
    "array", [np.uint8(3), grey(1, (4,)), grey(1, (4, 5, 2)), grey(1, (1, 4, 5, 4))]
)
def test_an_array_of_another_shape_says_what_is_expected(array):
    message = r"image 0: expected \[h, w, 3\] RGB or \[h, w\] grey pixels, got"
    with pytest.raises(ImageError, match=message):
        GreyReader().read([np.asarray(array)])


def test_a_picture_whose_file_is_damaged_is_an_image_error(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 32, 3), np.uint8)
    data = cv2.imencode(".png", pixels)[1].tobytes()
    damaged = Image.open(io.BytesIO(data[: len(data) // 2]))
    (found,) = GreyReader().read_each([damaged])
    assert isinstance(found, ImageError) and found.reason.startswith("damaged image")


def test_bad_images_keep_their_places_and_cost_nothing_else(tmp_path):
    missing = tmp_path / "missing.png"
    given = [png(10), missing, grey(20), b"", *[png(30)] * 5, np.zeros((4, 5)), png(10)]
    found = list(GreyReader().read_each(given))
    assert [getattr(one, "text", None) for one in found] == [
        *["<", None, ">", None],
        *["U"] * 5,
        *[None, "<"],
    ]
    errors = [one for one in found if isinstance(one, ImageError)]
    assert [error.name for error in errors] == [str(missing), "image 3", "image 9"]
    assert [error.reason for error in errors] == [
        "No such file or directory",
        "the image has zero bytes",
        "expected uint8 pixels, got float64",
    ]
    with pytest.raises(ValueError, match=r"^image 1: the image has zero bytes$"):
        GreyReader().read(given[2:])


def test_an_image_error_survives_the_way_between_processes():
    error = pickle.loads(pickle.dumps(ImageError("a.png", "not an image")))
    assert (error.name, error.reason) == ("a.png", "not an image")
    assert str(error) == "a.png: not an image"


def test_the_next_files_are_decoded_while_a_batch_is_read(monkeypatch):
    decoded_ahead = threading.Event()

    def watched(image):
        if image == png(30):
            decoded_ahead.set()
        return to_bgr(image)

    class Waiting(GreyReader):
        def decode(self, image, width):
            assert decoded_ahead.wait(10)
            return super().decode(image, width)

    monkeypatch.setattr(reading_module, "to_bgr", watched)
    found = Waiting(batch_size=2).read([png(10), png(20), png(30)])
    assert [r.text for r in found] == ["<", ">", "U"]


def test_no_more_than_two_batches_are_taken_before_the_first_reading():
    taken = []

    def endless():
        while True:
            taken.append(None)
            yield grey(10)

    readings = GreyReader(batch_size=4).read_each(endless())
    assert next(readings).text == "<"
    assert len(taken) <= 2 * 4
    threads = threading.active_count()
    readings.close()
    assert threading.active_count() <= threads


TOKENS = st.integers(0, CHARSET.num_tokens - 1)


@given(st.lists(TOKENS, min_size=STEPS, max_size=STEPS))
def test_text_characters_and_confidences_are_of_the_same_steps(ids):
    probabilities = np.linspace(0.1, 0.6, STEPS)
    decoded = DecodedRows(np.array([ids]), probabilities[None])
    (found,) = GreyReader().to_readings(decoded, 1)
    end = ids.index(CHARSET.end_id) if CHARSET.end_id in ids else STEPS
    steps = [t for t in range(end) if ids[t] != CHARSET.pad_id]
    assert found.text == "".join(found.characters) == CHARSET.to_text(ids)
    assert len(found.characters) == len(steps)
    assert found.character_confidences == tuple(probabilities[steps])
    assert found.confidence == pytest.approx(probabilities.prod())  # the end as well
    unknown = [ids[t] == CHARSET.unknown_id for t in steps]
    assert [c == UNKNOWN_TEXT for c in found.characters] == unknown


def test_the_unknown_token_is_one_character_and_the_same_text_spelled_out_is_five():
    spelled = [CHARSET.characters.index(c) for c in UNKNOWN_TEXT] + [CHARSET.end_id]
    one = [CHARSET.unknown_id, CHARSET.end_id] + [CHARSET.pad_id] * 4
    decoded = DecodedRows(np.array([spelled, one]), np.full((2, STEPS), 0.5))
    five, single = GreyReader().to_readings(decoded, 2)
    assert five.text == single.text == UNKNOWN_TEXT
    assert five.characters == tuple(UNKNOWN_TEXT)
    assert single.characters == (UNKNOWN_TEXT,)


def test_a_reading_made_from_a_text_alone_has_its_characters():
    assert Reading("ab", 0.5, (0.5, 1.0)).characters == ("a", "b")
    assert Reading("", 0.0, ()).characters == ()


def test_a_path_is_one_image_though_it_could_be_iterated_over():
    with pytest.raises(ImageError, match=r"^nowhere\.png: No such file"):
        GreyReader().read("nowhere.png")
    with pytest.raises(ImageError, match=r"^nowhere\.png: No such file"):
        GreyReader().read(Path("nowhere.png"))
