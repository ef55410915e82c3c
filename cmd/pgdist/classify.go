package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pgdist/pgdist/classify"
)

const classifyHelp = `Say what SQL text does, where pgdist would run it, and why.

The text may hold several statements; "-" reads it from standard input. No server
is asked, unless --dsn names a set whose catalog tells which of the users' own
functions are volatile; without it a function that is not PostgreSQL's own counts
as one that writes.

The place is that of a statement outside a transaction, at the default
consistency. Inside one, all statements run on the leader from the first that is
no plain read.`

// judgement is what classify prints of one statement.
type judgement struct {
	Text    string `json:"text"`
	Tag     string `json:"tag,omitempty"`
	Class   string `json:"class"`
	Because string `json:"because"`
	RunsOn  string `json:"runs_on"`
	// Pins are reasons why the session keeps its connection to the leader from
	// here on.
	Pins string `json:"pins,omitempty"`
	// Hint says what to do about a refusal.
	Hint string `json:"hint,omitempty"`
	// Functions are not PostgreSQL's own, so that only a catalog can judge them.
	Functions []string `json:"functions,omitempty"`
}

// judgements is what classify prints of the whole text.
type judgements struct {
	Class      string      `json:"class"`
	Because    string      `json:"because"`
	RouteHint  string      `json:"route_hint,omitempty"`
	BadHint    string      `json:"bad_hint,omitempty"`
	Statements []judgement `json:"statements"`
}

func newClassify() *cobra.Command {
	var asJSON bool
	var o options
	var dsn string
	cmd := &cobra.Command{
		Use:   "classify 'SQL' | -",
		Short: "say what SQL text does, where it would run, and why",
		Long:  classifyHelp,
		Example: `  pgdist classify 'SELECT * FROM orders FOR UPDATE'
  pgdist classify --dsn pgdist://app@db1,db2,db3/shop 'SELECT price_of(7)'`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			sql, err := sqlText(args[0], cmd.InOrStdin())
			if err != nil {
				return err
			}
			verdict := classify.Parse(sql)
			var catalog classify.Volatility
			if dsn != "" {
				if catalog, err = readCatalog(cmd.Context(), &o, dsn, verdict); err != nil {
					return err
				}
			}
			j := judge(sql, verdict, catalog)
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(j)
			}
			return j.print(cmd.OutOrStdout())
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object in one line")
	cmd.Flags().StringVar(&dsn, "dsn", "", "`set` to look up the users' own functions in")
	return cmd
}

// sqlText is the argument, or what stands on standard input for "-".
func sqlText(arg string, in io.Reader) (string, error) {
	if arg != "-" {
		return arg, nil
	}
	text, err := io.ReadAll(in)
	if err != nil {
		return "", fmt.Errorf("read standard input: %w", err)
	}
	return string(text), nil
}

func judge(sql string, v *classify.Verdict, catalog classify.Volatility) judgements {
	j := judgements{Class: v.Resolve(catalog).String(), Because: v.Because, RouteHint: v.Hint.String(), BadHint: v.BadHint, Statements: []judgement{}}
	for i := range v.Statements {
		s := &v.Statements[i]
		class, because := s.Resolve(catalog)
		one := judgement{Text: strings.Join(strings.Fields(s.Text(sql)), " "), Tag: s.Tag, Class: class.String(), Because: because,
			RunsOn: destination(class, s, v.Hint), Pins: s.Pin.String()}
		if s.Refusal != nil {
			one.Hint = s.Refusal.Hint
		}
		for _, f := range s.Functions {
			one.Functions = append(one.Functions, strings.TrimPrefix(f.Schema+"."+f.Name, "."))
		}
		j.Statements = append(j.Statements, one)
		if class.String() == j.Class {
			j.Because = because
		}
	}
	return j
}

// print is for people.
func (j judgements) print(w io.Writer) error {
	var b strings.Builder
	for i, s := range j.Statements {
		if len(j.Statements) > 1 {
			fmt.Fprintf(&b, "%d: %s\n", i+1, s.Text)
		}
		for _, line := range [][2]string{{"class", s.Class}, {"because", s.Because}, {"runs on", s.RunsOn},
			{"pins", s.Pins}, {"hint", s.Hint}, {"functions", strings.Join(s.Functions, ", ")}} {
			if line[1] != "" {
				fmt.Fprintf(&b, "%-9s %s\n", line[0], line[1])
			}
		}
	}
	if len(j.Statements) != 1 {
		fmt.Fprintf(&b, "together: %s (%s)\n", j.Class, j.Because)
	}
	if j.BadHint != "" {
		fmt.Fprintf(&b, "the comment asks for %q, which is none of: leader, any\n", j.BadHint)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// readCatalog asks a member of the set about the functions that v calls.
func readCatalog(ctx context.Context, o *options, dsn string, v *classify.Verdict) (classify.Volatility, error) {
	config, err := o.set([]string{dsn})
	if err != nil {
		return nil, err
	}
	return askCatalog(ctx, mirrorConfig(config, asUser), v)
}
