"""Row-wise figures: how well numbers rank and state what followed.

Lives here: metrics.py (ROC-AUC, PR-AUC, Brier skill, reliability, day-block intervals), rows.py (a score against a
label), baselines.py, severities.py, ablations.py, component_trial.py (a component before it is wired). Does not: pages
(paging/).
"""
