"""A trained network used: loaded, asked about images, exported."""
