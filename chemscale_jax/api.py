"""Finetune, predict and embed in a few lines, in the shape that Uni-Mol's tools have.

    from chemscale_jax.api import MolPredict, MolTrain, UniMolRepr, embed

    MolTrain(task="regression", target_cols="logS", save_path="sol").fit("mols.csv")
    logS = MolPredict("sol").predict("others.csv")
    vectors = UniMolRepr().get_repr(["CCO", "c1ccccc1"])["cls_repr"]
    vectors = embed(["CCO", "c1ccccc1"], "chemgpt").values

Molecules come as the path of a csv, smi, parquet, sdf or xyz file, a SMILES string or a
list of them, a DataFrame, or a dictionary with "smiles", or "atoms" and "coordinates".
Rows keep their places: what cannot be read is NaN, and has a reason. Hydrogens are left
out always, as Uni-Mol2 does; devices are those that JAX finds.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from chemscale_jax.chem.elements import symbol_of
from chemscale_jax.core import config_files
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.property_predictions import PropertyPredictions
from chemscale_jax.core.types import Config
from chemscale_jax.core.workdir import Workdir
from chemscale_jax.data.inputs.input_files import as_files
from chemscale_jax.data.inputs.molecule_input import MoleculeInput
from chemscale_jax.data.inputs.open_input import open_input
from chemscale_jax.inference import embed as embeddings
from chemscale_jax.inference import predict_properties, result_table
from chemscale_jax.inference.embed import Embeddings
from chemscale_jax.inference.embed_molecules import embed
from chemscale_jax.inference.embed_settings import EmbedSettings
from chemscale_jax.inference.molecule_batches import BY_DEVICE, Batching
from chemscale_jax.inference.molecule_model import open_molecule_model
from chemscale_jax.inference.predict_files import LEVEL, table_columns
from chemscale_jax.inference.predict_properties import PredictSettings
from chemscale_jax.runs import property_scores

__all__ = ["MolPredict", "MolTrain", "UniMolRepr", "embed"]

TASKS = {
    "regression": "regression",
    "multilabel_regression": "regression",
    "classification": "binary",
    "multilabel_classification": "binary",
    "multiclass": "multiclass",
}
SPLITS = {"select": "column"}
MODEL = "unimolv2"
# What is in a folder of `MolTrain`, in the order in which results are looked for.
_RESULTS = ("out_of_fold", "heldout", "valid")


class MolTrain:
    """Finetunes Uni-Mol2 on labels; thin, over `chemscale_jax.runs.finetuning`."""

    def __init__(
        self,
        task: str = "classification",
        data_type: str = "molecule",
        epochs: int | None = None,
        learning_rate: float | None = None,
        batch_size: int | None = None,
        early_stopping: int | None = None,
        metrics: str = "none",
        split: str = "scaffold",
        split_group_col: str = "",
        kfold: int = 5,
        save_path: str = "./exp",
        smiles_col: str = "",
        target_cols: str | Sequence[str] = (),
        target_normalize: str = "auto",
        max_norm: float | None = None,
        use_amp: bool = False,
        freeze_layers: str | Sequence[str] = (),
        load_model_dir: str = "",
        model_name: str = MODEL,
        model_size: str = "",
        pretrained_model_path: str = "packaged",
        *,
        units: str | Sequence[str] = (),
        conformers: int = 1,
        seeds: int = 1,
        seed: int = 0,
        **config: Any,
    ):
        """Says how to train; `fit` does it.

        Args:
            task: an entry of `TASKS`.
            data_type: "molecule".
            epochs: at most; default: that of configs/finetune.py, as of all below that
                are None.
            learning_rate: the highest.
            batch_size: molecules of a step.
            early_stopping: epochs without improvement after which training ends.
            metrics: to give back, with commas, such as "mae,r2"; "none": all there are.
            split: scaffold, cluster (similar scaffolds), random, stratified, group,
                column ("select"; a column says train, valid or test), or file.
            split_group_col: column of the groups, or of train, valid and test.
            kfold: parts, each of which is tested on by networks that were not trained
                on it; 1: a single split.
            save_path: folder of the runs; a call that was stopped goes on there.
            smiles_col: of the data; "": the one called smiles or the like.
            target_cols: columns to learn; none: all others that hold numbers.
            target_normalize: auto, standard, robust, minmax, log1p, none.
            max_norm: at which gradients are clipped.
            use_amp: matrix products in bfloat16.
            freeze_layers: regular expressions of parameters that stay as they are.
            load_model_dir: workdir of a run to start from.
            model_name: "unimolv2".
            model_size: of a network that starts from nothing: tiny, 1M, 5M, 42M, ...
            pretrained_model_path: packaged, scratch, a checkpoint.pt, a safetensors
                file, a folder of one, or a workdir.
            units: of the targets.
            conformers: of each molecule.
            seeds: networks for each fold.
            seed: of the first one.
            config: further fields of the config, with two underscores for a dot:
                ``optimizer__b2=0.95``.

        Raises:
            UserError: a value is unknown.
        """
        _check_model(model_name, data_type)
        if task not in TASKS:
            raise UserError(f"task is {task!r}, expected one of {(*TASKS,)}")
        if seeds < 1 or kfold < 1:
            raise UserError(f"kfold={kfold}, seeds={seeds}: make them 1 or more")
        self.metrics = property_scores.metric_names(metrics, TASKS[task])
        self.save_path = pathlib.Path(save_path).expanduser()
        self.folds = kfold if kfold > 1 else 0
        self.seeds = tuple(range(seed, seed + seeds))
        start = load_model_dir or pretrained_model_path
        if model_size and start != "scratch":
            raise UserError(
                f"model_size={model_size!r} is of a network that starts from nothing: "
                "give pretrained_model_path='scratch' too, or leave it out"
            )
        init = "scratch" if start == "scratch" else "packaged"
        size = f",size={model_size}" if model_size else ""
        self.config = config_files.load(f"configs/finetune.py:csv,init={init}{size}")
        self.config.workdir = str(self.save_path)
        data = self.config.data
        data.kind = TASKS[task]
        data.smiles_col = smiles_col
        data.targets = _words(target_cols)
        data.units = _words(units)
        data.split = SPLITS.get(split, split)
        data.split_col = split_group_col
        data.scaling = target_normalize
        data.conformers = conformers
        self.config.init_from = "" if start == "scratch" else start
        self.config.init_freeze = _words(freeze_layers)
        if use_amp:
            self.config.model.dtype = "bfloat16"
        given = {
            "train.epochs": epochs,
            "optimizer.lr": learning_rate,
            "batch.rows": batch_size,
            "train.early_stop_epochs": early_stopping,
            "optimizer.clip_norm": max_norm,
            **{name.replace("__", "."): value for name, value in config.items()},
        }
        for name, value in given.items():
            if value is not None:
                _set(self.config, name, value)

    def fit(self, data: Any) -> dict[str, Any]:
        """Trains, or goes on.

        Args:
            data: molecules with a column of each target; see the top of this module.
                What is in memory is written into the folder first, of several
                geometries of a molecule the first one.

        Returns:
            "state" ("finished" or "interrupted"), "split" (what was measured on), and
            "metrics": of each target, by name.
        """
        # Training is imported when it is asked for.
        from chemscale_jax.runs.finetuning import finetune

        own = self.config.data
        files = as_files(data, self.save_path, own.smiles_col)
        own.path, own.geometries = str(files.table), str(files.geometries or "")
        state = finetune(self.config, folds=self.folds, seeds=self.seeds)
        if state != "finished":
            return {"state": state, "split": "", "metrics": {}}
        workdir = Workdir(self.save_path)
        split = next(
            name for name in _RESULTS if (workdir.predictions / f"{name}.npz").exists()
        )
        found = PropertyPredictions.load(workdir.predictions / f"{split}.npz")
        targets = workdir.artifacts()["targets"]
        measured = property_scores.scores(found.true, found.pred, targets, self.metrics)
        return {"state": state, "split": split, "metrics": measured}


class MolPredict:
    """Predicts properties with what `MolTrain` made, or ``chemscale finetune``."""

    def __init__(self, load_model: str | Sequence[str], batch_size: int = 0):
        """Opens a folder.

        Args:
            load_model: folder of a run, of folds and seeds, or several of these.
            batch_size: molecules of 27 atoms in a batch; 0: by device.

        Raises:
            UserError: there is no finetuned network.
        """
        self.model = predict_properties.open_property_model(load_model)
        self.batching = _batching(batch_size)
        self.columns: dict[str, np.ndarray] = {}
        self.metrics: dict[str, dict[str, float]] = {}

    def predict(
        self,
        data: Any,
        save_path: str | None = None,
        metrics: str = "none",
        *,
        level: float = LEVEL,
        conformers: int = 0,
    ) -> np.ndarray:
        """Predictions in the units of the data, or probabilities: (M, P) float64.

        The table with status, intervals and deviations is in ``columns`` then.

        Args:
            data: molecules; see the top of this module.
            save_path: folder for predict.csv.
            metrics: to measure, where data has the columns of the targets: with
                commas, or "all"; they are in ``metrics`` then.
            level: of intervals.
            conformers: of each molecule; 0: as in training.

        Raises:
            UserError: there is no molecule, or something else cannot be used.
        """
        model, targets = self.model, self.model.targets
        chosen: tuple[str, ...] = ()
        if metrics != "none":
            chosen = property_scores.metric_names(metrics, targets["kind"])
        source = _source(data, max_atoms=model.data["max_atoms"])
        rows = predict_properties.read_rows(
            model, source, PredictSettings(conformers=conformers), None, "", True
        )
        work = predict_properties.make_work(model, self.batching, source.columns)
        part = predict_properties.whole(rows, work)
        found = predict_properties.gathered(part, model)
        own = table_columns(model, found, level)
        self.columns = result_table.with_input(part, own)
        if save_path is not None:
            folder = pathlib.Path(save_path).expanduser()
            folder.mkdir(parents=True, exist_ok=True)
            result_table.write_table(folder / "predict.csv", iter([self.columns]))
        if chosen:
            true = property_scores.labels(model.targets, part)
            self.metrics = property_scores.scores(
                true, found.pred, model.targets, chosen
            )
        return found.pred


class UniMolRepr:
    """Embeddings of molecules and atoms; see `chemscale_jax.inference.embed` for more.

    Equal for each spelling of a molecule, alone and in any batch.
    """

    def __init__(
        self,
        data_type: str = "molecule",
        batch_size: int = 0,
        model_name: str = MODEL,
        pretrained_model_path: str | None = None,
        *,
        conformers: int = 1,
        layer: int | str = -1,
    ):
        """Opens a network.

        Args:
            data_type: "molecule".
            batch_size: molecules of 27 atoms in a batch; 0: by device.
            model_name: "unimolv2".
            pretrained_model_path: a workdir, pretrained or finetuned, a checkpoint.pt,
                a safetensors file, or a folder of one; default: the packaged network.
            conformers: of each molecule, over which values are averaged.
            layer: see `EmbedSettings`.

        Raises:
            UserError: there is no such network.
        """
        _check_model(model_name, data_type)
        self.model = open_molecule_model(pretrained_model_path)
        self.batching = _batching(batch_size)
        self.conformers, self.layer = conformers, layer

    def get_repr(self, data: Any, return_atomic_reprs: bool = False) -> dict[str, Any]:
        """What the network makes of molecules.

        Args:
            data: see the top of this module.
            return_atomic_reprs: whether atoms are wanted too.

        Returns:
            "cls_repr" (M, D) float32, NaN for what failed; "cls_std" over conformers,
            or None; "smiles", "status" and "reason" of each molecule. With atoms also
            "atomic_reprs" (N, D), "atomic_coords" (N, 3; of the first conformer) and
            "atomic_symbol", lists of one entry for each molecule, whose heavy atoms
            stand in the order of "smiles".
        """
        source = _source(data)
        molecules = self._embed(source, "molecule")
        found: dict[str, Any] = {
            "cls_repr": molecules.values,
            "cls_std": molecules.std,
            "smiles": molecules.smiles.tolist(),
            "status": molecules.status.tolist(),
            "reason": molecules.reason.tolist(),
        }
        if not return_atomic_reprs:
            return found
        atoms = self._embed(source, "atom")
        assert atoms.positions is not None
        assert atoms.species is not None
        bounds = np.cumsum(atoms.atoms * (atoms.conformers > 0))[:-1]
        symbols = np.array([symbol_of(int(z)) for z in atoms.species], np.str_)
        return found | {
            "atomic_reprs": np.split(atoms.values, bounds),
            "atomic_coords": np.split(atoms.positions, bounds),
            "atomic_symbol": [part.tolist() for part in np.split(symbols, bounds)],
        }

    def _embed(self, source: MoleculeInput, level: str) -> Embeddings:
        settings = EmbedSettings(
            layer=self.layer, level=level, conformers=self.conformers
        )
        return embeddings.embed(self.model, source, settings, batching=self.batching)


def _check_model(model_name: str, data_type: str) -> None:
    if model_name != MODEL or data_type != "molecule":
        raise UserError(
            f"model_name is {model_name!r} and data_type {data_type!r}: there are "
            f"{MODEL!r} and 'molecule'"
        )


def _batching(batch_size: int) -> Batching:
    return BY_DEVICE._replace(pairs=batch_size * 28**2)


def _words(given: str | Sequence[str]) -> tuple[str, ...]:
    if isinstance(given, str):
        return tuple(word.strip() for word in given.split(",") if word.strip())
    return tuple(given)


def _set(config: Config, name: str, value: Any) -> None:
    """Sets a field of the config, such as "optimizer.lr"."""
    *path, last = name.split(".")
    part: Any = config
    for step in path:
        part = part.get(step) if hasattr(part, "get") else None
    if not hasattr(part, "keys") or last not in part:
        raise UserError(f"the config has no field {name!r}")
    try:
        part[last] = value
    except TypeError as error:
        raise UserError(f"config.{name}: {error}") from None


def _source(data: Any, **options: Any) -> MoleculeInput:
    return data if isinstance(data, MoleculeInput) else open_input(data, **options)
