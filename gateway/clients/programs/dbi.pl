use DBI; use strict;
my $d = DBI->connect("dbi:Pg:", "", "", {RaiseError => 0, PrintError => 0, AutoCommit => 1});
$d->do("CREATE TABLE pl (id int PRIMARY KEY, v text)");
my $s = $d->prepare("INSERT INTO pl VALUES (?, ?)");
$s->execute($_, "v$_") for 1..5;
$s->execute(1, "x") or print $d->state, " ", $d->errstr, "\n";
print join(",", @{$d->selectcol_arrayref("SELECT v FROM pl WHERE id > ? ORDER BY id", undef, 2)}), "\n";
$d->begin_work; $d->do("DELETE FROM pl"); $d->pg_savepoint("s"); $d->do("SELECT nosuch"); $d->pg_rollback_to("s"); $d->rollback;
print $d->selectrow_array("SELECT count(*) FROM pl"), "\n";
$d->do("COPY pl FROM STDIN"); $d->pg_putcopydata("9\tnine\n"); $d->pg_putcopyend;
$d->do("COPY (SELECT id FROM pl ORDER BY id) TO STDOUT"); my $l; while ($d->pg_getcopydata($l) >= 0) { print $l }
print $d->ping, " ", $d->{pg_server_version} > 0, "\n";
print join(",", map { $_->{COLUMN_NAME} } @{$d->column_info(undef, "public", "pl", "%")->fetchall_arrayref({})}), "\n";
$d->do("DROP TABLE pl"); $d->disconnect;
