"""Reading from Python: every kind of image, any batch, errors that name the image."""

import dataclasses

import cv2
import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from training import RULE, noise_image, reader, reading_weights

from robustscanner_jax.charset import DICT90, UNKNOWN_TEXT
from robustscanner_jax.image_like import ImageError, to_bgr
from robustscanner_jax.open_weights import SHIPPED, open_weights
from robustscanner_jax.preprocessing import resize_and_pad
from robustscanner_jax.recognizer import Recognizer
from robustscanner_jax.views import View, Views
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
    with pytest.raises(ValueError, match=r"no run folder, it has no config\.json; exp"):
        Recognizer.load(tmp_path)
    (tmp_path / "text").write_text("no weights")
    with pytest.raises(ValueError, match="text: not a whole safetensors file"):
        Recognizer.load(tmp_path / "text")


def test_an_export_is_refused_with_the_call_that_opens_it(tmp_path):
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match="this is an export: use load_artefact") as no:
        Recognizer.load(tmp_path)
    assert str(no.value).startswith(f"{tmp_path}: ") and "--" not in str(no.value)


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, "8", None])
def test_a_batch_of_no_rows_is_refused(batch_size):
    with pytest.raises(ValueError, match="batch_size: expected a whole number of at"):
        Recognizer(reading_weights(), batch_size=batch_size)


@pytest.mark.parametrize("dtype", ["bf16", "float64", "int32", "", None, np.float32])
def test_a_dtype_that_is_not_computed_in_is_refused_by_name(dtype):
    message = "dtype: expected one of auto, float32, bfloat16, got "
    with pytest.raises(ValueError, match=message):
        Recognizer(reading_weights(), dtype=dtype)


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


def assert_same_explanation(found, expected):
    assert_same([found[0]], [expected[0]])
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, atol=1e-5),
        found[1],
        expected[1],
    )


def test_an_image_is_explained_as_its_row_is(images, readings, tmp_path):
    path = tmp_path / "image.png"
    cv2.imwrite(str(path), images[0])
    expected = reader().explain_view(View(resize_and_pad(images[0], RULE)))
    assert_same([expected[0]], readings[:1])
    for image in (path, path.read_bytes(), images[0][..., ::-1]):
        assert_same_explanation(reader().explain(image), expected)


@pytest.mark.parametrize("look_closer", [False, True])
def test_an_image_is_explained_in_the_view_that_counts(look_closer):
    views = Views(rotate_tall=1.0, look_closer=look_closer)
    counted = set()
    for seed in range(12):
        tall = noise_image(seed, height=48, width=24)[..., ::-1]
        ((reading, view),) = reader().read_crops([views.of(to_bgr(tall), RULE)])
        found = reader().explain(tall, rotate_tall=1.0, look_closer=look_closer)
        assert_same([found[0]], [reading])
        assert_same_explanation(found, reader().explain_view(view))
        assert found[0] == reader().explain_view(view)[0]
        assert (reading.angle, reading.closer) == (view.angle, view.closer)
        counted.add((reading.angle, reading.closer))
    assert len({angle for angle, _ in counted}) > 1
    assert {closer for _, closer in counted} == {False, look_closer}
    with pytest.raises(ValueError, match="rotate_tall: expected at least 1"):
        reader().explain(tall, rotate_tall=0)


def test_what_cannot_be_read_cannot_be_explained():
    with pytest.raises(ImageError, match=r"^image: not an image"):
        reader().explain(b"junk")
    with pytest.raises(TypeError, match=r"^image: expected a path"):
        reader().explain(None)


def test_the_steps_of_an_explanation_are_the_characters_and_the_end(images):
    """Also where padding is predicted within a text, which is no character."""
    weights = reading_weights()
    charset = weights.charset
    params = weights.variables["params"]
    bias = params["classifier"]["bias"].at[charset.pad_id].add(1.5)
    classifier = params["classifier"] | {"bias": bias}
    variables = weights.variables | {"params": params | {"classifier": classifier}}
    weights = dataclasses.replace(weights, variables=variables)
    # Here the padding token is a character, and what the unknown one was is left out.
    swapped = dataclasses.replace(
        charset, pad_id=charset.unknown_id, unknown_id=charset.pad_id
    )
    plain = Recognizer(weights, batch_size=8, dtype="float32")
    whole = Recognizer(dataclasses.replace(weights, charset=swapped), dtype="float32")
    checked = 0
    for image in images:
        view = View(resize_and_pad(image, RULE))
        reading, explanation = plain.explain_view(view)
        every, all_steps = whole.explain_view(view)
        ended = len(explanation.position_share) - len(reading.characters)
        assert ended in (0, 1)
        assert len(reading.characters) == len(reading.character_confidences)
        if UNKNOWN_TEXT in reading.characters:
            continue
        kept = [c != UNKNOWN_TEXT for c in every.characters]
        kept += [True] * (len(all_steps.position_share) - len(kept))
        checked += not all(kept)
        for one, other in zip(explanation, all_steps, strict=True):
            np.testing.assert_array_equal(one, other[kept])
    assert checked > 2
