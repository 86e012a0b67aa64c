"""Makes databases on a PostgreSQL server, and the roles that use them."""
