"""Which runs get rounds on which sites: `decide` is pure, `loop` applies what it says."""
