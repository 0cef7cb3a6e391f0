"""Lines that a file of molecules should not have, and some that it may."""

import random

PEPTIDE = "N" + "C(C)C(=O)N" * 200 + "CC(=O)O"
KINDS = (
    lambda rng: b"",
    lambda rng: b" \t " * rng.randrange(4),
    lambda rng: b"C" * 10_001 + b"N" * rng.randrange(2000),
    lambda rng: b"C(" * 4_000 + b")" * 4_000,
    lambda rng: rng.randbytes(40).replace(b"\n", b"\r"),
    lambda rng: b"CC\xff\xfeO",
    lambda rng: b"\x00" * 10,
    lambda rng: "CC\u202eO\U0001f9ea".encode(),
    lambda rng: b"*CC" + b"C" * rng.randrange(9),
    lambda rng: b"[R1]c1ccccc1",
    lambda rng: b"CCO>>CC=O",
    lambda rng: b"CC(=O)O.OCC>[H+].[Cl-].OCC>CC(=O)OCC",
    lambda rng: b"[#6]~[#7]",
    lambda rng: PEPTIDE.encode(),
    lambda rng: b"C" * 2000,
    lambda rng: b"c1" + b"cc" * rng.randrange(50, 150) + b"1",
    lambda rng: b"C1CC1" * rng.randrange(200),
    lambda rng: b"[Fe+2].[Cl-].[Cl-]",
    lambda rng: b"C[Pt](N)(N)C",
    lambda rng: b"[U](F)(F)(F)(F)(F)F",
    lambda rng: b"C->[Fe]",
    lambda rng: b"CN(=O)=O",
    lambda rng: b"C(C)(C)(C)(C)C",
    lambda rng: b"c1cccc1",
    lambda rng: b"C%99CC%99",
    lambda rng: b"C1CC",
    lambda rng: b"((((((",
    lambda rng: b"[" * rng.randrange(1, 500),
    lambda rng: b'"C,C',
    lambda rng: b"[999C]",
    lambda rng: b"[%dCH4]" % rng.randrange(1, 500),
    lambda rng: b"[CH3:%d]C" % rng.randrange(1, 999),
    lambda rng: b"[C+99]",
    lambda rng: b"InChI=1S/CH4/h1H4",
    lambda rng: b"smiles",
    lambda rng: b"F/C=C\\F.[Na+].[O-]c1ccccc1",
    lambda rng: b"N[C@@H](C)C(=O)O",
    lambda rng: b"C" * rng.randrange(1, 60),
    lambda rng: b"C1=CC=CC=C1" + b"O" * rng.randrange(2),
)


def hostile_lines(n, seed=0):
    """n lines of all kinds, in a random order that the seed decides."""
    rng = random.Random(seed)
    for _ in range(n):
        yield rng.choice(KINDS)(rng)
