"""The decisions of the relay. Pure: bytes and times come in, publications go out."""
