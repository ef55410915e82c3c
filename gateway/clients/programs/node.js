const {Client} = require("pg"), Cursor = require("pg-cursor");
(async () => {
	const c = new Client(); await c.connect();
	await c.query("CREATE TABLE nd (id int PRIMARY KEY, v text)");
	for (let i = 0; i < 10; i++) await c.query("INSERT INTO nd VALUES ($1, $2)", [i, "v" + i]);
	console.log((await c.query({name: "n", text: "SELECT v FROM nd WHERE id = $1", values: [3]})).rows, (await c.query({name: "n", text: "SELECT v FROM nd WHERE id = $1", values: [4]})).rows);
	for (const q of ["SELECT nosuch", "INSERT INTO nd VALUES (1)"]) await c.query(q).catch(e => console.log(e.code, e.detail));
	const k = c.query(new Cursor("SELECT id FROM nd ORDER BY id")); console.log(await k.read(3), await k.read(3)); await k.close();
	await c.query("BEGIN"); await c.query("DELETE FROM nd"); await c.query("ROLLBACK");
	console.log((await c.query("SELECT 1 AS a; SELECT count(*) FROM nd")).map(r => r.rows), (await c.query("")).command);
	await c.query("LISTEN ch"); const got = new Promise(r => c.on("notification", r)); await c.query("NOTIFY ch, 'x'"); console.log((await got).payload);
	await c.query("DROP TABLE nd"); await c.end();
})().catch(e => { console.log(e); process.exit(1) });
