"""Goes on from shipped weights, :small or :tiny, with real words among rendered ones.

Run: python -m robustscanner_jax.main --config=configs/finetune.py:tiny --workdir=RUN \
         --config.data.train="('rendered:full?seed=3&count=20000000','labels.tsv')" \
         --config.data.evaluate="('mine:val.tsv',)"
"""

from ml_collections import ConfigDict

from configs import default, small


def get_config(weights: str = "small") -> ConfigDict:
    """Returns the config that goes on from "small" or "tiny"."""
    if weights not in ("small", "tiny"):
        raise ValueError(
            f"configs/finetune.py: expected :small or :tiny, got {weights}"
        )
    config = small.get_config()
    config.data.train = ("rendered:full?seed=3&count=20000000", "data/real")  # yours
    config.data.weights = (0.5, 0.5)
    config.data.augment = 0.5
    config.train.init_weights = weights
    config.train.steps = 1_500
    config.train.peak_lr = 3e-4
    config.train.log_every = 20
    config.train.evaluate_every = 500
    config.train.save_every = 500
    if weights == "tiny":
        config.model.width = "tiny"
        default.set_image_size(config, 32, 112)
        config.data.batch_size = 64
        config.data.variants = 1
    return config
