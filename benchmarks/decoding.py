"""Greedy decoding with carried state against a rerun from the first character.

Run: python -m benchmarks.decoding --width=small --batch=16

The published implementations rerun LSTM, attention and fusion of all steps for every
character. Both decode the same encoded images here, all steps, in turn; the backbone's
time is shown beside them.
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from benchmarks.throughput import CHARSET, RULE
from robustscanner_jax.data.pipeline import fake_batch
from robustscanner_jax.models.normalise import normalise
from robustscanner_jax.models.robustscanner import RobustScanner

ROUNDS = 7


def carried(model: RobustScanner, variables, encoded) -> jax.Array:
    """Returns the ids, one LSTM step and one query a character."""
    b = encoded.values.shape[0]
    start = jnp.full(b, model.start_id, jnp.int32)

    def body(state, index):
        carry, token = state
        carry, logits = model.apply(
            variables, encoded, carry, token, index, method="step"
        )
        token = jnp.argmax(jnp.asarray(logits), -1).astype(jnp.int32)
        return (carry, token), token

    carry = model.apply(variables, b, method="initial_carry")
    _, ids = jax.lax.scan(body, (carry, start), jnp.arange(model.max_len))
    return ids.T


def rerun(model: RobustScanner, variables, encoded) -> jax.Array:
    """Returns the ids, all steps recomputed for each character."""
    b = encoded.values.shape[0]
    tokens = jnp.full((b, model.max_len + 1), model.pad_id, jnp.int32)
    tokens = tokens.at[:, 0].set(model.start_id)

    def body(index, tokens):
        logits = model.apply(variables, encoded, tokens[:, :-1], method="decode_forced")
        chosen = jnp.argmax(jnp.take(jnp.asarray(logits), index, axis=1), -1)
        return tokens.at[:, index + 1].set(chosen.astype(jnp.int32))

    return jax.lax.fori_loop(0, model.max_len, body, tokens)[:, 1:]


def milliseconds(call: Callable[[], object]) -> float:
    """Returns the time of one call."""
    start = time.perf_counter()
    jax.block_until_ready(call())
    return 1e3 * (time.perf_counter() - start)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", default="small")
    parser.add_argument("--batch", type=int, default=16)
    args = parser.parse_args()
    model = RobustScanner(width=args.width)
    batch = fake_batch(args.batch, charset=CHARSET, rule=RULE, max_len=model.max_len)
    image = normalise(jnp.asarray(batch["image"]), mean=RULE.mean, scale=RULE.scale)
    width = jnp.asarray(batch["width"])
    tokens = jnp.zeros((args.batch, model.max_len), jnp.int32)
    init = jax.jit(functools.partial(model.init, train=False))
    variables = init(jax.random.key(0), image, width, tokens)
    encode = jax.jit(functools.partial(model.apply, train=False, method="encode"))
    encoded = encode(variables, image, width)
    decoders = {
        "carried state": jax.jit(functools.partial(carried, model)),
        "rerun from the first character": jax.jit(functools.partial(rerun, model)),
    }
    ids = {name: decode(variables, encoded) for name, decode in decoders.items()}
    same = bool((ids["carried state"] == ids["rerun from the first character"]).all())
    times: dict[str, list[float]] = {name: [] for name in ["backbone", *decoders]}
    for _ in range(ROUNDS):
        times["backbone"].append(milliseconds(lambda: encode(variables, image, width)))
        for name, decode in decoders.items():
            times[name].append(
                milliseconds(functools.partial(decode, variables, encoded))
            )
    print(f"{args.width}, batch {args.batch}, {model.max_len} steps, "
          f"{jax.devices()[0].device_kind}, jax {jax.__version__}; "
          f"ids equal: {same}")  # fmt: skip
    print("| part | median ms | min | max |\n|---|---:|---:|---:|")
    for name, values in times.items():
        middle = statistics.median(values)
        print(f"| {name} | {middle:.1f} | {min(values):.1f} | {max(values):.1f} |")
    pairs = zip(*(times[name] for name in decoders), strict=True)
    ratios = sorted(slow / fast for fast, slow in pairs)
    print(f"rerun / carried, in pairs: median {statistics.median(ratios):.1f}, "
          f"{ratios[0]:.1f} to {ratios[-1]:.1f}")  # fmt: skip


if __name__ == "__main__":
    main()
