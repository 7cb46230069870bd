"""A fleet without a coordinator in virtual time: `edgeflock simulate --topology` (docs/gossip.md)."""
