"""The prediction log: what was answered, durable here, delivered to PostgreSQL, read by people."""
