"""Stablecoin transfers: following a chain block by block, its readers, and whose wallets are whose.

Lives here: following.py (every block once, late rows found, re-orgs marked), ethereum.py (what is true of a chain
whoever serves it), reader.py with ethereum_rpc.py, etherscan.py and trongrid.py (three ways to read one),
wallet_lists.py (label lists in the database), wallet_review.py (lists held against each other, addresses to look at).
To add a chain, open the package's `domain.chains` first: a row there is enough for one that speaks Ethereum's
JSON-RPC. Does not: which chains and tokens there are (domain/chains.py), the labels themselves (domain/wallets.py),
direction and pressure (scoring/pressure.py), past blocks (sources/archives/chain.py).
"""
