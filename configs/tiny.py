"""A quarter of the channels, rendered words alone; for slow machines.

Run:    python -m robustscanner_jax.main --config=configs/tiny.py --workdir=RUN
Expect: 28 images a second on two CPU cores, 15,800 on an H100; not trained to the end.
"""

from ml_collections import ConfigDict

from configs import small


def get_config() -> ConfigDict:
    """Returns the config."""
    config = small.get_config()
    config.model.width = "tiny"
    config.data.batch_size = 64
    config.data.num_workers = 0
    return config
