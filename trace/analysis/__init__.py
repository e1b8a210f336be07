"""Figures from traces: metrics, comparisons, and the queries that a scene may ask."""
