"""The runs of a sweep or a study: their names, their folders and how far they are."""

import dataclasses
import hashlib
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from chemscale_jax import main as trainer
from chemscale_jax.core import config_files
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.workdir import Workdir, read_json

_LONGEST_NAME = 120
_OVERRIDE = re.compile(r"--config\.[\w.]+=")


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
    """One run of many."""

    name: str  # of its folder, made from what was chosen
    arguments: tuple[str, ...]  # of the trainer
    config: Mapping[str, Any]  # resolved
    workdir: Workdir
    chosen: Mapping[str, Any]  # what sets it apart, as sweep() yields it

    @property
    def state(self) -> str:
        """What run.json says, or "new"."""
        if not self.workdir.run_json.exists():
            return "new"
        return self.workdir.run().get("state", "new")

    @property
    def done(self) -> bool:
        """Whether nothing is left to do; the card is the last file of a run."""
        return self.state == "finished" and self.workdir.card.exists()

    def progress(self) -> float:
        """The part of the planned epochs or steps that the log has seen, 0 to 1."""
        last = self.workdir.last_record()
        if last is None:
            return 0.0
        rules = self.config["train"]
        epochs = last["epoch"] / max(rules["epochs"], 1)
        steps = last["step"] / rules["max_steps"] if rules["max_steps"] else 0.0
        return min(max(epochs, steps), 1.0)

    def best_loss(self) -> float | None:
        """The lowest validation loss so far."""
        if not self.workdir.metrics_jsonl.exists():
            return None
        _, losses = self.workdir.series("valid", "loss")
        return min((loss for loss in losses if loss is not None), default=None)


def expand(config: str, folder: pathlib.Path, overrides: Sequence[str]) -> list[Cell]:
    """The cells of the ``sweep()`` of a config file.

    Args:
        config: a config file, with or without arguments after a colon.
        folder: where the folders of the cells go.
        overrides: arguments for every cell.

    Raises:
        UserError: there is no sweep, an override does not fit the config, or a folder
            holds the run of another config.
    """
    file = config.partition(":")[0]
    sweep: Callable | None = getattr(
        config_files.load_module(config_files.find(file)), "sweep", None
    )
    if sweep is None:
        raise UserError(
            f"{file} has no sweep(); run it with chemscale train, or give a launcher "
            "--cells=single"
        )
    return make_cells(config, folder, overrides, sweep(), f"sweep() of {file}")


def make_cells(
    config: str,
    folder: pathlib.Path,
    overrides: Sequence[str],
    choices: Iterable[Mapping[str, Any]],
    source: str,
) -> list[Cell]:
    """A cell for each choice.

    Args:
        config: a config file, with or without arguments after a colon.
        folder: where the folders of the cells go.
        overrides: arguments for every cell.
        choices: what sets a cell apart: ``{"optimizer.lr": 1e-3}`` sets a field,
            ``{":width": 64}`` an argument of the config.
        source: where the choices come from, for messages.

    Raises:
        UserError: there is no choice or one is there twice, an override does not fit
            the config, or a folder holds the run of another config.
    """
    cells: dict[str, Cell] = {}
    for chosen in choices:
        cell = make_cell(config, folder, overrides, chosen)
        if cell.name in cells:
            raise UserError(f"{source} has the cell {cell.name!r} twice")
        cells[cell.name] = cell
    if not cells:
        raise UserError(f"{source} gives no cell; let it yield overrides")
    return list(cells.values())


def make_cell(
    config: str,
    folder: pathlib.Path,
    overrides: Sequence[str],
    chosen: Mapping[str, Any],
) -> Cell:
    """One cell; see `make_cells`."""
    name = cell_name(chosen)
    return _cell(name, config, Workdir(folder / name), overrides, chosen)


def single_cell(config: str, folder: pathlib.Path, overrides: Sequence[str]) -> Cell:
    """The one run of a config, whose folder it has for itself.

    Args:
        config: a config file, with or without arguments after a colon.
        folder: of the run.
        overrides: arguments of the run.

    Raises:
        UserError: an override does not fit the config, or the folder holds the run of
            another config.
    """
    name = pathlib.Path(config.partition(":")[0]).stem
    return _cell(name, config, Workdir(folder), overrides, {})


def _cell(
    name: str,
    config: str,
    workdir: Workdir,
    overrides: Sequence[str],
    chosen: Mapping[str, Any],
) -> Cell:
    first, *fields = config_files.cell_arguments(config, chosen)
    arguments = (first, *overrides, *fields, f"--workdir={workdir.path}")
    resolved = trainer.parse(["cell", *arguments])
    cell = Cell(name, arguments, resolved.to_dict(), workdir, dict(chosen))
    if workdir.config_json.exists():
        # Imported only where they are needed: both bring in JAX.
        from chemscale_jax.runs.assembly import with_start
        from chemscale_jax.training.setup import differences

        saved = read_json(workdir.config_json)
        # A run saves its config with what it took from the weights to start from.
        if differences(saved, cell.config):
            changed = differences(saved, with_start(resolved).to_dict())
            if changed:
                raise UserError(
                    f"{workdir.path} holds a run of another config "
                    f"({'; '.join(changed)}); choose another --workdir"
                )
    return cell


def check_overrides(arguments: Sequence[str]) -> None:
    """Raises unless all arguments are overrides for every cell."""
    for argument in arguments:
        if not _OVERRIDE.match(argument):
            raise UserError(
                f"cannot read argument {argument!r}; overrides for every cell look "
                "like --config.train.epochs=2"
            )


def cell_name(chosen: Mapping[str, Any]) -> str:
    """``optimizer.lr=0.001,seed=1``: a folder name that says what is special."""
    parts = (f"{key.removeprefix(':')}={value}" for key, value in chosen.items())
    text = ",".join(parts) or "default"
    name = re.sub(r"[^\w.,=+-]", "_", text)
    if name == text and len(name) <= _LONGEST_NAME:
        return name
    return f"{name[:_LONGEST_NAME]}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"
