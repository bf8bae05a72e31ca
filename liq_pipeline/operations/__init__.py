"""What an operator asks of a running system: status, watch, doctor, queries. Reads only; the CLI prints it."""
