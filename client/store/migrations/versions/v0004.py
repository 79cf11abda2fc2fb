"""What strategies let this site remember between rounds."""

from alembic import op

from wardround.client.store.migrations import statements

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    for statement in statements("0004_memory.sql"):
        op.execute(statement)
