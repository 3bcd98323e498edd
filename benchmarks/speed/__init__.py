"""Measured speed: each module holds `BENCHES`, measurements by name, and gives rows beside a reference."""
