//go:build linux

package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// hardCase is one thing that goes wrong.
type hardCase struct {
	what   string
	script string
	// stress runs after the script; its answer is noted like one.
	stress func(ctx context.Context, p *player) string
	// open: PostgreSQL's rules do not say what the contents must be; only that all
	// servers hold the same.
	open bool
	// fault: servers go down, so equality may take until they are back.
	fault bool
}

type group struct {
	name  string
	cases []hardCase
}

// outcome is what came of a case.
type outcome struct {
	answers  []answer
	contents []*pgtest.Contents // of each server
	remark   string
}

// catchUpLimit is how long servers that were away may take to be equal again.
const catchUpLimit = 20 * time.Second

// try runs a case against a contender.
func try(ctx context.Context, k *contender, c hardCase) (o outcome, err error) {
	db, end, err := k.begin(ctx)
	if err != nil {
		return o, fmt.Errorf("%s: %s: %w", c.what, k.name, err)
	}
	p := &player{db: db, servers: k.servers}
	if err = p.play(ctx, parse(c.script)); err == nil && c.stress != nil {
		p.answers = append(p.answers, answer{step{text: "the outcome"}, c.stress(ctx, p), true})
	}
	p.close()
	if err == nil {
		o.answers = p.answers
		o.contents, err = contents(ctx, k.servers, c.fault)
	}
	o.remark = end()
	if e := db.Close(); err == nil {
		err = e
	}
	if err != nil {
		err = fmt.Errorf("%s: %s: %w", c.what, k.name, err)
	}
	return o, err
}

func contents(ctx context.Context, servers []*pgtest.Server, patient bool) (list []*pgtest.Contents, err error) {
	for began := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		list = nil
		for _, s := range servers {
			c, err := pgtest.ReadContents(ctx, s.DSN())
			if err != nil {
				return nil, err
			}
			list = append(list, c)
		}
		if !patient || len(differences(list)) == 0 || time.Since(began) > catchUpLimit {
			return list, nil
		}
	}
}

// differences says what is not the same in all.
func differences(list []*pgtest.Contents) (where []string) {
	tables, sequences := map[string]bool{}, map[string]bool{}
	for _, c := range list {
		for name := range c.Tables {
			tables[name] = true
		}
		for name := range c.Sequences {
			sequences[name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(tables)) {
		var digests, counts []string
		for _, c := range list {
			r, there := c.Tables[name]
			digests, counts = append(digests, r.SHA256), append(counts, fmt.Sprint(r.Count))
			if !there {
				counts[len(counts)-1] = "no table"
			}
		}
		if n := distinct(counts); n > 1 {
			where = append(where, fmt.Sprintf("`%s` has %s rows", short(name), strings.Join(counts, " / ")))
		} else if n := distinct(digests); n > 1 {
			where = append(where, fmt.Sprintf("%d versions of the rows of `%s`", n, short(name)))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(sequences)) {
		var values []string
		for _, c := range list {
			values = append(values, strings.TrimSuffix(c.Sequences[name], " true"))
		}
		if distinct(values) > 1 {
			where = append(where, fmt.Sprintf("`%s` is at %s", short(name), strings.Join(values, " / ")))
		}
	}
	var schemas []string
	for _, c := range list {
		schemas = append(schemas, strings.Join(c.Schema, "\n"))
	}
	if distinct(schemas) > 1 && len(where) == 0 {
		where = append(where, "definitions")
	}
	return where
}

func short(name string) string { return strings.TrimPrefix(name, "public.") }

func distinct(list []string) int {
	seen := map[string]bool{}
	for _, s := range list {
		seen[s] = true
	}
	return len(seen)
}

// same is the verdict on what leaves nothing to be desired.
const same = "same"

// judge compares an outcome with plain PostgreSQL's.
func judge(c hardCase, plain, o outcome) string {
	var parts []string
	for i, a := range o.answers {
		if b := plain.answers[i]; a.foretold && normal(a.text) != normal(b.text) {
			part := fmt.Sprintf("`%s`: %s", clip(a.step.text, 60), clip(a.text, 110))
			if !strings.HasPrefix(a.text, "error") || strings.HasPrefix(b.text, "error") {
				part += ", not " + clip(b.text, 60)
			}
			parts = append(parts, part)
			break // what follows may follow from it
		}
	}
	if where := differences(o.contents); len(where) > 0 {
		parts = append(parts, "**differs**: "+strings.Join(where, ", "))
	} else if !c.open && len(parts) == 0 {
		if where := differences([]*pgtest.Contents{o.contents[0], plain.contents[0]}); len(where) > 0 {
			parts = append(parts, "**not what PostgreSQL has**: "+strings.Join(where, ", "))
		}
	}
	if o.remark != "" {
		parts = append(parts, o.remark)
	}
	if len(parts) == 0 {
		return same
	}
	return strings.Join(parts, "; ")
}

// normal is an answer as far as it is compared: an error's code.
func normal(text string) string {
	if strings.HasPrefix(text, "error ") && len(text) >= 11 {
		return text[:11]
	}
	return text
}

func clip(s string, n int) string {
	s = strings.ReplaceAll(strings.Join(strings.Fields(s), " "), "|", `\|`)
	if r := []rune(s); len(r) > n {
		return string(r[:n]) + "…"
	}
	return s
}
