import psycopg
with psycopg.connect("", autocommit=True) as c:
    c.execute("CREATE TABLE p3 (id int PRIMARY KEY, v text)")
    with c.pipeline() as p:
        for i in range(10):
            c.execute("INSERT INTO p3 VALUES (%s, %s)", (i, "v%d" % i))
    try:
        with c.pipeline():
            c.execute("INSERT INTO p3 VALUES (100, 'a')")
            c.execute("INSERT INTO p3 VALUES (100, 'b')")
            c.execute("INSERT INTO p3 VALUES (101, 'b')")
    except psycopg.Error as e:
        print(e.sqlstate, e)
    print(c.execute("SELECT count(*), max(id) FROM p3").fetchall())
    with c.cursor(binary=True) as k:
        for n in range(8):
            k.execute("SELECT id, v FROM p3 WHERE id = %s", (n,), prepare=True)
            print(k.fetchone())
    with c.cursor() as k, k.copy("COPY p3 FROM STDIN (FORMAT binary)") as copy:
        copy.set_types(["int4", "text"])
        for i in range(200, 210):
            copy.write_row((i, "c"))
    with c.transaction():
        with c.cursor("srv") as k:
            k.execute("SELECT id FROM p3 ORDER BY id")
            print(k.fetchmany(3), k.scroll(2), k.fetchone())
    try:
        with c.transaction():
            with c.transaction():
                c.execute("SELECT nosuch")
    except psycopg.Error as e:
        print(e.sqlstate, e.diag.statement_position)
    with c.cursor() as k, k.copy("COPY (SELECT id FROM p3 ORDER BY id LIMIT 3) TO STDOUT") as copy:
        print([bytes(b) for b in copy])
    c.execute("DROP TABLE p3")
    print(c.info.transaction_status.name, c.info.encoding, c.info.timezone)
