"""Training: from a config to a run folder with checkpoints and an accuracy table."""

import dataclasses
import functools
import logging
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from tqdm import tqdm

from robustscanner_jax import config as config_lib
from robustscanner_jax import distributed, evaluate, partition, run_folder
from robustscanner_jax.charset import Charset
from robustscanner_jax.checkpoint import Checkpoints, DataPosition
from robustscanner_jax.data.pipeline import DEVICE_KEYS, training_batches
from robustscanner_jax.data.rendered import open_named
from robustscanner_jax.metric_writer import MetricWriter
from robustscanner_jax.models.robustscanner import RobustScanner
from robustscanner_jax.optim import make_optimizer, make_schedule
from robustscanner_jax.preprocessing import Preprocessing
from robustscanner_jax.recognizer import Recognizer, compute_dtype
from robustscanner_jax.steps import TrainState, create_state, train_step
from robustscanner_jax.train_log import ExampleCounts, Interval
from robustscanner_jax.weights import Weights, load_weights

logger = logging.getLogger(__name__)

EVALUATION_BATCH = 256
# Examples seen before the share of unreadable ones means anything.
MIN_EXAMPLES_FOR_SHARE = 1_000


class TrainingStopped(RuntimeError):
    """Training cannot go on; the last good checkpoint is in place."""


class Preempted(Exception):
    """SIGTERM or Ctrl-C came, and the state of that step is saved."""


@dataclasses.dataclass(frozen=True)
class Setup:
    """What a config becomes: everything that stays the same during a run."""

    config: config_lib.Config
    workdir: Path
    charset: Charset
    rule: Preprocessing
    model: RobustScanner
    schedule: optax.Schedule
    tx: optax.GradientTransformation
    mesh: jax.sharding.Mesh
    writes: bool  # whether this process writes files; one of all does


def run(config: config_lib.Config, workdir: Path) -> None:
    """Trains until `config.train.steps`, resuming where the run folder left off.

    Ends with the accuracy table of `config.data.evaluate`.

    Raises:
      ValueError: config, data or the folder's checkpoint cannot work.
      TrainingStopped: too many unreadable examples, or updates that are not finite.
      Preempted: a signal came; the state is saved.
    """
    config_lib.validate(config)
    setup = _set_up(config, workdir)
    store = workdir / "rendered" if config.data.store_rendered else None
    with distributed.first_process_first("rendered"):
        benchmarks = [
            (name, open_named(source, store=store))
            for name, source in map(evaluate.parse_benchmark, config.data.evaluate)
        ]
        sources = [open_named(source, store=store) for source in config.data.train]
    checkpoints = Checkpoints(workdir, keep=config.train.keep)
    try:
        state, position = _start(setup, checkpoints)
        _describe(setup, state, sources)
        with distributed.stop_signals() as signals:
            state = _train(
                setup, state, position, sources, benchmarks, checkpoints, signals
            )
    finally:
        checkpoints.close()
    _evaluate(setup, state, benchmarks)
    distributed.wait_for_all("end")  # one process writes the results


def _set_up(config: config_lib.Config, workdir: Path) -> Setup:
    train = config.train
    charset = config_lib.make_charset(config)
    mesh = partition.make_mesh()
    partition.check_batch_size(
        config.data.batch_size, mesh, accumulate=train.accumulate
    )
    schedule = make_schedule(
        train.schedule,
        peak=train.peak_lr,
        steps=train.steps,
        warmup_steps=train.warmup_steps,
    )
    writes = jax.process_index() == 0
    run_folder.claim(workdir, config, write=writes)
    return Setup(
        config=config,
        workdir=workdir,
        charset=charset,
        rule=config_lib.make_preprocessing(config),
        model=config_lib.make_model(config, charset).clone(
            dtype=compute_dtype(config.model.dtype)
        ),
        schedule=schedule,
        tx=make_optimizer(
            schedule, clip_norm=train.clip_norm, weight_decay=train.weight_decay
        ),
        mesh=mesh,
        writes=writes,
    )


def _start(setup: Setup, checkpoints: Checkpoints) -> tuple[TrainState, DataPosition]:
    """Returns the newest checkpoint, or the state before the first update."""
    create = functools.partial(
        create_state,
        jax.random.key(setup.config.seed),
        model=setup.model,
        tx=setup.tx,
        image_size=(setup.rule.height, setup.rule.max_width),
        ema=setup.config.train.ema_decay > 0,
    )
    if checkpoints.latest() is not None:
        like = partition.replicated_shapes(jax.eval_shape(create), setup.mesh)
        state, position = checkpoints.restore(like)
        logger.info("resuming %s at step %d", setup.workdir, int(state.step))
        return state, position
    state = partition.place_state(create, setup.mesh)
    if setup.config.train.init_weights:
        state = _with_weights(
            setup, state, load_weights(setup.config.train.init_weights)
        )
    return state, DataPosition(batches=0, examples={})


def _with_weights(setup: Setup, state: TrainState, weights: Weights) -> TrainState:
    """Returns the state with variables of a weights file, for fine-tuning."""
    model = weights.model.clone(dtype=setup.model.dtype)
    if (model, weights.charset) != (setup.model, setup.charset):
        raise ValueError(
            f"{setup.config.train.init_weights}: its network or charset is not the "
            f"config's: expected {setup.model}, got {model}"
        )
    copy = partition.replicated(setup.mesh)
    ema_params = weights.variables["params"] if state.ema_params else {}
    return state.replace(
        params=jax.device_put(weights.variables["params"], copy),
        batch_stats=jax.device_put(weights.variables["batch_stats"], copy),
        ema_params=jax.device_put(ema_params, copy),
    )


def _describe(setup: Setup, state: TrainState, sources: list[Any]) -> None:
    parameters = sum(x.size for x in jax.tree.leaves(state.params))
    logger.info(
        "%s: %s parameters, %s, batch %d on %d %s device(s); data: %s",
        setup.config.model.width,
        f"{parameters:,}",
        np.dtype(setup.model.dtype).name,
        setup.config.data.batch_size,
        setup.mesh.size,
        jax.default_backend(),
        ", ".join(f"{s.name} ({len(s):,})" for s in sources),
    )


def _train(
    setup: Setup,
    state: TrainState,
    position: DataPosition,
    sources: list[Any],
    benchmarks: list[tuple[str, Any]],
    checkpoints: Checkpoints,
    signals: distributed.Stops,
) -> TrainState:
    """Runs the updates that are left; logs, saves and evaluates on the way."""
    train = setup.config.train
    first, last = position.batches, train.steps
    step_fn = _compile_step(setup)
    batches = iter(_batches(setup, sources, start=first)) if first < last else iter(())
    examples, interval = ExampleCounts(position.examples), Interval()
    writer = MetricWriter(setup.workdir, enabled=setup.writes)
    progress = tqdm(total=last, initial=first, desc="train", unit="step", disable=None)
    with writer, progress:
        for step in range(first + 1, last + 1):
            asked = time.perf_counter()
            batch = next(batches)
            interval.waited += time.perf_counter() - asked
            examples.add(batch["problem"])
            state, metrics = step_fn(
                state, partition.put_batch(batch, DEVICE_KEYS, setup.mesh)
            )
            interval.metrics.append(metrics)
            progress.update()
            stop = distributed.stops(signals.received, step)
            if step % train.log_every == 0 or step == last:
                everywhere = examples.everywhere()
                _log(setup, writer, step, interval, everywhere, progress)
                _check(setup, state, everywhere)
                interval = Interval()
            if step % train.save_every == 0 or step == last or stop:
                seen = examples.everywhere().named()
                checkpoints.save(state, DataPosition(step, seen))
            if stop:
                checkpoints.wait()
                raise Preempted(f"saved step {step} in {setup.workdir}")
            if step % train.evaluate_every == 0 and step != last:
                for result in _evaluate(setup, state, benchmarks):
                    score = result.score
                    writer.write(step, **{f"accuracy/{score.name}": score.accuracy})
                interval = Interval()
    return state


def _compile_step(setup: Setup) -> Any:
    step = functools.partial(
        train_step,
        model=setup.model,
        tx=setup.tx,
        mean=setup.rule.mean,
        scale=setup.rule.scale,
        ema_decay=setup.config.train.ema_decay,
        accumulate=setup.config.train.accumulate,
    )
    return partition.jit_step(step, setup.mesh)


def _batches(setup: Setup, sources: list[Any], *, start: int) -> Any:
    data = setup.config.data
    return training_batches(
        sources,
        data.weights,
        charset=setup.charset,
        rule=setup.rule,
        max_len=setup.model.max_len,
        augment_strength=data.augment,
        variants=data.variants,
        batch_size=data.batch_size,
        seed=setup.config.seed,
        num_workers=data.num_workers,
        start=start,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )


def _log(
    setup: Setup,
    writer: MetricWriter,
    step: int,
    interval: Interval,
    examples: ExampleCounts,
    progress: tqdm,
) -> None:
    values = interval.summary(batch_size=setup.config.data.batch_size)
    values["learning_rate"] = float(np.asarray(setup.schedule(step - 1)))
    values |= {f"left_out/{name}": n for name, n in examples.left_out().items()}
    writer.write(step, **values)
    line = (
        f"loss {values['loss']:.4f}, tokens right {values['token_accuracy']:.1%}, "
        f"{values['images_per_second']:.0f} img/s, "
        f"waiting for data {values['data_wait_share']:.0%}"
    )
    progress.set_postfix_str(line)
    if progress.disable and setup.writes:
        logger.info("step %d: %s", step, line)


def _check(setup: Setup, state: TrainState, examples: ExampleCounts) -> None:
    """Raises `TrainingStopped` where going on would hide that something is wrong."""
    if not examples.good:
        raise TrainingStopped(
            f"all {examples.total} examples were left out: {examples.left_out()}"
        )
    limit = setup.config.data.max_bad_share
    many = examples.total >= MIN_EXAMPLES_FOR_SHARE
    if many and examples.unreadable > limit * examples.total:
        raise TrainingStopped(
            f"{examples.unreadable} of {examples.total} examples are unreadable, more "
            f"than config.data.max_bad_share={limit:.1%}; the log names them"
        )
    skipped = int(state.skipped_in_row)
    if skipped >= setup.config.train.max_skipped:
        raise TrainingStopped(
            f"loss or gradient were not finite in {skipped} updates in a row; "
            "lower config.train.peak_lr, or look at the data"
        )


def _evaluate(
    setup: Setup, state: TrainState, benchmarks: list[tuple[str, Any]]
) -> list[evaluate.BenchmarkResult]:
    """Reads the benchmarks with the current variables, on this process's devices."""
    if not benchmarks:
        return []
    variables = jax.tree.map(lambda x: x.addressable_data(0), state.variables)
    weights = Weights(setup.model, variables, setup.charset, setup.rule)
    recognizer = Recognizer(
        weights, batch_size=EVALUATION_BATCH, dtype=np.dtype(setup.model.dtype).name
    )
    # Case-insensitive letters and digits, as published; a charset without any is exact.
    alphanumeric = any(c.isascii() and c.isalnum() for c in setup.charset.characters)
    protocol = "36" if alphanumeric else "exact"
    if not setup.writes:  # the same results, in the same time, without a table
        return [
            evaluate.read_benchmark(recognizer, name, source, protocol=protocol)
            for name, source in benchmarks
        ]
    return evaluate.run(recognizer, benchmarks, protocol=protocol, output=setup.workdir)
