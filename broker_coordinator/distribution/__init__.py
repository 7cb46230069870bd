"""What devices fetch and hear: files, packed versions, signed messages. Pure."""
