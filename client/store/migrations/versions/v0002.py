"""Plans that were proposed, and receipts of rounds."""

from alembic import op

from wardround.client.store.migrations import statements

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    for statement in statements("0002_studies.sql"):
        op.execute(statement)
