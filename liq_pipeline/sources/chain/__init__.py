"""Stablecoin transfers: following a chain block by block, its readers, and whose wallets are whose.

Lives here: following.py (every block once, late rows found, re-orgs marked), ethereum.py (what is true of the chain
whoever serves it), reader.py with etherscan.py and ethereum_rpc.py (two ways to read it), wallet_lists.py (label lists
in the database). Does not: the labels themselves (domain/wallets.py), direction and pressure (scoring/pressure.py),
past blocks (sources/archives/chain.py).
"""
