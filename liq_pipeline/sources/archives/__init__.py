"""History: public archive files, venues' REST history, and the chain by block range, in pieces that are loaded once."""
