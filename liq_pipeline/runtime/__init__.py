"""The machinery that runs the program on one machine: embedded servers, supervisor, addresses in force.

To run on servers of your own, name them in the package's `settings`: no file here changes.

Lives here: up.py (`liq up`: open it first), parts.py (which programs, with which environment), supervisor.py (starts,
watches, stops) over service.py, liveness.py (whether what runs also moves), watchdog.py (says that the monitor is blind
when nothing else can), servers/ (PostgreSQL, Kafka, what Dagster needs), home.py (LIQ_HOME), endpoints.py (addresses in
force), mode.py (live or not, decided once), completion.py (how far a recording has come), processes.py, files.py,
logs.py. Does not: what the processes do with the data.
"""
