"""Figures of traces, such as a paper takes: drawn with matplotlib, light or dark, every value from the records.

`style` says how a figure looks, `runs` draws what one run or several did, `batches` what a sweep of batch sizes gives.
Knows traces and figures. Does not know where a figure should go.
"""
