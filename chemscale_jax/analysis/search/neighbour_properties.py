"""How alike in their properties a molecule and its nearest neighbours are.

Delta_p = |p(query) - mean of p over its k nearest neighbours|, or their median: our
reading of Eq. 9 and Table A.2 of Frey et al. 2023, for logP, SA, QED and MW and k =
100. The paper has one query; here there are many, drawn at random, and what two
representations differ by is measured on the same queries.

Neighbours are distinct molecules other than the query, whatever the index holds twice.
Beside the representations there are as many molecules drawn at random: what nothing
but the corpus gives.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from chemscale_jax.analysis.search.vector_index import VectorIndex
from chemscale_jax.chem.fingerprint_search import packed_fingerprints
from chemscale_jax.core.errors import UserError

FINGERPRINT, RANDOM = "fingerprint", "random"
STATISTICS = ("mean", "median")
# Molecules whose properties stand for those of the corpus.
POOL = 3000


class Corpus(NamedTuple):
    """The distinct molecules that every index holds.

    Attributes:
        smiles: of each, sorted.
        codes: {representation: (M,) int64}: which molecule each vector of its index
            is; -1 for one that another index lacks.
    """

    smiles: list[str]
    codes: Mapping[str, np.ndarray]


class Neighbourhoods(NamedTuple):
    """Which molecules are near which.

    Attributes:
        queries: (Q,) str, canonical SMILES.
        members: {representation: (Q, k) int64}, places in the corpus.
        pool: (n,) int64, molecules drawn at random from the corpus.
    """

    queries: np.ndarray
    members: dict[str, np.ndarray]
    pool: np.ndarray


class Deltas(NamedTuple):
    """What the neighbourhoods are like.

    Attributes:
        own: (Q, 4) float64, properties of the queries.
        near: {representation: (Q, k, 4)}, of the neighbours.
        signed: {representation: (Q, 4, 2)}: mean and median over the neighbours, less
            the property of the query.
        pool: (n, 4), of molecules drawn at random.
    """

    own: np.ndarray
    near: dict[str, np.ndarray]
    signed: dict[str, np.ndarray]
    pool: np.ndarray


def shared_corpus(indexes: Mapping[str, VectorIndex]) -> Corpus:
    """The molecules that all indexes hold.

    Raises:
        UserError: there are none.
    """
    texts = {name: index.store.every_smiles() for name, index in indexes.items()}
    first, *others = texts.values()
    common = set(first).intersection(*others)
    common.discard("")
    if not common:
        raise UserError(
            f"{' and '.join(str(index.folder) for index in indexes.values())} hold no "
            "molecule in common: index embeddings of the same molecules"
        )
    smiles = sorted(common)
    place = {text: i for i, text in enumerate(smiles)}
    return Corpus(
        smiles,
        {n: np.array([place.get(t, -1) for t in each]) for n, each in texts.items()},
    )


def random_queries(corpus: Corpus, count: int, seed: int) -> np.ndarray:
    """(count,) int64 places of distinct molecules.

    Raises:
        UserError: there are fewer.
    """
    if not 1 <= count <= len(corpus.smiles):
        raise UserError(
            f"{count} queries of {len(corpus.smiles):,} distinct molecules: ask for "
            "fewer, at least 1"
        )
    return np.random.default_rng(seed).permutation(len(corpus.smiles))[:count]


def stored_vectors(
    indexes: Mapping[str, VectorIndex], corpus: Corpus, places: np.ndarray
) -> dict[str, np.ndarray]:
    """Vectors of molecules of the corpus: {representation: (Q, d)}."""
    vectors = {}
    for name, index in indexes.items():
        codes = corpus.codes[name]
        order = np.argsort(codes, kind="stable")
        ids = order[np.searchsorted(codes[order], places)]
        vectors[name] = np.asarray(index.store.vectors[ids])
    return vectors


def first_query(found: Neighbourhoods) -> Neighbourhoods:
    """The first query alone."""
    members = {name: each[:1] for name, each in found.members.items()}
    return Neighbourhoods(found.queries[:1], members, found.pool)


def says(index: VectorIndex) -> str:
    """What an index holds, in words."""
    about = index.about
    what = about.get("model", "embeddings")
    if about.get("untrained") is not None:
        what = f"untrained {what}"
    if "layer" in about:
        what += f", layer {about['layer']}, pool {about.get('pool')}"
    pca = f", {index.facts['width']} principal components" if index.projection else ""
    return f"{what}{pca}, {index.metric}"


def find_neighbourhoods(
    indexes: Mapping[str, VectorIndex],
    corpus: Corpus,
    queries: Sequence[str],
    vectors: Mapping[str, np.ndarray],
    k: int,
    seed: int,
) -> Neighbourhoods:
    """The k nearest molecules by every index, by fingerprints, and by chance.

    Args:
        indexes: by name of the representation; the first one has fingerprints.
        corpus: from `shared_corpus`.
        queries: (Q,) canonical SMILES, of the corpus or not.
        vectors: {representation: (Q, d)}, see `VectorIndex.project`.
        k: neighbours.
        seed: of what is drawn.

    Raises:
        UserError: the corpus has too few molecules.
    """
    place = {text: i for i, text in enumerate(corpus.smiles)}
    own = np.array([place.get(text, -1) for text in queries])
    if k < 1 or len(corpus.smiles) < k + 1:
        raise UserError(
            f"{k} neighbours of {len(corpus.smiles):,} distinct molecules: choose "
            "--k between 1 and their number less one"
        )
    members = {}
    for name, index in indexes.items():

        def nearest(rows, m, index=index, asked=vectors[name]):
            return index.search(asked[rows], m, exact=True).ids

        members[name] = _distinct(nearest, corpus.codes[name], own, k)
    name, index = next(iter(indexes.items()))
    bits = packed_fingerprints(list(queries))
    members[FINGERPRINT] = _distinct(
        lambda rows, m: index.similar(bits[rows], m)[0], corpus.codes[name], own, k
    )
    rng = np.random.default_rng([seed, 1])
    pool = rng.permutation(len(corpus.smiles))[: max(POOL, k + 1)]
    members[RANDOM] = np.array(
        [rng.permutation(pool[pool != i])[:k] for i in own], np.int64
    )
    return Neighbourhoods(np.array(queries, np.str_), members, pool)


def compare_properties(
    found: Neighbourhoods,
    corpus: Corpus,
    describe: Callable[[list[str]], np.ndarray],
) -> Deltas:
    """Properties of queries and neighbours, and what they differ by.

    Args:
        found: the neighbourhoods.
        corpus: whose molecules they are.
        describe: gives the (n, 4) `PROPERTIES` of n molecules, NaN where there are
            none; those are left out of means and medians.
    """
    used = np.unique(np.concatenate([x.ravel() for x in found.members.values()]))
    used = np.union1d(used, found.pool)
    texts = [corpus.smiles[i] for i in used]
    values = describe([*texts, *found.queries.tolist()])
    known, own = values[: len(used)], values[len(used) :]
    near = {n: known[np.searchsorted(used, x)] for n, x in found.members.items()}
    signed = {}
    for name, numbers in near.items():
        # A masked mean has no warning where nothing is left.
        hidden = np.ma.masked_invalid(numbers)
        means = hidden.mean(axis=1).filled(np.nan)
        medians = np.ma.median(hidden, axis=1).filled(np.nan)
        signed[name] = np.stack([means, medians], axis=-1) - own[..., None]
    pool = known[np.searchsorted(used, found.pool)]
    return Deltas(own, near, signed, pool)


def _distinct(
    nearest: Callable[[np.ndarray, int], np.ndarray],
    codes: np.ndarray,
    own: np.ndarray,
    k: int,
) -> np.ndarray:
    """The k nearest distinct molecules of each query: (Q, k) places in the corpus.

    Args:
        nearest: gives (q, m) ids of some queries.
        codes: of the ids, -1 for those that do not count.
        own: of the queries.
        k: molecules.
    """
    members = np.full((len(own), k), -1)
    waiting, many = np.arange(len(own)), k + 16
    while len(waiting):
        many = min(many, len(codes))
        ids = nearest(waiting, many)
        short = []
        for query, row in zip(waiting.tolist(), ids, strict=True):
            found = codes[row[row >= 0]]
            found = found[(found >= 0) & (found != own[query])]
            some = list(dict.fromkeys(found.tolist()))[:k]
            if len(some) < k and many < len(codes):
                short.append(query)
            else:
                members[query, : len(some)] = some
        waiting, many = np.array(short, np.int64), 4 * many
    return members
