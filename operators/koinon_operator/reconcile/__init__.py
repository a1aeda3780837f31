"""From what is wanted to what is there: ordered lists of small steps that may be repeated at any time."""
