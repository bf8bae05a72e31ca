"""What an operator asks of a running system. Reads only; commands/ prints it.

Lives here: status.py (one picture of health: open it first), watch.py (the same as tables), receipt_page.py (an alert
for a person), doctor.py, misspelt.py, metrics.py (/healthz, /metrics), audits.py (what a tick has no time to look at),
growth.py (disk), query.py (`liq sql`). Pages written from the code: settings_page.py, schema_pages.py,
architecture_picture.py. Does not: mend anything, or decide when checks run (defs/upkeep/).
"""
