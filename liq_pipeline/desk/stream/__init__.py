"""Events as they are committed: one look at the database for the whole process, handed on to everyone who listens.

Lives here: changes.py (what is new since an id, from the rows alone: open it first), hub.py (the one look a half
second, and the listeners), wire.py (server-sent events: format, resuming, keeping alive). Does not: what a page does
with an event (static/live.js).
"""
