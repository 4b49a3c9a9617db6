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

from robustscanner_jax.backends import optional
from robustscanner_jax.inference import PRECISIONS, load_artefact
from robustscanner_jax.serving.limits import Limits

TOKEN_VARIABLE = "ROBUSTSCANNER_TOKEN"
PACKAGES = ("starlette", "uvicorn", "prometheus_client", "python_multipart")


def main(arguments: list[str] | None = None) -> int:
    """Serves until SIGTERM; returns 0, or 1 after an error in one sentence."""
    parser = argparse.ArgumentParser(prog="python -m robustscanner_jax.serving")
    parser.add_argument("--model", required=True, help="folder of an export")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--precision", default="float32", choices=PRECISIONS)
    parser.add_argument("--threads", type=int, default=0, help="0: every core")
    parser.add_argument("--batch-size", type=int, default=16)
    for field in dataclasses.fields(Limits):
        flag = "--" + field.name.replace("_", "-")
        parser.add_argument(flag, type=type(field.default), default=field.default)
    given = vars(parser.parse_args(arguments))
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    names = [field.name for field in dataclasses.fields(Limits)]
    try:
        for package in PACKAGES:
            optional(package, "serving")
        from robustscanner_jax.serving.server import run_server

        limits = Limits(**{name: given[name] for name in names})
        reader = load_artefact(
            given["model"],
            given["backend"],
            batch_size=given["batch_size"],
            threads=given["threads"],
            precision=given["precision"],
        )
        token = os.environ.get(TOKEN_VARIABLE)
        run_server(
            reader, host=given["host"], port=given["port"], token=token, limits=limits
        )
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
