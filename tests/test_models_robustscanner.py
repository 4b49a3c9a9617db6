"""The whole network: size, shapes, and what an output may depend on."""

import functools
import math

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from helpers import (
    BATCH,
    COLUMNS,
    HEIGHT,
    MAX_LEN,
    ROWS,
    WIDTH,
    apply,
    eloquent,
    logits_of,
    random_images,
    small_model,
    text_tokens,
)

from robustscanner_jax.models.robustscanner import RobustScanner


def shapes_of(model: RobustScanner, h: int = 48, w: int = 160):
    """Returns fresh variables and the logits without computing any."""
    image = jax.ShapeDtypeStruct((2, h, w, 3), jnp.float32)
    width = jax.ShapeDtypeStruct((2,), jnp.int32)
    tokens = jax.ShapeDtypeStruct((2, model.max_len), jnp.int32)
    run = functools.partial(model.init_with_output, train=False)
    logits, variables = jax.eval_shape(run, jax.random.key(0), image, width, tokens)
    return variables, logits


def num_parameters(variables) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))


def test_the_base_model_has_the_parameters_of_the_published_one():
    variables, logits = shapes_of(RobustScanner())
    assert num_parameters(variables) == 47_979_229
    assert logits.shape == (2, 30, 93)


def test_encoding_an_image_of_the_base_model_gives_240_cells():
    encoded = jax.eval_shape(
        lambda key, image, width: RobustScanner().init_with_output(
            key, image, width, train=False, method="encode"
        )[0],
        jax.random.key(0),
        jax.ShapeDtypeStruct((2, 48, 160, 3), jnp.float32),
        jax.ShapeDtypeStruct((2,), jnp.int32),
    )
    assert encoded.keys.shape == (2, 6 * 40, 128)
    assert encoded.values.shape == (2, 6 * 40, 512)
    assert encoded.position_glimpses.shape == (2, 30, 512)


def test_the_variant_of_paddle_has_one_class_less_and_ten_positions_more():
    # 92 outputs beside 93 tokens, 40 steps: padding lies beyond the classes.
    paddle = RobustScanner(
        num_classes=92,
        num_tokens=93,
        start_id=91,
        end_id=91,
        pad_id=92,
        max_len=40,
        mask_rounding="nearest",
        unbiased_variance=False,
    )
    variables, logits = shapes_of(paddle)
    assert num_parameters(variables) == 47_979_229 - (512 + 1) + 10 * 128
    assert logits.shape == (2, 40, 92)


@pytest.mark.parametrize(("width", "channels"), [("small", 256), ("tiny", 128)])
def test_narrower_models_narrow_the_backbone_and_keep_the_decoder(width, channels):
    variables, logits = shapes_of(RobustScanner(width=width))
    assert variables["params"]["reduction"]["kernel"].shape == (1, 1, channels, 128)
    assert variables["params"]["fusion"]["mix"]["kernel"].shape == (2 * channels,) * 2
    assert logits.shape == (2, 30, 93)
    assert num_parameters(variables) < 48e6 * channels / 512


MODEL = small_model()


def example(seed: int = 0, b: int = BATCH):
    return *random_images(seed, b), text_tokens(seed, b, MODEL)


@functools.partial(jax.jit, static_argnames="model")
def encode(model, variables, image, width):
    return model.apply(variables, image, width, train=False, method="encode")


@functools.partial(jax.jit, static_argnames="model")
def step(model, *arguments):
    return model.apply(*arguments, method="step")


def decode(model, variables, encoded, tokens) -> np.ndarray:
    """Returns the logits of all steps, one step after the other."""
    carry = model.apply(variables, len(tokens), method="initial_carry")
    steps = []
    for index, token in enumerate(tokens.T):
        carry, logits = step(model, variables, encoded, carry, token, jnp.int32(index))
        steps.append(logits)
    return np.stack(steps, axis=1)


def test_a_step_depends_on_the_characters_before_it_and_on_no_later_ones():
    image, width, tokens = example()
    variables = eloquent()
    before = logits_of(MODEL, variables, image, width, tokens)
    for step in range(MAX_LEN):
        changed = tokens.at[:, step].set((tokens[:, step] + 1) % 8)
        after = logits_of(MODEL, variables, image, width, changed)
        np.testing.assert_array_equal(before[:, :step], after[:, :step])
        assert np.abs(before - after)[:, step].min(axis=0).max() > 1e-3


def test_without_the_hybrid_branch_the_characters_before_do_not_matter():
    image, width, tokens = example()
    variables = eloquent()  # the switches change no parameter
    encoded = encode(MODEL, variables, image, width)
    model = small_model(use_hybrid=False)
    before = decode(model, variables, encoded, tokens)
    after = decode(model, variables, encoded, (tokens + 1) % 8)
    np.testing.assert_array_equal(before, after)
    assert not np.allclose(before, decode(MODEL, variables, encoded, tokens), atol=0.1)
    assert np.abs(np.diff(before, axis=1)).max() > 0.1  # positions still differ


def test_without_the_position_branch_its_glimpses_do_not_matter():
    image, width, tokens = example()
    variables = eloquent()
    encoded = encode(MODEL, variables, image, width)
    other = encoded._replace(position_glimpses=encoded.position_glimpses[::-1])
    model = small_model(use_position=False)
    before = decode(model, variables, encoded, tokens)
    np.testing.assert_array_equal(before, decode(model, variables, other, tokens))
    full = decode(MODEL, variables, encoded, tokens)
    assert not np.allclose(full, before, atol=0.1)
    assert not np.allclose(full, decode(MODEL, variables, other, tokens), atol=0.1)


def test_the_switches_keep_the_parameters_so_that_ablations_share_checkpoints():
    full = jax.tree.map(jnp.shape, eloquent())
    neither = small_model(use_hybrid=False, use_position=False)
    assert jax.tree.map(jnp.shape, shapes_of(neither, HEIGHT, WIDTH)[0]) == full


def test_the_switches_act_alike_in_training_and_in_use():
    image, width, tokens = example()
    variables = eloquent()
    encoded = encode(MODEL, variables, image, width)
    model = small_model(use_position=False)
    np.testing.assert_allclose(
        decode(model, variables, encoded, tokens),
        logits_of(model, variables, image, width, tokens),
        atol=1e-4,
    )


@pytest.mark.parametrize("seed", range(3))
def test_stepping_equals_teacher_forcing_on_the_same_characters(seed):
    image, width, tokens = example(seed)
    variables = eloquent(seed)
    stepped = decode(MODEL, variables, encode(MODEL, variables, image, width), tokens)
    forced = logits_of(MODEL, variables, image, width, tokens)
    np.testing.assert_allclose(stepped, forced, rtol=1e-4, atol=1e-4)


def test_steps_ignore_the_cells_right_of_the_content():
    image, width, tokens = example()
    variables = eloquent()
    encoded = encode(MODEL, variables, image, width)
    expected = np.ceil(np.asarray(width) / 4)[:, None] > np.arange(COLUMNS)
    valid = np.asarray(encoded.valid).reshape(-1, ROWS, COLUMNS)
    np.testing.assert_array_equal(valid, np.stack([expected] * ROWS, axis=1))
    assert not valid.all()

    masked = ~encoded.valid[:, :, None]
    dirty = encoded._replace(
        keys=jnp.where(masked, 1e3, encoded.keys),
        values=jnp.where(masked, -1e3, encoded.values),
    )
    np.testing.assert_array_equal(
        decode(MODEL, variables, encoded, tokens),
        decode(MODEL, variables, dirty, tokens),
    )


def test_the_attention_of_both_branches_stops_at_the_content():
    # The same pixels, another width: the map is the same, the cells read are not.
    image, _, tokens = example()
    variables = eloquent()
    narrow, wide = (
        encode(MODEL, variables, image, jnp.full(BATCH, w)) for w in (8, WIDTH)
    )
    np.testing.assert_array_equal(narrow.values, wide.values)
    np.testing.assert_array_equal(narrow.keys, wide.keys)
    first_columns = np.asarray(narrow.values).reshape(BATCH, ROWS, COLUMNS, -1)[
        :, :, :2
    ]
    low, high = first_columns.min(axis=(1, 2)), first_columns.max(axis=(1, 2))
    glimpses = np.asarray(narrow.position_glimpses)
    assert (glimpses >= low[:, None] - 1e-5).all()  # a mean of the valid cells
    assert (glimpses <= high[:, None] + 1e-5).all()
    assert not np.allclose(glimpses, wide.position_glimpses, atol=1e-2)
    assert not np.allclose(
        decode(MODEL, variables, narrow._replace(position_glimpses=glimpses), tokens),
        decode(MODEL, variables, wide._replace(position_glimpses=glimpses), tokens),
        atol=1e-2,
    )


def test_pixels_right_of_the_content_move_the_outputs_through_the_convolutions():
    """Documents what the attention mask does not protect from.

    The receptive field spans the image: with noise instead of zeros in the padded half,
    the largest change of a probability has a median of 0.32 over 64 images in this
    random network, and is 0.15 to 0.96. Padding must look the same in training and use.
    """
    image, _ = random_images(0, BATCH)
    width = jnp.full(BATCH, WIDTH // 2)
    tokens = text_tokens(0, BATCH, MODEL)
    noise = jax.random.uniform(jax.random.key(1), image.shape, minval=-1)
    padding = (jnp.arange(WIDTH) >= WIDTH // 2)[None, None, :, None]
    clean, dirty = (
        jax.nn.softmax(
            logits_of(MODEL, eloquent(), jnp.where(padding, fill, image), width, tokens)
        )
        for fill in (-1.0, noise)
    )
    moved = np.abs(np.asarray(clean) - np.asarray(dirty)).max(axis=(1, 2))
    assert 0.2 < np.median(moved) < 0.5
    assert moved.min() > 0.1


def test_padding_counts_in_the_statistics_of_batch_norm():
    # The width reaches attention only; the statistics span the padded image.
    image, _, tokens = example()
    variables = eloquent()
    narrow, wide = (
        apply(MODEL, variables, image, jnp.full(BATCH, w), tokens, train=True)[1]
        for w in (8, WIDTH)
    )
    jax.tree.map(np.testing.assert_array_equal, narrow, wide)
    stem = narrow["batch_stats"]["backbone"]["stem1"]["norm"]["mean"]
    kernel = variables["params"]["backbone"]["stem1"]["conv"]
    convolved = jax.lax.conv_general_dilated(
        image,
        kernel["kernel"],
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    mean = np.asarray(convolved).mean(axis=(0, 1, 2)) + np.asarray(kernel["bias"])
    old = variables["batch_stats"]["backbone"]["stem1"]["norm"]["mean"]
    np.testing.assert_allclose(stem, 0.9 * old + 0.1 * mean, atol=1e-5)


def test_evaluation_leaves_the_statistics_of_batch_norm_alone():
    variables = eloquent()
    _, updated = apply(MODEL, variables, *example(), train=False)
    jax.tree.map(
        np.testing.assert_array_equal, updated["batch_stats"], variables["batch_stats"]
    )


def test_a_bfloat16_network_keeps_float32_parameters_and_logits():
    half = small_model(dtype=jnp.bfloat16)
    image, width, tokens = example()
    fresh = shapes_of(half, HEIGHT, WIDTH)[0]
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(fresh))
    variables = eloquent()
    got = logits_of(half, variables, image, width, tokens)
    assert got.dtype == np.float32
    expected = logits_of(MODEL, variables, image, width, tokens)
    assert 0 < np.abs(got - expected).max()
    correlation = np.corrcoef(got.ravel(), expected.ravel())[0, 1]
    assert correlation > 0.97


@pytest.mark.slow
def test_every_parameter_gets_a_gradient():
    image, width, tokens = example()
    variables = eloquent()

    @jax.jit
    def gradient(params):
        def loss(params):
            logits, _ = MODEL.apply(
                variables | {"params": params},
                image,
                width,
                tokens,
                train=True,
                mutable=["batch_stats"],
            )
            return -jax.nn.log_softmax(logits)[..., 3].mean()

        return jax.grad(loss)(params)

    sizes = jax.tree.map(
        lambda leaf: float(jnp.abs(leaf).max()), gradient(variables["params"])
    )
    silent = {
        jax.tree_util.keystr(path)
        for path, size in jax.tree_util.tree_leaves_with_path(sizes)
        if size < 1e-7
    }
    # A bias before batch norm, and one added to all keys alike, cancel.
    cancelled = {path for path in silent if "conv" in path or "mix2" in path}
    assert silent == cancelled, silent
    assert all(path.endswith("['bias']") for path in silent)


def test_too_many_characters_are_refused():
    image, width, tokens = example()
    longer = jnp.concatenate([tokens, tokens[:, :1]], axis=1)
    with pytest.raises(ValueError, match="expected at most 6 steps, got 7 tokens"):
        MODEL.apply(eloquent(), image, width, longer, train=False)


def test_shapes_are_checked_at_run_time_in_these_tests():
    # Guards the import hook of conftest.py: without it nothing here checks shapes.
    image, width, tokens = example()
    with pytest.raises(jaxtyping.TypeCheckError, match="'width'"):
        MODEL.apply(eloquent(), image, width[:2], tokens, train=False)
