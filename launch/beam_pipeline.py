"""Conversion or rendering on many machines, as an Apache Beam pipeline.

python -m launch.beam_pipeline dataflow --project=P --region=us-east5 --bucket=B \
    --image=IMAGE --workers=50 -- synthesize --count=20000000 --output=/bucket/words
python -m launch.beam_pipeline flink --master=HOST:8081 --workers=64 \
    -- convert --from=mjsynth --input=/shared/90kDICT32px --output=/shared/mjsynth
python -m launch.beam_pipeline spark --master=spark://HOST:7077 -- convert ...

After `--` stands `convert` or `synthesize` of data_prep with its own flags. The machine
that launches lists the work and writes the index, so it needs this repository, its
requirements and apache-beam (for Flink and Spark also Java); the workers run
`launch/beam/Dockerfile`'s image.

Flink and Spark: input and output are a file system that all machines mount under the
same path, and each worker machine runs Beam's pool of the image:
`docker run -d --network=host -v /shared:/shared IMAGE --worker_pool`.

Dataflow's workers cannot mount anything: it renders, into a bucket that the launching
machine has mounted (`gcsfuse B /bucket`), and does not convert.

Everything is checked before anything is started, and `--dry-run` prints the command.
"""

import argparse
import re
import shlex
import sys
from collections.abc import Sequence

from launch.commands import (
    Commands,
    LaunchError,
    check_bucket,
    check_name,
    run_launcher,
)

MODULES = {
    "convert": ("input", "output"),
    "synthesize": ("output",),
}  # and their flags that name paths
HOST = r"[\w.-]+:\d+"
MASTERS = {"flink": re.compile(HOST), "spark": re.compile(f"spark://{HOST}")}
REGION = re.compile(r"[a-z]+(-[a-z]+)+\d+")
PROJECT = re.compile(r"([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]")
IMAGE = re.compile(r"[\w.:/@-]+")
MOUNT = "/bucket/"


def check(options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Raises `LaunchError` for what the cluster, or its workers, would refuse later."""
    if not arguments or arguments[0] not in MODULES:
        raise LaunchError(
            f"after --: expected {' or '.join(MODULES)} and its flags, got "
            f"{list(arguments)}"
        )
    given = _flags(arguments)
    for name in MODULES[arguments[0]]:
        if not given.get(name, "").startswith("/"):
            raise LaunchError(
                f"--{name}: expected --{name}=PATH with an absolute path that all "
                f"machines share, got {given.get(name, '')!r}"
            )
    taken = sorted({"beam", "beam_output", "processes"} & set(given))
    if taken:
        raise LaunchError(f"--{taken[0]}: the launcher decides it, leave it out")
    if getattr(options, "workers", 1) < 1:
        raise LaunchError(f"--workers: expected at least 1, got {options.workers}")
    if options.runner == "dataflow":
        _check_dataflow(options, arguments[0], given["output"])
        return
    if not MASTERS[options.runner].fullmatch(options.master):
        raise LaunchError(
            f"--master: expected {MASTERS[options.runner].pattern}, got "
            f"{options.master!r}"
        )
    if not re.fullmatch(HOST, options.pool):
        raise LaunchError(f"--pool: expected HOST:PORT, got {options.pool!r}")


def _check_dataflow(options: argparse.Namespace, module: str, output: str) -> None:
    check_name(options.name, "--name")
    check_bucket(options.bucket)
    for option, form in (
        ("project", PROJECT),
        ("region", REGION),
        ("image", IMAGE),
    ):
        value = getattr(options, option)
        if not form.fullmatch(value):
            raise LaunchError(f"--{option}: expected {form.pattern}, got {value!r}")
    if module != "synthesize":
        raise LaunchError(
            "dataflow: its workers cannot mount the input; convert with flink or "
            "spark, or on one machine"
        )
    if not output.startswith(MOUNT) or output == MOUNT:
        raise LaunchError(
            f"--output: expected a folder below {MOUNT}, where the launching machine "
            f"has --bucket mounted, got {output!r}"
        )


def _flags(arguments: Sequence[str]) -> dict[str, str]:
    """Returns the flags that are given as --name=value."""
    pairs = (a[2:].partition("=") for a in arguments[1:] if a.startswith("--"))
    return {name: value for name, _, value in pairs}


def pipeline_options(options: argparse.Namespace) -> list[str]:
    """Returns the options of the Beam pipeline."""
    if options.runner == "dataflow":
        return [
            "--runner=DataflowRunner",
            f"--job_name={options.name}",
            f"--project={options.project}",
            f"--region={options.region}",
            f"--temp_location=gs://{options.bucket}/beam",
            f"--sdk_container_image={options.image}",
            f"--num_workers={options.workers}",
            f"--max_num_workers={options.workers}",
        ]
    # The pool is a process with the mounts of its machine; a container that the runner
    # starts by itself would have none.
    pool = ["--environment_type=EXTERNAL", f"--environment_config={options.pool}"]
    if options.runner == "flink":
        flink = ["--runner=FlinkRunner", f"--flink_master={options.master}"]
        return [*flink, f"--parallelism={options.workers}", *pool]
    return ["--runner=SparkRunner", f"--spark_master_url={options.master}", *pool]


def command(options: argparse.Namespace, arguments: Sequence[str]) -> list[str]:
    """Returns the command of the launching machine."""
    module, *flags = arguments
    line = [options.python, "-m", f"data_prep.{module}", *flags]
    line.append(f"--beam={shlex.join(pipeline_options(options))}")
    if options.runner == "dataflow":
        below = _flags(arguments)["output"].removeprefix(MOUNT)
        line.append(f"--beam_output=gs://{options.bucket}/{below}")
    return line


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the arguments before `--`."""
    found = argparse.ArgumentParser(
        prog="python -m launch.beam_pipeline",
        description="Conversion or rendering with Beam; -- and a command of data_prep.",
    )
    kinds = found.add_subparsers(dest="runner", required=True)
    dataflow = kinds.add_parser("dataflow", help="renders on Google Cloud Dataflow")
    dataflow.add_argument("--name", default="words", help="of the job")
    dataflow.add_argument("--project", required=True)
    dataflow.add_argument("--region", required=True)
    dataflow.add_argument("--bucket", required=True, help=f"mounted as {MOUNT}")
    dataflow.add_argument("--image", required=True, help="of launch/beam/Dockerfile")
    dataflow.add_argument("--workers", type=int, required=True, help="machines")
    flink = kinds.add_parser("flink", help="on a Flink cluster")
    flink.add_argument("--workers", type=int, required=True, help="shards at a time")
    spark = kinds.add_parser("spark", help="on a Spark cluster")
    for kind in (flink, spark):
        kind.add_argument("--master", required=True, help="of the cluster")
        kind.add_argument("--pool", default="localhost:50000", help="on each worker")
    for kind in (dataflow, flink, spark):
        kind.add_argument("--python", default=sys.executable, help="runs data_prep")
        kind.add_argument("--dry-run", action="store_true", help="print the command")
    return found


def act(options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Checks everything, then runs or prints the command."""
    check(options, arguments)
    Commands(dry_run=options.dry_run).run(command(options, arguments))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    return run_launcher(parser(), act, argv)


if __name__ == "__main__":
    sys.exit(main())
