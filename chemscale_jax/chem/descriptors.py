"""Four numbers of a molecule: lipophilicity, ease of synthesis, drug-likeness, mass."""

import functools
import importlib.util
import pathlib
from collections.abc import Callable

from rdkit import Chem, RDConfig
from rdkit.Chem import QED, rdMolDescriptors

from chemscale_jax.core.errors import UserError

# Names of what `describe` returns, in its order; MW is in g/mol.
PROPERTIES = ("logP", "SA", "QED", "MW")
_NAN = float("nan")


def log_p(mol: Chem.Mol) -> float:
    """Octanol-water partition, decadic logarithm, by Wildman and Crippen 1999."""
    return rdMolDescriptors.CalcCrippenDescriptors(mol)[0]


def sa_score(mol: Chem.Mol) -> float:
    """Synthetic accessibility by Ertl and Schuffenhauer 2009: 1 is easy, 10 is hard.

    Computed by the program that RDKit's wheels ship among their contributions.

    Raises:
        UserError: this build of RDKit came without it.
    """
    score = _sa_program()(mol)
    return _NAN if score is None else score


def qed(mol: Chem.Mol) -> float:
    """Quantitative estimate of drug-likeness, 0 to 1, by Bickerton et al. 2012."""
    return QED.qed(mol)


def weight(mol: Chem.Mol) -> float:
    """Average molecular mass in g/mol, hydrogens included."""
    return rdMolDescriptors._CalcMolWt(mol)


def describe(mol: Chem.Mol) -> tuple[float, float, float, float]:
    """The `PROPERTIES` of a molecule; all NaN for one without atoms."""
    if not mol.GetNumAtoms():
        return _NAN, _NAN, _NAN, _NAN
    return log_p(mol), sa_score(mol), qed(mol), weight(mol)


@functools.cache
def _sa_program() -> Callable[[Chem.Mol], float | None]:
    path = pathlib.Path(RDConfig.RDContribDir) / "SA_Score" / "sascorer.py"
    if not path.is_file():
        raise UserError(
            f"SA scores need {path}, which this build of RDKit lacks: install RDKit "
            "from PyPI (pip install rdkit)"
        )
    spec = importlib.util.spec_from_file_location("rdkit_sa_score", path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} cannot be imported: install RDKit again")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.calculateScore
