"""Which symbols of a molecule, as a language model reads it, are its atoms."""

from collections.abc import Sequence

from chemscale_jax.chem.molecule_record import heavy_atoms, molecule_of
from chemscale_jax.chem.prompts import symbol_facts


def atom_places(symbols: Sequence[str], notation: str) -> list[int]:
    """Places of the symbols that are atoms, hydrogens that are written out too.

    A SELFIES symbol that stands for a number, after ``[BranchN]`` or ``[RingN]``, is
    no atom, whatever it would be elsewhere.

    Args:
        symbols: of one molecule, from `prompts.encode`.
        notation: of the symbols.
    """
    places, owed = [], 0
    for place, symbol in enumerate(symbols):
        facts = symbol_facts(symbol, notation)
        if owed:
            owed -= 1
        elif facts.owes:
            owed = facts.owes
        elif facts.element:
            places.append(place)
    return places


def heavy_places(smiles: str, symbols: Sequence[str], notation: str) -> list[int]:
    """Places of the symbols of the heavy atoms, in the order of a record's atoms.

    Args:
        smiles: of a `MoleculeRecord`.
        symbols: that `prompts.encode` makes of it.
        notation: of the symbols.

    Raises:
        ValueError: the symbols do not have the atoms of the SMILES.
    """
    places = atom_places(symbols, notation)
    mol = molecule_of(smiles)
    if len(places) != mol.GetNumAtoms():
        raise ValueError(
            f"{smiles!r} has {mol.GetNumAtoms()} atoms, but {len(places)} symbols of "
            "atoms"
        )
    found = [places[i] for i in heavy_atoms(mol)]
    for place, i in zip(found, heavy_atoms(mol), strict=True):
        said = symbol_facts(symbols[place], notation).element
        if said != mol.GetAtomWithIdx(i).GetSymbol():
            raise ValueError(f"atom {i + 1} of {smiles!r} is written {symbols[place]}")
    return found
