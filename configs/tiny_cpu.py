"""The `tiny` that ships, in five hours of two CPU cores: small images first.

Attention is found sooner among easy words, and at a quarter of the pixels an update
takes a quarter of the time; the parts after the first go on with larger images.

Run:    python -m robustscanner_jax.main --config=configs/tiny_cpu.py:first \
            --workdir=RUN1
        python -m robustscanner_jax.main --config=configs/tiny_cpu.py:second \
            --config.train.init_weights=RUN1 --workdir=RUN2
        python -m robustscanner_jax.main --config=configs/tiny_cpu.py:third \
            --config.train.init_weights=RUN2 --workdir=RUN3
        python -m robustscanner_jax.main --config=configs/tiny_cpu.py:fourth \
            --config.train.init_weights=RUN3 --workdir=RUN4
Expect: 58.6, 65.1, 70.1 and 72.8 % on real crops after 64, 33, 92 and 125 minutes,
        see docs/model_card.md
"""

from ml_collections import ConfigDict

from configs import default

# Of the parts after the first: the seed of their words, and updates.
LATER = {"second": (2, 1_600), "third": (3, 4_000), "fourth": (4, 4_400)}


def get_config(part: str = "first") -> ConfigDict:
    """Returns the config of a part, "first", "second", "third" or "fourth"."""
    if part not in ("first", *LATER):
        raise ValueError(
            "configs/tiny_cpu.py: expected :first, :second, :third or :fourth,"
            f" got {part}"
        )
    config = default.get_config()
    config.model.width = "tiny"
    config.data.batch_size = 64
    config.data.num_workers = 1
    config.train.schedule = "one_cycle"
    config.train.save_every = 250
    config.train.keep = 2
    if part == "first":
        default.set_image_size(config, 24, 80)
        config.data.train = (
            "rendered:full?seed=1&count=20000000&split=train",
            "rendered:easy?seed=1&count=20000000&split=train",
        )
        config.data.weights = (0.75, 0.25)
        config.train.steps = 4_500
        config.train.peak_lr = 1.5e-3
        config.train.evaluate_every = 1_500
    else:
        seed, steps = LATER[part]
        default.set_image_size(config, 32, 112)
        config.data.train = (f"rendered:full?seed={seed}&count=20000000&split=train",)
        config.train.steps = steps
        config.train.peak_lr = 1e-3
        config.train.evaluate_every = steps // 2
    return config
