//go:build unix

package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// demoMenu is what the clients do, each entry as often as it stands here. What
// clients share (accounts, jobs) is locked in one order and what they do not
// share lies in their own lane, so nothing has a reason to fail.
var demoMenu = []func(*worker){
	(*worker).makeNote, (*worker).makeNote, (*worker).order, (*worker).order, (*worker).transfer, (*worker).enqueue, (*worker).take, (*worker).swapSeats,
	(*worker).duplicate, (*worker).renumberCustomer, (*worker).replaceCustomer,
	(*worker).readBack, (*worker).readBack, (*worker).readBack, (*worker).readBack, (*worker).readBack, (*worker).readBack,
	(*worker).readBalances, (*worker).readBalances, (*worker).readBalances, (*worker).readTotals, (*worker).readSpent, (*worker).readSeats,
}

// makeNote inserts what the server makes up, and remembers it.
func (w *worker) makeNote() {
	n := &note{op: w.newOp()}
	began := time.Now()
	ok := w.statement("note", func(ctx context.Context) error {
		return w.l.db.QueryRowContext(ctx, "INSERT INTO shop.ledger (op, kind) VALUES ($1, 'note') RETURNING luck::text, token::text", n.op).Scan(&n.luck, &n.token)
	})
	if ok {
		w.ack(n.op, began)
		w.last = n
	}
}

// readBack reads the latest note, wherever: the write must be there, and the same.
func (w *worker) readBack() {
	if w.last == nil {
		return
	}
	w.read("read one's own write", w.last.luck+" "+w.last.token, "SELECT max(luck::text || ' ' || token) FROM shop.ledger WHERE op = $1", w.last.op)
}

// order is a transaction whose inserts set triggers off that set triggers off.
func (w *worker) order() {
	w.transaction("order", func(ctx context.Context, tx *sql.Tx) error {
		var id int64
		err := tx.QueryRowContext(ctx, "INSERT INTO shop.orders (customer) SELECT id FROM shop.customers WHERE lane = $1 ORDER BY random() LIMIT 1 RETURNING id", w.lane).Scan(&id)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO shop.lines ("order", n) SELECT $1, g FROM generate_series(1, $2::int) AS g`, id, 1+w.rng.IntN(3))
		return err
	})
}

func (w *worker) transfer() {
	from := w.rng.IntN(20)
	w.write("transfer", "SELECT shop.transfer($1, $2, $3, $4)", 1+from, 1+(from+1+w.rng.IntN(19))%20, w.rng.IntN(100))
}

func (w *worker) enqueue() {
	w.write("enqueue", "WITH j AS (INSERT INTO shop.jobs DEFAULT VALUES) INSERT INTO shop.ledger (op, kind) VALUES ($1, 'enqueue')")
}

// take takes a job that nobody else is at; if there is none, nothing is written.
func (w *worker) take() {
	op := w.newOp()
	began := time.Now()
	took := false
	ok := w.statement("take a job", func(ctx context.Context) error {
		r, err := w.l.db.ExecContext(ctx, `WITH j AS (
			UPDATE shop.jobs SET taken = $1 WHERE id = (SELECT id FROM shop.jobs WHERE taken IS NULL ORDER BY id FOR UPDATE SKIP LOCKED LIMIT 1) RETURNING 1)
			INSERT INTO shop.ledger (op, kind) SELECT $1, 'take' FROM j`, op)
		if err != nil {
			return err
		}
		n, err := r.RowsAffected()
		took = n == 1
		return err
	})
	if ok && took {
		w.ack(op, began)
	}
}

// swapSeats exchanges two values of a unique column, checked at commit.
func (w *worker) swapSeats() {
	a := w.rng.IntN(guests)
	b := (a + 1 + w.rng.IntN(guests-1)) % guests
	w.write("swap seats", `WITH u AS (UPDATE shop.seats s SET seat = o.seat FROM shop.seats o
		WHERE s.lane = $2 AND o.lane = $2 AND (s.guest = $3 AND o.guest = $4 OR s.guest = $4 AND o.guest = $3))
		INSERT INTO shop.ledger (op, kind) VALUES ($1, 'seats')`, w.lane, 1+a, 1+b)
}

// duplicate is refused, and spends a serial number all the same.
func (w *worker) duplicate() {
	w.statement("duplicate", func(ctx context.Context) error {
		_, err := w.l.db.ExecContext(ctx, "INSERT INTO shop.coupons (code) VALUES ($1), ($1)", fmt.Sprint("coupon ", w.newOp()))
		switch {
		case sqlState(err) == "23505":
			w.l.refused.Add(1)
			return nil
		case err == nil:
			return errors.New("two equal codes were accepted")
		}
		return err
	})
}

func (w *worker) newCustomer() bool {
	return w.write("new customer", "WITH c AS (INSERT INTO shop.customers (lane) VALUES ($2)) INSERT INTO shop.ledger (op, kind) VALUES ($1, 'customer')", w.lane)
}

// renumberCustomer changes a primary key; orders follow by cascade.
func (w *worker) renumberCustomer() {
	w.write("renumber customer", `WITH c AS (UPDATE shop.customers SET id = DEFAULT WHERE id = (SELECT min(id) FROM shop.customers WHERE lane = $2))
		INSERT INTO shop.ledger (op, kind) VALUES ($1, 'renumber')`, w.lane)
}

// replaceCustomer deletes a customer with all orders and lines, in cascades.
func (w *worker) replaceCustomer() {
	w.transaction("replace customer", func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "DELETE FROM shop.customers WHERE id = (SELECT min(id) FROM shop.customers WHERE lane = $1)", w.lane)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, "INSERT INTO shop.customers (lane) VALUES ($1), ($1)", w.lane)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `DELETE FROM shop.customers WHERE lane = $1 AND id <= (SELECT max(id) FROM shop.customers WHERE lane = $1) - 500`, w.lane)
		return err
	})
}

// The invariants hold at every moment, on every server.
const (
	balancesSQL = "SELECT sum(balance)::text FROM shop.accounts"
	balances    = "20000"
	totalsSQL   = `SELECT count(*)::text FROM shop.orders o JOIN shop.customers c ON c.id = o.customer
		WHERE c.lane = $1 AND o.total <> (SELECT coalesce(sum(price), 0) FROM shop.lines WHERE "order" = o.id)`
	spentSQL = "SELECT count(*)::text FROM shop.customers c WHERE c.lane = $1 AND c.spent <> (SELECT coalesce(sum(total), 0) FROM shop.orders WHERE customer = c.id)"
	seatsSQL = "SELECT string_agg(seat::text, ',' ORDER BY seat) FROM shop.seats WHERE lane = $1"
	seats    = "1,2,3,4,5,6,7,8,9,10"
)

func (w *worker) readBalances() { w.read("sum of balances", balances, balancesSQL) }
func (w *worker) readTotals()   { w.read("orders whose total is wrong", "0", totalsSQL, w.lane) }
func (w *worker) readSpent()    { w.read("customers whose sum is wrong", "0", spentSQL, w.lane) }
func (w *worker) readSeats()    { w.read("seats", seats, seatsSQL, w.lane) }
