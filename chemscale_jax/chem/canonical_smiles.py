"""The SMILES by which molecules are told apart, without making their records."""

from rdkit import Chem

from chemscale_jax.chem.molecule_record import molecule_of, record_of_smiles
from chemscale_jax.chem.smiles import Parsed, quiet_rdkit, read_molecule


def canonical_smiles(text: str, max_atoms: int) -> Parsed:
    """What `record_of_smiles` would have as ``smiles``, in a tenth of the time.

    Args:
        text: SMILES.
        max_atoms: larger molecules, by heavy atoms, are refused.

    Returns:
        Where the reason is not "", nothing can be made of the text.
    """
    parsed = read_molecule(text, max_heavy_atoms=max_atoms)
    if parsed.reason:
        return parsed
    with quiet_rdkit():
        try:
            if Chem.MolToSmiles(molecule_of(parsed.canonical)) == parsed.canonical:
                return parsed
        except (RuntimeError, ValueError):
            pass  # the record knows what to do, or says why it does not
    # Rare: what RDKit calls canonical changes when it is read and written again.
    record = record_of_smiles(text, max_atoms=max_atoms)
    if record.status == "failed":
        return Parsed(reason="chemistry", message=record.reason)
    return parsed._replace(canonical=record.smiles)
