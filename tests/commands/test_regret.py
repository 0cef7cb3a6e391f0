"""``chemscale regret`` on folders that runs left."""

import pytest

from chemscale_jax import commands
from chemscale_jax.core.errors import UserError
from tests.analysis.run_folders import leave_run
from tests.studies.curves import family


def test_command(tmp_path, capsys):
    names = []
    for seed in range(2):
        folder = tmp_path / f"sweep{seed}"
        names.append(str(folder))
        for curve in family("tpe", seed):
            leave_run(folder / curve.name, curve.train_loss, curve.valid_loss)
    command = commands.load("regret")
    runs = f"--runs={','.join(names)}"
    out = f"--out={tmp_path / 'report'}"
    assert (
        command.main([runs, out, "--budgets=0.3", "--resamplings=10", "--tuning=4"])
        == 0
    )
    assert "(30%): tpe." in capsys.readouterr().out
    assert (tmp_path / "report/regret.png").exists()
    with pytest.raises(UserError, match="at least two"):
        command.main([f"--runs={names[0]}"])
    with pytest.raises(UserError, match="budgets are above 0"):
        command.main([runs, "--budgets=0"])
    with pytest.raises(UserError, match="give numbers"):
        command.main([runs, "--budgets=much"])
