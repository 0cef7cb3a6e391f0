"""Published errors of properties, to stand beside ours.

Tables 4 to 6 of Ji et al. 2024 (Uni-Mol2), whose splits are not published, and for
Biogen ADME the results that CheMeleon publishes, on the Polaris splits. All are
mean absolute errors on test sets that are not ours, so a comparison is one of
magnitudes: molecules of QM9, for one, are far easier to predict on a random split.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from chemscale_jax.analysis.markdown import markdown_table

# A mean, and its deviation over seeds where there is one.
Value = tuple[float, float | None]


class Column(NamedTuple):
    """A published quantity."""

    title: str
    unit: str
    targets: tuple[str, ...]  # our columns, over which it is a mean


class Published(NamedTuple):
    """A published table of mean absolute errors."""

    title: str
    columns: tuple[Column, ...]
    rows: Mapping[str, tuple[Value | None, ...]]


_FRONTIER = Column("HOMO/LUMO/gap", "Ha", ("homo", "lumo", "gap"))

QM9 = Published(
    "Table 4 of Ji et al. 2024, split by similarity of scaffolds, 3 seeds",
    (
        _FRONTIER,
        Column("alpha", "a0³", ("alpha",)),
        Column("Cv", "cal/mol/K", ("cv",)),
        Column("mu", "D", ("mu",)),
        Column("R²", "a0²", ("r2",)),
        Column("ZPVE", "Ha", ("zpve",)),
    ),
    {
        "GROVER base": (
            (0.0079, 3e-4),
            (2.365, 0.302),
            (1.103, 0.339),
            (0.618, 0.002),
            (113.01, 4.2),
            (0.0035, 3e-4),
        ),
        "GROVER large": (
            (0.0083, 6e-4),
            (2.240, 0.385),
            (0.853, 0.186),
            (0.623, 0.006),
            (85.85, 6.8),
            (0.00381, 5e-4),
        ),
        "GEM": (
            (0.0067, 4e-5),
            (0.589, 0.0042),
            (0.237, 0.0137),
            (0.444, 0.0015),
            (25.67, 0.743),
            (0.0011, 2e-5),
        ),
        "Uni-Mol": (
            (0.0043, 2e-5),
            (0.363, 0.009),
            (0.183, 0.002),
            (0.155, 0.0015),
            (4.805, 0.055),
            (0.0011, 3e-5),
        ),
        "Uni-Mol2 84M": (
            (0.0038, 5e-5),
            (0.376, 0.027),
            (0.178, 0.012),
            (0.105, 9e-4),
            (4.968, 0.235),
            (0.0010, 1e-4),
        ),
        "Uni-Mol2 164M": (
            (0.0036, 1e-5),
            (0.325, 0.004),
            (0.157, 0.017),
            (0.093, 6e-4),
            (4.935, 0.189),
            (0.0005, 1e-5),
        ),
        "Uni-Mol2 310M": (
            (0.0036, 1e-5),
            (0.315, 0.003),
            (0.143, 0.002),
            (0.092, 0.0013),
            (4.672, 0.245),
            (0.0005, 1e-5),
        ),
        "Uni-Mol2 570M": (
            (0.0036, 2e-5),
            (0.315, 0.004),
            (0.147, 7e-4),
            (0.089, 0.0015),
            (4.523, 0.080),
            (0.0005, 3e-5),
        ),
        "Uni-Mol2 1.1B": (
            (0.0035, 1e-5),
            (0.305, 0.003),
            (0.144, 0.002),
            (0.089, 4e-4),
            (4.265, 0.067),
            (0.0005, 8e-5),
        ),
    },
)
# HOMO/LUMO/gap by training molecules in percent of about 13,400 test molecules.
_SHARES = (50, 100, 200)
QM9_FEW = Published(
    "Table 6 of Ji et al. 2024: HOMO/LUMO/gap with fewer training molecules, in "
    "percent of the test set",
    tuple(_FRONTIER._replace(title=f"{share} %") for share in _SHARES),
    {
        "Uni-Mol2 84M": ((0.0062, None), (0.0053, None), (0.0046, None)),
        "Uni-Mol2 164M": ((0.0058, None), (0.0050, None), (0.0044, None)),
        "Uni-Mol2 310M": ((0.0056, None), (0.0049, None), (0.0044, None)),
        "Uni-Mol2 570M": ((0.0057, None), (0.0048, None), (0.0044, None)),
        "Uni-Mol2 1.1B": ((0.0056, None), (0.0048, None), (0.0043, None)),
    },
)
COMPAS = Published(
    "Table 5 of Ji et al. 2024, split by similarity of scaffolds, 3 seeds; * with "
    "features of atoms and bonds",
    (
        Column("aEA", "eV", ("aEA_eV",)),
        Column("aIP", "eV", ("aIP_eV",)),
        Column("dispersion", "eV", ("dispersion_eV",)),
        Column("dipole", "D", ("Dipmom_Debye",)),
    ),
    {
        "Uni-Mol": ((0.0099, 2e-5), (0.0083, 9e-5), (0.0092, 6e-4), (0.0198, 2e-4)),
        "Uni-Mol2 84M": (
            (0.0104, 2e-5),
            (0.0081, 3e-5),
            (0.0092, 5e-4),
            (0.0196, 1e-4),
        ),
        "Uni-Mol2 1.1B": (
            (0.0103, 4e-4),
            (0.008, 1e-5),
            (0.0081, 1e-4),
            (0.0186, 3e-4),
        ),
        "Uni-Mol2 84M*": (
            (0.0104, 4e-4),
            (0.0077, 5e-5),
            (0.0085, 1e-4),
            (0.0173, 6e-4),
        ),
        "Uni-Mol2 1.1B*": (
            (0.0093, 4e-5),
            (0.0074, 9e-5),
            (0.0067, 2e-4),
            (0.0170, 2e-4),
        ),
    },
)
BIOGEN = Published(
    "results published with CheMeleon, Polaris splits of these measurements, 5 seeds",
    (
        Column("HLM clearance", "log10", ("HLM",)),
        Column("MDR1-MDCK efflux", "log10", ("MDR1_ER",)),
        Column("solubility pH 6.8", "log10", ("Sol",)),
    ),
    {
        "CheMeleon": ((0.339, None), (0.303, None), (0.372, None)),
        "MiniMol": ((0.338, None), (0.321, None), (0.383, None)),
        "MoLFormer": ((0.357, None), (0.316, None), (0.422, None)),
        "Chemprop": ((0.373, None), (0.377, None), (0.405, None)),
        "forest, Morgan and descriptors": (
            (0.373, None),
            (0.371, None),
            (0.417, None),
        ),
        "forest, Morgan": ((0.443, None), (0.419, None), (0.446, None)),
        "MolCLR": ((0.439, None), (0.526, None), (0.448, None)),
    },
)
# Columns of the whole Biogen table, whose files of single tasks call all "activity".
_BIOGEN_COLUMNS = {
    "LOG HLM_CLint (mL/min/kg)": "HLM",
    "LOG MDR1-MDCK ER (B-A/A-B)": "MDR1_ER",
    "LOG SOLUBILITY PH 6.8 (ug/mL)": "Sol",
}


def published_section(
    name: str,
    ours: Mapping[str, Mapping[str, Value]],
    *,
    train: int = 0,
    test: int = 0,
) -> str:
    """Our test errors below published ones, as Markdown; "" where there are none.

    Args:
        name: of the config; it begins with that of the data set.
        ours: {model: {target: mean absolute error}}, such as network and baseline.
        train: molecules trained on, where that was a part of them; else 0.
        test: molecules of the test set.
    """
    data = name.split("-")[0]
    if data == "biogen_adme":
        task = name.split("-")[2] if name.count("-") > 1 else ""
        ours = {
            model: {_biogen_target(t, task): value for t, value in errors.items()}
            for model, errors in ours.items()
        }
    tables = {"qm9": [QM9], "compas": [COMPAS], "biogen_adme": [BIOGEN]}.get(data, [])
    sections = [_section(table, ours) for table in tables]
    if data == "qm9" and train and test:
        share = 100 * train / test
        sections.append(_section(QM9_FEW, ours, _nearest(share), f" ({share:.0f} %)"))
    return "\n\n".join(section for section in sections if section)


def _biogen_target(target: str, task: str) -> str:
    return task if target == "activity" else _BIOGEN_COLUMNS.get(target, target)


def _nearest(share: float) -> int:
    """The column of Table 6 with the most similar number of training molecules."""
    return min(range(len(_SHARES)), key=lambda i: abs(_SHARES[i] / share - 1))


def _section(
    table: Published,
    ours: Mapping[str, Mapping[str, Value]],
    only: int | None = None,
    note: str = "",
) -> str:
    """A table; ours in one column alone where that is given."""
    rows = [
        (model, "published", *(_cell(value) for value in values))
        for model, values in table.rows.items()
    ]
    found = False
    for model, errors in ours.items():
        cells = [
            _ours(column, errors) if only in (None, place) else "-"
            for place, column in enumerate(table.columns)
        ]
        found |= any(cell != "-" for cell in cells)
        rows.append((f"{model}{note}", "this run", *cells))
    if not found:
        return ""
    header = ("model", "where", *(f"{c.title} ({c.unit})" for c in table.columns))
    return (
        f"Test MAE beside published figures, **on another split**: {table.title}.\n\n"
        f"{markdown_table(header, rows)}"
    )


def _ours(column: Column, errors: Mapping[str, Value]) -> str:
    """The mean over its targets, or what there is of them, by name."""
    known = [target for target in column.targets if target in errors]
    if not known:
        return "-"
    if len(known) == 1:
        cell = _cell(errors[known[0]])
    else:
        cell = _cell((_mean([errors[target][0] for target in known]), None))
    partial = len(known) < len(column.targets)
    return f"{cell} ({'/'.join(known)} alone)" if partial else cell


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _cell(value: Value | None) -> str:
    if value is None:
        return "-"
    mean, deviation = value
    return f"{mean:.4g}" + (f" ± {deviation:.1g}" if deviation is not None else "")
