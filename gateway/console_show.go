package gateway

import (
	"fmt"
	"maps"
	"net"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pgdist/pgdist/internal/engine"
)

// shows are the SHOW commands. Columns that PgBouncer's users know have its names and
// meaning, and stand in its order; "#" marks numbers.
func shows() []*command {
	return []*command{
		{words: "HELP", help: "this list", columns: columnsOf("command description"), run: (*console).help},
		{words: "VERSION", help: "the program's version", columns: columnsOf("version"), run: (*console).version},
		{words: "DATABASES", help: "names by which the set is reached", columns: columnsOf("name host port# database force_user pool_size# min_pool_size# reserve_pool_size# server_lifetime# pool_mode max_connections# current_connections# max_client_connections# current_client_connections# paused# disabled#"), run: (*console).databases},
		{words: "POOLS", help: "clients and connections by database and user", columns: columnsOf("database user cl_active# cl_waiting# cl_active_cancel_req# cl_waiting_cancel_req# sv_active# sv_active_cancel# sv_being_canceled# sv_idle# sv_used# sv_tested# sv_login# maxwait# maxwait_us# pool_mode"), run: (*console).pools},
		{words: "CLIENTS", help: "clients; pinned tells why one keeps a connection for itself, channels how many it listens to without", columns: columnsOf("type user database state addr port# local_addr local_port# connect_time request_time wait# wait_us# close_needed# ptr link remote_pid# tls application_name prepared_statements# id# pinned channels#"), run: (*console).clients},
		{words: "SERVERS", help: "connections to servers", columns: columnsOf("type user database state addr port# local_addr local_port# connect_time close_needed# ptr link remote_pid# tls id# purpose"), run: (*console).servers},
		{words: "STATS", help: "totals, and averages per second of the time since the start", columns: columnsOf("database total_server_assignment_count# total_xact_count# total_query_count# total_received# total_sent# total_xact_time# total_query_time# total_wait_time# avg_server_assignment_count# avg_xact_count# avg_query_count# avg_recv# avg_sent# avg_xact_time# avg_query_time# avg_wait_time#"), run: (*console).stats},
		{words: "MEMBERS", help: "the databases of the set", columns: columnsOf("database member# host role in_sync usable weight# reads# writes# errors# outstanding# latency_us# read_in_use# read_idle# read_max# write_in_use# write_idle# write_max# waiting# last_error state differences#"), run: (*console).members},
		{words: "VIEW", help: "who leads, since when; acked is the leader's snapshot behind every acknowledged write", columns: columnsOf("database set epoch# term# leader leader_id# in_sync ready acked"), run: (*console).view},
		{words: "EVENTS", help: "what happened to the set lately", columns: columnsOf("at database event"), run: (*console).events},
		{words: "CONFIG", help: "the configuration, without secrets", columns: columnsOf("key value default changeable"), run: (*console).config},
		{words: "LISTS", help: "how many there are of everything", columns: columnsOf("list items#"), run: (*console).lists},
		{words: "MEM", help: "memory of the gateway", columns: columnsOf("name size#"), run: (*console).mem},
		{words: "USERS", help: "users that have connected", columns: columnsOf("name pool_mode"), run: (*console).users},
		{words: "STATE", help: "whether it is paused or shutting down", columns: columnsOf("key value"), run: (*console).state},
	}
}

func (k *console) help(string) (rows [][]any, err error) {
	for _, c := range commandList {
		if c.help != "" {
			rows = append(rows, []any{strings.TrimSpace(c.words + " " + c.arg), c.help})
		}
	}
	return rows, nil
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(unknown)"
}

func (k *console) version(string) ([][]any, error) { return [][]any{{"pgdist " + version()}}, nil }

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func number(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// names are those by which clients reach the sets.
func (s *Server) names() []string {
	c := s.conf()
	list := []string{s.database}
	add := func(name string) {
		if name != "*" && !slices.Contains(list, name) {
			list = append(list, name)
		}
	}
	for _, name := range append(slices.Sorted(maps.Keys(c.DatabaseOptions)), c.Databases...) {
		add(name)
	}
	s.each(func(c *client) { add(c.db) }) // by "*"
	return list
}

func (k *console) databases(string) (rows [][]any, err error) {
	s := k.server
	c := s.conf()
	clients, conns := map[string]int64{}, map[string]int64{}
	s.each(func(c *client) { clients[c.db]++ })
	for _, u := range s.servers.list() {
		conns[u.origin.set]++
	}
	for _, name := range s.names() {
		src := s.find(name)
		if src == nil {
			continue // left behind by somebody who came before the configuration changed
		}
		host, port := "", int64(0)
		for _, m := range src.engine.Stats() {
			if m.Leader {
				h, p, _ := net.SplitHostPort(m.Host)
				host, port = h, atoi(p)
			}
		}
		pool := src.engine.Config().Pool
		rows = append(rows, []any{
			name, host, port, src.database, nil, int64(pool.Size), int64(0), int64(0), int64(pool.MaxLifetime / time.Second), string(c.poolMode(name, "")),
			int64(c.limits(s.sets.Load().names(src)).Connections), conns[src.key], int64(first(c.database(name).MaxClients, c.MaxDBClients, c.MaxClients)), clients[name], number(s.paused.Load().covers(name)), int64(0),
		})
	}
	return append(rows, []any{consoleName, nil, nil, consoleName, consoleName, int64(0), int64(0), int64(0), int64(0), "statement", int64(0), int64(0), int64(0), int64(0), int64(0), int64(0)}), nil
}

func atoi(s string) int64 {
	n, _ := strconv.ParseInt(s, 10, 64)
	return n
}

// poolKey is what PgBouncer calls a pool.
type poolKey struct{ db, user string }

type poolCount struct {
	active, waiting int64
	maxwait         time.Duration
}

func (k *console) pools(string) (rows [][]any, err error) {
	s := k.server
	pools := map[poolKey]*poolCount{}
	linked := map[*upstream]bool{}
	for _, i := range s.infos() {
		key := poolKey{i.c.db, i.c.user}
		p := pools[key]
		if p == nil {
			p = &poolCount{}
			pools[key] = p
		}
		if i.link != nil {
			linked[i.link] = true
		}
		if i.state == stateWaiting {
			p.waiting++
			p.maxwait = max(p.maxwait, i.wait)
		} else {
			p.active++
		}
	}
	active, idle := map[poolKey]int64{}, map[poolKey]int64{} // connections belong to a set and a user, whatever the name of the database
	for _, u := range s.servers.list() {
		key := poolKey{u.origin.set, u.origin.user}
		if linked[u] || u.shared.Load() {
			active[key]++
		} else {
			idle[key]++
		}
		if pools[key] == nil {
			pools[key] = &poolCount{}
		}
	}
	keys := slices.SortedFunc(maps.Keys(pools), func(a, b poolKey) int {
		return strings.Compare(a.db+"\x00"+a.user, b.db+"\x00"+b.user)
	})
	for _, key := range keys {
		p := pools[key]
		rows = append(rows, []any{
			key.db, key.user, p.active, p.waiting, int64(0), int64(0), active[key], int64(0), int64(0), idle[key], int64(0), int64(0), int64(0),
			int64(p.maxwait / time.Second), int64(p.maxwait % time.Second / time.Microsecond), string(s.conf().poolMode(key.db, key.user)),
		})
	}
	return rows, nil
}

const timeLayout = "2006-01-02 15:04:05 MST"

// endpoint is an address as host and port.
func endpoint(a net.Addr) (host any, port any) {
	if a == nil {
		return nil, nil
	}
	if t, ok := a.(*net.TCPAddr); ok {
		return t.IP.String(), int64(t.Port)
	}
	return "unix", int64(0)
}

func pointer(kind string, id uint64) string { return kind + strconv.FormatUint(id, 10) }

func (k *console) clients(string) (rows [][]any, err error) {
	for _, i := range k.server.infos() {
		addr, port := endpoint(i.c.conn.RemoteAddr())
		local, localPort := endpoint(i.c.conn.LocalAddr())
		var link, pid, tls, request any
		if i.link != nil {
			link, pid = pointer("s", i.link.origin.number), int64(i.link.pid)
		}
		if i.c.secured != "" {
			tls = i.c.secured
		}
		if i.busy > 0 {
			request = time.Now().Add(-i.busy).UTC().Format(timeLayout)
		}
		rows = append(rows, []any{
			"C", i.c.user, i.c.db, i.state, addr, port, local, localPort, i.c.since.UTC().Format(timeLayout), request,
			int64(i.wait / time.Second), int64(i.wait % time.Second / time.Microsecond), number(i.c.closing.Load()), pointer("c", uint64(i.c.id)), link, pid, tls,
			i.app, int64(i.prepared), int64(i.c.id), i.pins.String(), int64(i.channels),
		})
	}
	return rows, nil
}

func (k *console) servers(string) (rows [][]any, err error) {
	s := k.server
	linked := map[*upstream]uint32{}
	for _, i := range s.infos() {
		if i.link != nil {
			linked[i.link] = i.c.id
		}
	}
	for _, u := range s.servers.list() {
		local, localPort := endpoint(u.origin.from)
		state, link := stateIdle, any(nil)
		if id, ok := linked[u]; ok {
			state, link = stateActive, pointer("c", uint64(id))
		}
		purpose := "read"
		if u.writes {
			purpose = "write"
		}
		if u.shared.Load() { // by all who listen
			state, purpose = stateActive, "listen"
		}
		rows = append(rows, []any{
			"S", u.origin.user, u.origin.database, state, u.origin.host, int64(u.origin.port), local, localPort, u.origin.since.UTC().Format(timeLayout),
			number(u.closed.Load()), pointer("s", u.origin.number), link, int64(u.pid), nil, int64(u.origin.number), purpose,
		})
	}
	return rows, nil
}

func (k *console) stats(string) ([][]any, error) {
	s := k.server
	t := s.totals()
	seconds := max(1, int64(time.Since(s.began)/time.Second))
	per := func(total time.Duration, n uint64) int64 { return int64(total/time.Microsecond) / int64(max(1, n)) }
	return [][]any{{
		s.database, int64(t.Statements), int64(t.Transactions), int64(t.Statements), int64(t.Received), int64(t.Sent),
		int64(t.InTx / time.Microsecond), int64(t.Spent / time.Microsecond), int64(t.Waited / time.Microsecond),
		int64(t.Statements) / seconds, int64(t.Transactions) / seconds, int64(t.Statements) / seconds, int64(t.Received) / seconds, int64(t.Sent) / seconds,
		per(t.InTx, t.Transactions), per(t.Spent, t.Statements), int64(t.Waited/time.Microsecond) / seconds,
	}}, nil
}

func (k *console) members(string) (rows [][]any, err error) {
	k.server.eachMember(func(src *source, m engine.MemberStats) {
		var last any
		if m.LastError != "" {
			last = m.LastError
		}
		rows = append(rows, []any{
			src.key, int64(m.ID), m.Host, roleOf(m), yes(m.InSync), yes(m.Usable), int64(m.Weight), int64(m.Reads), int64(m.Writes), int64(m.Errors), int64(m.Outstanding),
			int64(m.Latency / time.Microsecond), int64(m.ReadPool.InUse), int64(m.ReadPool.Idle), int64(m.ReadPool.Max),
			int64(m.WritePool.InUse), int64(m.WritePool.Idle), int64(m.WritePool.Max), int64(m.ReadPool.Waiting + m.WritePool.Waiting), last, m.State, int64(m.Differences),
		})
	})
	return rows, nil
}

func roleOf(m engine.MemberStats) string {
	switch {
	case m.Leader:
		return "leader"
	case m.InSync:
		return "follower"
	}
	return "excluded"
}

func (k *console) view(string) (rows [][]any, err error) {
	for _, src := range k.server.sources() {
		v := src.engine.View()
		var leader any
		if v.Leader != 0 {
			leader = hostOf(v, v.Leader)
		}
		rows = append(rows, []any{src.key, v.Set, v.Epoch, v.Term, leader, int64(v.Leader), fmt.Sprint(v.InSync), yes(k.server.Ready()), src.engine.Acked().Snapshot})
	}
	return rows, nil
}

func (k *console) events(string) (rows [][]any, err error) {
	for _, e := range k.server.history.latest() {
		rows = append(rows, []any{e.At.UTC().Format(timeLayout), e.Set, e.Text})
	}
	return rows, nil
}

func (k *console) config(string) (rows [][]any, err error) {
	for _, o := range k.server.conf().options() {
		rows = append(rows, []any{o.key, o.value, o.standard, yes(o.live)})
		if o.key == "max_clients" { // PgBouncer's word, which its exporters look for
			rows = append(rows, []any{"max_client_conn", o.value, o.standard, yes(o.live)})
		}
	}
	return rows, nil
}

func (k *console) lists(string) ([][]any, error) {
	s := k.server
	used := int64(0)
	infos := s.infos()
	for _, i := range infos {
		if i.link != nil {
			used++
		}
	}
	all := s.servers.list()
	for _, u := range all {
		if u.shared.Load() {
			used++
		}
	}
	s.mu.Lock()
	users, login := int64(len(s.usersLocked())), int64(s.starting)
	s.mu.Unlock()
	s.keys.mu.Lock()
	prepared := int64(len(s.keys.all))
	s.keys.mu.Unlock()
	members, inSync := 0, 0
	for _, src := range s.sources() {
		members, inSync = members+len(src.engine.View().Members), inSync+len(src.engine.View().InSync)
	}
	pools, _ := k.pools("")
	return [][]any{
		{"databases", int64(len(s.names()))}, {"users", users}, {"pools", int64(len(pools))}, {"free_clients", int64(0)}, {"used_clients", int64(len(infos))},
		{"login_clients", login}, {"free_servers", int64(len(all)) - used}, {"used_servers", used},
		{"members", int64(members)}, {"members_in_sync", int64(inSync)}, {"prepared_statements", prepared},
	}, nil
}

func (k *console) mem(string) ([][]any, error) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return [][]any{
		{"heap_in_use", int64(m.HeapInuse)}, {"heap_idle", int64(m.HeapIdle)}, {"stacks", int64(m.StackInuse)}, {"from_system", int64(m.Sys)},
		{"goroutines", int64(runtime.NumGoroutine())},
	}, nil
}

func (k *console) users(string) (rows [][]any, err error) {
	s := k.server
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(s.usersLocked())) {
		rows = append(rows, []any{name, string(first(s.conf().UserOptions[name].PoolMode, s.conf().PoolMode))})
	}
	return rows, nil
}

// usersLocked are those who have connected, to whatever set.
func (s *Server) usersLocked() map[string]bool {
	users := map[string]bool{}
	for _, src := range s.sources() {
		for name := range src.tenants {
			users[name] = true
		}
	}
	return users
}

func (k *console) state(string) ([][]any, error) {
	p := k.server.paused.Load()
	return [][]any{
		{"active", yes(p == nil && !k.server.isClosing())}, {"paused", yes(p != nil)}, {"shutting_down", yes(k.server.isClosing())},
	}, nil
}
