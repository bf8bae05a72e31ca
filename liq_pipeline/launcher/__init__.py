"""The warm launcher: each Dagster run in a process of its own, forked from one that has already imported everything.

Belongs here: how run workers are started, watched and ended. Does not: what a run does (defs/, pipeline/), or any
knowledge of markets. Nothing else in the program imports this package: `dagster.yaml` names its classes, the
supervisor starts `python -m liq_pipeline.launcher.zygote`, and removing its lines from `dagster.yaml` gives back the
stock launcher and queue.

    daemon, webserver --- one JSON line over a Unix socket (0600) ---> zygote --- fork ---> run worker
    (many threads: never fork)                                   (one thread, no connections)  (opens everything itself)

On Dagster's side: run_launcher.py, lanes.py (the same in Kubernetes), coordinator.py (which lane), storage.py,
compute_logs.py. Between them: protocol.py. On
the other side: zygote.py with preloading.py (what it imports) and running.py (its workers), worker.py, processes.py.
"""
