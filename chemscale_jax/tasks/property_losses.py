"""Losses and errors of predicted properties, each a mean over the labels there are.

Finetuning of Uni-Mol2 takes ``smooth_l1`` of scaled labels: with d the error, d^2/2
where ``|d| < 1``, else ``|d| - 1/2``.

Where labels 1 are rare, they weigh w times as much. The minimum of such a loss is at
the logit plus log w, so it is taken there: what a network gives is the logit itself,
and its probabilities are those of the data.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from chemscale_jax.core.errors import UserError
from chemscale_jax.core.property_predictions import KINDS
from chemscale_jax.core.task import Mean
from chemscale_jax.core.types import Array

REGRESSION_LOSSES: Mapping[str, Callable[[Array], Array]] = {
    "smooth_l1": lambda error: jnp.where(
        jnp.abs(error) < 1, 0.5 * error**2, jnp.abs(error) - 0.5
    ),
    "l1": jnp.abs,
    "l2": jnp.square,
}
# Errors are logged for each target where there are not more than so many.
MOST_SHOWN = 12


class Targets(NamedTuple):
    """What is predicted, as the stream's artifacts say."""

    names: tuple[str, ...]
    units: tuple[str, ...]
    kind: str  # an entry of KINDS
    classes: int  # multiclass only, else 0
    # What an error of 1 is in the unit of each target; () where that differs from
    # label to label, as for logarithms, or where labels are no numbers.
    spread: tuple[float, ...]
    positive_weight: tuple[float, ...]  # w of each binary target; () for others

    @property
    def outputs(self) -> int:
        """P, how many numbers a network gives."""
        return self.classes if self.kind == "multiclass" else len(self.names)

    @property
    def constants(self) -> dict[str, Array]:
        """What losses ask of the training set, an argument of programs.

        Folds differ in nothing else, so that they share a program.
        """
        found = {"spread": self.spread, "positive_weight": self.positive_weight}
        return {
            name: jnp.asarray(values, jnp.float32)
            for name, values in found.items()
            if values
        }

    @property
    def shown(self) -> dict[str, int]:
        """``{metric name: its target}`` of errors in units."""
        if len(self.spread) > MOST_SHOWN:
            return {}
        return {f"mae_{self.names[t]}": t for t in range(len(self.spread))}


def read_targets(artifacts: Mapping[str, Any], balance: bool = True) -> Targets:
    """The targets of a stream's artifacts, or of the artifacts.json of a run.

    Args:
        artifacts: of the stream.
        balance: whether binary labels 1 weigh more where they are rare.

    Raises:
        UserError: there are none, of an unknown kind, or several of classes.
    """
    if "targets" not in artifacts:
        raise UserError(
            "the data have no targets, so they are no molecules with labels; use "
            "config.data.stream='properties'"
        )
    found = artifacts["targets"]
    kind, names = found["kind"], tuple(found["names"])
    if kind not in KINDS:
        raise UserError(f"the data have targets of kind {kind!r}, expected {KINDS}")
    classes = len(found["classes"]) if kind == "multiclass" else 0
    if kind == "multiclass" and (len(names) != 1 or classes < 2):
        raise UserError(
            f"multiclass data have the targets {names} of {classes} classes; give one "
            "target of two or more classes, or use kind='binary' for several of 0 and 1"
        )
    scaling = found["scaling"]
    linear = kind == "regression" and scaling["method"] != "log1p"
    return Targets(
        names=names,
        units=tuple(found["units"]),
        kind=kind,
        classes=classes,
        spread=tuple(float(x) for x in scaling["scale"]) if linear else (),
        positive_weight=_weights(found["positive_weight"], balance, kind),
    )


def _weights(given: Sequence[float], balance: bool, kind: str) -> tuple[float, ...]:
    if kind != "binary":
        return ()
    return tuple(float(weight) if balance else 1.0 for weight in given)


def loss_name(targets: Targets, regression: str) -> str:
    """The metric that is the loss.

    Args:
        targets: what is predicted.
        regression: the loss of numbers, one of `REGRESSION_LOSSES`.
    """
    if regression not in REGRESSION_LOSSES:
        raise UserError(
            f"config.loss.regression is {regression!r}, expected "
            f"{tuple(REGRESSION_LOSSES)}"
        )
    names = {"regression": regression, "binary": "bce", "multiclass": "ce"}
    return names[targets.kind]


def property_metrics(
    targets: Targets,
    constants: Mapping[str, Array],
    regression: str,
    outputs_BP: Array,
    targets_BT: Array,
    mask_BT: Array,
) -> dict[str, Mean]:
    """The loss under its name, and errors that a person can read.

    Args:
        targets: what is predicted.
        constants: of the targets.
        regression: the loss of numbers, one of `REGRESSION_LOSSES`.
        outputs_BP: scaled numbers or logits of the network, float32 or wider.
        targets_BT: labels as in `PropertyRows`.
        mask_BT: True where there is a label.
    """
    name = loss_name(targets, regression)
    count = jnp.sum(mask_BT, dtype=jnp.float32)

    def over(each_BT: Array) -> Mean:
        return Mean(jnp.sum(jnp.where(mask_BT, each_BT, 0.0)), count)

    # Labels that are missing are 0, which every loss can take.
    labels_BT = jnp.where(mask_BT, targets_BT, 0.0)
    if targets.kind == "multiclass":
        chosen_BP = jnp.arange(outputs_BP.shape[1])[None] == labels_BT
        log_prob_BP = jax.nn.log_softmax(outputs_BP)
        nll_B = -jnp.sum(jnp.where(chosen_BP, log_prob_BP, 0.0), axis=1)
        right_B = jnp.argmax(outputs_BP, axis=1) == labels_BT[:, 0]
        return {name: over(nll_B[:, None]), "accuracy": over(right_B[:, None])}
    if targets.kind == "binary":
        weight_1T = constants["positive_weight"][None]
        moved_BT = outputs_BP + jnp.log(weight_1T)
        nll_BT, bce_BT = (
            -(w * labels_BT * jax.nn.log_sigmoid(x))
            - (1 - labels_BT) * jax.nn.log_sigmoid(-x)
            for w, x in ((1.0, outputs_BP), (weight_1T, moved_BT))
        )
        right_BT = (outputs_BP > 0) == (labels_BT > 0.5)
        return {name: over(bce_BT), "nll": over(nll_BT), "accuracy": over(right_BT)}
    error_BT = jnp.where(mask_BT, outputs_BP - labels_BT, 0.0)
    size_BT = jnp.abs(error_BT)
    found = {
        name: over(REGRESSION_LOSSES[regression](error_BT)),
        "mae": over(size_BT),
    }
    for title, t in targets.shown.items():
        total = constants["spread"][t] * jnp.sum(size_BT[:, t])
        found[title] = Mean(total, jnp.sum(mask_BT[:, t], dtype=jnp.float32))
    return found
