"""Constraints on what may follow: masks over the vocabulary and a small state machine.

A mask per vocabulary says which tokens may occur at all. Two counters per row say
more: how many index symbols the last ``[BranchN]`` or ``[RingN]`` is still owed, and
how many atom symbols there are. Atom symbols that serve as an index are counted too,
because where a branch symbol has no bond left SELFIES skips it and reads its index as
atoms: so the count bounds the heavy atoms of the molecule from above.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from chemscale_jax.chem.prompts import SymbolFacts, symbol_facts
from chemscale_jax.chem.vocabulary import Vocabulary
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.types import Array

_NO_LIMIT = 2**30


@dataclasses.dataclass(frozen=True)
class Grammar:
    """What a generated molecule may hold; the default forbids no molecule."""

    closed: bool = False  # do not end where an index symbol is owed
    max_atoms: int = 0  # atom symbols at most, the prompt's included; 0: no limit
    elements: tuple[str, ...] = ()  # allowed elements; empty: all
    neutral: bool = False  # no symbol with a formal charge


class Rules(NamedTuple):
    """A grammar as arrays over a vocabulary."""

    allowed_V: Array | np.ndarray  # bool
    owes_V: Array | np.ndarray  # int32, index symbols that must follow
    atoms_V: Array | np.ndarray  # int32, 1 for an atom
    end: Array | np.ndarray | np.generic  # int32, id of the last token; -1: none
    max_atoms: Array | np.ndarray | np.generic  # int32


def free_rules(size: int, end: int) -> Rules:
    """Rules that allow every token anywhere."""
    return Rules(
        allowed_V=np.ones(size, bool),
        owes_V=np.zeros(size, np.int32),
        atoms_V=np.zeros(size, np.int32),
        end=np.int32(end),
        max_atoms=np.int32(_NO_LIMIT),
    )


def make_rules(vocabulary: Vocabulary, grammar: Grammar) -> Rules:
    """The rules of a grammar; special tokens other than the end are never allowed.

    Raises:
        UserError: indices are asked of a notation that has none, the limit is
            negative, or nothing is left to build a molecule of.
    """
    if grammar.closed and vocabulary.notation == "smiles":
        raise UserError(
            "the constraint 'closed' is about SELFIES indices, the vocabulary is of "
            "SMILES; leave it out"
        )
    if grammar.max_atoms < 0:
        raise UserError(f"max_atoms is {grammar.max_atoms}; give 0 for no limit")
    rules = free_rules(vocabulary.size, vocabulary.end)
    allowed_V, owes_V, atoms_V = rules[:3]
    symbols = set(vocabulary.symbol_ids)
    for place, token in enumerate(vocabulary.tokens):
        facts = symbol_facts(token, vocabulary.notation) if token in symbols else None
        if facts is None:
            allowed_V[place] = place == vocabulary.end
            continue
        allowed_V[place] = _allowed(facts, grammar)
        owes_V[place] = facts.owes if grammar.closed else 0
        atoms_V[place] = facts.element not in ("", "H")
    if not np.any(allowed_V & (atoms_V > 0)):
        known = sorted(
            {f.element for t in symbols if (f := symbol_facts(t, vocabulary.notation))}
            - {""}
        )
        raise UserError(
            f"no atom symbol of the vocabulary is among elements {grammar.elements}; "
            f"it has {', '.join(known)}"
        )
    limit = np.int32(grammar.max_atoms or _NO_LIMIT)
    return rules._replace(max_atoms=limit)


def _allowed(facts: SymbolFacts, grammar: Grammar) -> bool:
    good_element = not (
        grammar.elements and facts.element and facts.element not in grammar.elements
    )
    return good_element and not (grammar.neutral and facts.charged)


def allowed_next(rules: Rules, owed_B: Array, atoms_B: Array, left: Array) -> Array:
    """Which tokens may come next, (B, V); the end alone where nothing else may.

    Args:
        rules: of the grammar.
        owed_B: index symbols that are owed.
        atoms_B: atom symbols so far.
        left: how many tokens can follow the next one.
    """
    owes_V, atoms_V = jnp.asarray(rules.owes_V), jnp.asarray(rules.atoms_V)
    end_V = jnp.arange(owes_V.shape[0]) == jnp.asarray(rules.end)
    open_B = owed_B > 0
    full_B = atoms_B >= jnp.asarray(rules.max_atoms)
    allowed_BV = jnp.asarray(rules.allowed_V)[None]
    allowed_BV = allowed_BV & ~(open_B[:, None] & end_V[None])
    allowed_BV = allowed_BV & ~(full_B[:, None] & (atoms_V > 0)[None])
    # What cannot be paid any more is not opened.
    allowed_BV = allowed_BV & (open_B[:, None] | (owes_V <= left)[None])
    return jnp.where(
        jnp.any(allowed_BV, axis=-1, keepdims=True), allowed_BV, end_V[None]
    )


def count(
    rules: Rules, owed_B: Array, atoms_B: Array, token_B: Array
) -> tuple[Array, Array]:
    """The two counters after one more token."""
    owes_B = jnp.asarray(rules.owes_V)[token_B]
    atoms_B = atoms_B + jnp.asarray(rules.atoms_V)[token_B]
    return jnp.where(owed_B > 0, owed_B - 1, owes_B), atoms_B


def count_prompt(rules: Rules, ids: Sequence[int] | np.ndarray) -> tuple[int, int]:
    """The two counters after a prompt."""
    owed = atoms = 0
    for i in ids:
        owed = owed - 1 if owed else int(rules.owes_V[i])
        atoms += int(rules.atoms_V[i])
    return owed, atoms
