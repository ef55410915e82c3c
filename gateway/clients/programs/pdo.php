<?php
$d = new PDO("pgsql:host=" . getenv("PGHOST") . ";port=" . getenv("PGPORT") . ";dbname=postgres", "postgres", "");
foreach ([false, true] as $emulate) {
	$d->setAttribute(PDO::ATTR_EMULATE_PREPARES, $emulate);
	$d->exec("CREATE TABLE ph (id serial PRIMARY KEY, v text)");
	$s = $d->prepare("INSERT INTO ph (v) VALUES (?)");
	foreach (["a", "b", "c"] as $v) $s->execute([$v]);
	$s = $d->prepare("SELECT v FROM ph WHERE v > :v ORDER BY v"); $s->execute(["v" => "a"]); echo json_encode($s->fetchAll(PDO::FETCH_ASSOC)), "\n";
	$d->beginTransaction(); $d->exec("DELETE FROM ph"); $d->rollBack();
	try { $d->query("SELECT nosuch"); } catch (PDOException $e) { echo $e->getCode(), " ", $e->getMessage(), "\n"; }
	echo $d->query("SELECT count(*) FROM ph")->fetchColumn(), "\n";
	$d->pgsqlCopyFromArray("ph", ["10\tx", "11\ty"]); echo json_encode($d->pgsqlCopyToArray("ph")), "\n";
	$d->exec("DROP TABLE ph");
}
