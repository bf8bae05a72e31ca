"""Recordings: days that were really observed, played again through the same path. See docs/recordings.md.

formats.py finds out what a folder holds and opens it; each format has a module of its own; recording.py is what they
share. A new format is one module and one line in formats.py.
"""
