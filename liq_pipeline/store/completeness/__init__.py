"""What is missing and what has been loaded: the two ledgers that make a hole a row instead of a surprise.

Lives here: gaps.py (the table `ingest_gaps`), gap_search.py (finding holes in the series), archive_files.py (loaded
history, and which rows of a file the tables have not). Does not: loading anything (pipeline/healing.py,
pipeline/backfill.py).
"""
