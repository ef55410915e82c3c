package classify

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v5"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// objectTag is the kind of an object as command tags have it.
func objectTag(t pg.ObjectType) string {
	switch t {
	case pg.ObjectType_OBJECT_MATVIEW:
		return "MATERIALIZED VIEW"
	case pg.ObjectType_OBJECT_FDW:
		return "FOREIGN DATA WRAPPER"
	case pg.ObjectType_OBJECT_FOREIGN_SERVER:
		return "SERVER"
	case pg.ObjectType_OBJECT_LARGEOBJECT:
		return "LARGE OBJECT"
	case pg.ObjectType_OBJECT_OPCLASS:
		return "OPERATOR CLASS"
	case pg.ObjectType_OBJECT_OPFAMILY:
		return "OPERATOR FAMILY"
	case pg.ObjectType_OBJECT_STATISTIC_EXT:
		return "STATISTICS"
	case pg.ObjectType_OBJECT_TSCONFIGURATION:
		return "TEXT SEARCH CONFIGURATION"
	case pg.ObjectType_OBJECT_TSDICTIONARY:
		return "TEXT SEARCH DICTIONARY"
	case pg.ObjectType_OBJECT_TSPARSER:
		return "TEXT SEARCH PARSER"
	case pg.ObjectType_OBJECT_TSTEMPLATE:
		return "TEXT SEARCH TEMPLATE"
	}
	return strings.ReplaceAll(strings.TrimPrefix(t.String(), "OBJECT_"), "_", " ")
}

// alterTag is the tag of ALTER of a kind of object, or of a part of one.
func alterTag(t pg.ObjectType) string {
	switch t {
	case pg.ObjectType_OBJECT_COLUMN, pg.ObjectType_OBJECT_ATTRIBUTE, pg.ObjectType_OBJECT_TABCONSTRAINT:
		return "ALTER TABLE"
	case pg.ObjectType_OBJECT_DOMCONSTRAINT:
		return "ALTER DOMAIN"
	}
	return "ALTER " + objectTag(t)
}

// ddlTag is the command tag of a definition, empty for anything else.
func ddlTag(n *pg.Node) string {
	switch x := n.GetNode().(type) {
	case *pg.Node_AlterTableStmt:
		return alterTag(x.AlterTableStmt.Objtype)
	case *pg.Node_DropStmt:
		return "DROP " + objectTag(x.DropStmt.RemoveType)
	case *pg.Node_DefineStmt:
		return "CREATE " + objectTag(x.DefineStmt.Kind)
	case *pg.Node_RenameStmt:
		if x.RenameStmt.RenameType == pg.ObjectType_OBJECT_COLUMN {
			return alterTag(x.RenameStmt.RelationType)
		}
		return alterTag(x.RenameStmt.RenameType)
	case *pg.Node_AlterObjectDependsStmt:
		return alterTag(x.AlterObjectDependsStmt.ObjectType)
	case *pg.Node_AlterObjectSchemaStmt:
		return alterTag(x.AlterObjectSchemaStmt.ObjectType)
	case *pg.Node_AlterOwnerStmt:
		return alterTag(x.AlterOwnerStmt.ObjectType)
	case *pg.Node_AlterFunctionStmt:
		return alterTag(x.AlterFunctionStmt.Objtype)
	case *pg.Node_AlterTableMoveAllStmt:
		return alterTag(x.AlterTableMoveAllStmt.Objtype)
	case *pg.Node_CreateFunctionStmt:
		if x.CreateFunctionStmt.IsProcedure {
			return "CREATE PROCEDURE"
		}
		return "CREATE FUNCTION"
	case *pg.Node_CreateTableAsStmt:
		if x.CreateTableAsStmt.Objtype == pg.ObjectType_OBJECT_MATVIEW {
			return "CREATE MATERIALIZED VIEW"
		}
		return "CREATE TABLE AS"
	case *pg.Node_GrantStmt:
		return grantTag(x.GrantStmt.IsGrant, "")
	case *pg.Node_GrantRoleStmt:
		return grantTag(x.GrantRoleStmt.IsGrant, " ROLE")
	}
	return fixedTag(n)
}

func grantTag(grant bool, what string) string {
	if grant {
		return "GRANT" + what
	}
	return "REVOKE" + what
}

// fixedTags are the tags of the definitions that have only one, by kind of node.
var fixedTags = map[protoreflect.Name]string{
	"CreateSchemaStmt":           "CREATE SCHEMA",
	"AlterDomainStmt":            "ALTER DOMAIN",
	"AlterDefaultPrivilegesStmt": "ALTER DEFAULT PRIVILEGES",
	"CreateStmt":                 "CREATE TABLE",
	"CreateTableSpaceStmt":       "CREATE TABLESPACE",
	"DropTableSpaceStmt":         "DROP TABLESPACE",
	"AlterTableSpaceOptionsStmt": "ALTER TABLESPACE",
	"CreateExtensionStmt":        "CREATE EXTENSION",
	"AlterExtensionStmt":         "ALTER EXTENSION",
	"AlterExtensionContentsStmt": "ALTER EXTENSION",
	"CreateFdwStmt":              "CREATE FOREIGN DATA WRAPPER",
	"AlterFdwStmt":               "ALTER FOREIGN DATA WRAPPER",
	"CreateForeignServerStmt":    "CREATE SERVER",
	"AlterForeignServerStmt":     "ALTER SERVER",
	"CreateForeignTableStmt":     "CREATE FOREIGN TABLE",
	"CreateUserMappingStmt":      "CREATE USER MAPPING",
	"AlterUserMappingStmt":       "ALTER USER MAPPING",
	"DropUserMappingStmt":        "DROP USER MAPPING",
	"ImportForeignSchemaStmt":    "IMPORT FOREIGN SCHEMA",
	"CreatePolicyStmt":           "CREATE POLICY",
	"AlterPolicyStmt":            "ALTER POLICY",
	"CreateAmStmt":               "CREATE ACCESS METHOD",
	"CreateTrigStmt":             "CREATE TRIGGER",
	"CreateEventTrigStmt":        "CREATE EVENT TRIGGER",
	"AlterEventTrigStmt":         "ALTER EVENT TRIGGER",
	"CreatePLangStmt":            "CREATE LANGUAGE",
	"CreateRoleStmt":             "CREATE ROLE",
	"AlterRoleStmt":              "ALTER ROLE",
	"AlterRoleSetStmt":           "ALTER ROLE",
	"DropRoleStmt":               "DROP ROLE",
	"CreateSeqStmt":              "CREATE SEQUENCE",
	"AlterSeqStmt":               "ALTER SEQUENCE",
	"CreateDomainStmt":           "CREATE DOMAIN",
	"CreateOpClassStmt":          "CREATE OPERATOR CLASS",
	"CreateOpFamilyStmt":         "CREATE OPERATOR FAMILY",
	"AlterOpFamilyStmt":          "ALTER OPERATOR FAMILY",
	"CommentStmt":                "COMMENT",
	"SecLabelStmt":               "SECURITY LABEL",
	"IndexStmt":                  "CREATE INDEX",
	"CreateStatsStmt":            "CREATE STATISTICS",
	"AlterStatsStmt":             "ALTER STATISTICS",
	"AlterOperatorStmt":          "ALTER OPERATOR",
	"AlterTypeStmt":              "ALTER TYPE",
	"AlterEnumStmt":              "ALTER TYPE",
	"RuleStmt":                   "CREATE RULE",
	"CompositeTypeStmt":          "CREATE TYPE",
	"CreateEnumStmt":             "CREATE TYPE",
	"CreateRangeStmt":            "CREATE TYPE",
	"ViewStmt":                   "CREATE VIEW",
	"CreatedbStmt":               "CREATE DATABASE",
	"AlterDatabaseStmt":          "ALTER DATABASE",
	"AlterDatabaseSetStmt":       "ALTER DATABASE",
	"DropdbStmt":                 "DROP DATABASE",
	"AlterSystemStmt":            "ALTER SYSTEM",
	"RefreshMatViewStmt":         "REFRESH MATERIALIZED VIEW",
	"CreateConversionStmt":       "CREATE CONVERSION",
	"CreateCastStmt":             "CREATE CAST",
	"CreateTransformStmt":        "CREATE TRANSFORM",
	"DropOwnedStmt":              "DROP OWNED",
	"ReassignOwnedStmt":          "REASSIGN OWNED",
	"AlterTSDictionaryStmt":      "ALTER TEXT SEARCH DICTIONARY",
	"AlterTSConfigurationStmt":   "ALTER TEXT SEARCH CONFIGURATION",
	"CreatePublicationStmt":      "CREATE PUBLICATION",
	"AlterPublicationStmt":       "ALTER PUBLICATION",
	"CreateSubscriptionStmt":     "CREATE SUBSCRIPTION",
	"AlterSubscriptionStmt":      "ALTER SUBSCRIPTION",
	"DropSubscriptionStmt":       "DROP SUBSCRIPTION",
}

func fixedTag(n *pg.Node) string { return fixedTags[kind(n)] }

// kind is the name of the node's kind in the grammar.
func kind(n *pg.Node) protoreflect.Name {
	m := n.ProtoReflect()
	fd := m.WhichOneof(m.Descriptor().Oneofs().Get(0))
	if fd == nil {
		return ""
	}
	return fd.Message().Name()
}
