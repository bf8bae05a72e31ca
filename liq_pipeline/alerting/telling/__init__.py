"""What people read. Pure: an alert and its point in, a text, a receipt and a picture out.

Lives here: messages.py (every message), under_way.py (the words of a cascade and its end), chart.py (its picture),
receipt.py. Does not: whether anything is said (deciding/), or how it travels (sending/).
"""
