"""The published datasets as TensorFlow Datasets, without TensorFlow."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pictures import png

pytest.importorskip("tensorflow_datasets")

from data_prep import tfds_builders
from data_prep.builders import READERS
from robustscanner_jax.data.sources import open_source

REPOSITORY = Path(__file__).resolve().parent.parent
# What the program `tfds` is.
LAUNCH = "from tensorflow_datasets.scripts.cli.main import launch_cli; launch_cli()"

# The command, and whether it needed TensorFlow.
BUILD = """
import sys
from data_prep import tfds_builders
tfds_builders.main(sys.argv[1:])
print("tensorflow:", "tensorflow" in sys.modules)
"""


def write_svtp(root):
    root.mkdir()
    (root / "gt.txt").write_text("a.png ONE\nb.png TWO\nlost.png X\nbad.png Y\n")
    for number, name in enumerate(("a.png", "b.png")):
        (root / name).write_bytes(png(number))
    (root / "bad.png").write_bytes(b"no image")


def built(*arguments: object) -> subprocess.CompletedProcess:
    """Runs the command in a process of its own: absl has one set of flags in each."""
    command = [sys.executable, "-c", BUILD, *map(str, arguments)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)


def test_a_built_dataset_opens_and_holds_the_bytes_of_the_files(tmp_path):
    write_svtp(tmp_path / "in")
    done = built("svtp", f"--manual_dir={tmp_path / 'in'}", f"--data_dir={tmp_path}")
    assert done.stdout.splitlines()[-1] == "tensorflow: False"
    source = open_source(tmp_path / "svtp" / "1.0.0")
    assert [source[i] for i in range(len(source))] == [
        {"id": "a.png", "image": png(0), "text": "ONE"},
        {"id": "b.png", "image": png(1), "text": "TWO"},
    ]


def test_the_built_dataset_may_lie_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_svtp(tmp_path / "in")
    done = built("svtp", "--manual_dir=~/in", "--data_dir=~/out")
    assert done.returncode == 0, done.stderr
    assert len(open_source(tmp_path / "out" / "svtp" / "1.0.0")) == 2


def test_a_folder_without_the_files_is_named(tmp_path):
    done = built("svtp", f"--manual_dir={tmp_path}", f"--data_dir={tmp_path / 'out'}")
    assert done.returncode == 1
    *_, said = done.stderr.splitlines()
    assert re.match(r"tfds_builders: .*found none of gt\.txt.*svtp needs", said)


def test_the_command_of_tensorflow_datasets_builds_the_same(tmp_path):
    for package in ("tensorflow", "apache_beam", "mlcroissant"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"the command `tfds` imports {package}, which is not installed")
    write_svtp(tmp_path / "in")
    flags = ["--file_format=array_record", f"--manual_dir={tmp_path / 'in'}"]
    imports = "--imports=data_prep.tfds_builders"
    command = [sys.executable, "-c", LAUNCH, "build", "svtp", imports, *flags]
    run = [*command, f"--data_dir={tmp_path}"]
    subprocess.run(run, cwd=REPOSITORY, check=True, capture_output=True)
    source = open_source(tmp_path / "svtp" / "1.0.0")
    assert [source[i]["text"] for i in range(len(source))] == ["ONE", "TWO"]


def test_there_is_a_builder_for_every_reader():
    assert set(tfds_builders.BUILDERS) == set(READERS)
    for name, builder in tfds_builders.BUILDERS.items():
        assert builder.name == name
        assert READERS[name].NEEDS in builder.MANUAL_DOWNLOAD_INSTRUCTIONS
