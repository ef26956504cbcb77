"""The first schema."""

from alembic import op

from store.schema import create

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create every table."""
    create(op.get_bind())
