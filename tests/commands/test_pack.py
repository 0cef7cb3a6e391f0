import jax
import numpy as np
import pytest

from chemscale_jax.commands import pack
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.workdir import Workdir
from chemscale_jax.inference.force_field import open_force_field
from tests.inference.force_fields import write_workdir


def test_a_packed_run_opens_like_the_run(tmp_path, capsys):
    workdir = write_workdir(tmp_path / "run")
    packed = Workdir(tmp_path / "packed")
    arguments = [f"--workdir={workdir.path}", f"--out={packed.path}"]
    assert pack.main(arguments) == 0
    assert "MB" in capsys.readouterr().out
    assert not packed.checkpoints.exists()
    before, after = open_force_field(workdir), open_force_field(packed)
    jax.tree.map(np.testing.assert_array_equal, before.params, after.params)
    jax.tree.map(np.testing.assert_array_equal, before.constants, after.constants)
    assert after.artifacts == before.artifacts
    assert after.config == before.config
    for file in (*packed.path.glob("*.json"), *packed.path.glob("*.md")):
        assert str(tmp_path) not in file.read_text()
    with pytest.raises(UserError, match="holds a run already"):
        pack.main(arguments)
