"""What a cascade is. One module per label version, frozen once published; a change of meaning is a new module.

Lives here: version_1.py. Does not: anything that predicts a cascade, or the table `cascade_events`
(evaluation/report/nightly.py).
"""
