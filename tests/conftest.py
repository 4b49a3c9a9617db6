"""What every test stands on: simulated devices, strict shapes, a compilation cache.

The imports are late on purpose (E402): each needs what is set above it.
"""

import gc
import os
import signal
import sys
from pathlib import Path

# The suite may run in the background of a script, where SIGINT is ignored: by it, and
# by every process that a test starts.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Before the first import of jax: the CPU, unless the caller asks for something else
# (`JAX_PLATFORMS=cuda pytest -m accelerator`), as eight devices on any machine. Most of
# a first run is compilation, and LLVM's late passes are most of that.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
FLAGS = {
    "--xla_force_host_platform_device_count": "8",
    "--xla_llvm_disable_expensive_passes": "true",
}
given = os.environ.get("XLA_FLAGS", "")
added = [f"{flag}={value}" for flag, value in FLAGS.items() if flag not in given]
os.environ["XLA_FLAGS"] = " ".join([given, *added])

import jaxtyping  # noqa: E402

# Before the first import of the network: every call checks its annotated shapes.
jaxtyping.install_import_hook(
    ["robustscanner_jax.models", "robustscanner_jax.losses"], "beartype.beartype"
)

import hypothesis  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402
import training  # noqa: E402

from robustscanner_jax import train  # noqa: E402
from robustscanner_jax.data import transforms  # noqa: E402

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = REPOSITORY.parent / "shared"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")

jax.config.update("jax_numpy_rank_promotion", "raise")
# A second run of the suite compiles nothing.
jax.config.update("jax_compilation_cache_dir", str(CACHE / "robustscanner_jax" / "xla"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)

# The same cases at every run: a red suite means a change. For new ones:
# `--hypothesis-profile=explore`.
hypothesis.settings.register_profile(
    "suite", deadline=None, derandomize=True, max_examples=100
)
hypothesis.settings.register_profile("explore", deadline=None, max_examples=1000)
hypothesis.settings.load_profile("suite")


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(0)


@pytest.fixture
def shared():
    """Returns a function: path below ../shared -> Path; skips the test without it."""

    def find(path: str) -> Path:
        found = SHARED / path
        if not found.exists():
            pytest.skip(f"needs {found}, which is not part of the repository")
        return found

    return find


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    """Returns a label file of twelve drawn words."""
    return training.write_words(tmp_path_factory.mktemp("words"), training.TWELVE)


@pytest.fixture(scope="module")
def straight(labels, tmp_path_factory):
    """Returns an uninterrupted run: folder, config and the ids of its updates."""
    workdir = tmp_path_factory.mktemp("straight")
    config, seen = training.tiny_config(labels, **training.evaluated(labels)), []
    with pytest.MonkeyPatch.context() as monkeypatch:
        training.share_compiled(monkeypatch)
        training.on_each_update(monkeypatch, lambda _, ids: seen.append(ids))
        train.run(config, workdir)
    return workdir, config, seen


@pytest.fixture
def quick(monkeypatch):
    """Lets the runs of a test share what was compiled."""
    training.share_compiled(monkeypatch)
    transforms._reported.cache_clear()


@pytest.fixture
def orbax_reads_left_over(monkeypatch):
    """Keeps quiet about reads of a damaged checkpoint, which orbax leaves behind.

    They end when they are collected, with a warning each.
    """
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    yield
    gc.collect()
