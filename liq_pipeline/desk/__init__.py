"""The desk: one page for people, one API for their programs, on numbers that are read once (`liq serve`).

Lives here, each a room: read/ (every number, from the tables), api/ (`/api/v1`), stream/ (events as they are
committed), pages/ (what people see), mcp/ (the same numbers for language models), static/ (style, our few lines of
JavaScript, the chart library's built file). app.py joins them to one ASGI application, doors.py says who may come in
and how long one may stay in the doorway, pace.py how often one may ask, serve.py runs it. Does not: write, but for an
acknowledgement; judge health (operations/status.py); deliver messages.
"""
