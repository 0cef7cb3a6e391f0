"""Settings chosen by an Optuna study, which learns from the runs so far.

Optuna asks for settings one by one; here a generation of runs is asked for at once,
trained to the first decision of the sweep's policy and told by their scores there. The
storage of the study is what makes it resumable, and shared where it can be reached from
several machines: every sweep trains trials of its own and learns from all.

Needs the extra ``optuna``.
"""

import importlib.util
import math
import pathlib
import socket
import types
from collections.abc import Mapping
from typing import Any

from chemscale_jax.core.errors import UserError
from chemscale_jax.studies.search_space import Choice, Range, Space, rounded

# User attribute of a trial: the folder of the sweep that trains it.
_OWNER = "sweep"


def check_installed() -> None:
    """Raises unless Optuna can be imported."""
    if importlib.util.find_spec("optuna") is None:
        raise UserError(
            "--search=optuna needs Optuna; pip install 'chemscale_jax[optuna]', or use "
            "--search=random"
        )


class OptunaTrials:
    """The trials of one sweep in a study that others may share."""

    def __init__(
        self,
        space: Space,
        storage: str,
        name: str,
        folder: pathlib.Path,
        seed: int,
    ) -> None:
        """Opens or makes the study.

        Args:
            space: what Optuna chooses from.
            storage: a URL, such as ``sqlite:///sweep/optuna.db``.
            name: of the study in the storage.
            folder: of the sweep, by which its own trials are known.
            seed: of the sampler; with the number of trials it decides the next one.
        """
        check_installed()
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna = optuna
        self._seed = seed
        self._owner = f"{socket.gethostname()}:{folder.absolute()}"
        self._distributions = {
            key: _distribution(optuna, one) for key, one in space.items()
        }
        try:
            self._study = optuna.create_study(
                storage=storage, study_name=name, load_if_exists=True
            )
        except Exception as error:
            raise UserError(
                f"--storage={storage} cannot be opened ({error}); give a URL that "
                "Optuna knows, such as sqlite:///optuna.db"
            ) from None

    def own(self) -> dict[int, dict[str, Any]]:
        """{number of the trial: settings} of this sweep, in order."""
        return {
            trial.number: _settings(trial.params)
            for trial in self._study.get_trials(deepcopy=False)
            if trial.user_attrs.get(_OWNER) == self._owner
            and trial.params.keys() == self._distributions.keys()
        }

    def ask(self) -> int:
        """Makes a trial of this sweep; returns its number."""
        # A sampler for each trial: its choice does not depend on how many processes
        # the sweep has been through.
        count = len(self._study.get_trials(deepcopy=False))
        self._study.sampler = self._optuna.samplers.TPESampler(
            seed=self._seed * 1_000_003 + count, constant_liar=True
        )
        trial = self._study.ask(fixed_distributions=self._distributions)
        trial.set_user_attr(_OWNER, self._owner)
        return trial.number

    def tell(self, number: int, score: float) -> None:
        """Gives the score of a trial, lower is better; once is enough.

        A run that diverged is infinite, which Optuna ranks last.
        """
        if math.isnan(score):
            raise ValueError("a score is a number or infinite")
        self._study.tell(number, score, skip_if_finished=True)


def _distribution(optuna: types.ModuleType, one: Range | Choice) -> Any:
    found = optuna.distributions
    if isinstance(one, Choice):
        return found.CategoricalDistribution(one.values)
    if one.kind == "int":
        return found.IntDistribution(int(one.low), int(one.high))
    return found.FloatDistribution(one.low, one.high, log=one.kind == "log")


def _settings(params: Mapping[str, Any]) -> dict[str, Any]:
    """As they enter a config: numbers of four digits."""
    return {k: rounded(v) if isinstance(v, float) else v for k, v in params.items()}
