"""The operator of one hospital: from its Site and Grants to Ray clusters behind walls, and to nothing once they end."""
