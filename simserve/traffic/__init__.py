"""Workload and seed in, a RequestTable out: arrivals, lengths, shared prefixes, trace files."""
