//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pgdist/pgdist/driver"
	"github.com/pgdist/pgdist/internal/pgtest"
)

// meter turns running totals into rates.
type meter struct {
	at     time.Time
	writes int64
	reads  map[string]uint64
}

// lines is how many lines of figures an act has.
const lines = 4

// lookEvery is how often the demo looks whether the set has reacted.
const lookEvery = 5 * time.Millisecond

// measure lets the load run for a share of the whole and prints figures.
func (d *demo) measure(ctx context.Context, share float64) error {
	pause := time.Duration(share * float64(d.seconds) * float64(time.Second) / lines)
	if err := d.figures(ctx, false); err != nil {
		return err
	}
	for range lines {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		if err := d.figures(ctx, true); err != nil {
			return err
		}
	}
	return nil
}

// figures prints the rates since it was last called, or only begins anew.
func (d *demo) figures(ctx context.Context, print bool) error {
	stats, err := driver.Stats(ctx, d.db)
	if err != nil {
		return err
	}
	now := meter{at: time.Now(), writes: d.load.acked.Load(), reads: map[string]uint64{}}
	took := now.at.Sub(d.meter.at).Seconds()
	var reads, sync []string
	leader := "none"
	for _, m := range stats {
		now.reads[m.Host] = m.Reads
		reads = append(reads, fmt.Sprintf("%s %5.0f", d.name(m.Host), float64(m.Reads-d.meter.reads[m.Host])/took))
		if m.InSync {
			sync = append(sync, d.name(m.Host))
		}
		if m.Leader {
			leader = d.name(m.Host)
		}
	}
	if print {
		d.say("writes/s %5.0f   reads/s: %s   leader %s, in sync %s", float64(now.writes-d.meter.writes)/took, strings.Join(reads, "  "), leader, strings.Join(sync, " "))
	}
	d.meter = now
	return nil
}

// cast finds out who leads, and picks one who follows.
func (d *demo) cast(ctx context.Context) (leader, follower *pgtest.Server, err error) {
	stats, err := driver.Stats(ctx, d.db)
	if err != nil {
		return nil, nil, err
	}
	for _, m := range stats {
		s := d.server(m.Host)
		if m.Leader {
			leader = s
		} else if m.InSync {
			follower = s
		}
	}
	if leader == nil || follower == nil {
		return nil, nil, errors.New("the set has no leader or no follower in sync")
	}
	return leader, follower, nil
}

func (d *demo) server(addr string) *pgtest.Server {
	for _, s := range d.servers {
		if s.Addr() == addr {
			return s
		}
	}
	return nil
}

// strike kills a server and tells how the set and the program took it.
func (d *demo) strike(ctx context.Context, s *pgtest.Server, what string) error {
	name := d.name(s.Addr())
	d.title(fmt.Sprintf("kill -9: %s, the %s, is dead", name, what))
	d.load.longest.Store(0)
	began := time.Now()
	if err := s.Kill(); err != nil {
		return err
	}
	acked := d.load.firstAck(time.Now())
	leader, err := d.await(ctx, name+" to be excluded", func(m driver.MemberStats) bool { return m.Host == s.Addr() && !m.InSync })
	if err != nil {
		return err
	}
	d.say("%s excluded after %s", name, since(began))
	if what == "leader" {
		d.say("%s leads now", leader)
	}
	select {
	case at := <-acked:
		d.say("first write begun and acknowledged since: %s after the kill", round(at.Sub(began)))
	case <-time.After(demoSettleLimit):
		return fmt.Errorf("no write was acknowledged within %v of the kill", demoSettleLimit)
	case <-ctx.Done():
		return ctx.Err()
	}
	d.say("the program saw %d errors; its longest statement took %s", d.load.failed.Load(), round(time.Duration(d.load.longest.Load())))
	d.load.missed = d.load.acked.Load()
	return nil
}

// revive starts a server again and waits until it is in use.
func (d *demo) revive(ctx context.Context, s *pgtest.Server) error {
	name := d.name(s.Addr())
	d.title(name + " comes back")
	if err := s.StartAgain(); err != nil {
		return err
	}
	began := time.Now()
	d.say("%s accepts connections; it missed about %d writes", name, d.load.acked.Load()-d.load.missed)
	if _, err := d.await(ctx, name+" to be in sync", func(m driver.MemberStats) bool { return m.Host == s.Addr() && m.InSync }); err != nil {
		return err
	}
	d.say("%s caught up while writes went on, and is in sync after %s", name, since(began))
	return nil
}

// await waits until a member is as wanted while somebody leads, and returns who.
func (d *demo) await(ctx context.Context, what string, wanted func(driver.MemberStats) bool) (leader string, err error) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for end := time.Now().Add(demoSettleLimit); ; {
		stats, err := driver.Stats(ctx, d.db)
		if err != nil {
			return "", err
		}
		found := false
		leader = ""
		for _, m := range stats {
			found = found || wanted(m)
			if m.Leader && m.InSync {
				leader = d.name(m.Host)
			}
		}
		if found && leader != "" {
			return leader, nil
		}
		if time.Now().After(end) {
			return "", fmt.Errorf("waited %v in vain for %s", demoSettleLimit, what)
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-tick.C:
		}
	}
}

func since(t time.Time) string { return round(time.Since(t)) }

func round(d time.Duration) string {
	if d < time.Second {
		return d.Round(time.Millisecond).String()
	}
	return d.Round(10 * time.Millisecond).String()
}
