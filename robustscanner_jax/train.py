"""Training: from a config to a run folder with checkpoints and an accuracy table."""

import collections
import dataclasses
import functools
import json
import logging
import platform
import signal
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from robustscanner_jax import config as config_lib
from robustscanner_jax import evaluate, partition
from robustscanner_jax.charset import Charset
from robustscanner_jax.checkpoint import Checkpoints, DataPosition
from robustscanner_jax.data.pipeline import DEVICE_KEYS, training_batches
from robustscanner_jax.data.rendered import open_named
from robustscanner_jax.data.transforms import Problem
from robustscanner_jax.metric_writer import MetricWriter
from robustscanner_jax.models.robustscanner import RobustScanner
from robustscanner_jax.optim import make_optimizer, make_schedule
from robustscanner_jax.preprocessing import Preprocessing
from robustscanner_jax.recognizer import Recognizer, compute_dtype
from robustscanner_jax.steps import TrainState, create_state, train_step
from robustscanner_jax.weights import Weights, load_weights

logger = logging.getLogger(__name__)

# Examples seen before the share of unreadable ones means anything.
MIN_EXAMPLES_FOR_SHARE = 1_000


class TrainingStopped(RuntimeError):
    """Training cannot go on; the last good checkpoint is in place."""


class Preempted(Exception):
    """SIGTERM or Ctrl-C came, and the state of that step is saved."""


@dataclasses.dataclass(frozen=True)
class Setup:
    """What a config becomes: everything that stays the same during a run."""

    config: ConfigDict
    workdir: Path
    charset: Charset
    rule: Preprocessing
    model: RobustScanner
    schedule: Any
    tx: Any
    mesh: jax.sharding.Mesh

    def recognizer(self, state: TrainState) -> Recognizer:
        """Returns a reader with the current variables, on this process's devices."""
        variables = jax.tree.map(lambda x: x.addressable_data(0), state.variables)
        weights = Weights(self.model, variables, self.charset, self.rule)
        return Recognizer(weights, batch_size=256, dtype=str(self.model.dtype.name))


def run(config: ConfigDict, workdir: Path) -> None:
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
    benchmarks = [
        (name, open_named(source, store=store))
        for name, source in map(evaluate.parse_benchmark, config.data.evaluate)
    ]
    sources = [open_named(source, store=store) for source in config.data.train]
    checkpoints = Checkpoints(workdir, keep=config.train.keep)
    state, position = _start(setup, checkpoints)
    _describe(setup, state, sources)
    try:
        with _Signals() as signals:
            state = _train(setup, state, position, sources, benchmarks, checkpoints,
                           signals)  # fmt: skip
    finally:
        checkpoints.close()
    if benchmarks:
        evaluate.run(
            setup.recognizer(state), benchmarks, protocol="36",
            output=workdir if jax.process_index() == 0 else None,
        )  # fmt: skip


def _set_up(config: ConfigDict, workdir: Path) -> Setup:
    train = config.train
    charset = config_lib.make_charset(config)
    mesh = partition.make_mesh()
    partition.check_batch_size(config.data.batch_size, mesh)
    schedule = make_schedule(
        train.schedule,
        peak=train.peak_lr,
        steps=train.steps,
        warmup_steps=train.warmup_steps,
    )
    _claim(workdir, config)
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
    )


def _claim(workdir: Path, config: ConfigDict) -> None:
    """Writes the config into the run folder, or checks it against the one there."""
    path = workdir / "config.json"
    if path.exists():
        before = config_lib.from_json(path)
        changed = config_lib.differences(before, config)
        if changed:
            raise ValueError(
                f"{workdir} holds a run of another config ({'; '.join(changed)}); "
                "use its config, or another --workdir"
            )
    if jax.process_index() == 0:
        workdir.mkdir(parents=True, exist_ok=True)
        config_lib.to_json(config, path)
        names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
        versions = {name: metadata.version(name) for name in names}
        versions["python"] = platform.python_version()
        (workdir / "versions.json").write_text(json.dumps(versions, indent=2) + "\n")


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
        shapes = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(
                x.shape, x.dtype, sharding=partition.replicated(setup.mesh)
            ),
            jax.eval_shape(create),
        )
        state, position = checkpoints.restore(shapes)
        logger.info("resuming %s at step %d", setup.workdir, int(state.step))
        return state, position
    state = partition.place_state(create, setup.mesh)
    if setup.config.train.init_weights:
        state = _initialise_from(setup, state)
    return state, DataPosition(batches=0, problems={})


def _initialise_from(setup: Setup, state: TrainState) -> TrainState:
    path = setup.config.train.init_weights
    weights = load_weights(path)
    model = weights.model.clone(dtype=setup.model.dtype)
    if (model, weights.charset) != (setup.model, setup.charset):
        raise ValueError(
            f"{path}: its network or charset is not the config's: "
            f"{weights.model} against {setup.model}"
        )
    placed = jax.device_put(weights.variables, partition.replicated(setup.mesh))
    return state.replace(
        params=placed["params"],
        batch_stats=placed["batch_stats"],
        ema_params=jax.tree.map(lambda x: x.copy(), placed["params"])
        if state.ema_params
        else {},
    )


def _describe(setup: Setup, state: TrainState, sources: list[Any]) -> None:
    count = sum(x.size for x in jax.tree.leaves(state.params))
    logger.info(
        "%s: %s parameters, %s, batch %d on %d %s device(s); data: %s",
        setup.config.model.width,
        f"{count:,}",
        setup.model.dtype.name,
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
    signals: "_Signals",
) -> TrainState:
    """Runs the updates that are left; saves, evaluates and logs on the way."""
    config, train = setup.config, setup.config.train
    first, last = position.batches, train.steps
    batches = training_batches(
        sources,
        config.data.weights,
        charset=setup.charset,
        rule=setup.rule,
        max_len=setup.model.max_len,
        augment_strength=config.data.augment,
        batch_size=config.data.batch_size,
        seed=config.seed,
        num_workers=config.data.num_workers,
        start=first,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    step_fn = partition.jit_step(
        functools.partial(
            train_step,
            model=setup.model,
            tx=setup.tx,
            mean=setup.rule.mean,
            scale=setup.rule.scale,
            ema_decay=train.ema_decay,
        ),
        setup.mesh,
    )
    iterator = iter(batches) if first < last else iter(())
    interval = _Interval(collections.Counter(position.problems))
    writer = MetricWriter(setup.workdir)
    with tqdm(
        total=last, initial=first, desc="train", unit="step", disable=None
    ) as progress:
        for step in range(first + 1, last + 1):
            waited = time.perf_counter()
            batch = next(iterator)
            interval.waited += time.perf_counter() - waited
            interval.problems.update(batch["problem"].tolist())
            device_batch = partition.put_batch(batch, DEVICE_KEYS, setup.mesh)
            state, metrics = step_fn(state, device_batch)
            interval.metrics.append(metrics)
            progress.update()
            if step % train.log_every == 0 or step == last:
                _log(setup, writer, step, interval, progress)
                _check(setup, state, interval)
            if step % train.save_every == 0 or step == last or signals.received:
                checkpoints.save(state, interval.position(step))
            if signals.received:
                checkpoints.wait()
                raise Preempted(f"saved step {step} in {setup.workdir}")
            if benchmarks and step % train.evaluate_every == 0 and step != last:
                _evaluate(setup, state, benchmarks, writer, step)
                interval.restart()
    writer.close()
    return state


class _Interval:
    """What happened since the last line of the log."""

    def __init__(self, problems: collections.Counter):
        names = {problem.name.lower(): problem.value for problem in Problem}
        self.problems = collections.Counter(
            {names[name]: count for name, count in problems.items()}
        )
        self.restart()

    def restart(self) -> None:
        self.metrics: list[dict[str, jax.Array]] = []
        self.waited = 0.0
        self.start = time.perf_counter()

    def position(self, batches: int) -> DataPosition:
        return DataPosition(batches, self.named_problems())

    def named_problems(self) -> dict[str, int]:
        """Examples by the name of what is wrong with them; "none" for the good."""
        return {Problem(k).name.lower(): n for k, n in sorted(self.problems.items())}


def _log(
    setup: Setup, writer: MetricWriter, step: int, interval: _Interval, progress: tqdm
) -> None:
    """Writes the means of the interval and starts the next one."""
    fetched = jax.device_get(interval.metrics)
    seconds = time.perf_counter() - interval.start
    total = {k: float(np.sum([m[k] for m in fetched])) for k in fetched[0]}
    values = {
        "loss": total["loss_sum"] / max(total["tokens"], 1.0),
        "token_accuracy": total["correct"] / max(total["tokens"], 1.0),
        "grad_norm": total["grad_norm"] / len(fetched),
        "learning_rate": float(setup.schedule(step - 1)),
        "images_per_second": len(fetched) * setup.config.data.batch_size / seconds,
        "data_wait_share": interval.waited / seconds,
        "skipped_updates": total["skipped"],
        "examples": total["rows"],
    }
    problems = interval.named_problems()
    values |= {f"left_out/{k}": n for k, n in problems.items() if k != "none"}
    if jax.process_index() == 0:
        writer.write(step, **values)
    progress.set_postfix_str(
        f"loss {values['loss']:.3f}, tokens right {values['token_accuracy']:.1%}, "
        f"{values['images_per_second']:.0f} img/s"
    )
    if progress.disable:
        logger.info(
            "step %d: loss %.4f, tokens right %.1f %%, %.0f img/s, waited %.0f %%",
            step,
            values["loss"],
            100 * values["token_accuracy"],
            values["images_per_second"],
            100 * values["data_wait_share"],
        )
    interval.restart()
    interval.examples = total["rows"]


def _check(setup: Setup, state: TrainState, interval: _Interval) -> None:
    """Raises `TrainingStopped` where going on would hide that something is wrong."""
    problems = interval.named_problems()
    seen = sum(problems.values())
    left_out = {k: n for k, n in problems.items() if k != "none"}
    if not problems.get("none"):
        raise TrainingStopped(f"all {seen} examples were left out: {left_out}")
    unreadable = problems.get("unreadable", 0)
    limit = setup.config.data.max_bad_share
    if seen >= MIN_EXAMPLES_FOR_SHARE and unreadable > limit * seen:
        raise TrainingStopped(
            f"{unreadable} of {seen} examples are unreadable, more than "
            f"config.data.max_bad_share={limit:.1%}; the log names them"
        )
    skipped = int(state.skipped_in_row)
    if skipped >= setup.config.train.max_skipped:
        raise TrainingStopped(
            f"loss or gradient were not finite in {skipped} updates in a row; "
            "lower config.train.peak_lr or look at the data"
        )


def _evaluate(
    setup: Setup,
    state: TrainState,
    benchmarks: list[tuple[str, Any]],
    writer: MetricWriter,
    step: int,
) -> None:
    results = evaluate.run(
        setup.recognizer(state),
        benchmarks,
        protocol="36",
        output=setup.workdir if jax.process_index() == 0 else None,
    )
    if jax.process_index() == 0:
        writer.write(
            step, **{f"accuracy/{r.score.name}": r.score.accuracy for r in results}
        )


class _Signals:
    """Notices SIGTERM and Ctrl-C; the loop saves and leaves after the running step."""

    def __enter__(self) -> "_Signals":
        self.received = False
        self._before = {
            number: signal.signal(number, self._note)
            for number in (signal.SIGTERM, signal.SIGINT)
        }
        return self

    def _note(self, number: int, frame: Any) -> None:
        del frame
        logger.warning("%s: saving, then leaving", signal.Signals(number).name)
        self.received = True
        # A second signal ends the process at once.
        signal.signal(number, self._before[signal.Signals(number)])

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
