"""`/api/v1`: the desk's numbers for programs. Stable: a snapshot test holds the description.

Lives here: endpoints.py (the table of all questions and their answers: open it first), asking.py (parameters, cursors),
answering.py (the envelope, ETag, gzip, the one form of errors), memory.py (an answer is made once per point, not once
per reader), openapi.py (the description, made from the table), acknowledge.py (the only write). Does not: SQL
(desk/read/), events (desk/stream/), guarding the door (desk/doors.py).
"""
