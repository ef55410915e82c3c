package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// peer is the connection as rules see it.
func (st *starting) peer(user, database string) peer {
	p := peer{kind: viaPlain, user: user, database: database}
	switch a := rawConn(st.conn).RemoteAddr().(type) {
	case *net.TCPAddr:
		p.from = a.AddrPort().Addr().Unmap()
	case *net.UnixAddr:
		p.kind = viaSocket
		return p
	}
	if st.tls != nil {
		p.kind = viaTLS
	}
	return p
}

// String is how PostgreSQL tells of it (auth.c).
func (p peer) String() string {
	host, secured := "[local]", "no encryption"
	if p.from.IsValid() {
		host = p.from.String()
	}
	if p.kind == viaTLS {
		secured = "SSL encryption"
	}
	return fmt.Sprintf(`host "%s", user "%s", database "%s", %s`, host, p.user, p.database, secured)
}

// rule is the one that decides about the client.
func (st *starting) rule(ctx context.Context, user, database string) (*hbaRule, error) {
	p := st.peer(user, database)
	r := &hbaRule{method: st.config.Auth}
	if st.config.HBA != nil {
		var err error
		if r, err = st.config.HBA.find(ctx, p, st.source.isMember); err != nil {
			return nil, refusedLookup(err)
		}
	}
	switch {
	case r == nil:
		return nil, errStarting("28000", "no pg_hba.conf entry for "+p.String())
	case r.method == Reject:
		return nil, errStarting("28000", "pg_hba.conf rejects connection for "+p.String())
	case r.method == Trust && !st.config.TrustRemote && !local(st.conn):
		return nil, errStarting("28000", fmt.Sprintf(`user "%s" cannot be trusted from another machine`, user))
	case r.needCert != certNone && (st.tls == nil || len(st.tls.VerifiedChains) == 0):
		return nil, errStarting("28000", "connection requires a valid client certificate")
	}
	return r, nil
}

// certified checks that the client's certificate, which is valid, is the user's.
func (st *starting) certified(ctx context.Context, r *hbaRule, user string) error {
	if r.needCert != certVerifyFull {
		return nil
	}
	cert := st.tls.VerifiedChains[0][0]
	name := cert.Subject.CommonName
	if r.wholeDN {
		var err error
		if name, err = distinguishedName(cert); err != nil {
			return errors.Join(r.failed(user), err)
		}
	}
	return st.isUser(ctx, r, name, user)
}

// isPeer checks that the process at the other end of a Unix socket is the user's.
func (st *starting) isPeer(ctx context.Context, r *hbaRule, user string) error {
	name, err := systemUser(st.conn)
	if err != nil {
		st.server.log.Warn("whose process a client is cannot be found out", "user", user, "rule", r.where, "error", err)
		return r.failed(user)
	}
	return st.isUser(ctx, r, name, user)
}

// isUser checks that who has proved to be called name may be user.
func (st *starting) isUser(ctx context.Context, r *hbaRule, name, user string) error {
	ok := name == user
	if r.identMap != "" {
		var err error
		if ok, err = st.config.Ident.allows(ctx, r.identMap, name, user, st.source.isMember); err != nil {
			return refusedLookup(err)
		}
	}
	if ok && name != "" && !strings.Contains(name, "\x00") {
		return nil
	}
	st.server.log.Info("a client is not the user that it wants to be", "user", user, "name", name, "map", r.identMap, "rule", r.where)
	return r.failed(user)
}

// failed is what a client hears that has not proved to be the user.
func (r *hbaRule) failed(user string) *pgconn.PgError {
	switch r.method {
	case Cert:
		return errStarting("28000", fmt.Sprintf(`certificate authentication failed for user "%s"`, user))
	case Peer:
		return errStarting("28000", fmt.Sprintf(`Peer authentication failed for user "%s"`, user))
	}
	return errStarting("28P01", fmt.Sprintf(`password authentication failed for user "%s"`, user))
}

// memberSQL finds whether $1 is a member of $2, by however many steps. Superusers are members of
// nothing that they were not made members of, as in pg_hba.conf.
const memberSQL = `WITH RECURSIVE r AS (
  SELECT oid FROM pg_catalog.pg_roles WHERE rolname = $1
  UNION SELECT m.roleid FROM r JOIN pg_catalog.pg_auth_members m ON m.member = r.oid)
SELECT 1 FROM r JOIN pg_catalog.pg_roles p ON p.oid = r.oid WHERE p.rolname = $2`

// isMember asks the databases whether a user is a member of a role.
func (s *source) isMember(ctx context.Context, user, role string) (bool, error) {
	rows, err := s.engine.Ask(ctx, memberSQL, user, role)
	if err != nil {
		return false, fmt.Errorf("looking up whether %q is a member of %q: %w", user, role, err)
	}
	return len(rows) > 0, nil
}
