import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from chemscale_jax.core import partition
from chemscale_jax.core.errors import UserError

RULES = {"embed": "fsdp", "hidden": "tensor"}
SHAPES = {
    "params": {"dense": {"kernel": np.zeros((4, 8)), "bias": np.zeros(8)}},
}
AXES = (
    ("params/dense/kernel", ("embed", "hidden")),
    ("params/.*/bias", (None,)),
)


def test_first_matching_rule_places_each_parameter():
    mesh = partition.make_mesh(data=2, fsdp=2, tensor=2)
    placed = partition.param_shardings(SHAPES, AXES, RULES, mesh)
    assert placed["params"]["dense"]["kernel"].spec == PartitionSpec("fsdp", "tensor")
    assert placed["params"]["dense"]["bias"].spec == PartitionSpec(None)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        (AXES[:1], "params/dense/bias has no rule"),
        ((*AXES, ("params/ghost", (None,))), "match no parameter: .'params/ghost'"),
        ((AXES[0], ("params/.*/bias", (None, None))), "its rule names 2 axes"),
        ((("params/dense/kernel", ("embed", "embed")), AXES[1]), "to one mesh axis"),
        ((("params/dense/kernel", ("heads", None)), AXES[1]), "does not map"),
    ],
)
def test_rules_that_do_not_fit_are_errors(axes, message):
    mesh = partition.make_mesh(data=2, fsdp=2, tensor=2)
    with pytest.raises(UserError, match=message):
        partition.param_shardings(SHAPES, axes, RULES, mesh)


def test_sizes_that_do_not_divide_are_errors():
    mesh = partition.make_mesh(data=1, fsdp=8, tensor=1)
    with pytest.raises(UserError, match="does not divide over the 8 devices"):
        partition.param_shardings(SHAPES, AXES, RULES, mesh)
    with pytest.raises(UserError, match=r"config.batch.rows is 12.*multiple of 8"):
        partition.check_rows(12, mesh)


def test_a_mesh_takes_the_devices_it_names():
    assert partition.make_mesh().size == len(jax.devices()) == 8
    assert partition.make_mesh(data=-1, fsdp=4).shape["data"] == 2
    with pytest.raises(UserError, match="needs 16 devices, found 8"):
        partition.make_mesh(data=16)
