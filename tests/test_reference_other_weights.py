"""Other salts and other images than the golden files', against numpy in float64."""

import jax.numpy as jnp
import numpy as np
import pytest
from reference_data import checkpoints
from reference_data.numpy_model import Published

from robustscanner_jax.decoding import greedy
from robustscanner_jax.reference import import_state
from robustscanner_jax.reference.golden import read_golden
from robustscanner_jax.reference.stages import stage_outputs


def images(seed, b):
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(-1, 1, size=(b, 6, 20, 3)).repeat(8, 1).repeat(8, 2)
    image = 0.7 * coarse + 0.3 * rng.uniform(-1, 1, size=(b, 48, 160, 3))
    width = rng.integers(12, 41, size=b) * 4
    padding = np.arange(160)[None, :] >= width[:, None]
    image = np.where(padding[:, None, :, None], -1.0, image)
    return image.astype(np.float32), width


@pytest.mark.parametrize(("salt", "source"), [("one", "mmocr"), ("two", "paddle")])
def test_stages_and_greedy_decoding_equal_numpys(salt, source):
    state = checkpoints.state(source, salt, nano=True)
    model, variables, charset, _ = import_state(source, state, width="nano")
    if source == "paddle":
        state = checkpoints.mmocr0_from_paddle(state)
        state |= {
            f"decoder.linear_layer.{part}": state[
                f"decoder.fusion_module.linear_layer.{part}"
            ]
            for part in ("weight", "bias")
        }
    published = Published(state)
    image, width = images(len(salt), 3)
    encoded = published.encode(image.transpose(0, 3, 1, 2), width // 4, model.max_len)
    rng = np.random.default_rng(7)
    tokens = rng.integers(0, charset.num_tokens, size=(3, model.max_len))
    width = jnp.asarray(width, jnp.float32)
    stages = stage_outputs(
        model, variables, jnp.asarray(image), width, jnp.asarray(tokens, jnp.int32)
    )
    for name, expected, atol in (
        ("backbone", encoded[0], 1e-4),
        ("encoder", encoded[1], 2e-4),
        ("position_glimpse", encoded[3], 2e-3),
        ("teacher_logits", published.logits(encoded, tokens), 5e-3),
    ):
        np.testing.assert_allclose(
            stages[name], expected, atol=atol, rtol=0, err_msg=name
        )
    decoded = greedy(model, variables, jnp.asarray(image), width, all_steps=True)
    ids, probabilities = published.greedy(encoded, charset.end_id, model.max_len)
    np.testing.assert_array_equal(decoded.ids, ids)
    assert len(np.unique(ids)) > 5  # it says something
    np.testing.assert_allclose(decoded.probabilities, probabilities, atol=1e-4, rtol=0)


@pytest.mark.reference
@pytest.mark.slow
def test_numpy_itself_equals_the_published_float64_run(shared):
    golden = read_golden(shared("reference/mmocr_golden.npz"))
    published = Published(checkpoints.state("mmocr", str(golden["salt"])))
    encoded = published.encode(golden["images"][:2], golden["valid_width"][:2], 30)
    logits = published.logits(encoded, golden["target_padded"][:2])
    np.testing.assert_allclose(
        logits, golden["teacher_logits_f64"][:2], atol=2e-6, rtol=0
    )
