import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.core.workdir import Workdir, write_json
from chemscale_jax.training.setup import inherit_statistics

NEW = {
    "reference_energies_ev": {"H": -1.0},
    "statistics": {"elements": [1, 6], "avg_num_neighbors": 9.0},
}


def test_statistics_stay_with_the_weights_and_references_with_the_data(tmp_path):
    source, workdir = tmp_path / "source", Workdir(tmp_path / "run")
    source.mkdir()
    workdir.path.mkdir()
    first = {"elements": [1, 6, 8], "avg_num_neighbors": 14.0}
    write_json(
        Workdir(source).artifacts_json,
        {"reference_energies_ev": {"H": -9.0}, "statistics": first},
    )
    found = inherit_statistics(NEW, str(source), workdir)
    assert found == {**NEW, "statistics": first}
    # Resumed where the source is gone, the run has them itself.
    write_json(workdir.artifacts_json, found)
    assert inherit_statistics(NEW, str(tmp_path / "gone"), workdir) == found
    assert inherit_statistics(NEW, "", workdir) == NEW
    write_json(Workdir(source).artifacts_json, {"statistics": {"elements": [1, 8]}})
    with pytest.raises(UserError, match=r"not trained on.*numbers \[6\]"):
        inherit_statistics(NEW, str(source), workdir)
