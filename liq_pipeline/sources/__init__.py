"""Sources: whatever the outside world says, read and turned into records, and what it would take to ask again.

Lives here: venues, the chain, archives, recordings, the simulator, and how each of them is asked. Does not: Kafka's own
rules (bus/), tables of observations (store/), the always-on streams (collector/), any score.

registry.py is the list of sources, one line per venue. Then by what you are after:
  access/     how anything is asked: HTTP, budgets, what was answered, how each source is
  live/       a shelf with one module per venue: endpoints, frames, and what they mean
  chain/      stablecoin transfers: following a chain, its readers, labelled wallets
  polling/    one round: plan, ask, judge, remember
  history/    what venues still serve of the past, page by page
  archives/   public files of the past, in pieces
  recorded/   recordings, one module per format       simulated/  a market that does not exist
  playing/    sending a recording or a simulation through Kafka at a chosen speed
"""
