"""The ledger, stored replies, rollbacks, witnessed heads, members and opt-outs."""

from alembic import op

from wardround.client.store.migrations import statements

revision = "0001"
down_revision = None


def upgrade() -> None:
    for statement in statements("0001_ledger.sql"):
        op.execute(statement)
