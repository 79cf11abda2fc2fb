"""What campaigns of indicators have counted at this site."""

from alembic import op

from wardround.client.store.migrations import statements

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    for statement in statements("0005_campaigns.sql"):
        op.execute(statement)
