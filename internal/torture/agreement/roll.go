//go:build unix

package agreement

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/pgdist/pgdist/health"
	"github.com/pgdist/pgdist/internal/mirror"
	"github.com/pgdist/pgdist/internal/pgtest"
)

// roll is what programs are configured with: the servers that are members, in the order
// of the view, as one would keep it who changes the set.
type roll struct {
	mu      sync.Mutex // guards what follows
	order   []int
	unclear map[int]bool // of order: there is nobody to tell who he is, or soon will not be
}

// add appends a server that has become a member.
func (r *roll) add(server int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Contains(r.order, server) {
		r.order = append(r.order, server)
	}
	delete(r.unclear, server)
}

// drop takes a server off that is no member any more.
func (r *roll) drop(server int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.order = slices.DeleteFunc(r.order, func(i int) bool { return i == server })
	delete(r.unclear, server)
}

// doubt has a member named by the address that the set knows it by: it can, or soon can,
// not tell which member it is.
func (r *roll) doubt(server int, is bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if is {
		r.unclear[server] = true
	} else {
		delete(r.unclear, server)
	}
}

// members are the servers on it, in order.
func (r *roll) members() []int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.order)
}

func (r *roll) isUnclear(server int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.unclear[server]
}

// members are the servers that are members.
func (c *cluster) members() []*pgtest.Server {
	var out []*pgtest.Server
	for _, i := range c.roll.members() {
		out = append(out, c.servers[i])
	}
	return out
}

// spare is a server that is no member, or -1.
func (c *cluster) spare() int {
	in := c.roll.members()
	for i := range c.servers {
		if !slices.Contains(in, i) {
			return i
		}
	}
	return -1
}

// host is the address that the set knows a server by: the first program's link to it.
func (c *cluster) host(server int) string { return linkHost(c.programs[0].links[server]) }

func linkHost(l *pgtest.Link) string {
	host, port := l.Addr()
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}

// serverAt is the server that the set knows by an address, or -1.
func (c *cluster) serverAt(host string) int {
	for i := range c.servers {
		if c.host(i) == host {
			return i
		}
	}
	return -1
}

// config names the members by the servers' own addresses, which nothing breaks.
func (c *cluster) config() mirror.Config {
	var cfg mirror.Config
	for _, i := range c.roll.members() {
		host := c.servers[i].Addr()
		if c.roll.isUnclear(i) {
			host = c.host(i)
		}
		cfg.Members = append(cfg.Members, mirror.MemberConfig{Conn: mirror.At(c.conn, host)})
	}
	return cfg
}

// hosts are the members' addresses as a program is configured with them.
func (r *runner) hosts() []string {
	var out []string
	for _, i := range r.c.roll.members() {
		l := r.links[i]
		if r.c.roll.isUnclear(i) {
			l = r.c.programs[0].links[i]
		}
		out = append(out, linkHost(l))
	}
	return out
}

// dsn is what the program is started with.
func (r *runner) dsn() string {
	dsn := "pgdist://postgres@" + strings.Join(r.hosts(), ",") + "/" + r.c.conn.Database + "?sslmode=disable&pool_size=20"
	if !r.kind.gateway {
		dsn += "&balance=round_robin" // reads of each member, one after the other
	}
	if r.kind.strict {
		dsn += "&consistency=strict"
	}
	return dsn
}

// view is the one in force, as far as the servers can be asked.
func (c *cluster) view(ctx context.Context) (*health.View, error) {
	st, err := mirror.Inspect(ctx, c.config())
	if err != nil {
		return nil, err
	}
	if st.View == nil {
		return nil, fmt.Errorf("no view is known: %+v", st.Members)
	}
	return st.View, nil
}

// seat is the member that a server is in a view; ok is false if it is none.
func (c *cluster) seat(v *health.View, server int) (m health.Member, ok bool) {
	i := slices.IndexFunc(v.Members, func(m health.Member) bool { return m.Host == c.host(server) })
	if i < 0 {
		return health.Member{}, false
	}
	return v.Members[i], true
}

// inSync tells whether a server is a member in sync.
func (c *cluster) inSync(v *health.View, server int) bool {
	m, ok := c.seat(v, server)
	return ok && v.Has(m.ID)
}

// leader is the server that leads, or -1.
func (c *cluster) leader(ctx context.Context) int {
	v, err := c.view(ctx)
	if err != nil {
		return -1
	}
	m, ok := v.Member(v.Leader)
	if !ok {
		return -1
	}
	return c.serverAt(m.Host)
}

// follower is a member that does not lead, an error if the leader is not known.
func (c *cluster) follower(ctx context.Context, rng *rand.Rand) (int, error) {
	lead := c.leader(ctx)
	if lead < 0 {
		return 0, fmt.Errorf("nobody knows who leads")
	}
	others := slices.DeleteFunc(c.roll.members(), func(i int) bool { return i == lead })
	return others[rng.IntN(len(others))], nil
}

// operate has the program do what an operator's command would.
func (r *runner) operate(ctx context.Context, o Operation) error {
	o.Hosts = r.hosts()
	return r.call(ctx, "Operate", o, &struct{}{})
}

// copyAfresh has the first program copy a member afresh: a program that knows members by
// other addresses cannot be started while one of them is half copied.
func (c *cluster) copyAfresh(ctx context.Context, server int) error {
	c.copying.Add(1)
	defer c.copying.Add(-1)
	c.roll.doubt(server, true)
	err := c.programs[0].operate(ctx, Operation{Do: Resync, Host: c.host(server)})
	if err == nil {
		c.roll.doubt(server, false)
	}
	return err
}
