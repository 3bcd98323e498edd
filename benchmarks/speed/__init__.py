"""Measured speed: each module has `BENCHES`, measurements by name that return rows beside a reference."""
