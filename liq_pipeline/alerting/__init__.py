"""Alerts: when something is worth saying, what is said, and getting it to people.

deciding/ (pure) turns scored points into alerts and messages, telling/ (pure) puts them into words, receipts and
pictures, sending/ takes them to Kafka and to people. aftermath.py reads what happened while a cascade was under way and
what became of earlier pages, last_hours.py what a picture shows. book.py ties the three to the database inside the
tick's transaction: open it first. Does not: scores (scoring/), what followed an alert
(evaluation/paging/outcomes.py), when deliveries run (defs/live/).
"""
