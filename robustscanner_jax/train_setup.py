"""What a training run starts from: everything fixed, and the first state."""

import dataclasses
import functools
import logging
from pathlib import Path

import jax
import numpy as np
import optax

from robustscanner_jax import agreement, best_weights, partition, run_folder
from robustscanner_jax import config as config_lib
from robustscanner_jax.charset import Charset
from robustscanner_jax.checkpoint import Checkpoints, DataPosition
from robustscanner_jax.compute import for_device
from robustscanner_jax.models.robustscanner import RobustScanner
from robustscanner_jax.open_weights import open_weights
from robustscanner_jax.optim import learning_rates, make_optimizer, make_schedule
from robustscanner_jax.preprocessing import Preprocessing
from robustscanner_jax.steps import TrainState, create_state
from robustscanner_jax.transfer import transfer
from robustscanner_jax.weights import Weights

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Setup:
    """What a config becomes: everything that stays the same during a run."""

    config: config_lib.Config
    workdir: Path
    charset: Charset
    rule: Preprocessing
    model: RobustScanner
    rates: np.ndarray  # float32 [steps]: the learning rate of each update
    tx: optax.GradientTransformation
    mesh: jax.sharding.Mesh
    writes: bool  # whether this process writes files; one of all does


def set_up(config: config_lib.Config, workdir: Path) -> Setup:
    """Returns what the config describes; claims the run folder.

    Raises:
      ValueError: the devices cannot share the batch, the folder holds another run, or
        is not the same for all processes.
    """
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
    model = for_device(config_lib.make_model(config, charset), config.model.dtype)
    writes = jax.process_index() == 0
    run_folder.claim(workdir, config, write=writes)
    agreement.check_folder(workdir)
    return Setup(
        config=config,
        workdir=workdir,
        charset=charset,
        rule=config_lib.make_preprocessing(config),
        model=model.clone(train_backbone=not train.freeze_backbone),
        rates=learning_rates(schedule, train.steps),
        tx=make_optimizer(clip_norm=train.clip_norm, weight_decay=train.weight_decay),
        mesh=mesh,
        writes=writes,
    )


def start(setup: Setup, checkpoints: Checkpoints) -> tuple[TrainState, DataPosition]:
    """Returns the newest checkpoint, or the state before the first update.

    Raises:
      ValueError: every checkpoint is damaged, the processes see different ones,
        `config.train.init_weights` cannot be started from, or the backbone is to be
        frozen and there are none.
    """
    create = functools.partial(
        create_state,
        jax.random.key(setup.config.seed),
        model=setup.model,
        tx=setup.tx,
        image_size=(setup.rule.height, setup.rule.max_width),
        ema=setup.config.train.ema_decay > 0,
    )
    if agreement.newest_step(checkpoints) is not None:
        like = partition.replicated_shapes(jax.eval_shape(create), setup.mesh)
        state, position = checkpoints.restore(like)
        logger.info("resuming %s at step %d", setup.workdir, int(state.step))
        return state, position
    if setup.config.train.freeze_backbone and not setup.config.train.init_weights:
        raise ValueError(
            "config.train.freeze_backbone: expected config.train.init_weights as well, "
            "a random backbone sees nothing"
        )
    if setup.writes:  # of a run whose checkpoints are gone
        (setup.workdir / best_weights.FILE).unlink(missing_ok=True)
    state = partition.place_state(create, setup.mesh)
    if setup.config.train.init_weights:
        weights = open_weights(setup.config.train.init_weights)
        state = _with_weights(setup, state, weights)
    return state, DataPosition(batches=0, examples={})


def _with_weights(setup: Setup, state: TrainState, weights: Weights) -> TrainState:
    """Returns the state with variables of other weights, for fine-tuning."""
    path = setup.config.train.init_weights
    if "allowlist" in weights.card:
        raise ValueError(
            f"config.train.init_weights={path}: they read no more than "
            f"{weights.card['allowlist']!r}, start from those before --allowlist"
        )
    copy = partition.replicated(setup.mesh)
    fresh = jax.tree.map(lambda x: np.asarray(x.addressable_data(0)), state.variables)
    try:
        found = transfer(weights, setup.model, setup.charset, fresh)
    except ValueError as error:
        raise ValueError(f"config.train.init_weights={path}: {error}") from error
    logger.info(
        "%s: %d characters kept, %d added %r, %d dropped %r",
        path,
        len(found.kept),
        len(found.added),
        found.added,
        len(found.dropped),
        found.dropped,
    )
    theirs, ours = map(dataclasses.asdict, (weights.preprocessing, setup.rule))
    for key in ours:
        if ours[key] != theirs[key]:
            logger.warning(
                "%s was trained with preprocessing.%s=%s, this run has %s",
                path,
                key,
                theirs[key],
                ours[key],
            )
    params = found.variables["params"]
    return state.replace(
        params=jax.device_put(params, copy),
        batch_stats=jax.device_put(found.variables["batch_stats"], copy),
        ema_params=jax.device_put(params if state.ema_params else {}, copy),
    )
