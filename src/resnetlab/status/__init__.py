"""How far the runs below a folder are: reads files, takes no lock, imports no torch."""
