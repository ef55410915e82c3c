package classify

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v5"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// ownSchema holds what mirroring needs in each member; ownPrefix begins the names
// of its triggers.
const (
	ownSchema = "pgdist"
	ownPrefix = "pgdist"
	ownEvents = "!pgdist_" // begins the names of its event triggers
)

var (
	refuseOwnSchema = &Refusal{
		Feature: "changing schema pgdist",
		Message: "schema \"pgdist\" cannot be changed: mirroring depends on it",
		Hint:    "Use another schema; the command pgdist uninstall removes this one.",
	}
	refuseSubscriptions = &Refusal{
		Feature: "subscriptions",
		Message: "subscriptions are not supported: what they apply is not seen by mirroring",
		Hint:    "Let a client write the rows through pgdist.",
	}
	refuseDatabases = &Refusal{
		Feature: "databases",
		Message: "creating, renaming, moving and dropping databases is not supported: the set is one database on each server",
		Hint:    "Connect to each server itself.",
	}
	refuseTablespaces = &Refusal{
		Feature: "tablespaces",
		Message: "tablespaces cannot be managed here: they are directories of one server",
		Hint:    "Connect to each server itself. Tables may name a tablespace that every server has.",
	}
	refuseSystem = &Refusal{
		Feature: "ALTER SYSTEM",
		Message: "ALTER SYSTEM is not supported: it writes one server's configuration file",
		Hint:    "Connect to each server itself, or use ALTER DATABASE … SET or ALTER ROLE … SET.",
	}
	refuseCapture = &Refusal{
		Feature: "disabling capture",
		Message: "the triggers of pgdist cannot be disabled or dropped: writes would no longer be mirrored",
		Hint:    "Name the triggers in question one by one, instead of ALL or USER.",
	}
	refuseAlways = &Refusal{
		Feature: "ENABLE ALWAYS and ENABLE REPLICA",
		Message: "triggers and rules that fire for a replica are not supported: they would fire again on every follower",
		Hint:    "Use ENABLE TRIGGER or ENABLE RULE.",
	}
	refuseLogin = &Refusal{
		Feature: "event triggers on login",
		Message: "event triggers on login are not supported: they would run for every connection of pgdist's own, on every server",
		Hint:    "Do it when a session begins, or by ALTER ROLE … SET.",
	}
)

// refusedDefinition refuses the definitions that cannot be mirrored.
func (j *judge) refusedDefinition(n *pg.Node) {
	switch x := n.GetNode().(type) {
	case *pg.Node_CreatedbStmt, *pg.Node_DropdbStmt:
		j.refuse(refuseDatabases)
	case *pg.Node_AlterDatabaseStmt:
		for _, o := range x.AlterDatabaseStmt.Options {
			if o.GetDefElem().GetDefname() == "tablespace" {
				j.refuse(refuseDatabases)
			}
		}
	case *pg.Node_CreateTableSpaceStmt, *pg.Node_DropTableSpaceStmt, *pg.Node_AlterTableSpaceOptionsStmt,
		*pg.Node_AlterTableMoveAllStmt:
		j.refuse(refuseTablespaces)
	case *pg.Node_CreateSubscriptionStmt, *pg.Node_AlterSubscriptionStmt, *pg.Node_DropSubscriptionStmt:
		j.refuse(refuseSubscriptions)
	case *pg.Node_AlterSystemStmt:
		j.refuse(refuseSystem)
	case *pg.Node_CommentStmt:
		j.refuse(refusedObject(x.CommentStmt.Objtype))
	case *pg.Node_SecLabelStmt:
		j.refuse(refusedObject(x.SecLabelStmt.Objtype))
	case *pg.Node_GrantStmt:
		j.refuse(refusedObject(x.GrantStmt.Objtype))
		j.refuseOwn(x.GrantStmt.Objtype, x.GrantStmt.Objects...)
	case *pg.Node_RenameStmt:
		j.refuseRename(x.RenameStmt)
	case *pg.Node_AlterOwnerStmt:
		j.refuse(refusedObject(x.AlterOwnerStmt.ObjectType))
		j.refuseOwn(x.AlterOwnerStmt.ObjectType, x.AlterOwnerStmt.Object)
	case *pg.Node_AlterObjectSchemaStmt:
		j.refuseOwn(x.AlterObjectSchemaStmt.ObjectType, x.AlterObjectSchemaStmt.Object)
		j.refuseOwnName(x.AlterObjectSchemaStmt.Newschema) // what lies there is not mirrored
	case *pg.Node_DropStmt:
		j.refuseDrop(x.DropStmt)
	case *pg.Node_CreateSchemaStmt:
		j.refuseOwnName(x.CreateSchemaStmt.Schemaname)
	case *pg.Node_CreateFunctionStmt:
		j.refuseOwn(pg.ObjectType_OBJECT_FUNCTION, x.CreateFunctionStmt.Funcname...)
	case *pg.Node_CreateEventTrigStmt:
		if x.CreateEventTrigStmt.Eventname == "login" {
			j.refuse(refuseLogin)
		}
	case *pg.Node_AlterEventTrigStmt:
		if strings.HasPrefix(x.AlterEventTrigStmt.Trigname, ownEvents) {
			j.refuse(refuseCapture)
		}
		if t := x.AlterEventTrigStmt.Tgenabled; t == "A" || t == "R" {
			j.refuse(refuseAlways)
		}
	case *pg.Node_AlterTableStmt:
		for _, c := range x.AlterTableStmt.Cmds {
			j.refuse(refusedCommand(c.GetAlterTableCmd()))
		}
	}
}

// refusedObject refuses kinds of objects whatever is done to them.
func refusedObject(t pg.ObjectType) *Refusal {
	switch t {
	case pg.ObjectType_OBJECT_LARGEOBJECT:
		return refuseLargeObjects
	case pg.ObjectType_OBJECT_SUBSCRIPTION:
		return refuseSubscriptions
	case pg.ObjectType_OBJECT_TABLESPACE:
		return refuseTablespaces
	}
	return nil
}

// refusedCommand refuses parts of ALTER TABLE.
func refusedCommand(c *pg.AlterTableCmd) *Refusal {
	switch c.GetSubtype() {
	case pg.AlterTableType_AT_DisableTrigAll, pg.AlterTableType_AT_DisableTrigUser:
		return refuseCapture
	case pg.AlterTableType_AT_DisableTrig:
		if strings.HasPrefix(c.Name, ownPrefix) {
			return refuseCapture
		}
	case pg.AlterTableType_AT_EnableAlwaysTrig, pg.AlterTableType_AT_EnableReplicaTrig,
		pg.AlterTableType_AT_EnableAlwaysRule, pg.AlterTableType_AT_EnableReplicaRule:
		return refuseAlways
	}
	return nil
}

func (j *judge) refuseRename(r *pg.RenameStmt) {
	j.refuse(refusedObject(r.RenameType))
	switch r.RenameType {
	case pg.ObjectType_OBJECT_DATABASE:
		j.refuse(refuseDatabases)
	case pg.ObjectType_OBJECT_SCHEMA:
		j.refuseOwnName(r.Subname)
		j.refuseOwnName(r.Newname)
	case pg.ObjectType_OBJECT_TRIGGER:
		if strings.HasPrefix(r.Subname, ownPrefix) {
			j.refuse(refuseCapture)
		}
	case pg.ObjectType_OBJECT_EVENT_TRIGGER:
		if strings.HasPrefix(lastName(objectName(r.Object)), ownEvents) || strings.HasPrefix(r.Newname, ownEvents) {
			j.refuse(refuseCapture)
		}
	default:
		j.refuseOwn(r.RenameType, r.Object)
	}
}

func (j *judge) refuseDrop(d *pg.DropStmt) {
	j.refuseOwn(d.RemoveType, d.Objects...)
	if d.RemoveType != pg.ObjectType_OBJECT_TRIGGER && d.RemoveType != pg.ObjectType_OBJECT_EVENT_TRIGGER {
		return
	}
	own := ownPrefix
	if d.RemoveType == pg.ObjectType_OBJECT_EVENT_TRIGGER {
		own = ownEvents
	}
	for _, o := range d.Objects {
		if strings.HasPrefix(lastName(objectName(o)), own) {
			j.refuse(refuseCapture)
		}
	}
}

// refuseOwn refuses changes of what lies in pgdist's schema.
func (j *judge) refuseOwn(t pg.ObjectType, objects ...*pg.Node) {
	for i, o := range objects {
		names := objectName(o)
		switch {
		case t == pg.ObjectType_OBJECT_SCHEMA:
			j.refuseOwnName(lastName(names))
		case len(names) == 1 && i == 0 && len(objects) > 1 && o.GetString_() != nil:
			j.refuseOwnName(lastName(names)) // the objects are the parts of one name
		case len(names) > 1:
			schema, _ := splitName(names)
			j.refuseOwnName(schema)
		}
	}
}

func (j *judge) refuseOwnName(schema string) {
	if schema == ownSchema {
		j.refuse(refuseOwnSchema)
	}
}

// examine looks into a definition for what must not hide there: functions that
// are refused, settings that are, tables of pgdist. It notes the tables to which
// foreign keys refer, for DDL locks them.
func (j *judge) examine(n *pg.Node) {
	inspect(n.ProtoReflect(), func(m protoreflect.ProtoMessage) bool {
		switch x := m.(type) {
		case *pg.RangeVar:
			j.refuseOwnName(x.Schemaname)
			return false
		case *pg.FuncCall:
			if schema, name := funcName(x); schema == "" || schema == "pg_catalog" {
				e, _ := builtinEffect(name)
				j.refuse(e.refuse)
			}
		case *pg.VariableSetStmt:
			switch s := settingOf(x); {
			case s.Name == settingReplay:
				j.refuse(refusedReplay)
			case !s.Default:
				j.refuse(RefusedSetting(s.Name, s.Value))
			}
		case *pg.Constraint:
			j.target(x.Pktable)
		}
		return true
	})
}
