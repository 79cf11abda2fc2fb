"""YAML that a person writes, and the schema it must satisfy."""
