"""How often the liquidation map was right: against the simulator's own positions, and against real forced orders.

Lives here: worlds.py (simulated worlds with the truth beside what their venues publish), fit.py (the tiers' weights
from observed forced orders), truth.py (figures in the simulator), forced_orders.py (real forced orders),
later_moves.py (what moves did next), as_feature.py (tried in the models), published.py (fits the shipped methods and
repeats every figure of docs/levels.md).
Does not: the estimate itself (scoring/levels/).
"""
