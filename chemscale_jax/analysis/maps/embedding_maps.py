"""Two dimensions for molecules of many: PCA, t-SNE and UMAP of embeddings, by seed."""

import dataclasses
import importlib
import warnings

import numpy as np
from threadpoolctl import threadpool_limits

from chemscale_jax.core.errors import UserError

METHODS = ("tsne", "pca", "umap")
SCALES = ("auto", "columns", "rows", "none")
# Fewer points have no neighbourhoods that a map could show.
LEAST_MOLECULES = 10
# A column that varies by less than this share of the largest deviation is constant.
_CONSTANT = 1e-6
_TSNE_STEPS = 1000
_WORTH_THREADS = 5000


@dataclasses.dataclass(frozen=True, kw_only=True)
class MapSettings:
    """How molecules are laid out.

    Attributes:
        method: of METHODS. t-SNE (van der Maaten and Hinton 2008) and UMAP (McInnes et
            al. 2018) keep neighbours and say nothing about large distances; PCA is
            linear.
        scale: before all else; see `scaled`.
        components: of the PCA that t-SNE and UMAP work on.
        perplexity: of t-SNE, less where there are few molecules.
        neighbors: of UMAP.
        min_dist: of UMAP, how close points may lie.
        seed: of all that is random.

    Raises:
        UserError: a value is unknown or out of range.
    """

    method: str = "tsne"
    scale: str = "auto"
    components: int = 50
    perplexity: float = 30.0
    neighbors: int = 15
    min_dist: float = 0.1
    seed: int = 0

    def __post_init__(self):
        for name, allowed in (("method", METHODS), ("scale", SCALES)):
            if (found := getattr(self, name)) not in allowed:
                raise UserError(f"{name} is {found!r}, expected one of {allowed}")
        for name, least in (("components", 2), ("perplexity", 1), ("neighbors", 2)):
            if (found := getattr(self, name)) < least:
                raise UserError(f"{name} is {found}: make it {least} or more")


def scale_of(values: np.ndarray, scale: str) -> str:
    """What "auto" stands for: "rows" of counts, else "columns".

    Counts of substructures are whole numbers and not negative. If each column were
    brought to deviation 1, the rarest substructures would decide.
    """
    if scale != "auto":
        return scale
    some = values[:256]
    return "rows" if (some >= 0).all() and (some == np.rint(some)).all() else "columns"


def scaled(values: np.ndarray, scale: str = "auto") -> np.ndarray:
    """Values whose Euclidean distances are meant to be compared.

    Args:
        values: (M, D), finite.
        scale: "columns": each of mean 0 and standard deviation 1, constant ones 0;
            "rows": each of length 1, so that distances rank as cosines do; "none"; or
            "auto", see `scale_of`.

    Returns:
        (M, D) float32.
    """
    scale = scale_of(values, scale)
    if scale == "none":
        return np.asarray(values, np.float32)
    if scale == "rows":
        length = np.linalg.norm(values.astype(np.float64), axis=1, keepdims=True)
        return (values / np.where(length > 0, length, 1)).astype(np.float32)
    wide = values.astype(np.float64)
    deviation = wide.std(axis=0)
    varies = deviation > _CONSTANT * deviation.max(initial=0)
    found = (wide - wide.mean(axis=0)) / np.where(varies, deviation, 1)
    return np.where(varies, found, 0).astype(np.float32)


def principal_components(
    values: np.ndarray, components: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The leading principal components.

    Args:
        values: (M, D), not all rows equal.
        components: C, at most; there are no more than M or D.
        seed: of the randomised decomposition of large matrices.

    Returns:
        (M, C) float32, and (C,) the share of the variance that each has.
    """
    from sklearn.decomposition import PCA

    model = PCA(min(components, *values.shape), random_state=seed)
    found = model.fit_transform(values.astype(np.float32))
    return found.astype(np.float32), model.explained_variance_ratio_


def map_coordinates(values: np.ndarray, settings: MapSettings) -> np.ndarray:
    """Where molecules lie on the map: (M, 2) float32.

    Args:
        values: (M, D), already `scaled`.
        settings: the method; its scale is not used here.

    Raises:
        UserError: there are too few molecules, all are alike, or UMAP is not installed.
    """
    if len(values) < LEAST_MOLECULES:
        raise UserError(
            f"{len(values)} molecules are too few for a map: give {LEAST_MOLECULES} or "
            "more"
        )
    if not np.ptp(values, axis=0).any():
        raise UserError(
            f"all {len(values)} molecules have the same embedding: no map can be drawn"
        )
    umap = _umap(settings) if settings.method == "umap" else None
    wanted = 2 if settings.method == "pca" else settings.components
    reduced, _ = principal_components(values, wanted, settings.seed)
    if settings.method == "pca":
        missing = 2 - reduced.shape[1]
        return np.pad(reduced, ((0, 0), (0, missing)))
    if umap is not None:
        return np.asarray(umap.fit_transform(reduced), np.float32)
    from sklearn.manifold import TSNE

    # The usual bound: three times the perplexity are neighbours.
    perplexity = min(settings.perplexity, (len(values) - 1) / 3)
    model = TSNE(
        perplexity=perplexity,
        init="pca",
        learning_rate="auto",
        max_iter=_TSNE_STEPS,
        random_state=settings.seed,
    )
    # Threads meet a thousand times: of few molecules, each would mostly wait.
    threads = 1 if len(values) < _WORTH_THREADS else None
    with threadpool_limits(threads, "openmp"):
        return np.asarray(model.fit_transform(reduced), np.float32)


def _umap(settings: MapSettings):
    try:
        with warnings.catch_warnings():
            # Says that TensorFlow is missing, which only its other parts need.
            warnings.simplefilter("ignore", ImportWarning)
            # By name: a type checker need not have it.
            umap = importlib.import_module("umap")
    except ImportError:
        raise UserError(
            "method='umap' needs umap-learn: pip install 'chemscale_jax[umap]', or "
            "take method='tsne'"
        ) from None
    return umap.UMAP(
        n_neighbors=settings.neighbors,
        min_dist=settings.min_dist,
        random_state=settings.seed,
        n_jobs=1,  # else the seed does not count, and UMAP warns
    )
