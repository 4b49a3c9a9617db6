"""Names, layouts and what a damaged checkpoint gets."""

import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference_data import checkpoints

from robustscanner_jax.charset import DICT90
from robustscanner_jax.reference import (
    CheckpointError,
    certify,
    export_state,
    import_state,
)
from robustscanner_jax.weights import flatten

SOURCES = ("mmocr", "mmocr0", "paddle")
STEPS = {"mmocr0": 40}  # made from PaddleOCR's
PREFIX = {"mmocr": "", "mmocr0": "", "paddle": "head."}


def read(source, state, **options):
    options = {"max_len": STEPS.get(source), "width": "nano"} | options
    return import_state(source, state, **options)


def same_bits(left, right):
    assert set(left) == set(right)
    for name in left:
        ours, theirs = np.asarray(left[name]), np.asarray(right[name])
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape), name
        assert ours.tobytes() == theirs.tobytes(), name


@pytest.mark.parametrize("source", ("mmocr", "paddle"))
def test_the_recipe_makes_the_published_bits(source):
    content = json.loads((checkpoints.FOLDER / f"{source}_manifest.json").read_text())
    with np.load(checkpoints.FOLDER / f"{source}_rows.npz") as rows:
        state = checkpoints.state(source, str(rows["salt"]))
    for name, entry in content.items():
        array = state[name].astype(np.float32)
        digest = hashlib.sha256(array.tobytes()).hexdigest()
        assert digest[:16] == entry["sha256_first"], name


@pytest.mark.parametrize("source", SOURCES)
def test_import_and_export_give_the_same_bits(source):
    state = checkpoints.state(source, "any salt")
    imported = read(source, state, width="base")
    same_bits(export_state(source, imported.model, imported.variables), state)


@pytest.mark.parametrize("salt", ("a", "b", "c"))
@pytest.mark.parametrize("source", SOURCES)
def test_export_and_import_give_the_same_bits(source, salt):
    imported = read(source, checkpoints.state(source, salt, nano=True))
    state = export_state(source, imported.model, imported.variables)
    again = read(source, state)
    assert again.model == imported.model
    same_bits(flatten(again.variables), flatten(imported.variables))


def test_the_published_network_has_47979229_parameters():
    imported = read("mmocr", checkpoints.state("mmocr", "x"), width="base")
    sizes = [leaf.size for leaf in jax.tree.leaves(imported.variables["params"])]
    assert sum(sizes) == 47_979_229


def test_each_source_has_its_behaviour():
    mmocr, mmocr0, paddle = (
        import_state(source, checkpoints.state(source, "x", nano=True), width="nano")
        if source != "mmocr0"
        else read(source, checkpoints.state(source, "x", nano=True))
        for source in SOURCES
    )
    assert mmocr.charset.characters == mmocr0.charset.characters == DICT90
    ids = [
        (i.charset.end_id, i.charset.pad_id, i.charset.unknown_id, i.model.num_classes)
        for i in (mmocr, mmocr0, paddle)
    ]
    assert ids == [(90, 91, 92, 93), (91, 92, 90, 92), (91, 92, 90, 92)]
    assert (mmocr.model.max_len, paddle.model.max_len) == (30, 40)
    assert (mmocr.model.mask_rounding, paddle.model.mask_rounding) == (
        "ceil",
        "nearest",
    )
    assert mmocr0.model.mask_rounding == "ceil"
    assert mmocr.model.unbiased_variance and not paddle.model.unbiased_variance
    assert (mmocr.preprocessing.mean, mmocr.preprocessing.scale) == (127.0, 127.0)
    for other in (mmocr0, paddle):
        assert (other.preprocessing.mean, other.preprocessing.scale) == (127.5, 127.5)
    assert mmocr.preprocessing.clamp_first and not paddle.preprocessing.clamp_first


def inputs(seed, steps):
    rng = np.random.default_rng(seed)
    image = jnp.asarray(rng.normal(size=(3, 48, 160, 3)), jnp.float32)
    # Whole columns, so that both rules for the mask agree.
    width = jnp.asarray(rng.integers(12, 41, size=3) * 4, jnp.float32)
    tokens = rng.integers(0, 90, size=(3, steps)).astype(np.int32)
    return image, width, tokens


@pytest.mark.parametrize("salt", ("cross", "check"))
def test_one_state_in_two_dialects_gives_the_same_logits(salt):
    paddle = checkpoints.state("paddle", salt, nano=True)
    left = read("paddle", paddle)
    right = read("mmocr0", checkpoints.mmocr0_from_paddle(paddle))
    same_bits(flatten(left.variables), flatten(right.variables))
    image, width, tokens = inputs(1, 40)
    first, second = (
        jax.jit(i.model.apply, static_argnames="train")(
            i.variables, image, width, jnp.asarray(tokens), train=False
        )
        for i in (left, right)
    )
    np.testing.assert_allclose(first, second, atol=1e-5)


@pytest.mark.parametrize("salt", ("cross", "check"))
def test_token_ids_move_with_their_rows(salt):
    mmocr = checkpoints.state("mmocr", salt, nano=True)
    left = read("mmocr", mmocr)
    right = read("paddle", checkpoints.paddle_from_mmocr(mmocr), max_len=30)
    image, width, tokens = inputs(2, 30)
    tokens[:, 0] = 90
    tokens[1, 9:] = 91  # padding
    tokens[2, 4] = 92  # unknown
    to_paddle = np.array([*range(90), 91, 92, 90], np.int32)
    first, second = (
        jax.jit(i.model.apply, static_argnames="train")(
            i.variables, image, width, jnp.asarray(ids), train=False
        )
        for i, ids in ((left, tokens), (right, to_paddle[tokens]))
    )
    np.testing.assert_allclose(first[..., [*range(90), 92, 90]], second, atol=1e-4)


def message(source, state, **options):
    with pytest.raises(CheckpointError) as caught:
        read(source, state, **options)
    return str(caught.value)


NAMES = (
    "backbone.conv1_1.weight",
    "backbone.block4.0.downsample.0.weight",
    "backbone.bn5.bias",
    "decoder.hybrid_decoder.sequence_layer.weight_hh_l1",
    "decoder.position_decoder.embedding.weight",
    "decoder.prediction.weight",
    "encoder.layer.bias",
)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("source", SOURCES)
def test_a_missing_tensor_is_named(source, name):
    name = name if name.startswith("backbone.") else PREFIX[source] + name
    state = checkpoints.state(source, "x", nano=True)
    del state[name]
    assert f"{name} is missing" in message(source, state)


@pytest.mark.parametrize("source", SOURCES)
def test_an_extra_tensor_is_named(source):
    state = checkpoints.state(source, "x", nano=True)
    state["backbone.conv6.weight"] = np.zeros(3, np.float32)
    assert "backbone.conv6.weight is not part of" in message(source, state)


@pytest.mark.parametrize("name", [n for n in NAMES if n.endswith(("weight", "hh_l1"))])
@pytest.mark.parametrize("source", SOURCES)
def test_a_transposed_tensor_is_named(source, name):
    name = name if name.startswith("backbone.") else PREFIX[source] + name
    state = checkpoints.state(source, "x", nano=True)
    state[name] = state[name].T
    text = message(source, state)
    assert f"{name}: expected shape" in text and "transposed" in text


@pytest.mark.parametrize("source", SOURCES)
def test_values_that_are_not_finite_are_named(source):
    state = checkpoints.state(source, "x", nano=True)
    bad = state["backbone.bn3.bias"].copy()
    bad[2:5] = np.nan
    state["backbone.bn3.bias"] = bad
    text = message(source, state)
    assert f"backbone.bn3.bias: 3 of {bad.size} values are not finite" in text


def test_integers_are_named():
    state = checkpoints.state("mmocr", "x", nano=True)
    state["encoder.layer.bias"] = np.zeros(128, np.int64)
    assert "encoder.layer.bias: expected floating-point" in message("mmocr", state)


@pytest.mark.parametrize("given", SOURCES)
@pytest.mark.parametrize("claimed", SOURCES)
def test_a_checkpoint_of_another_source_is_recognised(given, claimed):
    if given == claimed:
        return
    state = checkpoints.state(given, "x", nano=True)
    text = message(claimed, state)
    assert f"the names are those of source {given}" in text


def test_an_unknown_source_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"mmocr.*mmocr0.*paddle"):
        import_state("torch", {})


@pytest.mark.parametrize("source", SOURCES)
def test_a_dictionary_of_another_length_is_named(source):
    state = checkpoints.state(source, "x", nano=True)
    text = message(source, state, characters=DICT90 + "é")
    assert "91 characters" in text and "pass the 90 characters" in text


@pytest.mark.parametrize("source", SOURCES)
def test_a_dictionary_in_another_order_of_the_special_tokens_is_named(source):
    state = checkpoints.state(source, "x", nano=True)
    name = next(n for n in state if n.endswith("hybrid_decoder.embedding.weight"))
    state[name] = np.roll(state[name], -1, axis=0)
    text = message(source, state)
    assert f"{name}: row" in text and "order" in text


def test_a_dictionary_of_ones_own_is_imported():
    state = checkpoints.state("mmocr", "x", nano=True)
    other = "".join(map(chr, range(0x4E00, 0x4E00 + 90)))
    imported = read("mmocr", state, characters=other)
    assert imported.charset.characters == other
    assert imported.charset.to_text([2, 1, 90]) == other[2] + other[1]


def test_another_number_of_steps_is_named_and_can_be_given():
    state = checkpoints.state("paddle", "x", nano=True)
    name = "head.decoder.position_decoder.embedding.weight"
    state[name] = np.resize(state[name], (101, 128))
    assert f"{name}: expected shape [41, 128]" in message("paddle", state)
    assert "pass max_len=100" in message("paddle", state)
    assert read("paddle", state, max_len=100).model.max_len == 100


def test_paddles_second_names_must_hold_the_same_values():
    state = checkpoints.state("paddle", "x", nano=True)
    first = "head.decoder.hybrid_decoder.sequence_layer.bias_hh_l1"
    second = "head.decoder.hybrid_decoder.sequence_layer.1.cell.bias_hh"
    state[second] = state[second] + 1
    text = message("paddle", state)
    assert f"{second}: differs from {first}" in text
    del state[second]
    assert f"{second} is missing" in message("paddle", state)


def test_paddles_second_names_may_all_be_absent():
    state = checkpoints.state("paddle", "x", nano=True)
    alone = {name: a for name, a in state.items() if ".cell." not in name}
    same_bits(
        flatten(read("paddle", alone).variables),
        flatten(read("paddle", state).variables),
    )


def test_paddles_padding_row_becomes_zero_and_is_reported():
    state = checkpoints.state("paddle", "x", nano=True)
    name = "head.decoder.hybrid_decoder.embedding.weight"
    state[name] = state[name].copy()
    state[name][92] = 0.5
    imported = read("paddle", state)
    assert not imported.variables["params"]["hybrid"]["embedding"][92].any()
    certificate = certify("paddle", state, width="nano")
    assert certificate.ok and f"{name}: row 92 (padding) was not zero" in (
        certificate.text()
    )


def test_mmocrs_padding_row_must_be_zero():
    state = checkpoints.state("mmocr", "x", nano=True)
    name = "decoder.hybrid_decoder.embedding.weight"
    state[name] = state[name].copy()
    state[name][91] = 0.5
    assert f"{name}: row 91" in message("mmocr", state)


def test_half_and_double_precision_become_float32():
    state = checkpoints.state("mmocr", "x", nano=True)
    half = {k: a.astype(np.float16) if a.ndim else a for k, a in state.items()}
    leaves = jax.tree.leaves(read("mmocr", half).variables)
    assert {leaf.dtype for leaf in leaves} == {np.dtype(np.float32)}
    assert "float16" in certify("mmocr", half, width="nano").text()


def test_export_refuses_a_model_with_other_tokens():
    imported = read("mmocr", checkpoints.state("mmocr", "x", nano=True))
    with pytest.raises(ValueError, match=r"PaddleOCR.*num_classes is 92.* 93"):
        export_state("paddle", imported.model, imported.variables)


def test_the_counters_are_written_as_asked():
    imported = read("mmocr", checkpoints.state("mmocr", "x", nano=True))
    state = export_state(
        "mmocr", imported.model, imported.variables, num_batches_tracked=7
    )
    assert state["backbone.bn5.num_batches_tracked"] == 7


def test_a_certificate_counts_every_tensor():
    state = checkpoints.state("mmocr", "x", nano=True)
    text = certify("mmocr", state, width="nano").text()
    assert "214: 184 imported once, 0 second names, 30 counters, 0 left over" in text
    assert "end 90, padding 91" in text and "passed" in text
    state["surplus"] = np.zeros(3, np.float32)
    certificate = certify("mmocr", state, width="nano")
    assert not certificate.ok
    assert "1 left over" in certificate.text() and "FAILED" in certificate.text()
