"""Recordings: days that were really observed, played again through the same path. See docs/recordings.md.

formats.py finds out what a folder holds and opens it; each format has a module of its own: raw_answers.py with
raw_chain.py (what `liq up --record` writes), native.py, minute_lines.py, hourly_panel.py; recording.py and lines.py are
what they share. A new format is one module and one line in formats.py. Does not: playing (sources/playing/).
"""
