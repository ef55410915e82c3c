package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgdist/pgdist/gateway"
)

const gatewayHelp = `Serve the set over PostgreSQL's own protocol.

Clients connect to --listen as they would to a server, with their own users of
the databases and their passwords (SCRAM-SHA-256), and database being the set's.
Many clients share few connections to the servers: a connection serves a client
while a statement, a transaction or state that lives on one server needs it.

The user in the DSN looks up the clients' users in pg_authid: it must be allowed
to read that, as a superuser is. The servers' pg_hba.conf must let the clients'
users in from here by scram-sha-256.

SIGTERM and SIGINT stop it: clients without a transaction are sent away, others
may finish theirs within --drain.`

// gatewayFlags are the command's own.
type gatewayFlags struct {
	listen     []string
	auth       string
	remote     bool
	databases  []string
	cert, key  string
	requireTLS bool
	maxClients int
	drain      time.Duration
	verbose    bool
}

func newGateway(o *options) *cobra.Command {
	f := &gatewayFlags{}
	cmd := &cobra.Command{
		Use:   "gateway [DSN]",
		Short: "serve the set to any PostgreSQL client",
		Long:  gatewayHelp,
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dsn, err := o.dsn(args)
			if err != nil {
				return err
			}
			return f.serve(cmd.Context(), dsn, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&f.listen, "listen", []string{"127.0.0.1:6432"}, "`address` to serve at; may be given more than once")
	flags.StringVar(&f.auth, "auth", string(gateway.SCRAM), "how clients prove who they are: scram-sha-256, or trust (from this machine)")
	flags.BoolVar(&f.remote, "trust-remote", false, "let trust believe clients from other machines, too")
	flags.StringSliceVar(&f.databases, "database", nil, "further `name` by which clients reach the set; * for any")
	flags.StringVar(&f.cert, "tls-cert", "", "`file` with the certificate to offer clients TLS with")
	flags.StringVar(&f.key, "tls-key", "", "`file` with its key")
	flags.BoolVar(&f.requireTLS, "tls-require", false, "turn clients away that do not use TLS")
	flags.IntVar(&f.maxClients, "max-clients", 0, "greatest `number` of clients (default 10000)")
	flags.DurationVar(&f.drain, "drain", 30*time.Second, "`time` that transactions get to finish in when the gateway is stopped")
	flags.BoolVar(&f.verbose, "verbose", false, "log every client that comes and goes")
	return cmd
}

func (f *gatewayFlags) config(dsn string, log *slog.Logger) (gateway.Config, error) {
	c := gateway.Config{
		DSN: dsn, Databases: f.databases, Auth: gateway.Auth(f.auth), TrustRemote: f.remote, RequireTLS: f.requireTLS,
		MaxClients: f.maxClients, Logger: log,
	}
	if f.cert == "" && f.key == "" {
		return c, nil
	}
	cert, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		return c, fmt.Errorf("certificate for clients: %w", err)
	}
	c.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	return c, nil
}

// serve runs the gateway until ctx ends.
func (f *gatewayFlags) serve(ctx context.Context, dsn string, out, errs io.Writer) error {
	level := slog.LevelInfo
	if f.verbose {
		level = slog.LevelDebug
	}
	config, err := f.config(dsn, slog.New(slog.NewTextHandler(errs, &slog.HandlerOptions{Level: level})))
	if err != nil {
		return err
	}
	s, err := gateway.Open(ctx, config)
	if err != nil {
		return err
	}
	failed := make(chan error, len(f.listen))
	for _, address := range f.listen {
		l, err := listen(address)
		if err != nil {
			return errors.Join(err, s.Close())
		}
		fmt.Fprintf(out, "serving at %s\n", l.Addr())
		go func() { failed <- s.Serve(l) }()
	}
	select {
	case err := <-failed:
		return errors.Join(err, s.Close())
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), f.drain)
	defer cancel()
	if err := s.Shutdown(drain); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// listen takes host:port, or the path of a Unix socket.
func listen(address string) (net.Listener, error) {
	if len(address) > 0 && address[0] == '/' {
		if err := os.Remove(address); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		return net.Listen("unix", address)
	}
	return net.Listen("tcp", address)
}
