package mirror

import "testing"

// What a role or a database sets for its sessions does not end the mirror's: a copy may take hours.
func TestTimeoutsAreNotTheMirrors(t *testing.T) {
	r := newRig(t, 1, `ALTER ROLE postgres SET statement_timeout = '1s'; ALTER ROLE postgres SET idle_in_transaction_session_timeout = '1s'; ALTER DATABASE postgres SET lock_timeout = '1s';
		DO $$ DECLARE s text; BEGIN FOR s IN SELECT name FROM pg_settings WHERE name IN ('idle_session_timeout', 'transaction_timeout') LOOP EXECUTE format('ALTER ROLE postgres SET %I = ''1s''', s); END LOOP; END $$`)
	dialled, err := dial(r.ctx(), r.cfg.Members[0].Conn, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer dialled.close()
	plain, err := dialPlain(r.ctx(), r.cfg.Members[0].Conn)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.close()
	for _, c := range []*conn{dialled, plain} {
		limits, err := c.one(r.ctx(), `SELECT coalesce(string_agg(name || ' ' || setting, ', '), '') FROM pg_settings WHERE name ~ '_timeout$' AND context = 'user' AND setting <> '0' AND name <> 'wal_sender_timeout'`)
		if err != nil || limits != "" {
			t.Errorf("%s %v", limits, err)
		}
	}
}
