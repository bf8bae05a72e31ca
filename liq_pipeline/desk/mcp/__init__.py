"""The desk's read side as a Model Context Protocol server, for programs that talk to a language model (`liq mcp`).

Lives here: tools.py (the table of tools and their answers: open it first), about.py (what each answer says of itself:
world, age, coverage, provenance), server.py (the table on the protocol's official SDK), ways.py (over stdin and stdout,
and as `/mcp` of the desk, behind the same door as the API). Does not: SQL (desk/read/), parse parameters
(desk/api/asking.py), write anything.
"""
