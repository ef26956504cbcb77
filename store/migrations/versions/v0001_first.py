"""The first schema."""

from alembic import op
from sqlalchemy import insert

from store.schema import metadata, tokens

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create every table."""
    bind = op.get_bind()
    metadata.create_all(bind)
    bind.execute(insert(tokens).values(id=1, last=0))
