"""The papers' numbers next to ours."""
