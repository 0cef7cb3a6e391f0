"""From a config to an optimiser: directions from optax, step size from a schedule."""

import re
import types
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from chemscale_jax.core.errors import UserError
from chemscale_jax.core.partition import tree_paths
from chemscale_jax.core.types import Array, Config, Params

SCHEDULES = ("constant", "cosine", "linear", "wsd")
OPTIMIZERS = ("adam", "adamw")
WARMUP_UNITS = ("step", "epoch", "percent")


class Optimizer(NamedTuple):
    """A record of pure functions.

    The direction does not contain the learning rate: the step multiplies it by
    ``schedule(step) * lr_scale``, so that a plateau rule on the host (or a lane of a
    sweep) changes the rate without recompilation.
    """

    init: Callable[[Params], Any]
    # grads, state, params -> direction to move along (downhill), state, gradient norm
    direction: Callable[[Params, Any, Params], tuple[Params, Any, Array]]
    # step -> learning rate
    schedule: optax.Schedule
    transform: optax.GradientTransformation
    ema_decay: float  # 0: no average of the weights
    # Moments wait in the memory of the host between updates of the parameters.
    offloaded: bool


def make_optimizer(
    config: Config, steps: int, frozen: tuple[str, ...], steps_per_epoch: int = 0
) -> Optimizer:
    """The optimiser of ``config.optimizer``.

    Args:
        config: see ``configs/common.py`` for the fields and their defaults.
        steps: length of the schedule, used where ``config.decay_steps`` is 0.
        frozen: regular expressions of parameter paths that must not move.
        steps_per_epoch: used where the warm-up is counted in epochs.
    """
    if config.name not in OPTIMIZERS:
        raise UserError(
            f"config.optimizer.name is {config.name!r}, expected one of {OPTIMIZERS}"
        )
    parts = [optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps)]
    if config.name == "adamw":
        parts.append(_decay(config.weight_decay, tuple(config.undecayed)))
    elif config.weight_decay:
        raise UserError(
            f"config.optimizer.weight_decay is {config.weight_decay}, but adam has no "
            "weight decay; set config.optimizer.name=adamw"
        )
    transform = optax.chain(*parts)
    clip_norm = config.clip_norm

    def direction(
        grads: Params, state: Any, params: Params
    ) -> tuple[Params, Any, Array]:
        grads = _without(grads, frozen)
        norm = optax.tree.norm(grads)
        if clip_norm:
            scale = jnp.minimum(1.0, clip_norm / jnp.maximum(norm, 1e-12))
            grads = jax.tree.map(lambda g: g * scale.astype(g.dtype), grads)
        updates, state = transform.update(grads, state, params)
        updates = jax.tree.map(jnp.negative, updates)
        return _without(updates, frozen), state, norm

    return Optimizer(
        init=transform.init,
        direction=direction,
        schedule=make_schedule(config, config.decay_steps or steps, steps_per_epoch),
        transform=transform,
        ema_decay=config.ema_decay,
        # A processor's memory is the host's, and XLA has no other for it.
        offloaded=config.offload and jax.default_backend() != "cpu",
    )


def make_lane_optimizer(
    configs: Sequence[Config], steps: Sequence[int], frozen: tuple[str, ...]
) -> Callable[[Array], Optimizer]:
    """The optimiser of each of several lanes of one program, by the lane's number.

    Args:
        configs: ``config.optimizer`` of each lane; they may differ in learning rate,
            schedule and weight decay.
        steps: length of the schedule of each lane, as in `make_optimizer`.
        frozen: regular expressions of parameter paths that must not move.
    """
    lengths = [
        config.decay_steps or own for config, own in zip(configs, steps, strict=True)
    ]
    schedules = [make_schedule(c, n) for c, n in zip(configs, lengths, strict=True)]
    alike = all(
        (c.to_dict(), n) == (configs[0].to_dict(), lengths[0])
        for c, n in zip(configs, lengths, strict=True)
    )
    decays = [config.weight_decay for config in configs]

    def of_lane(lane: Array) -> Optimizer:
        fields = configs[0].to_dict()
        if any(decay != decays[0] for decay in decays):
            fields["weight_decay"] = jnp.asarray(decays)[lane]
        optimizer = make_optimizer(types.SimpleNamespace(**fields), lengths[0], frozen)
        if alike:
            return optimizer

        def schedule(step: ArrayLike) -> ArrayLike:
            # Rounded as the step rounds it alone, whatever a neighbour's type is.
            one = jnp.ones((), jnp.float32)
            return jnp.stack([jnp.asarray(of(step)) * one for of in schedules])[lane]

        return optimizer._replace(schedule=schedule)

    return of_lane


def make_schedule(
    config: Config, steps: int, steps_per_epoch: int = 0
) -> optax.Schedule:
    """Linear warm-up, then the shape named by ``config.schedule``.

    The warm-up rises with each step, or once an epoch from 0 on: so does the published
    code of ChemGPT, whose ten epochs therefore end at a tenth of its peak. Its length
    is in steps, in epochs, or in percent of the schedule.

    ``cosine`` and ``linear`` fall to ``final_fraction`` of the peak at ``steps``;
    ``wsd`` holds the peak and falls linearly over the last ``cooldown_fraction``.
    """
    if config.schedule not in SCHEDULES:
        raise UserError(
            f"config.optimizer.schedule is {config.schedule!r}, "
            f"expected one of {SCHEDULES}"
        )
    peak, low = config.lr, config.lr * config.final_fraction
    if config.warmup_unit not in WARMUP_UNITS:
        raise UserError(
            f"config.optimizer.warmup_unit is {config.warmup_unit!r}, expected one of "
            f"{WARMUP_UNITS}"
        )
    stride = 1
    if config.warmup_unit == "epoch":
        if not steps_per_epoch:
            raise UserError(
                "config.optimizer.warmup_unit is 'epoch', which runs that are trained "
                "together do not have; train them apart"
            )
        stride = steps_per_epoch
    warmup = config.warmup_steps * stride
    if config.warmup_unit == "percent":
        warmup = round(steps * config.warmup_steps / 100)
    rest = max(steps - warmup, 1)
    if config.schedule == "constant":
        after = optax.constant_schedule(peak)
    elif config.schedule == "cosine":
        after = optax.cosine_decay_schedule(peak, rest, alpha=config.final_fraction)
    elif config.schedule == "linear":
        after = optax.linear_schedule(peak, low, rest)
    else:
        cooldown = max(int(rest * config.cooldown_fraction), 1)
        after = optax.linear_schedule(peak, low, cooldown, rest - cooldown)
    if not warmup:
        return after

    def warm(step: ArrayLike) -> ArrayLike:
        if config.warmup_unit == "epoch":
            return peak * (jnp.asarray(step) // stride) / config.warmup_steps
        # The first step already moves: 1/warmup of the peak, not 0.
        return peak * (jnp.asarray(step) + 1) / warmup

    return optax.join_schedules([warm, after], [warmup])


def _decay(rate: Any, undecayed: tuple[str, ...]) -> optax.GradientTransformation:
    """Weight decay of all parameters but those whose path has one of the patterns."""

    def decayed(params: Params) -> Params:
        treedef = jax.tree.structure(params)
        return jax.tree.unflatten(
            treedef, [not is_frozen(path, undecayed) for path in tree_paths(params)]
        )

    # Without patterns there is no mask, whose state would be one more in checkpoints.
    return optax.add_decayed_weights(rate, decayed if undecayed else None)


def _without(tree: Params, frozen: tuple[str, ...]) -> Params:
    """The tree with zeros at frozen paths."""
    if not frozen:
        return tree
    leaves, treedef = jax.tree.flatten(tree)
    kept = [
        jnp.zeros_like(leaf) if is_frozen(path, frozen) else leaf
        for path, leaf in zip(tree_paths(tree), leaves, strict=True)
    ]
    return jax.tree.unflatten(treedef, kept)


def is_frozen(path: str, frozen: tuple[str, ...]) -> bool:
    """Whether one of the patterns is found in the path."""
    return any(re.search(pattern, path) for pattern in frozen)
