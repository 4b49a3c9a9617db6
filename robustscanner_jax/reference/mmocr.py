"""MMOCR's RobustScanner: version 1.x, and 0.x before it."""

from robustscanner_jax.preprocessing import Preprocessing
from robustscanner_jax.reference.names import Dialect
from robustscanner_jax.reference.source import Source

MMOCR = Source(
    name="mmocr",
    title="MMOCR 1.x",
    dialect=Dialect(
        fusion="linear_layer",
        mean="running_mean",
        variance="running_var",
        linear="transposed",
        counters=True,
    ),
    special_order="end, pad, unknown",
    predicts_pad=True,
    max_len=30,
    mask_rounding="ceil",
    unbiased_variance=True,
    preprocessing=Preprocessing(clamp_first=True, mean=127.0, scale=127.0),
    reads_pad_row=True,
    mean_score=False,
)

MMOCR0 = Source(
    name="mmocr0",
    title="MMOCR 0.x",
    dialect=Dialect(
        fusion="fusion_module.linear_layer",
        mean="running_mean",
        variance="running_var",
        linear="transposed",
        counters=True,
    ),
    special_order="unknown, end, pad",
    predicts_pad=False,
    max_len=30,
    mask_rounding="ceil",
    unbiased_variance=True,
    # (x / 255 - 0.5) / 0.5
    preprocessing=Preprocessing(clamp_first=True, mean=127.5, scale=127.5),
    reads_pad_row=True,
    mean_score=False,
)
