"""What a score reads: observations as they were known at given times, and who was expected to make them.

Lives here: as_known.py (values, bars and flows as arrays), expected_sources.py (Scope: which venue is expected to say
what in a world), expected_coins.py (which coin of which venue), listings.py (the table that says so). Does not:
references and bars that are kept (lookback/), formulas (scoring/).
"""
