"""Through the proxy with psycopg 2 or 3. Connection parameters come from PG* variables; the first failure ends it."""

import datetime
import decimal

try:
    import psycopg2 as psycopg
    from psycopg2.extras import Json, execute_values
    MODULE = 2
except ImportError:
    import psycopg
    from psycopg.types.json import Json
    MODULE = 3

connection = psycopg.connect("")
cursor = connection.cursor()
cursor.execute(
    "CREATE TABLE thing (id int PRIMARY KEY, name text, price numeric, tags text[], body json, data bytea, at timestamptz)"
)
connection.commit()

# Values of many types there and back.
at = datetime.datetime(2024, 2, 29, 12, 30, 15, 123456, tzinfo=datetime.timezone.utc)
row = (1, "it's \\ a \u00fcber \U0001f40d", decimal.Decimal("12345678901234567890.123456789"), ["a", "b,c", None],
       Json({"a": [1, 2.5, None]}), b"\x00\x01\xfe\xff", at)
cursor.execute("INSERT INTO thing VALUES (%s, %s, %s, %s, %s, %s, %s)", row)
connection.commit()
cursor.execute("SELECT name, price, tags, body, data, at FROM thing WHERE id = %s", (1,))
name, price, tags, body, data, stored = cursor.fetchone()
assert (name, price, tags) == row[1:4], (name, price, tags)
assert body == {"a": [1, 2.5, None]} and bytes(data) == row[5] and stored == at, (body, bytes(data), stored)
connection.commit()

# An error ends the transaction; after a rollback the session goes on.
cursor.execute("INSERT INTO thing (id) VALUES (2)")
try:
    cursor.execute("INSERT INTO thing (id) VALUES (1)")
    raise AssertionError("no error")
except psycopg.Error as error:
    diag = error.diag
    assert (diag.sqlstate, diag.constraint_name, diag.table_name) == ("23505", "thing_pkey", "thing"), diag.sqlstate
try:
    cursor.execute("SELECT 1")
    raise AssertionError("no error")
except psycopg.Error as error:
    assert error.diag.sqlstate == "25P02"
connection.rollback()
cursor.execute("SELECT count(*) FROM thing")
assert cursor.fetchone() == (1,)
connection.commit()

# Many rows at once, and a cursor on the server to read them by portions.
rows = [(i, "n%d" % i) for i in range(100, 1100)]
if MODULE == 2:
    execute_values(cursor, "INSERT INTO thing (id, name) VALUES %s", rows)
else:
    cursor.executemany("INSERT INTO thing (id, name) VALUES (%s, %s)", rows)
connection.commit()
with connection.cursor(name="portions") as portions:
    portions.itersize = 100
    portions.execute("SELECT id FROM thing WHERE id >= 100 ORDER BY id")
    assert [found for (found,) in portions] == list(range(100, 1100))
connection.commit()

# COPY in and out.
if MODULE == 2:
    import io
    cursor.copy_expert("COPY thing (id, name) FROM STDIN", io.StringIO("2000\tcopied\n2001\t\\N\n"))
    out = io.StringIO()
    cursor.copy_expert("COPY (SELECT id, name FROM thing WHERE id >= 2000 ORDER BY id) TO STDOUT", out)
    text = out.getvalue()
else:
    with cursor.copy("COPY thing (id, name) FROM STDIN") as copy:
        copy.write("2000\tcopied\n2001\t\\N\n")
    with cursor.copy("COPY (SELECT id, name FROM thing WHERE id >= 2000 ORDER BY id) TO STDOUT") as copy:
        text = b"".join(bytes(piece) for piece in copy).decode()
assert text == "2000\tcopied\n2001\t\\N\n", text
connection.commit()

# Isolation levels: SERIALIZABLE is refused, the others give a transaction one snapshot.
connection.autocommit = True
try:
    cursor.execute("BEGIN ISOLATION LEVEL SERIALIZABLE")
    raise AssertionError("no error")
except psycopg.Error as error:
    assert error.diag.sqlstate == "0A000", error.diag.sqlstate
connection.autocommit = False

# Two connections: a write conflict is 40001, and a retry of it goes through.
other = psycopg.connect("")
there = other.cursor()
for each in (cursor, there):
    each.execute("SELECT name FROM thing WHERE id = 1")
cursor.execute("UPDATE thing SET name = 'first' WHERE id = 1")
connection.commit()
tries = 0
while True:
    tries += 1
    try:
        there.execute("UPDATE thing SET name = name || ', second' WHERE id = 1")
        other.commit()
        break
    except psycopg.Error as error:
        assert error.diag.sqlstate == "40001", error.diag.sqlstate
        other.rollback()
assert tries == 2, tries
cursor.execute("SELECT name FROM thing WHERE id = 1")
assert cursor.fetchone() == ("first, second",)
connection.commit()

# Autocommit, statement by statement.
other.autocommit = True
there.execute("DELETE FROM thing WHERE id < 2000")
assert there.rowcount == 1001, there.rowcount
there.execute("SELECT count(*) FROM thing")
assert there.fetchone() == (2,)
other.close()
connection.close()
print("psycopg", MODULE, "ok")
