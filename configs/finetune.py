"""Goes on from a weights file with real words mixed into the rendered ones.

Run: python -m robustscanner_jax.main --config=configs/finetune.py --workdir=RUN \
         --config.data.train="('rendered:full?seed=3&count=20000000','labels.tsv')" \
         --config.data.evaluate="('mine:val.tsv',)" --config.data.num_workers=3
"""

from ml_collections import ConfigDict

from configs import small


def get_config() -> ConfigDict:
    """Returns the config."""
    config = small.get_config()
    config.data.train = ("rendered:full?seed=3&count=20000000", "data/real")  # yours
    config.data.weights = (0.5, 0.5)
    config.data.augment = 0.5
    config.train.init_weights = "small"
    config.train.steps = 1_500
    config.train.peak_lr = 3e-4
    return config
