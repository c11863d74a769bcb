"""What is drawn and tabulated from the files of finished and unfinished runs; imports no training code."""
