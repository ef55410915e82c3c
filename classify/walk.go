package classify

import (
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v5"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// walk visits every node below n, whatever its kind: a kind of expression that
// is not known here is still searched for what it holds.
func (j *judge) walk(n *pg.Node) {
	if n != nil {
		j.walkMessage(n.ProtoReflect())
	}
}

func (j *judge) walkMessage(m protoreflect.Message) { inspect(m, j.visit) }

// inspect calls visit for m and, as long as that returns true, for what is below.
func inspect(m protoreflect.Message, visit func(protoreflect.ProtoMessage) bool) {
	if !visit(m.Interface()) {
		return
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.Kind() != protoreflect.MessageKind:
		case fd.IsList():
			list := v.List()
			for i := range list.Len() {
				inspect(list.Get(i).Message(), visit)
			}
		default:
			inspect(v.Message(), visit)
		}
		return true
	})
}

// visit judges one node, and reports whether those below it matter.
func (j *judge) visit(m protoreflect.ProtoMessage) bool {
	switch x := m.(type) {
	case *pg.RangeVar:
		j.reads(x)
		return false
	case *pg.ColumnRef:
		j.column(x)
		return false
	case *pg.A_Const:
		return false
	case *pg.FuncCall:
		j.named(x.Args)
		j.call(x)
	case *pg.TypeCast:
		j.cast(x)
	case *pg.LockingClause:
		j.raise(LeaderRead, "locks rows ("+lockNames[x.Strength]+")")
		return false
	case *pg.IntoClause:
		j.into(x)
	case *pg.InsertStmt:
		j.modifies("INSERT", x.Relation)
	case *pg.UpdateStmt:
		j.modifies("UPDATE", x.Relation)
	case *pg.DeleteStmt:
		j.modifies("DELETE", x.Relation)
	case *pg.MergeStmt:
		j.modifies("MERGE", x.Relation)
	}
	return true
}

var lockNames = map[pg.LockClauseStrength]string{
	pg.LockClauseStrength_LCS_FORKEYSHARE:    "FOR KEY SHARE",
	pg.LockClauseStrength_LCS_FORSHARE:       "FOR SHARE",
	pg.LockClauseStrength_LCS_FORNOKEYUPDATE: "FOR NO KEY UPDATE",
	pg.LockClauseStrength_LCS_FORUPDATE:      "FOR UPDATE",
}

// modifies judges a data-modifying statement, alone or inside another.
func (j *judge) modifies(command string, r *pg.RangeVar) {
	if j.st.Tag == "" || j.st.Tag == command {
		j.raise(Write, "changes rows")
	} else {
		j.raise(Write, "changes rows ("+command+" inside)")
	}
	j.tag(command)
	j.target(r)
	j.refuseCatalogWrite(r)
}

// refuseCatalogWrite refuses to change system catalogs by hand. Writing
// pg_settings is another way to say SET.
func (j *judge) refuseCatalogWrite(r *pg.RangeVar) {
	if !systemRelation(r) {
		return
	}
	if r.Relname == "pg_settings" {
		j.st.Pin |= PinSetting
		return
	}
	j.refuse(&Refusal{
		Feature: "writing system catalogs",
		Message: "changing system catalog \"" + r.Relname + "\" directly is not supported: it cannot be mirrored",
		Hint:    "Use DDL.",
	})
}

// into judges the target of SELECT INTO and CREATE TABLE AS.
func (j *judge) into(c *pg.IntoClause) {
	if j.st.Tag == "SELECT" {
		j.st.Tag = "SELECT INTO"
	}
	j.creates(c.Rel, "creates a table from a query")
}

// reads notes a relation that a query names.
func (j *judge) reads(r *pg.RangeVar) {
	if slices.Contains(j.targets, r) {
		return
	}
	ref := RelRef{r.Schemaname, r.Relname}
	if !slices.Contains(j.st.Reads, ref) {
		j.st.Reads = append(j.st.Reads, ref)
	}
	switch {
	case isTemp(r):
		j.st.Temp = true
		j.raise(LeaderRead, "uses a temporary object")
	case systemSchema(r.Schemaname), r.Schemaname == "" && strings.HasPrefix(r.Relname, "pg_"):
		j.catalog("reads system catalogs")
	}
}

// systemSchema reports whether what lies in the schema may differ between members.
func systemSchema(name string) bool {
	switch name {
	case "pg_catalog", "information_schema", "pg_toast", ownSchema:
		return true
	}
	return false
}

func systemRelation(r *pg.RangeVar) bool {
	return (r.GetSchemaname() == "" || r.GetSchemaname() == "pg_catalog") && systemRelations()[r.GetRelname()]
}

// isTemp reports whether the text says that a relation is temporary.
func isTemp(r *pg.RangeVar) bool {
	return r.GetRelpersistence() == "t" || isTempSchema(r.GetSchemaname())
}

func isTempSchema(name string) bool {
	return name == "pg_temp" || strings.HasPrefix(name, "pg_temp_")
}

func (j *judge) catalog(because string) {
	j.st.Catalog = true
	j.raise(LeaderRead, because)
}

// column finds system columns, whose values differ between members.
func (j *judge) column(c *pg.ColumnRef) {
	switch lastName(c.Fields) {
	case "ctid", "xmin", "xmax", "cmin", "cmax", "tableoid":
		j.catalog("reads a system column, in which members differ")
	}
}

// call judges a call of a function.
func (j *judge) call(f *pg.FuncCall) {
	schema, name := funcName(f)
	if schema == "" || schema == "pg_catalog" {
		if e, known := builtinEffect(name); known {
			j.builtin(f, name, e)
			return
		}
	}
	if isTempSchema(schema) {
		j.st.Temp = true
		j.raise(LeaderRead, "uses a temporary object")
	}
	ref := FuncRef{schema, name}
	if !j.inert && !slices.Contains(j.st.Functions, ref) {
		j.st.Functions = append(j.st.Functions, ref)
	}
}

func (j *judge) builtin(f *pg.FuncCall, name string, e effect) {
	j.refuse(e.refuse)
	if e.refuse != nil {
		return
	}
	j.st.Catalog = j.st.Catalog || e.catalog
	if j.inert {
		return
	}
	switch name {
	case "set_config":
		j.callSetConfig(f)
		return
	case "current_setting":
		j.callCurrentSetting(f)
		return
	}
	j.st.Pin |= e.pin
	j.st.Unpin |= e.unpin
	j.st.Sequences = j.st.Sequences || e.seq
	if e.class != Read {
		j.raise(e.class, "calls "+name+", which "+e.because)
	}
}

// callSetConfig judges a call of set_config that setConfigs has not understood.
func (j *judge) callSetConfig(f *pg.FuncCall) {
	j.literal = true
	j.raise(Session, "calls set_config, which changes a setting")
	if slices.Contains(j.exact, f) {
		return
	}
	j.st.Pin |= PinSetting
	if len(f.Args) != 3 {
		return
	}
	name, _, _, _ := argument(f.Args[0])
	value, _, _, _ := argument(f.Args[1])
	j.refuse(RefusedSetting(name, value))
}

// callCurrentSetting keeps with the leader what shows the transaction's
// characteristics: a follower's are not those that the client asked for.
func (j *judge) callCurrentSetting(f *pg.FuncCall) {
	j.literal = true
	if len(f.Args) > 0 {
		name, param, _, ok := argument(f.Args[0])
		name = strings.ToLower(name)
		if ok && param == 0 && !strings.HasPrefix(name, "transaction_") && name != "default_transaction_read_only" {
			return
		}
	}
	j.raise(LeaderRead, "calls current_setting for the transaction's characteristics")
}

// cast finds casts to types that are OIDs inside. Text search configurations are
// let pass as arguments of functions: there the OID does not show.
func (j *judge) cast(c *pg.TypeCast) {
	if oidTypes[castType(c)] && !slices.Contains(j.names, c) {
		j.catalog("casts to a type of OIDs, in which members differ")
	}
}

var oidTypes = map[string]bool{
	"regclass": true, "regcollation": true, "regconfig": true, "regdictionary": true, "regnamespace": true,
	"regoper": true, "regoperator": true, "regproc": true, "regprocedure": true, "regrole": true, "regtype": true,
}

// named notes arguments that are cast to names of text search objects.
func (j *judge) named(args []*pg.Node) {
	for _, a := range args {
		if c := a.GetTypeCast(); c != nil {
			if t := castType(c); t == "regconfig" || t == "regdictionary" {
				j.names = append(j.names, c)
			}
		}
	}
}

// castType is the name of a type of schema pg_catalog, empty for others.
func castType(c *pg.TypeCast) string {
	schema, name := splitName(c.TypeName.GetNames())
	if schema != "" && schema != "pg_catalog" {
		return ""
	}
	return name
}

// funcName returns the schema, empty if there is none, and the name of a function.
func funcName(f *pg.FuncCall) (schema, name string) {
	return splitName(f.Funcname)
}

// splitName splits a qualified name. A database in front is left out.
func splitName(names []*pg.Node) (schema, name string) {
	if n := len(names); n > 1 {
		schema = names[n-2].GetString_().GetSval()
	}
	return schema, lastName(names)
}

// lastName is the last part of a qualified name, empty for "*".
func lastName(names []*pg.Node) string {
	if len(names) == 0 {
		return ""
	}
	return names[len(names)-1].GetString_().GetSval()
}
