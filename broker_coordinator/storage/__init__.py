"""The database: tables, journal, registries."""
