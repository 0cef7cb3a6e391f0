"""Run settings shared by all configs.

Every default of a run lives here; defaults of an architecture live in its module.
"""

import math
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

# What configs want of the grammar of their arguments, by the name of this module.
from chemscale_jax.core.config_arguments import one_of as one_of
from chemscale_jax.core.config_arguments import parse_arg as parse_arg

# Of the force fields on ANI-1x, see `ani1x_form`.
ANI1X_FORMS = ("embedded", "full", "smoke")


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
                "cpu_devices": 0,  # of a CPU; 0: its cores, up to 8, that divide rows
                "rules": {  # logical axis of a parameter: mesh axis, None: kept whole
                    "embed": "fsdp",
                    "hidden": "tensor",
                    "heads": "tensor",
                    "vocabulary": None,
                },
            },
            "init_from": "",  # packaged, a workdir, or an .npz of parameters
            "init_fresh": (),  # regexes of parameter paths that start anew
            "init_freeze": (),  # regexes of parameter paths that do not move
            "check": "none",  # of the trained model: none, static, full (with dynamics)
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
            "undecayed": (),  # regexes of parameter paths without weight decay
            "clip_norm": 0.0,  # global gradient norm; 0: no clipping
            "schedule": "constant",  # constant, cosine, linear, wsd
            "warmup_steps": 0,  # of linear warm-up, in its unit
            "warmup_unit": "step",  # step; percent (of all); epoch: rises once an epoch
            "decay_steps": 0,  # length of the schedule; 0: all planned steps
            "final_fraction": 0.0,  # of the peak, where a schedule ends
            "cooldown_fraction": 0.2,  # of the schedule; wsd only
            "ema_decay": 0.0,  # of the averaged weights used in validation; 0: none
            "offload": False,  # moments wait in the host's memory; not on a CPU
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
            "ensemble": 0,  # runs of seed, seed + 1, ... trained together; 0: one run
            "lanes_at_once": 0,  # such runs taken in one go; 0: 1 on a CPU, else all
            "rows_at_once": 0,  # the largest rows, by a device; 0: 1 on a CPU, else all
            "checkpoint_every_steps": 200,  # besides the end of each epoch; 0: only it
            "watch": (
                "valid",
                "heldout",
            ),  # sets evaluated every epoch; a report has all
            "on_nonfinite": "stop",  # stop, or skip the step and count it
        }
    )


def graphs() -> ConfigDict:
    """The fields of ``config.data`` for streams of molecular graphs."""
    return ConfigDict(
        {
            "stream": "graphs",  # an entry of chemscale_jax.data.STREAMS
            "source": "embedded",  # an entry of data.frames.sources.SOURCES
            "path": "",  # file or folder of the source; embedded reads ANI-1x files
            "test_path": "",  # file whose frames are only evaluated; empty: none
            "labels": "auto",  # method of the labels in the file, or auto
            "energy_key": "auto",  # name of the energy; extxyz and ase_db only
            "forces_key": "auto",  # name of the forces; extxyz and ase_db only
            "energy_unit": "auto",  # such as hartree; auto: what the format implies
            "force_unit": "auto",  # such as hartree/angstrom; of gradients likewise
            "length_unit": "auto",  # such as angstrom
            "molecule": "",  # such as ethanol, or ethanol,toluene; rmd17 only
            "split_index": 1,  # official split of rmd17, 1 to 5; 0: none
            "reference": "fit",  # energies of the elements: fit, atoms (isolated ones)
            "train_size": 0,  # nested subsets; 0: all
            "passes": 1,  # over the training set in one epoch; more if it is small
            "max_frames": 0,  # random frames of the file to go on with; 0: all
            "split": "auto",  # an entry of chemscale_jax.data.frames.splits.KINDS
            "split_seed": 0,  # of the splits, apart from the seed of the run
            "valid_size": 0,  # frames; 0: min(50,000, 10 %)
            "heldout": "auto",  # molecules kept out: auto, none, or a fraction
            "block_frames": 0,  # frames; of split blocks; 0: 1/20 of each trajectory
            "gap_frames": -1,  # frames beside blocks nobody uses; -1: as correlated
            "max_train_atoms": 0,  # atoms; of split atoms; 0: 80 % of the frames
            "label_check": "refuse",  # forces that do not fit energies: warn, off
            "long_range_ang": 0.0,  # of a second pair list; inf: all pairs; 0: no list
        }
    )


def packs() -> ConfigDict:
    """The fields of ``config.batch`` for streams of molecular graphs."""
    return ConfigDict(
        {
            "rows": 8,  # packs per batch, spread over the devices
            "molecules": 5,  # per pack, on average
            "exact_molecules": 0,  # of each batch, for studies of its size; 0: as fits
            "nodes": 0,  # atoms a pack has room for; 0: from the data
            "edges": 0,  # edges a pack has room for; 0: from the data
            "workers": 0,  # processes that read ahead; 0: threads
            "prefetch": 4,  # batches read ahead; 0: each is made when it is needed
        }
    )


def corpus() -> ConfigDict:
    """The fields of ``config.data`` for streams of molecules as text."""
    return ConfigDict(
        {
            "stream": "tokens",  # an entry of chemscale_jax.data.STREAMS
            "source": "embedded",  # embedded, file (SMILES), store (of tokenize)
            "path": "",  # of the file or the store
            "column": "",  # name or number; empty: the one that is called smiles or so
            "tfds_split": "all",  # of a folder that TFDS prepared
            "notation": "",  # selfies, selfies-1, smiles; empty: as the data, selfies
            "vocabulary": "",  # file or folder; empty: that of init_from or the data
            "embedded_molecules": 60_000,  # of the corpus the package makes by itself
            "valid_fraction": 0.05,  # of the molecules
            "valid_molecules_max": 500_000,
            "split_seed": 0,  # of the one permutation that all subsets are cut from
            "train_molecules": 0,  # nested subsets; 0: all
            "train_tokens": 0,  # nested subsets; 0: all
            "train_rows": 0,  # nested subsets, in full rows of tokens; 0: all
            "deduplicate": True,  # leave out what validation has, and repeats
        }
    )


def token_rows() -> ConfigDict:
    """The fields of ``config.batch`` for streams of molecules as text."""
    return ConfigDict(
        {
            "form": "packed",  # packed, cut (one long text), bucketed (short rows)
            "rows": 8,  # per batch, spread over the devices
            "length": 512,  # tokens of a row
            "buckets": (),  # lengths of bucketed rows; empty: chosen from the data
            "tokens": 0,  # per batch of bucketed rows; 0: rows of the longest
            "workers": 0,  # processes that read ahead; 0: a thread
            "prefetch": 4,  # batches read ahead; 0: each is made when it is needed
        }
    )


def molecules() -> ConfigDict:
    """The fields of ``config.data`` for streams of molecules with coordinates."""
    return ConfigDict(
        {
            "stream": "molecules",  # an entry of chemscale_jax.data.STREAMS
            "source": "embedded",  # embedded, file (SMILES), store (of conformers)
            "path": "",  # of the file or the store
            "column": "",  # of a file: name or number; empty: one called smiles or so
            "conformers": 1,  # made of each molecule; of a store, it has its own
            "embedded_molecules": 4000,  # that the package makes by itself
            "statuses": ("3d", "unconverged", "given"),  # of records to train on
            "max_atoms": 0,  # heavy atoms; larger ones are left out; 0: as the data
            "split": "scaffold",  # of whole scaffolds to validate on; or random
            "split_seed": 0,  # of the one permutation that all subsets are cut from
            "valid_fraction": 0.1,  # of the molecules
            "valid_molecules_max": 520_000,
            "train_molecules": 0,  # nested subsets; 0: all
            "sampling": "once",  # or draws: softmax (paper), natural, tempered
            "tau": 0.005,  # of softmax
            "temperature": 2.0,  # of tempered
            "epoch_molecules": 0,  # draws of an epoch; 0: as many as there are
        }
    )


def labelled() -> ConfigDict:
    """The fields of ``config.data`` for streams of molecules with properties."""
    return ConfigDict(
        {
            "stream": "properties",  # an entry of chemscale_jax.data.STREAMS
            "source": "file",  # the only one: a file of molecules
            "path": "",  # csv, smi, parquet, sdf, xyz; see inputs/molecule_input.py
            "test_path": "",  # file whose molecules are the test set; empty: none
            "geometries": "",  # an sdf whose record i is row i of path; empty: none
            "geometry": "given",  # given (else made), conformers (made), flat
            "smiles_col": "",  # name or number; empty: the one called smiles or so
            "targets": (),  # names of columns; empty: all others that are numbers
            "units": (),  # of each target, or one for all; empty: unknown
            "kind": "auto",  # of all targets: auto, regression, binary, multiclass
            "conformers": 1,  # made of each molecule; training draws one each epoch
            "conformer_seed": 0,  # another one gives other conformers
            "max_atoms": 256,  # heavy atoms; larger molecules are left out
            "features": "keep",  # of atoms and bonds: keep, drop (geometry only)
            "split": "scaffold",  # an entry of data.property_splits.KINDS
            "split_col": "",  # column with train/valid/test, or with groups
            "split_file": "",  # split.csv of an earlier run; of split file only
            "split_seed": 0,  # of all that is random in splits and subsets
            "valid_fraction": 0.1,  # of the molecules; of folds, of the others
            "test_fraction": 0.1,  # of the molecules; 0: no test set
            "folds": 0,  # parts of which one is the test set; 0: fractions
            "fold": 0,  # which of them, from 0
            "train_molecules": 0,  # nested subsets; 0: all
            "max_rows": 0,  # random rows of path to go on with; 0: all
            "scaling": "auto",  # an entry of core.target_scaling.METHODS
        }
    )


def molecule_rows() -> ConfigDict:
    """The fields of ``config.batch`` for streams of molecules with coordinates."""
    return ConfigDict(
        {
            "form": "budget",  # so many pairs of places; or equal (so many molecules)
            "rows": 16,  # per batch, spread over the devices; or what divides the rows
            "budget": 0,  # pairs of places of a batch; 0: those of the largest rows
            "buckets": (),  # atoms of a row; empty: those of the package that occur
            "workers": 0,  # processes that read ahead; 0: a thread
            "prefetch": 4,  # batches read ahead; 0: each is made when it is needed
        }
    )


def force_loss() -> ConfigDict:
    """The fields of ``config.loss`` for force fields; by default those of the paper."""
    return ConfigDict(
        {
            "power": "l1",  # l1 (Eq. 5), l2 (Eq. 4), huber
            "form": "component",  # component (the papers' code), equation (as printed)
            "energy_per": "molecule",  # errors of a molecule's energy, or per atom
            "alpha_energy": 0.0,  # weight of the energy term; 0: forces only
            "alpha_force": 1.0,  # weight of the force term
            "delta_energy": 0.01,  # eV (or eV/atom), where huber turns linear
            "delta_force": 0.01,  # eV/angstrom
            "element_weights": (),  # of forces, like (("H", 0.5), ("O", 2.0)); else 1
            "schedule": "constant",  # of both alphas: constant, linear, step
            "final_alpha_energy": 0.0,  # what they change to; also of validation
            "final_alpha_force": 1.0,
            "change_unit": "fraction",  # of all planned steps, or epoch
            "change_at": 0.75,  # where the change is made, or begins (linear)
            "change_until": 1.0,  # where a linear change ends
        }
    )


def ani1x_form(config: ConfigDict, form: str) -> None:
    """Fills in task, loss, data and batches of a force field, and how it is trained.

    Args:
        config: of `base`; changed in place.
        form: embedded (GFN2-xTB frames of the package, energies and forces), full
            (ANI-1x with the protocol of Frey et al.: force-only L1, plateau and early
            stop) or smoke (embedded, on a few frames).
    """
    config.form = form
    config.task = "force_field"
    config.loss = force_loss()
    config.data = graphs()
    config.batch = packs()
    config.check = "none" if form == "smoke" else "full"
    if form == "full":
        config.data.source = "ani1x"
        config.batch.molecules = 16
        return

    # Differs from the paper: a budget of epochs with an annealed learning rate, and
    # an energy term, so that minutes on a CPU give a usable force field.
    config.loss.alpha_energy = 0.02
    config.optimizer.lr = 2e-3
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 100
    config.optimizer.clip_norm = 10.0
    config.optimizer.ema_decay = 0.99
    config.train.use_plateau = False
    config.train.early_stop_epochs = 0
    config.train.epochs = 15
    if form == "smoke":
        config.optimizer.warmup_steps = 5
        config.data.max_frames = 400
        config.train.epochs = 2


def trajectory_form(config: ConfigDict, form: str) -> None:
    """Fills in a force field of one molecule, trained on few frames for long.

    Args:
        config: of `base`; changed in place.
        form: smoke (a few frames of the package) or another, whose source of data and
            number of epochs are left to the caller.
    """
    config.form = form
    config.task = "force_field"
    config.loss = force_loss()
    config.loss.alpha_energy = 0.02
    config.data = graphs()
    config.batch = packs()
    config.check = "none" if form == "smoke" else "full"
    config.batch.rows = 2
    # A pass takes a second, less than a checkpoint or a pipeline of batches.
    config.batch.prefetch = 0
    config.data.passes = 1 if form == "smoke" else 10
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 500
    config.optimizer.clip_norm = 10.0
    config.optimizer.ema_decay = 0.999
    config.train.use_plateau = False
    config.train.early_stop_epochs = 0
    config.train.checkpoint_every_steps = 0
    if form == "smoke":
        config.data.max_frames = 100
        config.optimizer.warmup_steps = 5
        config.train.epochs = 2


def set_network(
    config: ConfigDict, name: str, cutoff_ang: float, hyperparameters: Mapping[str, Any]
) -> None:
    """Fills in ``config.model`` of a force field, and what it asks of the data."""
    fields: dict[str, Any] = {"name": name, "cutoff_ang": cutoff_ang}
    if name == "allegro":
        # Left empty, these are taken from the training set.
        fields |= {"elements": (), "avg_num_neighbors": 0.0, "energy_scale": 0.0}
    if name == "spookynet":
        config.data.long_range_ang = math.inf  # its charges feel one another
    config.model = {**fields, **hyperparameters}
