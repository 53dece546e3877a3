"""How an order is taken in and carried out. The story of an order is in `executor`."""
