package gateway

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// HBA are rules for who may come in, from where, to which database, and by what proof: those of
// a pg_hba.conf (PostgreSQL docs, "The pg_hba.conf File"). The first that fits decides. It is
// made by ParseHBA and not changed afterwards.
type HBA struct{ rules []hbaRule }

// Methods of an HBA rule; SCRAM and Trust besides.
const (
	// Reject turns away whom its rule fits.
	Reject Auth = "reject"
	// Cert believes a client's certificate, whose name is the user's.
	Cert Auth = "cert"
	// Peer believes the operating system, which knows whose the process is at the other end of a
	// Unix socket. Linux only.
	Peer Auth = "peer"
	// MD5 has clients prove their password by MD5 if that is what the databases keep of it, by
	// SCRAM otherwise. MD5 is broken: what a server keeps is as good as the password.
	MD5 Auth = "md5"
)

// connKind is how a client is connected; a rule has all that it is for.
type connKind uint8

const (
	viaSocket connKind = 1 << iota
	viaTLS
	viaPlain
)

var connKinds = map[string]connKind{
	"local": viaSocket, "host": viaTLS | viaPlain, "hostssl": viaTLS, "hostnossl": viaPlain,
	"hostgssenc": 0, "hostnogssenc": viaTLS | viaPlain, // there is no GSS encryption
}

// hbaRule is one line.
type hbaRule struct {
	where    string // file and line, for messages
	text     string // without what may be secret: there is nothing of that kind
	kinds    connKind
	database []hbaName
	user     []hbaName
	address  hbaAddress
	method   Auth
	needCert certNeed
	wholeDN  bool // the certificate's name is its distinguished name, and not the common name
	identMap string
}

// certNeed is what a rule asks of the client's certificate besides its method.
type certNeed uint8

const (
	certNone certNeed = iota
	certVerifyCA
	certVerifyFull // and its name is the user's
)

// hbaName is one name in a rule's database or user.
type hbaName struct {
	name    string
	keyword string         // all, sameuser, samerole, replication, or "" for a name
	member  bool           // +name: the role and its members
	match   *regexp.Regexp // /expression
}

// hbaAddress is where a rule's clients come from.
type hbaAddress struct {
	all     bool
	keyword string // samehost, samenet
	prefix  netip.Prefix
}

// peer is a connection as rules see it.
type peer struct {
	kind           connKind
	from           netip.Addr // not valid for a Unix socket
	user, database string
}

// membership tells whether a user is, directly or not, a member of a role.
type membership func(ctx context.Context, user, role string) (bool, error)

// find returns the first rule that fits, nil if none does.
func (h *HBA) find(ctx context.Context, p peer, is membership) (*hbaRule, error) {
	for i := range h.rules {
		r := &h.rules[i]
		if r.kinds&p.kind == 0 || p.kind != viaSocket && !r.address.has(p.from) {
			continue
		}
		for _, match := range []func(context.Context, peer, membership) (bool, error){r.hasDatabase, r.hasUser} {
			ok, err := match(ctx, p, is)
			if err != nil {
				return nil, err
			}
			if !ok {
				r = nil
				break
			}
		}
		if r != nil {
			return r, nil
		}
	}
	return nil, nil
}

func (a *hbaAddress) has(from netip.Addr) bool {
	from = from.Unmap().WithZone("")
	switch {
	case a.all:
		return true
	case a.keyword != "":
		return slices.ContainsFunc(ownPrefixes(), func(own netip.Prefix) bool {
			if a.keyword == "samehost" {
				return own.Addr() == from
			}
			return own.Contains(from)
		})
	}
	return a.prefix.Contains(from)
}

func (r *hbaRule) hasDatabase(ctx context.Context, p peer, is membership) (bool, error) {
	for _, n := range r.database {
		switch {
		case n.keyword == "all", n.keyword == "sameuser" && p.database == p.user:
			return true, nil
		case n.keyword == "samerole":
			if ok, err := is(ctx, p.user, p.database); ok || err != nil {
				return ok, err
			}
		case n.keyword != "": // replication, which is no database, and nobody's here
		case n.fits(p.database):
			return true, nil
		}
	}
	return false, nil
}

func (r *hbaRule) hasUser(ctx context.Context, p peer, is membership) (bool, error) {
	for _, n := range r.user {
		switch {
		case n.keyword == "all":
			return true, nil
		case n.member:
			if ok, err := is(ctx, p.user, n.name); ok || err != nil {
				return ok, err
			}
		case n.fits(p.user):
			return true, nil
		}
	}
	return false, nil
}

// fits compares a name with one that is no keyword.
func (n *hbaName) fits(name string) bool {
	if n.match != nil {
		return n.match.MatchString(name)
	}
	return n.name == name
}

// uses tells whether a rule has a method.
func (h *HBA) uses(method Auth) bool {
	return h != nil && slices.ContainsFunc(h.rules, func(r hbaRule) bool { return r.method == method })
}

// validate tells which rules cannot work in c.
func (h *HBA) validate(c *Config) (errs []error) {
	if h == nil {
		return nil
	}
	for i := range h.rules {
		r := &h.rules[i]
		bad := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf("%s: %s", r.where, fmt.Sprintf(format, args...)))
		}
		if (r.method == Cert || r.needCert != certNone) && (c.TLS == nil || c.TLS.ClientCAs == nil) {
			bad("clients' certificates cannot be checked: name the certificates of those who issue them in tls.client_ca")
		}
		if r.identMap != "" && !c.Ident.has(r.identMap) {
			bad("there is no map %q in the file of user names (ident_file)", r.identMap)
		}
	}
	return errs
}

// String lists the rules as SHOW CONFIG has them.
func (h *HBA) String() string {
	if h == nil {
		return ""
	}
	lines := make([]string, len(h.rules))
	for i := range h.rules {
		lines[i] = h.rules[i].text
	}
	return strings.Join(lines, "; ")
}
