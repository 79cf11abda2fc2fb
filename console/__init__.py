"""The face: the command line, pages and reports."""
