"""Charges from SMILES and unpaired electrons from what data files call spin."""

import numpy as np


def formal_charge(smiles: str) -> int | None:
    """The sum of formal charges that a SMILES states; None if it cannot be parsed."""
    # Costs a second to import, so only readers of SMILES pay it.
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(smiles, sanitize=False)
    return None if molecule is None else Chem.GetFormalCharge(molecule)


def unpaired_electrons(value: float, species: np.ndarray, charge: float) -> float:
    """How many electrons are unpaired, from that number or from a multiplicity.

    Data files write either under the same names ("spin", "spin_multiplicity"). The
    number of unpaired electrons is even when the number of electrons is, and a
    multiplicity is one more, so only one reading of an integer is possible. A 0 is
    returned as it is, also for an odd number of electrons; a half-integer is the spin
    itself, of which an unpaired electron has 1/2.

    Args:
        value: the number of unpaired electrons, or that number plus one.
        species: atomic numbers.
        charge: elementary charges.
    """
    if not float(value).is_integer():
        return 2.0 * value
    electrons = int(np.sum(species, dtype=np.int64)) - round(charge)
    is_multiplicity = (electrons - round(value)) % 2 == 1
    return float(value - 1 if is_multiplicity and value >= 1 else value)
