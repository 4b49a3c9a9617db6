"""A quarter of the channels, rendered words alone, one GPU.

Run:    python -m robustscanner_jax.main --config=configs/tiny.py --workdir=RUN
Expect: 15,800 images a second in the step of an H100, rendering is slower; not trained
        to the end. Without an accelerator: configs/tiny_cpu.py.
"""

from ml_collections import ConfigDict

from configs import small


def get_config() -> ConfigDict:
    """Returns the config."""
    config = small.get_config()
    config.model.width = "tiny"
    return config
