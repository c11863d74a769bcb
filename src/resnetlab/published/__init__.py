"""The published results that the lab repeats: 133 rows as data, the preset of each, and the series' claims.

`rows()` all of them, `find(...)` some, `preset_of(id)` the `experiment=` that trains a row's configuration.
`python scripts/presets/make_presets.py` writes the presets from the data.
"""

from resnetlab.published.configuration import preset_of
from resnetlab.published.results import Published, find, rows

__all__ = ["Published", "find", "preset_of", "rows"]
