"""Adds what pyproject.toml cannot say: weights/ is installed inside the package."""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["robustscanner_jax*", "configs*", "data_prep*"]),
        "robustscanner_jax.shipped",
    ],
    package_dir={"robustscanner_jax.shipped": "weights"},
    package_data={
        "robustscanner_jax.shipped": ["*.safetensors"],
        "data_prep.synthetic": ["*.tsv", "*.rot13"],
        "robustscanner_jax": ["py.typed"],
        "": ["*.html"],
    },
)
