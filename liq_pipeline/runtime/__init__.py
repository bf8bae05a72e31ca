"""The machinery that runs the program on one machine: embedded servers, supervisor, addresses in force.

Belongs here: processes, ports, files under LIQ_HOME. Does not: what the processes do with the data.
"""
