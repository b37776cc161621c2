"""Who may compute: policies' decisions, shares, groups and run sets, and what is told of them."""
