"""The documentation site: pages that stand in docs/, and pages that are made from the code."""
