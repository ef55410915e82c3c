import asyncio, asyncpg
async def main():
    c = await asyncpg.connect()
    await c.execute("CREATE TYPE am AS ENUM ('a', 'b'); CREATE TABLE ap (id int PRIMARY KEY, v text, m am, n numeric)")
    await c.executemany("INSERT INTO ap (id, v, m) VALUES ($1, $2, $3)", [(i, "v%d" % i, "a") for i in range(20)])
    print(await c.fetch("SELECT id, v, m FROM ap WHERE id < $1 ORDER BY id", 3))
    async with c.transaction():
        async for r in c.cursor("SELECT id FROM ap ORDER BY id", prefetch=3):
            if r["id"] > 6: break
        print(await c.fetchval("SELECT count(*) FROM ap"))
    try:
        async with c.transaction():
            await c.execute("INSERT INTO ap (id) VALUES ($1)", 50)
            await c.execute("INSERT INTO ap (id) VALUES (50)")
    except asyncpg.PostgresError as e:
        print(e.sqlstate, e)
    print(await c.fetchval("SELECT count(*) FROM ap WHERE id = 50"))
    st = await c.prepare("SELECT $1::int + 1 AS x")
    print(st.get_parameters(), st.get_attributes(), await st.fetchval(4), st.get_statusmsg())
    print(await c.copy_records_to_table("ap", records=[(100, "x", "b", 1)]))
    print(await c.fetchrow("SELECT * FROM ap WHERE id = 100"))
    got = asyncio.Queue()
    await c.add_listener("ch", lambda con, pid, ch, p: got.put_nowait((ch, p)))
    await c.execute("NOTIFY ch, 'x'")
    print(await asyncio.wait_for(got.get(), 5))
    print(c.get_settings().TimeZone, c.get_server_version().major)
    await c.remove_listener("ch", None) if False else None
    await c.execute("DROP TABLE ap; DROP TYPE am")
    await c.close()
asyncio.run(main())
