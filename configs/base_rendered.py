"""The paper's network on rendered words alone, for half an hour of one H100.

Run:    python -m robustscanner_jax.main --config=configs/base_rendered.py --workdir=RUN
"""

from ml_collections import ConfigDict

from configs import small


def get_config() -> ConfigDict:
    """Returns the config."""
    config = small.get_config()
    config.model.width = "base"
    config.train.peak_lr = 1e-3
    return config
