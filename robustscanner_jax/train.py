"""Training: from a config to a run folder with checkpoints and an accuracy table."""

import dataclasses
import functools
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from robustscanner_jax import (
    agreement,
    distributed,
    evaluate,
    flops,
    health,
    partition,
)
from robustscanner_jax import config as config_lib
from robustscanner_jax.best_weights import keep_best
from robustscanner_jax.checkpoint import Checkpoints, DataPosition, NotSaved
from robustscanner_jax.cores import allowed_cores
from robustscanner_jax.data import rendered
from robustscanner_jax.data.pipeline import DEVICE_KEYS, Share, training_batches
from robustscanner_jax.data.reads import Source
from robustscanner_jax.data.rendered import open_named
from robustscanner_jax.data.transforms import Prepare
from robustscanner_jax.health import TrainingStopped
from robustscanner_jax.metric_writer import MetricWriter
from robustscanner_jax.metrics import NothingToScore, protocol_of
from robustscanner_jax.open_weights import make_card
from robustscanner_jax.profiling import ProfiledUpdates
from robustscanner_jax.recognizer import Recognizer
from robustscanner_jax.steps import TrainState, train_step
from robustscanner_jax.train_log import (
    Clock,
    ExampleCounts,
    Interval,
    RunLog,
    accuracies,
)
from robustscanner_jax.train_setup import Setup, set_up, start
from robustscanner_jax.watchdog import Watchdog
from robustscanner_jax.weights import Weights

logger = logging.getLogger(__name__)

EVALUATION_BATCH = 256
# Updates that wait for the device at most, the running one among them. More would not
# make it faster, and a signal is answered when they are through.
AHEAD = 2


class Preempted(Exception):
    """SIGTERM or Ctrl-C came, and the state of that step is saved."""


def run(config: config_lib.Config, workdir: Path) -> None:
    """Trains until `config.train.steps`, resuming where the run folder left off.

    Ends with the accuracy table of `config.data.evaluate`. Every source that is named
    is opened before anything is made.

    Raises:
      ValueError: config, data or the folder's checkpoint cannot work.
      TrainingStopped: too many unreadable examples, or updates that are not finite.
      Preempted: a signal came; the state is saved.
    """
    config_lib.validate(config)
    evaluated = evaluate.parse_benchmarks(config.data.evaluate)
    names = dict.fromkeys([*config.data.train, *(source for _, source in evaluated)])
    opened = {name: open_named(name) for name in names}
    setup = set_up(config, workdir)
    checkpoints = Checkpoints(workdir, keep=config.train.keep)
    try:
        state, position = start(setup, checkpoints)
        if config.data.store_rendered:
            with distributed.first_process_first("rendered"):
                opened |= _stored(names, workdir / "rendered")
        sources = [opened[name] for name in config.data.train]
        benchmarks = [(name, opened[source]) for name, source in evaluated]
        _describe(setup, state, sources)
        health.compare_lengths(sources, position.lengths)
        lengths = [len(source) for source in sources]
        agreement.check_start(config, int(state.step), lengths)
        with distributed.stop_signals() as signals:
            state = _train(
                setup, state, position, sources, benchmarks, checkpoints, signals
            )
    finally:
        checkpoints.close()
    step = int(state.step)
    evaluation = _evaluate(setup, state, step, benchmarks)
    with MetricWriter(workdir, enabled=setup.writes and bool(benchmarks)) as writer:
        writer.write(step, **accuracies(evaluation.scores))
    distributed.wait_for_all("end")  # one process writes the results


def _stored(names: Iterable[str], folder: Path) -> dict[str, Source]:
    """Returns the rendered words among them, written to a folder and opened there."""
    return {
        name: open_named(name, store=folder)
        for name in names
        if name.startswith(rendered.PREFIX)
    }


def _describe(setup: Setup, state: TrainState, sources: list[Source]) -> None:
    parameters = sum(x.size for x in jax.tree.leaves(state.params))
    logger.info(
        "%s: %s parameters, %s, batch %d on %d %s device(s); data: %s",
        setup.config.model.width,
        f"{parameters:,}",
        np.dtype(setup.model.dtype).name,
        setup.config.data.batch_size,
        setup.mesh.size,
        jax.default_backend(),
        ", ".join(
            f"{name} ({len(source):,})"
            for name, source in zip(setup.config.data.train, sources, strict=True)
        ),
    )


def _train(
    setup: Setup,
    state: TrainState,
    position: DataPosition,
    sources: list[Source],
    benchmarks: list[tuple[str, Source]],
    checkpoints: Checkpoints,
    signals: distributed.Stops,
) -> TrainState:
    """Runs the updates that are left; logs, saves and evaluates on the way."""
    train = setup.config.train
    first, last = position.batches, train.steps
    if first >= last:
        return state
    step_fn = _compile_step(setup)
    batches = iter(_batches(setup, sources, start=first))
    examples, clock = ExampleCounts(position.examples), Clock()
    interval, logged = Interval(clock), examples.everywhere()
    resumed, lengths = logged, [len(source) for source in sources]
    traced = train.profile if setup.writes else (0, 0)
    profiled = ProfiledUpdates(setup.workdir / "profile", *traced)
    watchdog = Watchdog(train.stall_seconds)
    with clock, _open_log(setup, clock, first) as log, profiled, watchdog:
        for step in range(first + 1, last + 1):
            watchdog.alive()
            profiled.before(step)
            with clock.spent("data_wait"):
                batch = next(batches)
            examples.add(batch["problem"])
            with clock.maybe_compiling():
                device_batch = partition.put_batch(batch, DEVICE_KEYS, setup.mesh)
                state, metrics = step_fn(state, device_batch, setup.rates[step - 1])
            # The memory is a worker's. An error would keep it, with this frame, until
            # Python has gone, too late to be given back.
            del batch, device_batch
            interval.metrics.append(metrics)
            jax.block_until_ready(interval.metrics[-AHEAD - 1 : -AHEAD])
            profiled.after(step, metrics)
            log.step()
            stop = distributed.stops(signals.received, step)
            if step == first + 1:
                log.begin(step)
            if step % train.log_every == 0 or step == last:
                everywhere = examples.everywhere()
                log.write(step, interval, everywhere)
                health.check(
                    everywhere.since(resumed),
                    everywhere.since(logged),
                    interval,
                    skipped_in_row=int(state.skipped_in_row),
                    max_skipped=train.max_skipped,
                    max_bad_share=setup.config.data.max_bad_share,
                )
                interval, logged = Interval(clock), everywhere
            evaluates = step % train.evaluate_every == 0 and step != last
            # Before evaluating as well, which a signal may not let come to its end.
            if step % train.save_every == 0 or evaluates or step == last or stop:
                jax.block_until_ready(metrics)  # its time is no saving
                watchdog.alive()
                with clock.spent("saving"):
                    counts = examples.everywhere().named()
                    reached = DataPosition(step, counts, lengths)
                    _save(checkpoints, state, reached, final=step == last or stop)
            if stop:
                raise Preempted(f"saved step {step} in {setup.workdir}")
            if evaluates:
                watchdog.rest()
                jax.block_until_ready(metrics)
                with clock.spent("evaluating"):
                    _evaluate_on_the_way(setup, state, step, benchmarks, log)
    return state


def _open_log(setup: Setup, clock: Clock, first: int) -> RunLog:
    peak = flops.peak_flops(jax.devices()[0])
    if setup.config.train.freeze_backbone:
        peak = None  # an update is another number of FLOPs
    if peak is not None:
        size = setup.rule.height, setup.rule.max_width
        # The backward pass takes twice the forward one.
        peak *= setup.mesh.size / (3 * flops.forward_flops(setup.model, size))
    return RunLog(
        setup.workdir,
        steps=(first, setup.config.train.steps),
        batch_size=setup.config.data.batch_size,
        rates=setup.rates,
        clock=clock,
        peak_images=peak,
        enabled=setup.writes,
    )


def _save(
    checkpoints: Checkpoints, state: TrainState, position: DataPosition, *, final: bool
) -> None:
    """Saves; a failure ends the run only where no later attempt will come."""
    try:
        checkpoints.save(state, position)
        if final:
            checkpoints.wait()
    except NotSaved as error:
        if final:
            raise TrainingStopped(
                f"step {position.batches} is not saved: {error}"
            ) from error
        logger.error("step %d is not saved, going on: %s", position.batches, error)


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


def _batches(setup: Setup, sources: list[Source], *, start: int) -> Any:
    data = setup.config.data
    return training_batches(
        sources,
        data.weights,
        prepare=Prepare(
            setup.charset,
            setup.rule,
            setup.model.max_len,
            data.augment,
            data.variants,
            tuple(data.augment_without),
        ),
        batch_size=data.batch_size,
        seed=setup.config.seed,
        num_workers=allowed_cores() - 1 if data.num_workers < 0 else data.num_workers,
        start=start,
        share=Share(jax.process_index(), jax.process_count()),
    )


def _evaluate_on_the_way(
    setup: Setup,
    state: TrainState,
    step: int,
    benchmarks: list[tuple[str, Source]],
    log: RunLog,
) -> None:
    """Evaluates; neither a full disk nor odd labels are a reason to stop training."""
    try:
        evaluation = _evaluate(setup, state, step, benchmarks)
    except (OSError, NothingToScore) as error:
        logger.error("step %d is not evaluated, going on: %s", step, error)
        return
    log.write_accuracies(step, evaluation.scores)


def _evaluate(
    setup: Setup, state: TrainState, step: int, benchmarks: list[tuple[str, Source]]
) -> evaluate.Evaluation:
    """Reads the benchmarks with the current variables, on this process's devices.

    Every process does so, in the same time, and one of them writes the results.
    """
    protocol = setup.config.data.protocol
    if protocol == "auto":
        protocol = protocol_of(setup.charset.characters)
    if not benchmarks:
        return evaluate.Evaluation([], [], protocol)
    variables = jax.tree.map(lambda x: x.addressable_data(0), state.variables)
    weights = Weights(setup.model, variables, setup.charset, setup.rule)
    recognizer = Recognizer(
        weights, batch_size=EVALUATION_BATCH, dtype=np.dtype(setup.model.dtype).name
    )
    evaluation = evaluate.read_benchmarks(
        recognizer,
        benchmarks,
        protocol=protocol,
        weights=evaluate.WeightsRead(str(setup.workdir), step),
    )
    if setup.writes:
        evaluate.print_table(evaluation)
        evaluate.write_results(evaluation, setup.workdir)
        if setup.config.train.keep_best:
            card = make_card(setup.config, setup.workdir, step)
            weights = dataclasses.replace(weights, card=card)
            try:
                keep_best(setup.workdir, weights, evaluation.scores, protocol)
            except OSError as error:
                logger.error("the best weights are not kept, going on: %s", error)
    return evaluation
