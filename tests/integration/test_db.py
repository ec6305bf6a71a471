"""Upgrading a database: newest schema, untouched when it is there, read model made anew when it is another's."""

import hashlib

from alembic.config import Config
from alembic.script import ScriptDirectory

from datarun import migrations, readmodel
from datarun.db import connect, upgrade
from datarun.readmodel.schema import _statements

TABLES_OF_VERSION_4 = "ba4cf265113b9595"


def query(url, sql):
    """Return the rows of a statement, committed."""
    connection = connect(url)
    with connection, connection.cursor() as cursor:
        cursor.execute(sql)
        rows = cursor.fetchall() if cursor.description else []
    connection.close()
    return rows


def test_an_upgraded_database_is_left_as_it_is(postgres_url):
    """A second upgrade changes nothing, not even the rows of the read model."""
    query(postgres_url, "insert into rm.submission values (7, 1, 1)")
    upgrade(postgres_url)
    assert query(postgres_url, "select submission_id from rm.submission") == [(7,)]


def test_a_read_model_of_another_version_is_made_anew(postgres_url):
    """Its offsets go with it, so that the projector begins at the beginning; the intake stays."""
    query(postgres_url, "insert into rm.projection_offset values ('t', 0, 5)")
    query(postgres_url, "insert into intake.account values ('u', 'h', 'admin')")
    query(postgres_url, "comment on schema rm is '0'")
    upgrade(postgres_url)
    assert query(postgres_url, "select * from rm.projection_offset") == []
    assert query(postgres_url, "select username from intake.account") == [("u",)]


def test_the_newest_revision_is_the_one_the_code_expects():
    """A migration that was added without its number would never run where a database is."""
    config = Config()
    config.set_main_option("script_location", "datarun:migrations")
    assert ScriptDirectory.from_config(config).get_current_head() == migrations.HEAD


def test_tables_that_change_get_a_new_version():
    """A changed column under the same version would leave old databases as they are."""
    digest = hashlib.sha256("".join(sorted(_statements("rm"))).encode()).hexdigest()[:16]
    assert (readmodel.VERSION, digest) == ("4", TABLES_OF_VERSION_4)
