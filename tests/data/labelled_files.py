"""Small files of molecules with labels."""

import numpy as np

from chemscale_jax.core import config_files

common = config_files.load_module(config_files.installed_folder() / "common.py")

# Scaffolds of unequal sizes.
RINGS = ("c1ccccc1", "C1CCCCC1", "c1ccncc1", "C1CCOC1", "c1ccc2ccccc2c1", "C1CC1", "")
SMILES = [
    ring.replace("1", f"1{chain}", 1) if ring else f"C{chain}"
    for number, ring in enumerate(RINGS)
    for chain in ["(C)", "(O)", "(N)", "(CC)", "(CO)", "(F)", "(CN)"][: 7 - number // 2]
]


def write_table(path, smiles=SMILES, **columns):
    """A csv of molecules with columns, by default y."""
    columns = columns or {"y": np.round(np.linspace(-1, 3, len(smiles)), 3)}
    lines = [",".join(["smiles", *columns])]
    for row, text in enumerate(smiles):
        lines.append(
            ",".join([text, *(str(values[row]) for values in columns.values())])
        )
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def make_config(path, **changes):
    """A config that reads a file, without relaxed conformers."""
    config = common.base()
    config.data = common.labelled()
    config.batch = common.molecule_rows()
    config.batch.update({"form": "equal", "rows": 4, "prefetch": 0})
    config.batch.buckets = (7, 15)
    config.data.path = path
    config.data.geometry = "flat"
    config.update_from_flattened_dict(changes)
    return config
