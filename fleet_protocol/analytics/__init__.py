"""Federated analytics: what a query asks of each device, and what an answer to it may hold (docs/analytics.md). Pure.

One file a way of asking: `binned` (count, histogram, labels, quantiles), `moments` (sum, mean, variance), `distinct`
and `words` (heavy hitters). Each says what an honest device sends, and which answers are none, so that whatever one
device says, it moves no count by more than its share.
"""
