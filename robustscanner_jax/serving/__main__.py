"""Serves an exported network; needs neither JAX nor a config.

python -m robustscanner_jax.serving --model=EXPORT --port=8000

The token, if any, comes from the environment, ROBUSTSCANNER_TOKEN: a command
line is seen by every process of the machine.
"""

import argparse
import dataclasses
import logging
import os
import sys
from typing import get_args

from robustscanner_jax.backends import Backend
from robustscanner_jax.inference import PRECISIONS, load_artefact
from robustscanner_jax.packages import optional
from robustscanner_jax.serving.limits import Limits
from robustscanner_jax.views import Views

TOKEN_VARIABLE = "ROBUSTSCANNER_TOKEN"
PACKAGES = ("starlette", "uvicorn", "prometheus_client", "python_multipart")
LIMITS = dataclasses.fields(Limits)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m robustscanner_jax.serving",
        description="Serves an exported network over HTTP.",
        epilog="The token that clients must send, if any, comes from the environment "
        f"variable {TOKEN_VARIABLE}.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    # SUPPRESS: the help would show None as its default.
    add("--model", required=True, default=argparse.SUPPRESS, help="folder of an export")
    add("--host", default="127.0.0.1", help="only this machine reaches the default")
    add("--port", type=int, default=8000, help="0 takes a free one")
    add(
        "--backend",
        default="auto",
        choices=("auto", *get_args(Backend)),
        help="what computes; auto takes openvino where it is installed, else "
        "onnxruntime, and jax for an export in format stablehlo",
    )
    add(
        "--precision",
        default="float32",
        choices=PRECISIONS,
        help="bfloat16 is faster on some processors, with openvino, and not exact",
    )
    add("--threads", type=int, default=0, help="0: every core that the process may use")
    add("--batch-size", type=int, default=16, help="most images computed together")
    add(
        "--rotate-tall",
        type=float,
        default=argparse.SUPPRESS,
        help="also read crops over so many times as tall as wide at 90 and 270 "
        "degrees, and take the surest reading; off by default",
    )
    add(
        "--look-closer",
        action="store_true",
        help="read crops that are not read surely again without their edges, and take "
        "a reading that is far surer",
    )
    for field in LIMITS:
        add(
            "--" + field.name.replace("_", "-"),
            type=type(field.default),
            default=field.default,
            help=field.metadata["help"],
        )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Serves until SIGTERM; returns 0, or 1 after an error in one sentence."""
    given = vars(_parser().parse_args(arguments))
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    try:
        for package in PACKAGES:
            optional(package, "serving")
        from robustscanner_jax.serving.server import run_server

        limits = Limits(**{field.name: given[field.name] for field in LIMITS})
        if given["threads"] < 0:
            raise ValueError(f"--threads: expected at least 0, got {given['threads']}")
        views = Views(
            rotate_tall=given.get("rotate_tall"), look_closer=given["look_closer"]
        )
        reader = load_artefact(
            given["model"],
            given["backend"],
            batch_size=given["batch_size"],
            threads=given["threads"],
            precision=given["precision"],
        )
        token = os.environ.get(TOKEN_VARIABLE)
        run_server(
            reader,
            host=given["host"],
            port=given["port"],
            token=token,
            limits=limits,
            views=views,
        )
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
