package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/pgdist/pgdist/gateway"
	"github.com/pgdist/pgdist/internal/engine"
)

const gatewayHelp = `Serve the set over PostgreSQL's own protocol.

Clients connect to --listen as they would to a server, with their own users of
the databases and their passwords (SCRAM-SHA-256), and database being the set's.
Many clients share few connections to the servers: a connection serves a client
while a statement, a transaction or state that lives on one server needs it.

The user in the DSN looks up the clients' users in pg_authid: it must be allowed
to read that, as a superuser is. The servers' pg_hba.conf must let the clients'
users in from here by scram-sha-256.

The file given with --config may have a section gateway, with more settings than
there are flags; see pgdist.example.yaml. Flags win.

Database "pgdist" is the console: psql -p 6432 pgdist, then SHOW HELP. With --admin
there are /metrics for Prometheus, /healthz, /readyz and a status page.

SIGTERM and SIGINT stop it: clients without a transaction are sent away, others
may finish theirs within --drain. SIGHUP reads the file and the certificate again.
SIGUSR2 restarts it in place, as the program is on disk by then: nobody who
connects meanwhile is refused, and clients go on in the new program, as soon as
they have no transaction open. Those over TLS, that LISTEN, or with temporary
tables and the like are sent away.`

func newGateway(o *options) *cobra.Command {
	d := newGatewayOptions()
	cmd := &cobra.Command{
		Use:   "gateway [DSN]",
		Short: "serve the set to any PostgreSQL client",
		Long:  gatewayHelp,
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r := &gatewayRun{o: o, args: args, flags: cmd.Flags(), out: cmd.OutOrStdout(), stopped: make(chan bool, 1)}
			r.log = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: &r.level}))
			err := r.serve(cmd.Context())
			var again *restart
			if errors.As(err, &again) {
				return again.exec()
			}
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringSlice("listen", d.listen, "`address` to serve at; may be given more than once")
	flags.String("admin", "", "`address` for metrics, health and the status page, such as 127.0.0.1:9187; none by default")
	flags.String("auth", d.auth, "how clients prove who they are: scram-sha-256, trust (from this machine), or md5")
	flags.String("hba", "", "`file` with rules for who may come in and how, in the format of pg_hba.conf; in place of --auth")
	flags.String("ident", "", "`file` that maps names in certificates, and the system's, to users, in the format of pg_ident.conf")
	flags.Bool("trust-remote", false, "let trust believe clients from other machines, too")
	flags.StringSlice("database", nil, "further `name` by which clients reach the set; * for any")
	flags.String("tls-cert", "", "`file` with the certificate to offer clients TLS with")
	flags.String("tls-key", "", "`file` with its key")
	flags.String("tls-client-ca", "", "`file` with the certificates of those who issue clients' certificates")
	flags.String("tls-crl", "", "`file` with the lists of certificates that those have revoked, looked at whenever it has changed")
	flags.Bool("tls-require", false, "turn clients away that do not use TLS")
	flags.Int("max-clients", 0, "greatest `number` of clients (default 10000)")
	flags.String("pool-mode", d.poolMode, "how long clients keep connections to servers: transaction, or session")
	flags.Duration("slow-statement", 0, "log statements that take this `time` or longer, without their values; 0 logs none")
	flags.String("otlp-endpoint", "", "`URL` to export a span of every statement to by OTLP, such as http://localhost:4318; the environment's OTEL_… says more")
	flags.Duration("drain", d.drain, "`time` that transactions get to finish in when the gateway is stopped")
	flags.Bool("verbose", false, "log every client that comes and goes")
	return cmd
}

// gatewayRun is one run of the command.
type gatewayRun struct {
	o       *options
	args    []string
	flags   *pflag.FlagSet
	out     io.Writer
	log     *slog.Logger
	level   slog.LevelVar
	stopped chan bool // by the console: whether to wait

	server  *gateway.Server
	sockets []socket          // that are listened at
	clients *gateway.Handover // from before a restart in place
	started *gatewayOptions   // what it was started with
	set     string            // the set's settings then

	mu   sync.Mutex // guards what follows, and reloading
	live *gatewayOptions
}

// read reads the command line, the file and the certificate.
func (r *gatewayRun) read() (*gatewayOptions, gateway.Config, error) {
	dsn, err := r.o.dsn(r.args)
	if err != nil {
		return nil, gateway.Config{}, err
	}
	o, err := readGatewayOptions(r.o.config, r.flags)
	if err != nil {
		return nil, gateway.Config{}, err
	}
	c, err := o.config(dsn, r.log)
	c.Reload = r.reload
	c.Stop = func(wait bool) {
		select {
		case r.stopped <- wait:
		default: // it stops already
		}
	}
	return o, c, err
}

// serve runs the gateway until ctx ends, or the console stops it.
func (r *gatewayRun) serve(ctx context.Context) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP) // from the beginning: it would end the process
	defer signal.Stop(hup)
	usr2 := make(chan os.Signal, 1)
	signal.Notify(usr2, syscall.SIGUSR2)
	defer signal.Stop(usr2)
	clients, err := clientsHandedOver()
	defer clients.Close() // who is not taken hears that it ends
	if err != nil {
		r.log.Error("clients end that were there before the restart", "error", err)
	}
	o, config, err := r.read()
	if err != nil {
		return err
	}
	r.level.Set(o.level)
	o.warn(r.o.config, r.log)
	r.clients = clients
	r.started, r.live, r.set = o, o, setOf(config.DSN)
	provider, stopTracing, err := tracing(ctx, o.otlp, r.log)
	if err != nil {
		return err
	}
	defer stopTracing()
	config.Tracing = provider
	if r.server, err = gateway.Open(ctx, config); err != nil {
		return err
	}
	failed, closeAdmin, err := r.listenAll(o)
	if err != nil {
		return errors.Join(err, r.server.Close())
	}
	defer closeAdmin()
	r.notify("READY=1")
	wait := true
	for {
		select {
		case err := <-failed:
			return errors.Join(err, r.server.Close())
		case <-hup:
			_, _ = r.reload(ctx) // it is in the log
			continue
		case <-usr2:
			if err := r.restartNow(ctx); errors.Is(err, context.Canceled) {
				return nil // stopped meanwhile
			} else if err != nil {
				return err
			}
			continue
		case wait = <-r.stopped:
		case <-ctx.Done():
		}
		break
	}
	r.notify("STOPPING=1")
	if !wait {
		return r.server.Close()
	}
	r.mu.Lock()
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.live.drain)
	r.mu.Unlock()
	defer cancel()
	if err := r.server.Shutdown(drain); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// listenAll begins to serve at all addresses. Sockets that systemd has opened take the
// place of those in the configuration; those that the program had before a restart are kept.
func (r *gatewayRun) listenAll(o *gatewayOptions) (failed chan error, closeAdmin func(), err error) {
	had, err := handedOver()
	closeAll := func() {
		for _, s := range append(had, r.sockets...) {
			if s.Listener != nil {
				_ = s.Close()
			}
		}
	}
	if err == nil {
		err = r.open(o, &had)
	}
	if err != nil {
		closeAll()
		return nil, nil, err
	}
	for _, s := range had { // that are configured no more
		_ = s.Close()
	}
	var clients, admins []net.Listener
	for _, s := range r.sockets {
		if s.Admin {
			admins = append(admins, s.Listener)
		} else {
			clients = append(clients, s.Listener)
		}
	}
	r.takeClients() // they count before others come
	failed = make(chan error, len(clients)+len(admins))
	for _, l := range clients {
		fmt.Fprintf(r.out, "serving at %s\n", l.Addr())
		go func() { failed <- r.server.Serve(l) }()
	}
	host, _, _ := net.SplitHostPort(o.admin)
	web := &http.Server{
		Handler: r.server.AdminHandler(host), ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(r.log.Handler(), slog.LevelDebug),
	}
	for _, l := range admins {
		fmt.Fprintf(r.out, "metrics and status at %s\n", l.Addr())
		go func() {
			if err := web.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				failed <- err
			}
		}()
	}
	return failed, func() { _ = web.Close() }, nil
}

// takeClients goes on with those from before a restart.
func (r *gatewayRun) takeClients() {
	if r.clients == nil {
		return
	}
	n, err := r.server.TakeOver(r.clients)
	if err != nil {
		r.log.Warn("not all clients from before the restart go on", "error", err)
	}
	r.log.Info("clients go on from before the restart", "clients", n, "ended", r.clients.Len())
	if err := r.clients.Close(); err != nil {
		r.log.Warn("ending clients from before the restart", "error", err)
	}
}

// open listens wherever it is to be listened, by a socket of had if there is one.
func (r *gatewayRun) open(o *gatewayOptions, had *[]socket) error {
	clients, admins, err := inherited()
	add := func(admin bool, list ...net.Listener) {
		for _, l := range list {
			r.sockets = append(r.sockets, socket{Listener: l, Admin: admin})
		}
	}
	add(false, clients...)
	add(true, admins...)
	if err != nil {
		return err
	}
	for {
		s, ok := take(had, "", false)
		if !ok {
			if s, ok = take(had, "", true); !ok {
				break
			}
		}
		r.sockets = append(r.sockets, s)
	}
	has := func(admin bool) bool {
		return slices.ContainsFunc(r.sockets, func(s socket) bool { return s.Admin == admin })
	}
	want := func(address string, admin bool) error {
		s, ok := take(had, address, admin)
		if !ok {
			l, err := listen(address, o.socketMode)
			if err != nil {
				return err
			}
			s = socket{Listener: l, Address: address, Admin: admin}
		}
		r.sockets = append(r.sockets, s)
		return nil
	}
	if !has(false) {
		for _, address := range o.listen {
			if err := want(address, false); err != nil {
				return err
			}
		}
	}
	if !has(true) && o.admin != "" {
		if err := want(loopback(o.admin), true); err != nil {
			return fmt.Errorf("admin: %w", err)
		}
	}
	return nil
}

// reload puts in force what can be changed of what the file says now, and returns what cannot.
func (r *gatewayRun) reload(ctx context.Context) (fixed []string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notify(reloading())
	defer r.notify("READY=1")
	o, config, err := r.read()
	if err == nil {
		if fixed, err = r.server.Reload(ctx, config); err == nil {
			r.level.Set(o.level)
			o.warn(r.o.config, r.log)
			r.live = o
			if !slices.Equal(o.listen, r.started.listen) {
				fixed = append(fixed, "listen")
			}
			if o.otlp != r.started.otlp {
				fixed = append(fixed, "otlp_endpoint")
			}
			if o.admin != r.started.admin {
				fixed = append(fixed, "admin")
			}
			if setOf(config.DSN) != r.set {
				fixed = append(fixed, "the set")
			}
			r.log.Info("configuration read again")
			if len(fixed) > 0 {
				r.log.Warn("these settings differ now, but change only with a restart", "settings", fixed)
			}
			return fixed, nil
		}
	}
	r.log.Error("the configuration stays as it was", "error", err)
	return nil, err
}

// setOf is what the DSN, and the file in it, say of the set.
func setOf(dsn string) string {
	c, err := engine.Parse(dsn)
	if err != nil {
		return ""
	}
	return c.String()
}

// loopback is an address whose host is this machine if it names none: what is served there
// asks nobody who they are.
func loopback(address string) string {
	host, port, err := net.SplitHostPort(address)
	switch {
	case err != nil && address[0] != '/' && net.ParseIP(address) == nil:
		return net.JoinHostPort("127.0.0.1", address)
	case err == nil && host == "":
		return net.JoinHostPort("127.0.0.1", port)
	}
	return address
}
