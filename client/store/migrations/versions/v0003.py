"""What was heard of ledgers, and when a head was cosigned."""

from alembic import op

from wardround.client.store.migrations import statements

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    for statement in statements("0003_watch.sql"):
        op.execute(statement)
