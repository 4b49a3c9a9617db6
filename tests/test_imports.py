"""Which module may import which, read from the syntax trees (docs: imports go one way).

The rules are functions of a folder, so that each is also shown a tree that breaks it.
"""

import ast
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGES = ("robustscanner_jax", "data_prep", "configs")
# What loads JAX, or is of no use without it.
JAX = {"jax", "jaxlib", "flax", "optax", "orbax", "chex"}
# Who sees a config, which `config` checks and stores. The rest takes plain arguments.
CONFIG_READERS = {
    f"robustscanner_jax.{name}"
    for name in ("main", "flags", "train", "evaluate", "predict", "config")
}
# Who holds the settings of the word generator. Its stages get plain values.
CONFIG_READERS |= {"data_prep.synthesize"} | {
    f"data_prep.synthetic.{name}"
    for name in ("settings", "presets", "dataset", "render", "sheet", "source")
}


def modules(root: Path) -> dict[str, Path]:
    """Returns the file of every module of the repository, by dotted name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def _statements(tree: ast.AST, *, inside_functions: bool) -> Iterator[ast.stmt]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        # `if TYPE_CHECKING:` never runs.
        typing = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        if inside_functions or not (function or typing):
            yield from _statements(node, inside_functions=inside_functions)


def imports(
    name: str, known: dict[str, Path], *, inside_functions: bool = True
) -> set[str]:
    """Returns the dotted names that a module imports, relative ones resolved.

    `from package import x` gives `package.x` where that is a module, else `package`.
    """
    path = known[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    for node in _statements(tree, inside_functions=inside_functions):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
            continue
        base = node.module or ""
        if node.level:
            parents = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*parents, base] if base else parents)
        for alias in node.names:
            whole = f"{base}.{alias.name}"
            found.add(whole if whole in known else base)
    return found


def below(name: str, *prefixes: str) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def branches_that_meet(root: Path) -> list[str]:
    """Returns imports between models/ and data/: they meet in the batch alone."""
    known = modules(root)
    data, models = "robustscanner_jax.data", "robustscanner_jax.models"
    return [
        f"{name} imports {other}"
        for name in known
        for other in sorted(imports(name, known))
        for here, there in ((data, models), (models, data))
        if below(name, here) and below(other, there)
    ]


def jax_in_workers(root: Path) -> list[str]:
    """Returns the ways from data/ and data_prep/ to JAX, through any of our modules."""
    known = modules(root)
    broken = []
    for start in known:
        if not below(start, "robustscanner_jax.data", "data_prep"):
            continue
        seen, waiting = {start}, [(start,)]
        while waiting:
            way = waiting.pop()
            for other in sorted(imports(way[-1], known)):
                if other.split(".")[0] in JAX:
                    broken.append(" -> ".join([*way, other]))
                elif other in known and other not in seen:
                    seen.add(other)
                    waiting.append((*way, other))
    return broken


def config_readers(root: Path) -> list[str]:
    """Returns imports of configs where plain arguments are expected."""
    known = modules(root)
    return [
        f"{name} imports {other}"
        for name in known
        if not below(name, "configs") and name not in CONFIG_READERS
        for other in sorted(imports(name, known))
        if below(other, "ml_collections", "configs")
    ]


def cycles(root: Path) -> list[str]:
    """Returns the cycles among imports at module level."""
    known = modules(root)
    # Importing a module runs the packages around it as well, but a package's own
    # __init__ importing its parts is no cycle unless a part asks for the package.
    graph = {
        name: {
            other for other in imports(name, known, inside_functions=False) & set(known)
        }
        for name in known
    }
    found, done = [], set()

    def visit(name: str, way: list[str]):
        if name in way:
            found.append(" -> ".join([*way[way.index(name) :], name]))
        elif name not in done:
            for other in sorted(graph[name]):
                visit(other, [*way, name])
            done.add(name)

    for name in graph:
        visit(name, [])
    return found


RULES = [branches_that_meet, jax_in_workers, config_readers, cycles]


@pytest.mark.parametrize("rule", RULES)
def test_the_repository_keeps_the_rule(rule):
    known = modules(REPOSITORY)
    assert {"robustscanner_jax.models.robustscanner", "data_prep"} <= set(known)
    assert rule(REPOSITORY) == []


VIOLATIONS = {
    "models import data": (
        branches_that_meet,
        {"robustscanner_jax/models/new.py": "import robustscanner_jax.data.records"},
    ),
    "data import models, in a function, relatively": (
        branches_that_meet,
        {
            "robustscanner_jax/data/new.py": "def f():\n    from ..models import a, b",
            "robustscanner_jax/models/a.py": "",
        },
    ),
    "jax in a transform": (
        jax_in_workers,
        {"robustscanner_jax/data/new.py": "class T:\n    import jax.numpy as jnp"},
    ),
    "jax behind a harmless module": (
        jax_in_workers,
        {
            "data_prep/new.py": "from robustscanner_jax import geometry",
            "robustscanner_jax/geometry.py": "def f():\n    from flax import linen",
        },
    ),
    "a config in the loss": (
        config_readers,
        {"robustscanner_jax/losses.py": "from ml_collections import ConfigDict"},
    ),
    "settings in a stage of the generator": (
        config_readers,
        {"data_prep/synthetic/glyphs.py": "from ml_collections import ConfigDict"},
    ),
    "a committed config in the generator": (
        config_readers,
        {
            "data_prep/synthetic/new.py": "from configs import default",
            "configs/default.py": "",
        },
    ),
    "two modules that need each other": (
        cycles,
        {
            "robustscanner_jax/a.py": "if True:\n    from robustscanner_jax.b import f",
            "robustscanner_jax/b.py": "from . import a",
        },
    ),
    "a module that needs the package that needs it": (
        cycles,
        {
            "robustscanner_jax/c/__init__.py": "from robustscanner_jax.c.d import f",
            "robustscanner_jax/c/d.py": "from robustscanner_jax.c import g",
        },
    ),
}


def write_tree(root: Path, files: dict[str, str]):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_file_that_breaks_a_rule_is_found(tmp_path, name):
    rule, files = VIOLATIONS[name]
    write_tree(tmp_path, files)
    assert rule(tmp_path) != []


def test_imports_that_break_no_rule_are_not_found(tmp_path):
    write_tree(
        tmp_path,
        {
            "robustscanner_jax/a.py": "def late():\n    import robustscanner_jax.b",
            "robustscanner_jax/b.py": "import jax\nimport robustscanner_jax.a",
            "robustscanner_jax/data/c.py": "import numpy\nfrom . import d",
            "robustscanner_jax/data/d.py": textwrap.dedent("""
                from typing import TYPE_CHECKING
                if TYPE_CHECKING:
                    from robustscanner_jax.data import c
            """),
            "robustscanner_jax/train.py": "import ml_collections, configs.default",
            "configs/default.py": "from ml_collections import ConfigDict",
        },
    )
    assert [rule(tmp_path) for rule in RULES] == [[], [], [], []]


ONE_BATCH = """
import sys

from absl import app

from robustscanner_jax.charset import DICT90, Charset
from robustscanner_jax.data.pipeline import training_batches
from robustscanner_jax.data.sources import open_source
from robustscanner_jax.data.transforms import Prepare
from robustscanner_jax.preprocessing import Preprocessing


def main(arguments):
    batches = training_batches(
        [open_source(arguments[1])],
        [1.0],
        prepare=Prepare(Charset.of(DICT90), Preprocessing(), 12, augment_strength=1.0),
        batch_size=2,
        seed=0,
        num_workers=int(arguments[2]),
    )
    image = next(iter(batches))["image"]
    assert image.shape == (2, 48, 160, 3) and image.any(), image


if __name__ == "__main__":
    app.run(main)
"""


@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_pipeline_runs_where_jax_has_no_device(tmp_path, num_workers):
    script = tmp_path / "one_batch.py"
    script.write_text(ONE_BATCH)
    for number in range(3):
        pixels = np.full((32, 64, 3), 50 * (number + 1), np.uint8)
        cv2.imwrite(str(tmp_path / f"{number}.png"), pixels)
    labels = tmp_path / "labels.tsv"
    labels.write_text("".join(f"{number}.png\tword{number}\n" for number in range(3)))
    # Any call that needs a device raises: "Unable to initialize backend 'none'".
    environment = {"JAX_PLATFORMS": "none", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, script, labels, str(num_workers)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def test_a_call_of_jax_would_fail_in_that_environment():
    done = subprocess.run(
        [sys.executable, "-c", "import jax.numpy as jnp; jnp.zeros(2)"],
        env=os.environ | {"JAX_PLATFORMS": "none"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode != 0
    assert "Unable to initialize backend 'none'" in done.stderr
