"""The published results that the lab repeats: 133 rows as data, the preset of each, and the series' claims.

`python scripts/presets/make_presets.py` writes the presets from the data.
"""
