r"""Neural scaling of PaiNN on ANI-1x: size x frames (Frey et al., Fig. 5 and A.3).

Forms:
    full (default): widths 16, 64, 256 with depths 2, 3, 4 on 10^2 to 10^5 frames,
        trained as the paper says.
    smoke: two tiny models on a few frames of the package.

    chemscale study --config=configs/scaling_painn_ani1x.py --workdir=runs/painn \
        --config.data.path=ani1x-release.h5
    chemscale plan --config=configs/scaling_painn_ani1x.py --device=h100

configs/scaling_force_fields.py has the other force fields, and smaller studies.
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from chemscale_jax.configs import common, scaling_force_fields

FORMS = ("full", "smoke")
OPTIONS = {"width": 0, "depth": 0, "frames": 0}


def get_config(arg: str = "") -> ConfigDict:
    form, options = common.parse_arg(arg, FORMS, OPTIONS)
    fields = ",".join(f"{key}={value}" for key, value in options.items())
    return scaling_force_fields.get_config(f"{form},model=painn,{fields}")


def study(arg: str = "") -> Iterator[dict[str, Any]]:
    """Every capacity on every amount of data."""
    form, _ = common.parse_arg(arg, FORMS, OPTIONS)
    for chosen in scaling_force_fields.study(f"{form},models=painn"):
        yield {key: value for key, value in chosen.items() if key != ":model"}


def sweep() -> Iterator[dict[str, Any]]:
    """The cells of the study in its first form."""
    yield from study()
