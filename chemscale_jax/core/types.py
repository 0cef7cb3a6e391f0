"""Type aliases and the axis alphabet of the project.

Arrays in ``models/`` and ``tasks/`` end in their axes, one letter each:

====  =======================  ====  ======================  ====  ================
B     rows                     N     atoms                   H     heads
L     tokens                   E     edges                   K     width per head
D     model width              M     molecules in a pack     Q     pair channels
F     feed-forward width       R     radial functions        3     Cartesian
V     vocabulary               I     irreps axis
====  =======================  ====  ======================  ====  ================

Inside ``vmap`` the mapped letter goes: ``x_BLD`` becomes ``x_LD``. Everything inside
the package is in eV, angstrom and elementary charges.
"""

from collections.abc import Mapping
from typing import Any

import jax

Array = jax.Array
Key = jax.Array
# Nested dictionaries of arrays, as Flax Linen makes them.
Params = Mapping[str, Any]
# A pytree of arrays whose first axis is the row axis.
Batch = Any
# An ``ml_collections.ConfigDict``, whose fields no static type describes. It stops in
# ``main``, ``make_task``, ``make_stream``, ``make_optimizer`` and the loop's rules.
Config = Any
