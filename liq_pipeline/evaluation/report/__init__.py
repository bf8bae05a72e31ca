"""`liq evaluate`: history in, report.json, report.html and rows out.

Lives here: run.py (the way through: open this first), facts.py (what a report stands on), html_page.py, figure_rows.py
(the tables `evaluation_runs` and `evaluation_metrics`), nightly.py (stored history, judged every night). Does not: any
figure's arithmetic (figures/, paging/).
"""
