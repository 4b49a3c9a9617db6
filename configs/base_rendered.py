"""The paper's network on rendered words alone, one GPU.

Run:    python -m robustscanner_jax.main --config=configs/base_rendered.py --workdir=RUN
Expect: 82.5 % on real crops after 14 minutes of one H100, see docs/model_card.md
"""

from ml_collections import ConfigDict

from configs import small


def get_config() -> ConfigDict:
    """Returns the config."""
    config = small.get_config()
    config.model.width = "base"
    config.train.steps = 14_000
    config.train.peak_lr = 1e-3
    config.train.evaluate_every = 5_000
    config.train.save_every = 5_000
    return config
