"""The contract between device and coordinator: topics, messages, envelope, update codec. Pure: no I/O, no clock."""
