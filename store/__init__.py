"""The database: schema, the one writer, queries and migrations. No rule of the lifecycle is decided here."""
