"""RobustScanner (ECCV 2020) scene-text recognition in JAX/Flax."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from robustscanner_jax.reading import Reading
    from robustscanner_jax.recognizer import Recognizer

__version__ = "0.1.0"
__all__ = ["Reading", "Recognizer", "__version__"]


def __getattr__(name: str) -> object:
    # Imported on first use: worker processes of the pipeline must not load JAX.
    if name == "Recognizer":
        from robustscanner_jax.recognizer import Recognizer

        return Recognizer
    if name == "Reading":
        from robustscanner_jax.reading import Reading

        return Reading
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
