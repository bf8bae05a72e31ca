"""One past day played again in a throw-away world, and the page that tells it (`liq replay`)."""
