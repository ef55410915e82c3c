package classify

import (
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v5"
)

// maintenance judges what each member does for itself. It reports whether n is
// of that kind.
func (j *judge) maintenance(n *pg.Node) bool {
	switch x := n.GetNode().(type) {
	case *pg.Node_VacuumStmt:
		v := x.VacuumStmt
		j.tag("ANALYZE")
		if v.IsVacuumcmd {
			j.st.Tag, j.st.NoTx = "VACUUM", true
		}
		for _, r := range v.Rels {
			j.target(r.GetVacuumRelation().GetRelation())
		}
	case *pg.Node_ClusterStmt:
		j.tag("CLUSTER")
		j.st.NoTx = x.ClusterStmt.Relation == nil
		j.target(x.ClusterStmt.Relation)
	case *pg.Node_ReindexStmt:
		j.reindex(x.ReindexStmt)
	case *pg.Node_IndexStmt:
		if !x.IndexStmt.Concurrent {
			return false
		}
		j.tag("CREATE INDEX")
		j.st.NoTx = true
		j.target(x.IndexStmt.Relation)
	case *pg.Node_DropStmt:
		if !x.DropStmt.Concurrent {
			return false
		}
		j.tag("DROP INDEX")
		j.st.NoTx = true
		j.dropped(x.DropStmt)
	case *pg.Node_AlterTableStmt:
		if !detachesConcurrently(x.AlterTableStmt) {
			return false
		}
		j.st.NoTx = true
		j.alterTable(x.AlterTableStmt)
	case *pg.Node_AlterCollationStmt:
		j.tag("ALTER COLLATION")
	case *pg.Node_AlterDatabaseRefreshCollStmt:
		j.tag("ALTER DATABASE")
	default:
		return false
	}
	j.raise(Utility, "is maintenance, which every member does for itself")
	return true
}

func (j *judge) reindex(r *pg.ReindexStmt) {
	j.tag("REINDEX")
	switch r.Kind {
	case pg.ReindexObjectType_REINDEX_OBJECT_TABLE:
		j.target(r.Relation)
	case pg.ReindexObjectType_REINDEX_OBJECT_INDEX:
	default:
		j.st.NoTx = true
	}
	for _, p := range r.Params {
		if d := p.GetDefElem(); d.GetDefname() == "concurrently" && optionOn(d) {
			j.st.NoTx = true
		}
	}
}

func detachesConcurrently(a *pg.AlterTableStmt) bool {
	return slices.ContainsFunc(a.Cmds, func(n *pg.Node) bool {
		return n.GetAlterTableCmd().GetDef().GetPartitionCmd().GetConcurrent()
	})
}

// definition judges DDL. It reports whether n is of that kind.
func (j *judge) definition(n *pg.Node) bool {
	tag := ddlTag(n)
	if tag == "" {
		return false
	}
	j.tag(tag)
	j.examine(n)
	if j.refusedDefinition(n); j.st.Refusal != nil {
		return true
	}
	j.st.Database = databaseOf(n)
	temp := false
	switch x := n.GetNode().(type) {
	case *pg.Node_CreateTableAsStmt:
		j.createAs(x.CreateTableAsStmt)
		return true
	case *pg.Node_CreateStmt:
		temp = isTemp(x.CreateStmt.Relation)
		j.targetNodes(x.CreateStmt.InhRelations)
		if x.CreateStmt.Partbound != nil {
			for _, n := range x.CreateStmt.InhRelations {
				j.shut(n.GetRangeVar())
			}
		}
	case *pg.Node_CreateSchemaStmt:
		for _, e := range x.CreateSchemaStmt.SchemaElts {
			j.definition(e)
		}
	case *pg.Node_AlterTableStmt:
		temp = isTemp(x.AlterTableStmt.Relation)
		j.alterTable(x.AlterTableStmt)
	case *pg.Node_DropStmt:
		temp = j.dropped(x.DropStmt)
	default:
		temp = j.subject(n)
	}
	if temp {
		j.temporary()
	} else {
		j.raise(DDL, "changes definitions")
	}
	return true
}

// databaseOf is the database that a definition names.
func databaseOf(n *pg.Node) string {
	switch x := n.GetNode().(type) {
	case *pg.Node_AlterDatabaseStmt:
		return x.AlterDatabaseStmt.Dbname
	case *pg.Node_AlterDatabaseSetStmt:
		return x.AlterDatabaseSetStmt.Dbname
	case *pg.Node_AlterRoleSetStmt:
		return x.AlterRoleSetStmt.Database
	case *pg.Node_AlterOwnerStmt:
		if x.AlterOwnerStmt.ObjectType == pg.ObjectType_OBJECT_DATABASE {
			return x.AlterOwnerStmt.Object.GetString_().GetSval()
		}
	case *pg.Node_CommentStmt:
		if x.CommentStmt.Objtype == pg.ObjectType_OBJECT_DATABASE {
			return x.CommentStmt.Object.GetString_().GetSval()
		}
	case *pg.Node_GrantStmt:
		if x.GrantStmt.Objtype == pg.ObjectType_OBJECT_DATABASE {
			names := make([]string, len(x.GrantStmt.Objects))
			for i, o := range x.GrantStmt.Objects {
				names[i] = o.GetString_().GetSval()
			}
			return strings.Join(names, ", ")
		}
	}
	return ""
}

// WithoutConcurrently returns a CREATE INDEX or DROP INDEX without CONCURRENTLY.
// Its error is the grammar's.
func WithoutConcurrently(sql string) (string, error) {
	tree, err := pg.Parse(sql)
	if err != nil {
		return "", err
	}
	for _, s := range tree.Stmts {
		switch x := s.Stmt.GetNode().(type) {
		case *pg.Node_IndexStmt:
			x.IndexStmt.Concurrent = false
		case *pg.Node_DropStmt:
			x.DropStmt.Concurrent = false
		}
	}
	return pg.Deparse(tree)
}

// temporary is for definitions of temporary objects.
func (j *judge) temporary() {
	j.st.Temp = true
	j.st.Pin |= PinTemp
	j.raise(LeaderRead, "defines a temporary object")
}

// creates judges a new table that is filled by a query.
func (j *judge) creates(r *pg.RangeVar, because string) {
	j.targets = append(j.targets, r)
	if isTemp(r) {
		j.temporary()
	} else {
		j.raise(DDL, because)
	}
}

// createAs judges CREATE TABLE AS and CREATE MATERIALIZED VIEW, whose query runs.
func (j *judge) createAs(c *pg.CreateTableAsStmt) {
	if e := c.Query.GetExecuteStmt(); e != nil {
		j.st.Prepared = &PreparedStmt{Kind: Execute, Name: e.Name}
	}
	j.walkMessage(c.ProtoReflect())
}

// subject finds the object of other definitions, and whether it is temporary.
func (j *judge) subject(n *pg.Node) (temp bool) {
	var r *pg.RangeVar
	switch x := n.GetNode().(type) {
	case *pg.Node_ViewStmt:
		return isTemp(x.ViewStmt.View)
	case *pg.Node_CreateSeqStmt:
		return isTemp(x.CreateSeqStmt.Sequence)
	case *pg.Node_AlterSeqStmt:
		return isTemp(x.AlterSeqStmt.Sequence)
	case *pg.Node_CompositeTypeStmt:
		return isTemp(x.CompositeTypeStmt.Typevar)
	case *pg.Node_CreateFunctionStmt:
		return tempName(x.CreateFunctionStmt.Funcname)
	case *pg.Node_DefineStmt:
		return tempName(x.DefineStmt.Defnames)
	case *pg.Node_CreateEnumStmt:
		return tempName(x.CreateEnumStmt.TypeName)
	case *pg.Node_CreateRangeStmt:
		return tempName(x.CreateRangeStmt.TypeName)
	case *pg.Node_CreateDomainStmt:
		return tempName(x.CreateDomainStmt.Domainname)
	case *pg.Node_IndexStmt:
		r = x.IndexStmt.Relation
	case *pg.Node_CreateTrigStmt:
		r = x.CreateTrigStmt.Relation
		j.target(x.CreateTrigStmt.Constrrel)
	case *pg.Node_RuleStmt:
		r = x.RuleStmt.Relation
		j.shut(r)
	case *pg.Node_CreatePolicyStmt:
		r = x.CreatePolicyStmt.Table
		j.shut(r)
	case *pg.Node_AlterPolicyStmt:
		r = x.AlterPolicyStmt.Table
		j.shut(r)
	case *pg.Node_RenameStmt:
		if r = x.RenameStmt.Relation; !ofTable(x.RenameStmt.RenameType) && !ofTable(x.RenameStmt.RelationType) {
			return isTemp(r)
		}
		j.shut(r)
	case *pg.Node_AlterObjectSchemaStmt:
		if r = x.AlterObjectSchemaStmt.Relation; !ofTable(x.AlterObjectSchemaStmt.ObjectType) {
			return isTemp(r)
		}
		j.shut(r)
	}
	j.target(r)
	return isTemp(r)
}

// ofTable reports whether an object is a table, or lies in one.
func ofTable(t pg.ObjectType) bool {
	switch t {
	case pg.ObjectType_OBJECT_TABLE, pg.ObjectType_OBJECT_FOREIGN_TABLE, pg.ObjectType_OBJECT_TABCONSTRAINT,
		pg.ObjectType_OBJECT_TRIGGER, pg.ObjectType_OBJECT_RULE, pg.ObjectType_OBJECT_POLICY:
		return true
	}
	return false
}

func tempName(names []*pg.Node) bool {
	schema, _ := splitName(names)
	return isTempSchema(schema)
}

// target notes a relation that the statement is about.
func (j *judge) target(r *pg.RangeVar) {
	if r == nil {
		return
	}
	j.targets = append(j.targets, r)
	j.relation(RelRef{r.Schemaname, r.Relname})
	if isTemp(r) {
		j.st.Temp = true
	}
	if r.Schemaname == ownSchema {
		j.refuse(refuseOwnSchema)
	}
}

func (j *judge) targetNodes(nodes []*pg.Node) {
	for _, n := range nodes {
		j.target(n.GetRangeVar())
	}
}

func (j *judge) relation(r RelRef) {
	if !slices.Contains(j.st.Relations, r) {
		j.st.Relations = append(j.st.Relations, r)
	}
}

// shut notes a relation of the statement's that it shuts readers out of.
func (j *judge) shut(r *pg.RangeVar) {
	if r != nil {
		j.st.Shut = append(j.st.Shut, RelRef{r.Schemaname, r.Relname})
	}
}

// letsRead are the forms of ALTER TABLE that take less than ACCESS EXCLUSIVE (docs,
// "ALTER TABLE"; AlterTableGetLockLevel of the server's tablecmds.c).
var letsRead = map[pg.AlterTableType]bool{
	pg.AlterTableType_AT_SetStatistics: true, pg.AlterTableType_AT_SetOptions: true, pg.AlterTableType_AT_ResetOptions: true,
	pg.AlterTableType_AT_SetRelOptions: true, pg.AlterTableType_AT_ResetRelOptions: true, pg.AlterTableType_AT_ClusterOn: true,
	pg.AlterTableType_AT_DropCluster: true, pg.AlterTableType_AT_ValidateConstraint: true, pg.AlterTableType_AT_AttachPartition: true,
	pg.AlterTableType_AT_EnableTrig: true, pg.AlterTableType_AT_EnableAlwaysTrig: true, pg.AlterTableType_AT_EnableReplicaTrig: true,
	pg.AlterTableType_AT_EnableTrigAll: true, pg.AlterTableType_AT_EnableTrigUser: true, pg.AlterTableType_AT_DisableTrig: true,
	pg.AlterTableType_AT_DisableTrigAll: true, pg.AlterTableType_AT_DisableTrigUser: true,
}

// shutsReaders tells whether a form of ALTER TABLE takes ACCESS EXCLUSIVE.
func shutsReaders(c *pg.AlterTableCmd) bool {
	if c.Subtype == pg.AlterTableType_AT_AddConstraint {
		return c.GetDef().GetConstraint().GetContype() != pg.ConstrType_CONSTR_FOREIGN
	}
	return !letsRead[c.Subtype]
}

// alterTable notes the table and those that a partition or a parent is.
func (j *judge) alterTable(a *pg.AlterTableStmt) {
	j.tag(alterTag(a.Objtype))
	if a.Objtype == pg.ObjectType_OBJECT_TABLE || a.Objtype == pg.ObjectType_OBJECT_FOREIGN_TABLE {
		j.target(a.Relation)
	}
	table := a.Objtype == pg.ObjectType_OBJECT_TABLE
	for _, c := range a.Cmds {
		cmd := c.GetAlterTableCmd()
		if table && shutsReaders(cmd) {
			j.shut(a.Relation)
			table = false
		}
		if p := cmd.GetDef().GetPartitionCmd(); p != nil && a.Objtype == pg.ObjectType_OBJECT_TABLE {
			j.target(p.Name)
		}
		j.target(cmd.GetDef().GetRangeVar())
	}
}

// dropped notes the tables concerned by DROP, and reports whether everything that
// is dropped is temporary.
func (j *judge) dropped(d *pg.DropStmt) (temp bool) {
	temp = len(d.Objects) > 0
	for _, o := range d.Objects {
		names := objectName(o)
		switch d.RemoveType {
		case pg.ObjectType_OBJECT_SCHEMA:
			temp = temp && isTempSchema(lastName(names))
			continue
		case pg.ObjectType_OBJECT_TRIGGER, pg.ObjectType_OBJECT_RULE, pg.ObjectType_OBJECT_POLICY:
			names = names[:max(len(names)-1, 0)]
		}
		schema, name := splitName(names)
		temp = temp && isTempSchema(schema)
		if ofTable(d.RemoveType) {
			j.relation(RelRef{schema, name})
			j.st.Shut = append(j.st.Shut, RelRef{schema, name})
		}
	}
	return temp
}

// objectName is the qualified name of an object of any kind.
func objectName(n *pg.Node) []*pg.Node {
	switch x := n.GetNode().(type) {
	case *pg.Node_List:
		return x.List.Items
	case *pg.Node_TypeName:
		return x.TypeName.Names
	case *pg.Node_ObjectWithArgs:
		return x.ObjectWithArgs.Objname
	case *pg.Node_String_:
		return []*pg.Node{n}
	}
	return nil
}
