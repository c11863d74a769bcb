"""Tables, plots and the page over any runs, from their files; imports no training code."""
