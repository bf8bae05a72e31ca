"""What venues themselves still serve of the past: pages of their REST history as archive records.

Lives here: pages.py (reading one series page by page), catchup.py (after a first start or an outage). Does not: public
archive files (archives/), finding holes (store/completeness/), or the order of a healing (pipeline/healing.py).
"""
