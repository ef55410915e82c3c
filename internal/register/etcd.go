package register

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A register in etcd is one key, changed by transactions that compare its revision of
// modification, and read by linearizable reads: what etcd's own majority has. Who is alive
// is a key each under a lease of etcd's.

type etcd struct {
	url, key string
	hosts    []string
	cfg      Config

	mu      sync.Mutex
	c       *clientv3.Client
	highest int64  // the newest revision of the store that was seen
	cluster uint64 // which etcd this is; 0: not known yet
	present map[string]clientv3.LeaseID
	ctx     context.Context // of keeping leases alive
	stop    context.CancelFunc
	done    sync.WaitGroup
}

// stamped is the value of the key.
type stamped struct {
	// Cluster is the etcd that it was written to: one restored from a snapshot is another,
	// unless its members have the very names, addresses and token of the first.
	Cluster uint64          `json:"cluster"`
	State   json.RawMessage `json:"state"`
}

const (
	// firstTry is how long one server of etcd is waited for before another is asked: one that
	// is stopped still has its connections. Each try is twice as long as the one before.
	firstTry = 250 * time.Millisecond
	// lifeSeconds is how long a program is alive that is not heard of; etcd itself has a
	// least value of about that size.
	lifeSeconds = 3
)

func newEtcd(url string, hosts []string, prefix string, c Config) *etcd {
	e := &etcd{url: url, key: "/" + prefix, hosts: hosts, cfg: c, present: map[string]clientv3.LeaseID{}}
	e.ctx, e.stop = context.WithCancel(context.Background())
	return e
}

func (e *etcd) fail(op string, err error) error {
	hint := ""
	switch status.Code(err) {
	case codes.Unauthenticated, codes.PermissionDenied:
		hint = "check etcd_user and etcd_password, and the user's rights below " + e.key
	}
	if passing(err) {
		hint = "a majority of etcd's servers must answer"
	}
	return &Error{Op: op, URL: e.url, Err: err, Hint: hint}
}

// client connects in the background, once.
func (e *etcd) client(ctx context.Context) (*clientv3.Client, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ctx.Err() != nil {
		return nil, e.fail("use", errors.New("it was closed"))
	}
	if e.c != nil {
		return e.c, nil
	}
	secure, err := e.cfg.tls()
	if err != nil {
		return nil, e.fail("open", err)
	}
	scheme := "http"
	if secure != nil {
		scheme = "https"
	}
	c := clientv3.Config{Username: e.cfg.User, Password: e.cfg.Password, TLS: secure, Logger: zap.NewNop(), DialTimeout: 2 * time.Second,
		DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: 2 * time.Second}
	for _, h := range e.hosts {
		c.Endpoints = append(c.Endpoints, scheme+"://"+h)
	}
	if e.c, err = clientv3.New(c); err != nil {
		return nil, e.fail("open", err)
	}
	return e.c, nil
}

func (c Config) tls() (*tls.Config, error) {
	if c.CA == "" && c.Cert == "" {
		return nil, nil
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CA != "" && c.CA != "system" {
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, fmt.Errorf("etcd_ca: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("etcd_ca: %s holds no certificate", c.CA)
		}
	}
	if c.Cert != "" {
		pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
		if err != nil {
			return nil, fmt.Errorf("etcd_cert: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

// ask runs f, again and again if etcd's servers do not answer, which f must bear.
func (e *etcd) ask(ctx context.Context, op string, f func(ctx context.Context, c *clientv3.Client) error) error {
	c, err := e.client(ctx)
	if err != nil {
		return err
	}
	for limit := firstTry; ; limit *= 2 {
		try, cancel := context.WithTimeout(ctx, limit)
		err = f(try, c)
		cancel()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || !passing(err) {
			return e.fail(op, err)
		}
		if pause(ctx, contention) != nil {
			return e.fail(op, err)
		}
	}
}

// passing tells errors that another server of etcd, or a later moment, may not have.
func passing(err error) bool {
	switch s, _ := status.FromError(err); s.Code() {
	case codes.Unavailable, codes.DeadlineExceeded:
		return true
	case codes.Unknown: // as a server passes its own on
		return s.Message() == context.DeadlineExceeded.Error()
	}
	return errors.Is(err, context.DeadlineExceeded)
}

// newest is what an answer to a question that is asked from now on must be at least.
func (e *etcd) newest() int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.highest
}

// recent refuses answers of an etcd that knows less than it did before it was asked.
func (e *etcd) recent(before int64, h *pb.ResponseHeader) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if h.Revision < before {
		return &Error{Op: "read", URL: e.url, Err: fmt.Errorf("%w: etcd was at revision %d, and is at %d", ErrCopied, before, h.Revision),
			Hint: "etcd was put back from a snapshot: what the register has promised since is lost; run: pgdist force DSN"}
	}
	e.highest, e.cluster = max(e.highest, h.Revision), h.ClusterId
	return nil
}

func (e *etcd) load(ctx context.Context) ([]byte, mark, error) {
	var got *clientv3.GetResponse
	before := e.newest()
	err := e.ask(ctx, "read", func(ctx context.Context, c *clientv3.Client) (err error) {
		got, err = c.Get(ctx, e.key)
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	if len(got.Kvs) == 0 {
		return nil, 0, &Error{Op: "read", URL: e.url, Err: ErrMissing, Hint: "it is not begun anew by itself; if it is lost, run: pgdist force DSN"}
	}
	if err := e.recent(before, got.Header); err != nil {
		return nil, 0, err
	}
	var v stamped
	if err := json.Unmarshal(got.Kvs[0].Value, &v); err != nil {
		return nil, 0, &Error{Op: "read", URL: e.url, Err: fmt.Errorf("%w: %w", ErrDamaged, err), Hint: "if there is no better one, run: pgdist force DSN"}
	}
	if v.Cluster != got.Header.ClusterId {
		return nil, 0, &Error{Op: "read", URL: e.url, Err: fmt.Errorf("%w: it was written to the etcd cluster %x, and this is %x", ErrCopied, v.Cluster, got.Header.ClusterId),
			Hint: "what it has promised since is not known there; use the original, and if that is lost run: pgdist force DSN"}
	}
	return v.State, mark(got.Kvs[0].ModRevision), nil
}

// stamp is the value to be stored.
func (e *etcd) stamp(ctx context.Context, state []byte) (string, error) {
	e.mu.Lock()
	cluster := e.cluster
	e.mu.Unlock()
	if cluster == 0 {
		err := e.ask(ctx, "read", func(ctx context.Context, c *clientv3.Client) error {
			got, err := c.Get(ctx, e.key, clientv3.WithKeysOnly())
			if err == nil {
				cluster = got.Header.ClusterId
			}
			return err
		})
		if err != nil {
			return "", err
		}
	}
	out, err := json.Marshal(stamped{Cluster: cluster, State: state})
	return string(out), err
}

func (e *etcd) swap(ctx context.Context, at mark, state []byte) (bool, error) {
	value, err := e.stamp(ctx, state)
	if err != nil {
		return false, err
	}
	var got *clientv3.TxnResponse
	before := e.newest()
	// A try that was done although nobody said so makes the next one too late: then it is
	// judged anew by what is stored.
	err = e.ask(ctx, "write", func(ctx context.Context, c *clientv3.Client) (err error) {
		got, err = c.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(e.key), "=", int64(at))).Then(clientv3.OpPut(e.key, value)).Commit()
		return err
	})
	if err != nil {
		return false, err
	}
	return got.Succeeded, e.recent(before, got.Header)
}

func (e *etcd) create(ctx context.Context, state []byte) error {
	value, err := e.stamp(ctx, state)
	if err != nil {
		return err
	}
	var got *clientv3.TxnResponse
	err = e.ask(ctx, "create", func(ctx context.Context, c *clientv3.Client) (err error) {
		got, err = c.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(e.key), "=", 0)).Then(clientv3.OpPut(e.key, value)).Else(clientv3.OpGet(e.key)).Commit()
		return err
	})
	if err != nil {
		return err
	}
	if got.Succeeded {
		return nil
	}
	if kvs := got.Responses[0].GetResponseRange().Kvs; len(kvs) == 1 && string(kvs[0].Value) == value {
		return nil // by a try whose answer was lost
	}
	return &Error{Op: "create", URL: e.url, Err: ErrExists}
}

func (e *etcd) remove(ctx context.Context) error {
	return e.ask(ctx, "remove", func(ctx context.Context, c *clientv3.Client) error {
		_, err := c.Txn(ctx).Then(clientv3.OpDelete(e.key), clientv3.OpDelete(e.signs(), clientv3.WithPrefix())).Commit()
		return err
	})
}

// hold does nothing: any number of programs may use an etcd.
func (e *etcd) hold(context.Context, string) error { return nil }

func (e *etcd) signs() string { return e.key + "/alive/" }

func (e *etcd) appear(ctx context.Context, id string) error {
	e.mu.Lock()
	_, there := e.present[id]
	e.mu.Unlock()
	if there {
		return nil
	}
	var lease clientv3.LeaseID
	err := e.ask(ctx, "write", func(ctx context.Context, c *clientv3.Client) error {
		got, err := c.Grant(ctx, lifeSeconds)
		if err != nil {
			return err
		}
		lease = got.ID
		_, err = c.Put(ctx, path.Join(e.signs(), id), "", clientv3.WithLease(lease))
		return err
	})
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ctx.Err() != nil {
		return e.fail("write", errors.New("it was closed"))
	}
	kept, err := e.c.KeepAlive(e.ctx, lease)
	if err != nil {
		return e.fail("write", err)
	}
	e.present[id] = lease
	e.done.Go(func() {
		for range kept { // until the lease has run out, or close
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.present, id)
	})
	return nil
}

func (e *etcd) alive(ctx context.Context) ([]string, error) {
	var got *clientv3.GetResponse
	err := e.ask(ctx, "read", func(ctx context.Context, c *clientv3.Client) (err error) {
		got, err = c.Get(ctx, e.signs(), clientv3.WithPrefix(), clientv3.WithKeysOnly())
		return err
	})
	if err != nil {
		return nil, err
	}
	var out []string
	for _, kv := range got.Kvs {
		out = append(out, strings.TrimPrefix(string(kv.Key), e.signs()))
	}
	return out, nil
}

func (e *etcd) close() error {
	e.mu.Lock()
	c, first := e.c, e.ctx.Err() == nil
	var leases []clientv3.LeaseID
	for _, id := range e.present {
		leases = append(leases, id)
	}
	e.stop()
	e.mu.Unlock()
	e.done.Wait()
	if c == nil || !first {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), firstTry)
	defer cancel()
	for _, id := range leases {
		//nolint:errcheck // it ends by itself after a while
		c.Revoke(ctx, id)
	}
	return c.Close()
}
