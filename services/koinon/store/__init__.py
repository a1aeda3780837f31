"""What the hub must not forget, as verbs over SQL: SQLite embedded, PostgreSQL served."""
