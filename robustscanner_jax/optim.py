"""Learning-rate schedules and the optimiser, from plain numbers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float

SCHEDULES = ("step", "cosine", "one_cycle", "constant")


def make_schedule(
    name: str, *, peak: float, steps: int, warmup_steps: int = 0
) -> optax.Schedule:
    """Returns the learning rate as a function of the update's index.

    Args:
      name: "step" is the published recipe: `peak`, x0.1 at 3/5 of the run and again at
        4/5. "cosine" falls to 1 % of `peak`. "one_cycle" rises over the first 30 % from
        1/25 of `peak` and falls to 1/10,000 of that. "constant" stays.
      peak: highest learning rate.
      steps: updates in the run.
      warmup_steps: updates of linear rise from 0 before the schedule; it has the rest.

    Raises:
      ValueError: another name, or a warm-up as long as the run.
    """
    if not 0 <= warmup_steps < steps:
        raise ValueError(
            f"expected 0 <= warmup_steps < steps, got {warmup_steps} and {steps}"
        )
    rest = steps - warmup_steps
    if name == "step":
        after = optax.piecewise_constant_schedule(
            peak, {round(rest * 3 / 5): 0.1, round(rest * 4 / 5): 0.1}
        )
    elif name == "cosine":
        after = optax.cosine_decay_schedule(peak, rest, alpha=0.01)
    elif name == "one_cycle":
        after = optax.cosine_onecycle_schedule(rest, peak)
    elif name == "constant":
        after = optax.constant_schedule(peak)
    else:
        raise ValueError(f"unknown schedule {name!r}, expected one of {SCHEDULES}")
    if not warmup_steps:
        return after
    rise = optax.linear_schedule(0.0, peak, warmup_steps)
    return optax.join_schedules([rise, after], [warmup_steps])


def learning_rates(schedule: optax.Schedule, steps: int) -> Float[np.ndarray, "steps"]:
    """Returns the float32 learning rate of each update of a run, on the host."""
    return np.asarray(jax.vmap(schedule)(jnp.arange(steps)), np.float32)


def decayed(params: Any) -> Any:
    """Returns True for the parameters that weight decay may shrink: the kernels.

    Biases, scales of batch norm and embeddings are left alone.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, _: path[-1].key.endswith("kernel"), params
    )


def _scale_by_given_rate() -> optax.GradientTransformationExtraArgs:
    """Returns what multiplies by minus the `learning_rate` that `update` is given.

    Its state is that of `optax.scale_by_schedule`, as in checkpoints.
    """

    def init(params: Any) -> optax.ScaleByScheduleState:
        del params
        return optax.ScaleByScheduleState(count=jnp.int32(0))

    def update(
        updates: Any, state: Any, params: Any = None, **given: Any
    ) -> tuple[Any, optax.ScaleByScheduleState]:
        del params
        count = optax.safe_increment(state.count)
        updates = jax.tree.map(lambda x: -given["learning_rate"] * x, updates)
        return updates, optax.ScaleByScheduleState(count=count)

    return optax.GradientTransformationExtraArgs(init, update)


def make_optimizer(
    *, clip_norm: float, weight_decay: float
) -> optax.GradientTransformationExtraArgs:
    """Returns Adam as published (betas 0.9 and 0.999, epsilon 1e-8).

    Its `update` is given the `learning_rate`: another length or peak of a run is no
    other program to compile. Its state has one structure, whatever is on or off: either
    may change when a run goes on.

    Args:
      clip_norm: gradients are scaled down to this global norm; 0 is off.
      weight_decay: decoupled (AdamW), on kernels alone; 0 is off.
    """
    decay = optax.add_decayed_weights(weight_decay) if weight_decay else None
    # What is off keeps its place: the state of a run fits whatever is on later.
    return optax.chain(
        optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity(),
        optax.chain(
            optax.scale_by_adam(),
            optax.masked(decay or optax.identity(), decayed),
            _scale_by_given_rate(),
        ),
    )


def former_layouts(opt_state: Any) -> list[Any]:
    """Returns a state as earlier versions nested it: the same leaves in their order.

    They left out what was off, so that a checkpoint fitted only the same options.

    Args:
      opt_state: of `make_optimizer`, or its shapes; any other was never nested
        otherwise.
    """
    match opt_state:
        case (clip, (adam, decay, schedule)):
            return [
                (clip, (adam, schedule)),  # clipping alone
                ((adam, schedule),),  # neither
                ((adam, decay, schedule),),  # decay alone; both is the layout of today
            ]
    return []
