"""Dispersion energy of the D4 model with learned partial charges.

Caldeweyher et al., "A generally applicable atomic-charge dependent London dispersion
correction", J. Chem. Phys. 150, 154122 (2019), two-body part with rational damping, in
the form of SpookyNet. The reference tables are not part of this package: they come
with an imported checkpoint.
"""

import math
import pathlib
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from chemscale_jax.core.batches import GraphPack
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.types import Array, Key
from chemscale_jax.models import layers
from chemscale_jax.models.electrostatics import pair_sum
from chemscale_jax.models.radial_bases import smooth_switch
from chemscale_jax.models.zbl import softplus_inverse

# The units of the reference implementation.
BOHR_ANG = 0.5291772105638411
HARTREE_EV = 27.211386024367243

# Shapes of the tables: species x 7 reference systems x 23 frequencies.
TABLES: dict[str, tuple[int, ...]] = {
    "refsys": (87, 7),
    "zeff": (87,),
    "refh": (87, 7),
    "sscale": (18,),
    "secaiw": (18, 23),
    "gam": (87,),
    "ascale": (87, 7),
    "alphaiw": (87, 7, 23),
    "hcount": (87, 7),
    "casimir_polder_weights": (23,),
    "rcov": (87,),
    "en": (87,),
    "ncount_mask": (87, 7, 3),
    "ncount_weight": (87, 7, 3),
    "cn": (87, 7, 3),
    "fixgweights": (87, 7),
    "refq": (87, 7),
    "sqrt_r4r2": (87,),
    "alpha": (87, 7, 23),
}
# Start values (those of Hartree-Fock), kept positive by a softplus. s6 is not fitted:
# it scales the exact law at long range.
START = {
    "s6": 1.0,
    "s8": 1.61679827,
    "a1": 0.44959224,
    "a2": 3.35743605,
    "scaleq": 1.0,  # of the charges of reference systems
}
# Parameters of the model that are not fitted.
CHARGE_HEIGHT, CHARGE_STEEPNESS = 3.0, 2.0
CN_RADIUS, CN_STEEPNESS = 4.0 / 3.0, 7.5
CN_K4, CN_K5, CN_K6 = 4.10451, 19.08857, 254.5553148552
CN_WIDTH = 6.0
MIN_CHARGE = 1e-8


def read_tables(path: str) -> dict[str, np.ndarray]:
    """The tables of an ``.npz``; a key may have a prefix that ends in a dot or slash.

    Raises:
        UserError: without a readable file that has every table in its shape.
    """
    if not path:
        raise UserError(
            "config.model.d4 needs the reference tables of D4, found no "
            "config.model.d4_tables: give an .npz that holds them, e.g. the weights of "
            "a SpookyNet checkpoint, or set config.model.d4=False"
        )
    try:
        with np.load(pathlib.Path(path), allow_pickle=False) as file:
            keys = {key.replace(".", "/").split("/")[-1]: key for key in file.files}
            found = {name: file[keys[name]] for name in TABLES if name in keys}
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"config.model.d4_tables={path} is unreadable: {error}") from (
            error
        )
    for name, shape in TABLES.items():
        if name not in found or found[name].shape != shape:
            shown = found[name].shape if name in found else "nothing"
            raise UserError(
                f"config.model.d4_tables={path} has {shown} for {name}, expected an "
                f"array of shape {shape}"
            )
    return found


class Dispersion(nn.Module):
    """D4 energies of atoms."""

    tables: Mapping[str, np.ndarray] | None = None  # None: imported ones follow
    lr_cutoff_ang: float | None = None

    @nn.compact
    def __call__(
        self, charge_N: Array, distance_P: Array, real_P: Array, pack: GraphPack
    ) -> tuple[Array, dict[str, Array]]:
        """The energy of each atom in eV, half of each pair's, and atomic properties.

        Args:
            charge_N: partial charges.
            distance_P: from `electrostatics.pair_distances`.
            real_P: from `electrostatics.pair_distances`.
            pack: with the second pair list.

        Returns:
            energy_N, and ``polarizability`` (angstrom^3), ``c6`` (eV angstrom^6) and
            ``reference_alpha``, polarizabilities of reference systems in atomic units.
        """
        # The type of the charges, for tables that were not rounded.
        dtype = charge_N.dtype
        table = {
            name: self.variable("constants", name, self._start, name).value.astype(
                dtype
            )
            for name in TABLES
        }
        raw = {
            name: self.param(name, _constant(start))
            for name, start in START.items()
            if name != "s6"
        }
        start_s6 = _constant(START["s6"])
        raw["s6"] = self.variable("constants", "s6", start_s6, None).value
        scalars = {name: jax.nn.softplus(value)[0] for name, value in raw.items()}
        s6, s8, a1, a2 = (scalars[name] for name in ("s6", "s8", "a1", "a2"))
        scaleq = scalars["scaleq"]
        assert pack.pair_senders_P is not None
        assert pack.pair_receivers_P is not None
        receivers_P, senders_P = pack.pair_receivers_P, pack.pair_senders_P
        d_P = distance_P / BOHR_ANG
        z_N = pack.species_N
        z_i_P = layers.rows_of(z_N, receivers_P)
        z_j_P = layers.rows_of(z_N, senders_P)

        radius_P = CN_RADIUS * (table["rcov"][z_i_P] + table["rcov"][z_j_P])
        radius_P = jnp.where(real_P, radius_P, 1.0)
        gap_P = jnp.abs(table["en"][z_i_P] - table["en"][z_j_P]) + CN_K5
        bonded_P = 0.5 * (1.0 - jax.lax.erf(CN_STEEPNESS * (d_P - radius_P) / radius_P))
        count_P = CN_K4 * jnp.exp(-(gap_P**2) / CN_K6) * bonded_P
        if self.lr_cutoff_ang is not None:
            off = self.lr_cutoff_ang / BOHR_ANG
            count_P = count_P * smooth_switch(d_P, off - BOHR_ANG, off)
        cn_N = pair_sum(jnp.where(real_P, count_P, 0.0), pack)

        alpha_ZAW = jax.lax.stop_gradient(reference_alpha(table, scaleq))
        zeta_NA = _weights(table, scaleq, z_N, cn_N, charge_N)
        # C6 = 3/pi sum_w c_w alpha_i(w) alpha_j(w), so no table of pairs is needed.
        alpha_NW = jnp.einsum("na,naw->nw", zeta_NA, alpha_ZAW[z_N])
        factor_W = 3.0 / math.pi * table["casimir_polder_weights"]
        sent_PW = layers.rows_of(alpha_NW * factor_W[None], senders_P)
        c6_P = jnp.sum(sent_PW * layers.rows_of(alpha_NW, receivers_P), axis=1)
        root_P = table["sqrt_r4r2"][z_i_P] * table["sqrt_r4r2"][z_j_P] * math.sqrt(3.0)
        r0_P = a1 * root_P + a2
        law_P = s6 * self._damped(d_P, r0_P, 6) + s8 * root_P**2 * self._damped(
            d_P, r0_P, 8
        )
        if self.lr_cutoff_ang is not None:
            real_P = real_P & (distance_P < self.lr_cutoff_ang)
        energy_P = jnp.where(real_P, -0.5 * HARTREE_EV * c6_P * law_P, 0.0)

        c6_N = jnp.sum(factor_W[None] * alpha_NW**2, axis=1)
        static_NA = table["alpha"][:, :, 0][z_N]
        polarizability_N = jnp.sum(zeta_NA * static_NA, axis=1)
        return pair_sum(energy_P, pack), {
            "polarizability": polarizability_N * BOHR_ANG**3,
            "c6": c6_N * HARTREE_EV * BOHR_ANG**6,
            "reference_alpha": alpha_ZAW,
        }

    def _start(self, name: str) -> Array:
        if self.tables is None:
            return jnp.zeros(TABLES[name], jnp.float32)
        return jnp.asarray(self.tables[name], jnp.float32)

    def _damped(self, d_P: Array, r0_P: Array, power: int) -> Array:
        """``1 / (d^n + r0^n)``, shifted to value and slope 0 at the long-range end."""
        law_P = 1.0 / (d_P**power + r0_P**power)
        if self.lr_cutoff_ang is None:
            return law_P
        cutoff = self.lr_cutoff_ang / BOHR_ANG
        end_P = cutoff**power + r0_P**power
        slope_P = power * cutoff**power / end_P**2
        return law_P - 1.0 / end_P + slope_P * (d_P / cutoff - 1.0)


def _constant(start: float) -> Callable[[Key | None], Array]:
    value = softplus_inverse((start,))
    return lambda _: jnp.asarray(value, jnp.float32)


def _charge_scale(
    hardness: Array, reference_charge: Array, effective_charge: Array
) -> Array:
    """``exp(a (1 - exp(c gamma (1 - q_ref / q))))``, its limit where q <= 0."""
    positive = effective_charge > MIN_CHARGE
    safe = jnp.where(positive, effective_charge, 1.0)
    inner = CHARGE_STEEPNESS * hardness * (1.0 - reference_charge / safe)
    scale = jnp.exp(CHARGE_HEIGHT * (1.0 - jnp.exp(inner)))
    return jnp.where(positive, scale, math.exp(CHARGE_HEIGHT))


def reference_alpha(table: Mapping[str, Array], scaleq: Array) -> Array:
    """Dynamic polarizabilities of the reference systems, (species, 7, frequencies).

    They depend on the learned scale of charges, so they are made anew in each pass; no
    gradient flows through them, as in the reference.
    """
    system_ZA = table["refsys"].astype(jnp.int32)
    charge_ZA = table["zeff"][system_ZA]
    scale_ZA = _charge_scale(
        table["gam"][system_ZA], charge_ZA, charge_ZA + table["refh"] * scaleq
    )
    secondary_ZAW = (
        table["sscale"][system_ZA][:, :, None]
        * table["secaiw"][system_ZA]
        * scale_ZA[:, :, None]
    )
    primary_ZAW = table["alphaiw"] - table["hcount"][:, :, None] * secondary_ZAW
    return jnp.maximum(table["ascale"][:, :, None] * primary_ZAW, 0.0)


def _weights(
    table: Mapping[str, Array], scaleq: Array, z_N: Array, cn_N: Array, charge_N: Array
) -> Array:
    """Weights of the reference systems of each atom, times their charge scale."""
    gap_NAC = cn_N[:, None, None] - table["cn"][z_N]
    gauss_NAC = jnp.exp(-CN_WIDTH * table["ncount_weight"][z_N] * gap_NAC**2)
    gauss_NA = jnp.sum(table["ncount_mask"][z_N] * gauss_NAC, axis=2)
    total_N1 = jnp.sum(gauss_NA, axis=1, keepdims=True)
    known_N1 = total_N1 > MIN_CHARGE
    weight_NA = jnp.where(
        known_N1,
        gauss_NA / jnp.where(known_N1, total_N1, 1.0),
        table["fixgweights"][z_N],
    )
    nuclear_N1 = table["zeff"][z_N][:, None]
    scale_NA = _charge_scale(
        table["gam"][z_N][:, None],
        nuclear_N1 + table["refq"][z_N] * scaleq,
        jnp.broadcast_to(nuclear_N1 + charge_N[:, None], weight_NA.shape),
    )
    return scale_NA * weight_NA
