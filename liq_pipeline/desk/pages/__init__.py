"""What people see: pages made on the server, complete without JavaScript, from the same reads as the API.

Lives here: views.py (one function a page: open it first), words.py (numbers as people read them; unknown is a word),
drawings.py (bars, sparklines and waterfalls as SVG), templates/ (the pages). Does not: read tables, or decide what a
number is.
"""
