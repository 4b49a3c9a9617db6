"""Half the channels, rendered words alone, one GPU: the first part of what ships.

Run:    python -m robustscanner_jax.main --config=configs/small.py --workdir=RUN
Expect: 81.7 % on real crops after 11 minutes of one H100, see docs/model_card.md. The
        first part was trained without the loose crops, which the third part showed.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """Returns the config."""
    config = default.get_config()
    config.model.width = "small"
    config.data.train = (
        "rendered:full?seed=1&count=20000000&split=train",
        "rendered:loose?seed=1&count=20000000&split=train",
    )
    config.data.weights = (0.85, 0.15)
    config.data.num_workers = -1  # 15 of 16 cores
    config.data.augment = 0.4
    config.data.variants = 2  # rendering is slower than one H100
    config.train.steps = 19_000
    config.train.schedule = "one_cycle"
    config.train.peak_lr = 1.5e-3
    config.train.log_every = 100
    config.train.evaluate_every = 6_000
    config.train.save_every = 4_000
    config.train.keep = 2
    return config
