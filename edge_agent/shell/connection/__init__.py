"""The way to the broker: the link, who signs and verifies on it, enrolment, and the outbox's postbox."""
