# ruff: noqa
"""keys in the database

The keys themselves come from the data folder: only control has the key that seals them (identity/keys/adopt.py).
"""

import sqlalchemy as sa
from alembic import op

revision = '0005'
down_revision = '0004'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('sealed_keys',
    sa.Column('purpose', sa.String(length=16), nullable=False),
    sa.Column('number', sa.Integer(), autoincrement=False, nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('blob', sa.LargeBinary(), nullable=False),
    sa.Column('created_at', sa.Float(), nullable=False),
    sa.Column('changed_at', sa.Float(), nullable=False),
    sa.PrimaryKeyConstraint('purpose', 'number', name=op.f('pk_sealed_keys'))
    )


def downgrade() -> None:
    op.drop_table('sealed_keys')
