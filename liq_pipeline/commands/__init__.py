"""The commands of `liq`, a module a topic; cli.py puts them together."""
