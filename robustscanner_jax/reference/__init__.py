"""Checkpoints of the published implementations: import, proof of parity, export."""

from robustscanner_jax.reference.certificate import Certificate, certify
from robustscanner_jax.reference.convert import (
    SOURCES,
    CheckpointError,
    Imported,
    export_state,
    import_state,
)
from robustscanner_jax.reference.files import load_checkpoint
from robustscanner_jax.reference.golden import Deviation, published_reading
from robustscanner_jax.reference.run import run_import

__all__ = [
    "SOURCES",
    "Certificate",
    "CheckpointError",
    "Deviation",
    "Imported",
    "certify",
    "export_state",
    "import_state",
    "load_checkpoint",
    "published_reading",
    "run_import",
]
