"""Reading from Python: every kind of image, any batch, errors that name the image."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from training import noise_image, reader, reading_weights

from robustscanner_jax.charset import DICT90
from robustscanner_jax.open_weights import SHIPPED, open_weights
from robustscanner_jax.reading import Reading, to_bgr
from robustscanner_jax.recognizer import Recognizer
from robustscanner_jax.weights import save_weights


@pytest.fixture(scope="module")
def images():
    return [noise_image(seed, width=24 + 8 * (seed % 4)) for seed in range(20)]


@pytest.fixture(scope="module")
def readings(images):
    return reader().read([image[..., ::-1] for image in images])


def assert_same(found, expected):
    assert [r.text for r in found] == [r.text for r in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.confidence == pytest.approx(other.confidence, abs=1e-5)
        np.testing.assert_allclose(
            one.character_confidences, other.character_confidences, atol=1e-5
        )


def test_the_readings_of_the_tests_differ(readings):
    assert len({r.text for r in readings}) > 5
    assert len({len(r.text) for r in readings}) > 1


def test_a_reading_has_a_confidence_for_each_character(readings):
    for reading in readings:
        assert len(reading.character_confidences) == len(reading.text)
        assert all(0 < c <= 1 for c in reading.character_confidences)
        # The word's has that of the end token as well.
        product = np.prod(reading.character_confidences)
        assert 0 < reading.confidence <= product + 1e-6


@pytest.mark.parametrize("text", ["", "ab", "<UKN>", "a<UKN><UKN>b", "<U>", "\n"])
def test_the_characters_of_a_text_are_its_steps(text):
    characters = Reading(text, 0.5, ()).characters
    assert "".join(characters) == text
    assert len(characters) == len(text.replace("<UKN>", "?"))


def test_there_is_a_character_for_each_confidence(readings):
    for reading in readings:
        assert len(reading.characters) == len(reading.character_confidences)


def test_a_path_a_picture_and_an_array_are_read_alike(images, readings, tmp_path):
    path = tmp_path / "image.png"
    cv2.imwrite(str(path), images[0])
    rgb = np.ascontiguousarray(images[0][..., ::-1])
    kinds = [path, str(path), rgb, Image.fromarray(rgb), Image.open(path)]
    assert_same(reader().read(kinds), [readings[0]] * len(kinds))


def test_grey_arrays_and_pictures_are_read_as_grey_colour():
    grey = cv2.cvtColor(noise_image(3), cv2.COLOR_BGR2GRAY)
    colour = np.repeat(grey[..., None], 3, axis=-1)
    kinds = [colour, grey, Image.fromarray(grey), Image.fromarray(grey).convert("1")]
    found = reader().read(kinds)
    assert_same(found[:3], [found[0]] * 3)
    np.testing.assert_array_equal(to_bgr(grey), colour)


def test_a_picture_of_sixteen_bits_is_read_like_its_file(tmp_path):
    ramp = np.linspace(0, 65535, 32 * 96).reshape(32, 96).astype(np.uint16)
    path = tmp_path / "scan.png"
    Image.fromarray(ramp).save(path)
    with Image.open(path) as scan:
        np.testing.assert_array_equal(to_bgr(scan), to_bgr(path))
        wide = Image.fromarray(ramp.astype(np.int32))  # as older versions open it
    np.testing.assert_array_equal(to_bgr(wide), to_bgr(path))
    dark = Image.fromarray((ramp >> 8).astype(np.int32))
    np.testing.assert_array_equal(to_bgr(dark), to_bgr(path))


def test_arrays_are_rgb_and_pixels_come_out_bgr():
    rgb = np.zeros((4, 5, 3), np.uint8)
    rgb[..., 0] = 200
    for kind in (rgb, Image.fromarray(rgb), Image.fromarray(rgb).convert("RGBA")):
        pixels = to_bgr(kind)
        assert pixels.flags.c_contiguous
        assert pixels[0, 0].tolist() == [0, 0, 200]


@settings(max_examples=10)
@given(st.lists(st.integers(0, 19), min_size=1, max_size=20))
def test_a_reading_does_not_depend_on_the_rest_of_the_batch(images, readings, chosen):
    found = reader().read([images[i][..., ::-1] for i in chosen])
    assert_same(found, [readings[i] for i in chosen])


def test_no_images_give_no_readings():
    assert reader().read([]) == []


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("missing.png", None, "No such file or directory"),
        ("empty.jpg", b"", "zero bytes"),
        ("page.txt", b"some text", "not an image"),
    ],
)
def test_an_error_names_the_file(images, tmp_path, name, content, reason):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=reason) as caught:
        reader().read([images[0], path])
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 5, 4), np.uint8),
        np.zeros((4, 5, 3)),
        np.zeros((0, 5, 3), np.uint8),
        np.zeros((2, 4, 5, 3), np.uint8),
    ],
    ids=["four channels", "float", "no pixels", "a batch"],
)
def test_an_error_names_the_position_of_an_array(images, array):
    with pytest.raises(ValueError, match=r"^image 9: expected"):
        reader().read([*images[:9], array])


def test_a_weights_file_reads_as_the_weights_in_memory(images, readings, tmp_path):
    path = tmp_path / "some.safetensors"
    save_weights(path, reading_weights())
    loaded = Recognizer.load(path, batch_size=8)
    assert_same(loaded.read([i[..., ::-1] for i in images]), readings)


def test_what_is_no_run_and_no_weights_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="nowhere: not found; expected a weights file"):
        Recognizer.load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="is no run folder; train first"):
        Recognizer.load(tmp_path)
    (tmp_path / "text").write_text("no weights")
    with pytest.raises(ValueError, match="text: not a whole safetensors file"):
        Recognizer.load(tmp_path / "text")


@pytest.mark.parametrize("name", SHIPPED)
def test_what_ships_is_opened_by_its_name_unless_a_file_has_it(
    name, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    weights = open_weights(name)
    assert weights.model.width == name
    assert weights.charset.characters == DICT90
    save_weights(tmp_path / name, reading_weights())
    assert open_weights(name).card == reading_weights().card
    default = open_weights()  # whatever lies about
    assert default.model.width == "small"


def test_batches_are_a_multiple_of_the_devices():
    assert Recognizer(reading_weights(), batch_size=9).batch_size == 16
    assert reader().batch_size == reader().smallest_batch == 8
