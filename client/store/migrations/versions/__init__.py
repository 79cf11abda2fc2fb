"""One module a version of the schema; each runs the SQL file of its number."""
