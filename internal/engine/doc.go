// Package engine turns a set of mirrored databases into one: it holds the
// pools, and a Session for every client, which decides where each statement
// runs, carries transactions and settings from server to server, runs again
// what may be run again, and reports success only when every in-sync member
// has the write.
//
// The engine knows neither database/sql nor the wire protocol. A front door
// (package driver, package gateway) gives it statements as text with their
// verdicts, runs them on the connection that the session leases to it, and
// hands the result back:
//
//	for {
//		lease, err := session.Acquire(ctx, call)
//		if err != nil {
//			return err
//		}
//		err = run(lease.Conn())
//		again, err := lease.Done(ctx, err)
//		if !again {
//			return err
//		}
//	}
package engine
