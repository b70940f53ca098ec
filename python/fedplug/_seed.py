"""Seeds, and others that are derived from them by the rules of the Rust interface."""
from __future__ import annotations

_ALL = (1 << 64) - 1


def _mix(state: int) -> int:
    """One output of SplitMix64 (Steele, Lea and Flood 2014)."""
    z = (state + 0x9E3779B97F4A7C15) & _ALL
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _ALL
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _ALL
    return z ^ (z >> 31)


class Seed(int):
    """A number below 2**64 to seed a generator with: `numpy.random.default_rng(seed)`.

    `of` and `at` derive other seeds by name and by number. A derivation gives the same value on every machine and in every
    release, and the same as in Rust.
    """

    def of(self, name: str) -> Seed:
        """The seed for a name."""
        hashed = 0xCBF29CE484222325
        for byte in name.encode():
            hashed = ((hashed ^ byte) * 0x100000001B3) & _ALL
        return Seed(_mix(self ^ ((hashed << 32 | hashed >> 32) & _ALL)))

    def at(self, number: int) -> Seed:
        """The seed for a number."""
        return Seed(_mix((_mix(self) + number) & _ALL))
