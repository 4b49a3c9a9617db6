"""A network small enough for tests, with weights that do something."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from robustscanner_jax.charset import Charset
from robustscanner_jax.models.robustscanner import RobustScanner

CHARSET = Charset.of("abcdefgh")
MAX_LEN = 6
HEIGHT, WIDTH = 16, 32  # pixels
ROWS, COLUMNS = 2, 8  # of the map
BATCH = 64  # one size for most tests: every other is a compilation


convolution_of_xla = functools.partial(
    jax.lax.conv_general_dilated,
    window_strides=(1, 1),
    padding="SAME",
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
)


def distance(first, second) -> float:
    """Returns the norm of what differs, against the norm of the first."""
    difference = optax.tree.sub(first, second)
    return float(optax.tree.norm(difference) / optax.tree.norm(first))


def small_model(**changes) -> RobustScanner:
    """Returns the network at 1/8 of the channels, over eight characters."""
    arguments = dict(
        num_classes=CHARSET.num_classes,
        num_tokens=CHARSET.num_tokens,
        start_id=CHARSET.end_id,
        end_id=CHARSET.end_id,
        pad_id=CHARSET.pad_id,
        max_len=MAX_LEN,
        width="nano",
        decoder_width=32,
    )
    return RobustScanner(**(arguments | changes))


def text_tokens(seed: int, b: int, model: RobustScanner) -> jax.Array:
    """Returns previous characters for teacher forcing, `[b, max_len]`."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, len(CHARSET.characters), (b, model.max_len))
    tokens[:, 0] = model.start_id
    return jnp.asarray(tokens, jnp.int32)


def random_images(
    seed: int, b: int, size: tuple[int, int] = (HEIGHT, WIDTH)
) -> tuple[jax.Array, jax.Array]:
    """Returns images like padded crops, `[b, h, w, 3]` in [-1, 1], and their widths.

    Each has its own mixture of a coarse and a fine pattern; padding is -1.
    """
    rng = np.random.default_rng(seed)
    h, w = size
    coarse = rng.normal(size=(b, h // 8, w // 8, 3)).repeat(8, axis=1).repeat(8, axis=2)
    fine = rng.normal(size=(b, h, w, 3))
    share = rng.uniform(size=(b, 1, 1, 1))
    image = np.tanh(2 * (share * coarse + (1 - share) * fine))
    width = rng.choice(np.arange(w // 4, w + 1, 4), size=b)
    padding = np.arange(w)[None, :] >= width[:, None]
    image = np.where(padding[:, None, :, None], -1.0, image)
    return jnp.asarray(image, jnp.float32), jnp.asarray(width, jnp.int32)


@functools.partial(jax.jit, static_argnames=("model", "train"))
def apply(model, variables, image, width, tokens, *, train: bool):
    """Returns teacher-forced logits, and the collections that changed."""
    return model.apply(
        variables, image, width, tokens, train=train, mutable=["batch_stats"]
    )


def logits_of(model, variables, image, width, tokens) -> np.ndarray:
    """Returns teacher-forced logits of a network in use, `[b, t, k]`."""
    return np.asarray(apply(model, variables, image, width, tokens, train=False)[0])


@functools.cache
def eloquent(seed: int = 0):
    """Returns variables of `small_model()` whose texts differ and end at any step.

    Fresh weights repeat one character. Here batch norm has the statistics of some
    images, the attention looks at few cells, and the classifier tells its inputs apart.
    Made in numpy: the library's initialisers would take seconds to compile.
    """
    model = small_model()
    rng = np.random.default_rng(seed)
    image, width = random_images(10_000 + seed, BATCH)
    tokens = text_tokens(seed, BATCH, model)
    shapes = jax.eval_shape(
        lambda: model.init(jax.random.key(0), image, width, tokens, train=False)
    )

    def draw(path, leaf) -> jax.Array:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if "norm/" in name:
            value = np.full(leaf.shape, name.endswith(("scale", "var")), float)
        elif "bias" in name:
            value = 0.1 * rng.normal(size=leaf.shape)
        elif "embedding" in name:
            value = 3.0 * rng.normal(size=leaf.shape)
        else:  # a kernel; the gain makes queries and keys large, and so attention sharp
            gain = 4.0 if "reduction" in name else 2.0 if "lstm" in name else 1.4
            value = (
                gain * rng.normal(size=leaf.shape) / np.sqrt(leaf.size / leaf.shape[-1])
            )
        return jnp.asarray(value, jnp.float32)

    variables = jax.tree_util.tree_map_with_path(draw, shapes)
    _, updated = apply(model, variables, image, width, tokens, train=True)
    # From the running average after one update back to the statistics of the batch.
    stats = jax.tree.map(
        lambda new, old: (new - 0.9 * old) / 0.1,
        updated["batch_stats"],
        variables["batch_stats"],
    )
    params = variables["params"]
    variables = {"params": params, "batch_stats": stats}
    logits = logits_of(model, variables, image, width, tokens)
    sharpness = 0.7 / logits.std(axis=1).mean(axis=0)  # over the steps of an image
    bias = np.asarray(params["classifier"]["bias"]) - logits.mean(axis=(0, 1))
    bias *= sharpness
    bias[model.end_id] += 0.4  # about half of the texts end early
    kernel = np.asarray(params["classifier"]["kernel"]) * sharpness
    classifier = {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}
    return {"params": params | {"classifier": classifier}, "batch_stats": stats}
