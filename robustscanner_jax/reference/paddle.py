"""PaddleOCR's RobustScanner, and its predecessor RobustScanner.paddle."""

from robustscanner_jax.preprocessing import Preprocessing
from robustscanner_jax.reference.names import Dialect
from robustscanner_jax.reference.source import Source

PADDLE = Source(
    name="paddle",
    title="PaddleOCR",
    dialect=Dialect(
        head="head.",
        fusion="fusion_module.linear_layer",
        mean="_mean",
        variance="_variance",
        linear="same",
        aliases=True,
    ),
    special_order="unknown, end, pad",
    predicts_pad=False,
    max_len=40,
    mask_rounding="nearest",
    unbiased_variance=False,
    # (x / 255 - 0.5) / 0.5
    preprocessing=Preprocessing(clamp_first=False, mean=127.5, scale=127.5),
    reads_pad_row=False,
    mean_score=True,
)
