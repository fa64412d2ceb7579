"""The database: tables, connection, queries, plain values, migrations."""
