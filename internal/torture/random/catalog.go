package random

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
)

// Catalog is what statements can be made about: the definitions as a database
// has them, in an order that depends on names alone.
type Catalog struct {
	Tables    []Table
	Sequences []Name
	Enums     []Enum
	Indexes   []Object
	Triggers  []Object
	Rules     []Object
	Routines  []Routine
	Schemas   []string
	Roles     []string
	Types     []Type
}

// Name is a schema and a name in it.
type Name struct{ Schema, Name string }

func (n Name) String() string { return quote(n.Schema, n.Name) }

// Object belongs to a table.
type Object struct {
	Name
	Table Name
}

// Enum is a type and its labels.
type Enum struct {
	Name
	Labels []string
}

// Type is a user's type that a column can have.
type Type struct {
	Name
	Kind string // typtype
}

// Routine is a function or procedure without arguments.
type Routine struct {
	Name
	Kind string // prokind
	Type string
}

// Table is anything with rows: a table, partitioned or not, or a view, materialized or not.
type Table struct {
	Name
	Kind        string // relkind
	Leaf        bool   // a partition
	Inherited   bool   // has children or parents by plain inheritance
	Columns     []Column
	Uniques     []Unique
	Constraints []Constraint
}

// Column is one that is not dropped.
type Column struct {
	Name      string
	Type      string // as format_type writes it
	Base      string // typname beneath domains
	User      Name   // of the base type, when it is not PostgreSQL's
	NotNull   bool
	Default   bool
	Identity  string
	Generated string
}

// Unique is a constraint or index over plain columns that must differ.
type Unique struct {
	Columns    []string
	Primary    bool
	Deferrable bool
	Partial    bool
}

// Constraint is one of a table's.
type Constraint struct {
	Name string
	Kind string // contype
}

// catalogSQL makes one JSON document. pg_temp and extensions' objects are left
// out.
const catalogSQL = `
WITH ns AS (SELECT oid, nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'pgdist')),
ext AS (SELECT classid, objid FROM pg_depend WHERE deptype = 'e'),
rel AS (SELECT c.oid, n.nspname, c.relname, c.relkind, c.relispartition,
    EXISTS (SELECT 1 FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhparent WHERE c.oid IN (i.inhrelid, i.inhparent) AND p.relkind = 'r') AS inh
  FROM pg_class c JOIN ns n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p', 'v', 'm') AND NOT EXISTS (SELECT 1 FROM ext WHERE classid = 'pg_class'::regclass AND objid = c.oid))
SELECT json_build_object(
 'Tables', (SELECT coalesce(json_agg(json_build_object('Schema', nspname, 'Name', relname, 'Kind', relkind, 'Leaf', relispartition, 'Inherited', inh,
   'Columns', (SELECT coalesce(json_agg(json_build_object('Name', a.attname, 'Type', format_type(a.atttypid, a.atttypmod), 'Base', b.typname,
       'User', (SELECT json_build_object('Schema', n.nspname, 'Name', b.typname) FROM ns n WHERE n.oid = b.typnamespace),
       'NotNull', a.attnotnull, 'Default', a.atthasdef, 'Identity', a.attidentity, 'Generated', a.attgenerated) ORDER BY a.attnum), '[]')
     FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
     JOIN pg_type b ON b.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END
     WHERE a.attrelid = rel.oid AND a.attnum > 0 AND NOT a.attisdropped),
   'Uniques', (SELECT coalesce(json_agg(json_build_object('Primary', i.indisprimary, 'Deferrable', NOT i.indimmediate, 'Partial', i.indpred IS NOT NULL,
       'Columns', (SELECT json_agg(a.attname ORDER BY k.o) FROM unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) WITH ORDINALITY k(n, o)
                     JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.n)) ORDER BY x.relname COLLATE "C"), '[]')
     FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
     WHERE i.indrelid = rel.oid AND i.indisunique AND i.indisvalid AND i.indexprs IS NULL),
   'Constraints', (SELECT coalesce(json_agg(json_build_object('Name', k.conname, 'Kind', k.contype) ORDER BY k.conname COLLATE "C"), '[]')
     FROM pg_constraint k WHERE k.conrelid = rel.oid AND k.contype <> 't' AND k.conislocal)) ORDER BY nspname COLLATE "C", relname COLLATE "C"), '[]') FROM rel),
 'Sequences', (SELECT coalesce(json_agg(json_build_object('Schema', n.nspname, 'Name', c.relname) ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C"), '[]')
   FROM pg_class c JOIN ns n ON n.oid = c.relnamespace WHERE c.relkind = 'S'),
 'Enums', (SELECT coalesce(json_agg(json_build_object('Schema', n.nspname, 'Name', t.typname,
     'Labels', (SELECT json_agg(e.enumlabel ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid)) ORDER BY n.nspname COLLATE "C", t.typname COLLATE "C"), '[]')
   FROM pg_type t JOIN ns n ON n.oid = t.typnamespace WHERE t.typtype = 'e'),
 'Indexes', (SELECT coalesce(json_agg(json_build_object('Schema', n.nspname, 'Name', c.relname, 'Table', json_build_object('Schema', rel.nspname, 'Name', rel.relname)) ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C"), '[]')
   FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN ns n ON n.oid = c.relnamespace JOIN rel ON rel.oid = i.indrelid
   WHERE NOT EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conindid = c.oid)),
 'Triggers', (SELECT coalesce(json_agg(json_build_object('Name', t.tgname, 'Table', json_build_object('Schema', rel.nspname, 'Name', rel.relname)) ORDER BY rel.nspname COLLATE "C", rel.relname COLLATE "C", t.tgname COLLATE "C"), '[]')
   FROM pg_trigger t JOIN rel ON rel.oid = t.tgrelid WHERE NOT t.tgisinternal AND t.tgname !~ '^pgdist_[iudtabms]$'),
 'Rules', (SELECT coalesce(json_agg(json_build_object('Name', r.rulename, 'Table', json_build_object('Schema', rel.nspname, 'Name', rel.relname)) ORDER BY rel.nspname COLLATE "C", rel.relname COLLATE "C", r.rulename COLLATE "C"), '[]')
   FROM pg_rewrite r JOIN rel ON rel.oid = r.ev_class WHERE r.rulename <> '_RETURN'),
 'Routines', (SELECT coalesce(json_agg(json_build_object('Schema', n.nspname, 'Name', p.proname, 'Kind', p.prokind, 'Type', p.prorettype::regtype) ORDER BY n.nspname COLLATE "C", p.proname COLLATE "C"), '[]')
   FROM pg_proc p JOIN ns n ON n.oid = p.pronamespace WHERE p.pronargs = 0 AND NOT EXISTS (SELECT 1 FROM ext WHERE classid = 'pg_proc'::regclass AND objid = p.oid)),
 'Schemas', (SELECT json_agg(nspname ORDER BY nspname COLLATE "C") FROM ns),
 'Roles', (SELECT coalesce(json_agg(rolname ORDER BY rolname COLLATE "C"), '[]') FROM pg_roles WHERE rolname LIKE 'rnd\_%'),
 'Types', (SELECT coalesce(json_agg(json_build_object('Schema', n.nspname, 'Name', t.typname, 'Kind', t.typtype) ORDER BY n.nspname COLLATE "C", t.typname COLLATE "C"), '[]')
   FROM pg_type t JOIN ns n ON n.oid = t.typnamespace WHERE t.typtype IN ('d', 'e', 'r', 'c') AND (t.typrelid = 0 OR (SELECT relkind = 'c' FROM pg_class WHERE oid = t.typrelid))
     AND NOT EXISTS (SELECT 1 FROM ext WHERE classid = 'pg_type'::regclass AND objid = t.oid)))::text`

// queryer is what reads a catalog: a session, or a pool of them.
type queryer interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// readCatalog reads what there is.
func readCatalog(ctx context.Context, q queryer) (*Catalog, error) {
	var text string
	if err := q.QueryRowContext(ctx, catalogSQL).Scan(&text); err != nil {
		return nil, fmt.Errorf("read the catalog: %w", err)
	}
	c := new(Catalog)
	if err := json.Unmarshal([]byte(text), c); err != nil {
		return nil, fmt.Errorf("read the catalog: %w", err)
	}
	return c, nil
}

// key returns the columns of the primary key, or nil.
func (t *Table) key() []string {
	for _, u := range t.Uniques {
		if u.Primary {
			return u.Columns
		}
	}
	return nil
}

func (t *Table) column(name string) (Column, bool) {
	i := slices.IndexFunc(t.Columns, func(c Column) bool { return c.Name == name })
	if i < 0 {
		return Column{}, false
	}
	return t.Columns[i], true
}

// settable are the columns that an UPDATE may name.
func (t *Table) settable() []Column {
	return slices.DeleteFunc(slices.Clone(t.Columns), func(c Column) bool { return c.Generated != "" || c.Identity == "a" })
}
