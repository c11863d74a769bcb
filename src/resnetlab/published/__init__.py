"""The published results that the lab repeats: rows as data, their presets (scripts/presets makes them), the claims."""
