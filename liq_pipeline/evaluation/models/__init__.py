"""Models of the cascade probability: fitted, judged on what they have not seen, watched in shadow, shipped.

Lives here: training.py, under_way.py (the model of the moment), walk_forward.py, retrain.py (a candidate from own
history), shadow.py, promotion_gate.py (what a candidate must have shown), ship.py (the model file that comes with the
program). Does not: inference (scoring/probability.py) or which model is in force (pipeline/models.py).
"""
