"""The one trainer. It does not know which model it trains."""
