# ruff: noqa
"""where image data is, and the ids of deleted images"""

import sqlalchemy as sa
from alembic import op

revision = '0006'
down_revision = '0005'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('deleted_images',
    sa.Column('id', sa.String(length=36), nullable=False),
    sa.Column('deleted_at', sa.DateTime(), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_deleted_images'))
    )
    op.create_table('image_locations',
    sa.Column('data_key', sa.String(length=36), nullable=False),
    sa.Column('image_id', sa.String(length=36), nullable=True),
    sa.Column('store', sa.String(length=16), nullable=False),
    sa.Column('place', sa.String(length=64), nullable=False),
    sa.Column('writer', sa.String(length=64), nullable=True),
    sa.ForeignKeyConstraint(['image_id'], ['images.id'], name=op.f('fk_image_locations_image_id'), ondelete='SET NULL'),
    sa.PrimaryKeyConstraint('data_key', name=op.f('pk_image_locations'))
    )
    with op.batch_alter_table('image_locations', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_image_locations_image_id'), ['image_id'], unique=False)
        batch_op.create_index(batch_op.f('ix_image_locations_writer'), ['writer'], unique=False)

    # Until now there was one control process, with all data in its own folder. What it is called from now on, it
    # writes into the empty place itself when it finds the data there. A host ("host") writes through it as well.
    op.execute(sa.text("""
        insert into image_locations (data_key, image_id, store, place, writer)
        select data_key, id, 'file', '', worker from images where data_key is not null"""))


def downgrade() -> None:
    op.drop_table('image_locations')
    op.drop_table('deleted_images')
