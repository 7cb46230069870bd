"""What a helper computes and keeps: the blocks that it trains for its sessions. No clock, file or network."""
