"""What devices receive: files, packed versions, signed messages. Pure."""
