"""The command line: argv -> values -> the functions of the package -> files."""
