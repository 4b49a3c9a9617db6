"""RobustScanner (ECCV 2020) scene-text recognition in JAX/Flax.

Recognizer.load().read("sign.jpg").text
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from robustscanner_jax.image_like import ImageError, Region
    from robustscanner_jax.inference import load_artefact
    from robustscanner_jax.models.robustscanner import Explanation
    from robustscanner_jax.reading import Reading
    from robustscanner_jax.recognizer import Recognizer

__version__ = "0.1.0"
__all__ = [
    "Explanation",
    "ImageError",
    "Reading",
    "Recognizer",
    "Region",
    "__version__",
    "load_artefact",
]

# Imported on first use: worker processes of the pipeline must not load JAX, and a
# reader of exports need not have it.
_MODULES = {
    "Explanation": "models.robustscanner",
    "ImageError": "image_like",
    "Reading": "reading",
    "Recognizer": "recognizer",
    "Region": "image_like",
    "load_artefact": "inference",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_MODULES[name]}")
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
