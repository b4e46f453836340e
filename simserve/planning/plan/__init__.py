"""The cheapest deployment that keeps its promises: candidates, bounds, a race, a confirmation."""
