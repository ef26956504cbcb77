"""What the command line is made of: the daemon over HTTP, printing, watching, files that are read and written.

Not here: verbs, options and exit codes (cli.py), and anything that opens the database. Only the ground (config,
errors, clock, model) may be imported; `requests`, `rich` and `config` inside functions, so that a start is quick.
"""
