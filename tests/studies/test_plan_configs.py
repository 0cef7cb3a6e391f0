"""Every config of the repository can be planned, with its data or without."""

import jax
import pytest

from chemscale_jax.commands import plan
from chemscale_jax.core import config_files
from chemscale_jax.core.errors import UserError

# These belong to commands that train nothing.
OTHERS = ["maps.py", "prompting.py"]
NAMES = sorted(set(config_files.list_configs()) - set(OTHERS))
# How many there are, where the data and not the config say so; and fewer of what the
# package would make for minutes.
SIZES = {
    "chemgpt.py": ["--config.data.embedded_molecules=2000"],
    "unimol2_pretrain.py": ["--config.data.embedded_molecules=64"],
    "chemgpt_grid.py": ["--config.data.train_molecules=9000"],
    "rmd17.py": ["--config.data.train_size=950"],
    "three_bpa.py": ["--config.data.train_size=450"],
}


@pytest.fixture(autouse=True)
def _devices_in_use():
    """Then the command leaves their number as other tests want it."""
    assert jax.devices()[0].platform == "cpu"


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_config_is_planned(name, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    flags = [f"--config=configs/{name}", "--device=h100", *SIZES.get(name, [])]
    assert plan.main(flags) == 0
    told = capsys.readouterr().out
    assert "FLOP in all" in told
    assert " on one h100, one after another" in told


@pytest.mark.parametrize("name", OTHERS)
def test_configs_that_train_nothing_are_refused(name):
    with pytest.raises(UserError, match="trains nothing"):
        plan.main([f"--config=configs/{name}", "--device=h100"])
