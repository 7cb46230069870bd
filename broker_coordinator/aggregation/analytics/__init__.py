"""What a coordinator makes of devices' answers to a query, and what it asks in the next round (docs/analytics.md)."""
