"""Run settings shared by all configs, and the grammar of config arguments.

Every default of a run lives here; defaults of an architecture live in its module.
"""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from chemscale_jax.core.errors import UserError


def base() -> ConfigDict:
    """The fields every config has."""
    return ConfigDict(
        {
            "name": "",  # names the default workdir
            "form": "",  # of the config, for the first line of output
            "task": "",  # an entry of chemscale_jax.tasks.TASKS
            "seed": 0,  # of initialisation, data order and noise
            "workdir": "",  # empty: runs/<name>-<hash of the config>
            "optimizer": optimizer(),
            "train": train(),
            "mesh": {
                "data": -1,  # devices over which rows are spread; -1: all that remain
                "fsdp": 1,  # devices over which rows and parameters are spread
                "tensor": 1,  # devices over which one matrix is spread
                "rules": {"embed": "fsdp", "hidden": "tensor"},  # logical: mesh axis
            },
            "init_from": "",  # a workdir or an .npz of parameters to start from
            "init_fresh": (),  # regexes of parameter paths that start anew
            "init_freeze": (),  # regexes of parameter paths that do not move
            "log": {
                "every_steps": 10,  # steps between records of the training loss
                "writers": (),  # some of: tensorboard, wandb
            },
        }
    )


def optimizer() -> ConfigDict:
    """The fields of ``config.optimizer``."""
    return ConfigDict(
        {
            "name": "adam",  # adam, adamw
            "lr": 1e-3,  # peak learning rate
            "b1": 0.9,
            "b2": 0.999,
            "eps": 1e-8,
            "weight_decay": 0.0,  # per step, times the learning rate; adamw only
            "clip_norm": 0.0,  # global gradient norm; 0: no clipping
            "schedule": "constant",  # constant, cosine, linear, wsd
            "warmup_steps": 0,  # steps of linear warm-up
            "decay_steps": 0,  # length of the schedule; 0: all planned steps
            "final_fraction": 0.0,  # of the peak, where a schedule ends
            "cooldown_fraction": 0.2,  # of the schedule; wsd only
            "ema_decay": 0.0,  # of the averaged weights used in validation; 0: none
        }
    )


def train() -> ConfigDict:
    """The fields of ``config.train``: when to save, to slow down and to stop."""
    return ConfigDict(
        {
            "epochs": 1000,  # at most
            "max_steps": 0,  # 0: no limit
            "early_stop_epochs": 50,  # without improvement of validation; 0: never
            "use_plateau": True,  # lower the learning rate when validation stalls
            "plateau": {
                "factor": 0.5,
                "patience": 30,  # epochs
                "floor": 1e-7,  # learning rate
                "threshold": 1e-4,  # relative improvement that counts
            },
            "rows_at_once": 0,  # rows a device takes in one go; 0: 1 on a CPU, else all
            "checkpoint_every_steps": 200,  # besides the end of each epoch; 0: only it
            "on_nonfinite": "stop",  # stop, or skip the step and count it
        }
    )


def graphs() -> ConfigDict:
    """The fields of ``config.data`` for streams of molecular graphs."""
    return ConfigDict(
        {
            "stream": "graphs",  # an entry of chemscale_jax.data.STREAMS
            "source": "embedded",  # embedded, ani1x (official HDF5 layout), tfds
            "path": "",  # file or folder of the source; implies ani1x unless tfds
            "labels": "auto",  # method of the labels in the file, or auto
            "energy_unit": "hartree",
            "force_unit": "hartree/angstrom",
            "length_unit": "angstrom",
            "train_size": 0,  # nested subsets; 0: all
            "max_frames": 0,  # random frames of the file to go on with; 0: all
            "split_seed": 0,  # of the splits, apart from the seed of the run
            "valid_size": 0,  # frames; 0: min(50,000, 10 %)
            "heldout": "auto",  # molecules kept out: auto, none, or a fraction
            "long_range_ang": 0.0,  # of a second pair list; inf: all pairs; 0: no list
        }
    )


def packs() -> ConfigDict:
    """The fields of ``config.batch`` for streams of molecular graphs."""
    return ConfigDict(
        {
            "rows": 8,  # packs per batch, spread over the devices
            "molecules": 5,  # per pack, on average
            "nodes": 0,  # atoms a pack has room for; 0: from the data
            "edges": 0,  # edges a pack has room for; 0: from the data
            "workers": 0,  # processes that read ahead; 0: threads
            "prefetch": 4,  # batches read ahead
        }
    )


def force_loss() -> ConfigDict:
    """The fields of ``config.loss`` for force fields; by default those of the paper."""
    return ConfigDict(
        {
            "power": "l1",  # l1 (Eq. 5), l2 (Eq. 4)
            "form": "component",  # component (the papers' code), equation (as printed)
            "alpha_energy": 0.0,  # weight of the energy term, eV per molecule
            "alpha_force": 1.0,  # weight of the force term, eV/angstrom
        }
    )


def parse_arg(
    arg: str, forms: Sequence[str], options: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Parses ``form,key=value,...``, the part of ``--config=FILE:...`` after the colon.

    Args:
        arg: the argument; may be empty.
        forms: known forms, the default first.
        options: known keys with their defaults, whose type a value must have.

    Returns:
        The form, and all options with the given values in place.
    """
    form, chosen = forms[0], dict(options)
    for position, part in enumerate(piece.strip() for piece in arg.split(",")):
        key, equals, text = part.partition("=")
        if not equals:
            if not part and len(arg) == 0:
                continue
            if position or part not in forms:
                raise UserError(
                    f"config argument {part!r} is not a form; {_nearest(part, forms)}"
                )
            form = part
        elif key not in options:
            raise UserError(
                f"config argument has key {key!r}; {_nearest(key, list(options))}"
            )
        else:
            chosen[key] = _parse(key, text, options[key])
    return form, chosen


def _parse(key: str, text: str, default: Any) -> Any:
    kind = type(default)
    if kind is bool:
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
    else:
        try:
            return kind(text)
        except ValueError:
            pass
    raise UserError(
        f"config argument {key}={text!r} is not a {kind.__name__}; "
        f"write it like {key}={default}"
    )


def _nearest(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}known: {', '.join(known)}"
