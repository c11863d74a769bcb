"""One training run: module, engine, callbacks, and the tools that train or evaluate."""
