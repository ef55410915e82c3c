package classify

import (
	"strconv"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v5"
)

// settingReplay is the one parameter of pgdist's that is the session's to set.
const settingReplay = "pgdist.replay"

// refusedReplay is for whatever but the session's own SET would set it: nobody looks there.
var refusedReplay = &Refusal{
	Feature: "setting pgdist.*",
	Message: "parameter \"" + settingReplay + "\" is a session's own",
	Hint:    "Set it with SET, or for all sessions as replay in pgdist's DSN or configuration file.",
}

// RefusedSetting returns why a client may not give a parameter a value, nil if
// it may. [Parse] asks it of what the text says; whoever binds the parameters of
// a set_config asks it again. An empty value stands for one that is not known.
func RefusedSetting(name, value string) *Refusal {
	name = strings.ToLower(name)
	_, isBool := parseBool(value)
	switch {
	case name == settingReplay && (value == "" || isBool):
	case name == settingReplay:
		return &Refusal{
			Feature: "setting pgdist.*",
			Message: "invalid value for parameter \"" + name + "\": \"" + value + "\"",
			Hint:    "It is on or off: whether transactions of this session that are lost with their server are run again.",
		}
	case strings.HasPrefix(name, "pgdist."):
		return &Refusal{
			Feature: "setting pgdist.*",
			Message: "parameter \"" + name + "\" cannot be changed: it is how pgdist recognises its own work",
			Hint:    "Settings of pgdist belong in its DSN or its configuration file.",
		}
	case name == "session_replication_role" && !strings.EqualFold(value, "origin"):
		return &Refusal{
			Feature: "setting session_replication_role",
			Message: "parameter \"session_replication_role\" cannot be changed: writes would no longer be mirrored",
			Hint:    "Disable the triggers in question by name with ALTER TABLE … DISABLE TRIGGER.",
		}
	case name == "standard_conforming_strings" && !IsOn(value):
		return &Refusal{
			Feature: "setting standard_conforming_strings",
			Message: "parameter \"standard_conforming_strings\" cannot be switched off: statements are read with it on",
			Hint:    "Write strings with backslash escapes as E'…'.",
		}
	case name == "event_triggers" && !IsOn(value):
		return &Refusal{
			Feature: "setting event_triggers",
			Message: "parameter \"event_triggers\" cannot be switched off: DDL would no longer be mirrored",
			Hint:    "Disable the event triggers in question by name with ALTER EVENT TRIGGER … DISABLE.",
		}
	}
	return nil
}

// parseBool reads a boolean as the server does: unique prefixes count.
func parseBool(s string) (value, ok bool) {
	s = strings.ToLower(s)
	switch {
	case s == "":
		return false, false
	case s == "1", s == "on", strings.HasPrefix("true", s), strings.HasPrefix("yes", s):
		return true, true
	case s == "0", s == "of", s == "off", strings.HasPrefix("false", s), strings.HasPrefix("no", s):
		return false, true
	}
	return false, false
}

// IsOn tells whether a boolean parameter's value, as the server reads it, is true.
func IsOn(s string) bool {
	v, ok := parseBool(s)
	return ok && v
}

// variableSet judges SET, RESET and their kin.
func (j *judge) variableSet(v *pg.VariableSetStmt) {
	switch v.Kind {
	case pg.VariableSetKind_VAR_SET_MULTI:
		j.tag("SET")
		j.setTransaction(v)
		return
	case pg.VariableSetKind_VAR_RESET_ALL:
		j.tag("RESET")
		j.raise(Session, "changes settings of the session")
		j.set(SetStmt{Kind: SetResetAll})
		return
	case pg.VariableSetKind_VAR_RESET:
		j.tag("RESET")
	default:
		j.tag("SET")
	}
	s := settingOf(v)
	j.set(s)
	switch tx := transactionOf(&s); {
	case tx != nil:
		j.raise(Transaction, "sets the transaction's characteristics")
		j.st.Tx = tx
	case s.Name == "seed":
		j.raise(Session, "changes a setting of the session")
		j.st.Pin |= PinSeed
	default:
		j.raise(Session, "changes a setting of the session")
	}
}

// set records a change of a setting, and refuses those that may not be.
func (j *judge) set(s SetStmt) {
	if s.Kind == SetSession || s.Kind == SetLocal || s.Kind == SetConfig {
		if s.NameParam == 0 && !s.Default {
			j.refuse(RefusedSetting(s.Name, s.Value))
		}
	}
	if s.Name == settingReplay && s.Local {
		j.refuse(refusedReplay)
	}
	if strings.HasPrefix(s.Name, "pgdist.") && s.Kind != SetShow {
		j.refuse(RefusedSetting(s.Name, s.Value))
	}
	if s.Name == "search_path" && strings.HasPrefix(s.Value, "pg_temp") {
		j.st.Pin |= PinTemp // unqualified names of new tables mean temporary ones
	}
	j.st.Sets = append(j.st.Sets, s)
}

// settingOf describes SET and RESET of one parameter.
func settingOf(v *pg.VariableSetStmt) SetStmt {
	s := SetStmt{Kind: SetSession, Name: strings.ToLower(v.Name), Local: v.IsLocal}
	if v.IsLocal {
		s.Kind = SetLocal
	}
	switch v.Kind {
	case pg.VariableSetKind_VAR_SET_DEFAULT:
		s.Default = true
		if !v.IsLocal {
			s.Kind = SetReset
		}
	case pg.VariableSetKind_VAR_RESET:
		s.Kind, s.Default = SetReset, true
	case pg.VariableSetKind_VAR_SET_VALUE:
		s.Value, s.Opaque = settingValue(s.Name, v.Args)
	default:
		s.Opaque = true
	}
	return s
}

// quotedLists are the parameters whose value is a list of identifiers.
var quotedLists = map[string]bool{
	"search_path": true, "temp_tablespaces": true, "local_preload_libraries": true,
	"session_preload_libraries": true, "shared_preload_libraries": true, "unix_socket_directories": true,
}

// settingValue writes the arguments of SET as set_config takes them.
func settingValue(name string, args []*pg.Node) (value string, opaque bool) {
	parts := make([]string, 0, len(args))
	for _, a := range args {
		c := a.GetAConst()
		if c == nil {
			return "", true
		}
		text, isString, ok := constText(c)
		if !ok {
			return "", true
		}
		if isString && quotedLists[name] {
			text = quoteIdent(text)
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, ", "), false
}

// constText is the text of a literal. ok is false for NULL and bit strings.
func constText(c *pg.A_Const) (text string, isString, ok bool) {
	if c.Isnull {
		return "", false, false
	}
	switch v := c.Val.(type) {
	case *pg.A_Const_Sval:
		return v.Sval.Sval, true, true
	case *pg.A_Const_Ival:
		return strconv.Itoa(int(v.Ival.Ival)), false, true
	case *pg.A_Const_Fval:
		return v.Fval.Fval, false, true
	case *pg.A_Const_Boolval:
		return strconv.FormatBool(v.Boolval.Boolval), false, true
	}
	return "", false, false
}

// quoteIdent quotes an identifier unless it is one as it stands. Keywords do
// not matter in the lists that this is for.
func quoteIdent(s string) string {
	plain := s != ""
	for i := range len(s) {
		c := s[i]
		if c != '_' && (c < 'a' || c > 'z') && (i == 0 || !isDigit(c)) {
			plain = false
		}
	}
	if plain {
		return s
	}
	return `"` + strings.ReplaceAll(s, `"`, `""`) + `"`
}

// setConfigs finds the calls of set_config that certainly run exactly once: those
// which are by themselves columns of a SELECT without a FROM and the like.
func (j *judge) setConfigs(s *pg.SelectStmt) {
	if len(s.FromClause) > 0 || s.WhereClause != nil || len(s.GroupClause) > 0 || s.HavingClause != nil ||
		s.LimitCount != nil || s.LimitOffset != nil || s.Op != pg.SetOperation_SETOP_NONE {
		return
	}
	for _, t := range s.TargetList {
		f := uncast(t.GetResTarget().GetVal()).GetFuncCall()
		if f == nil || len(f.Args) != 3 {
			continue
		}
		if schema, name := funcName(f); name != "set_config" || schema != "" && schema != "pg_catalog" {
			continue
		}
		if set, ok := setConfigOf(f); ok {
			j.exact = append(j.exact, f)
			j.set(set)
		}
	}
}

// setConfigOf describes set_config(name, value, is_local) if its arguments are
// literals and parameters.
func setConfigOf(f *pg.FuncCall) (s SetStmt, ok bool) {
	s.Kind = SetConfig
	var null bool
	if s.Name, s.NameParam, null, ok = argument(f.Args[0]); !ok || null {
		return s, false
	}
	s.Name = strings.ToLower(s.Name)
	if s.Value, s.ValueParam, s.Default, ok = argument(f.Args[1]); !ok {
		return s, false
	}
	local, param, null, ok := argument(f.Args[2])
	if !ok || null {
		return s, false
	}
	if s.LocalParam = param; param == 0 {
		s.Local, ok = parseBool(local)
	}
	return s, ok
}

// argument reads a literal or a parameter, cast or not.
func argument(n *pg.Node) (text string, param int, null, ok bool) {
	n = uncast(n)
	if p := n.GetParamRef(); p != nil {
		return "", int(p.Number), false, true
	}
	c := n.GetAConst()
	if c == nil {
		return "", 0, false, false
	}
	if c.Isnull {
		return "", 0, true, true
	}
	text, _, ok = constText(c)
	return text, 0, false, ok
}

// uncast strips casts to text and boolean, which change nothing about a setting.
func uncast(n *pg.Node) *pg.Node {
	for {
		c := n.GetTypeCast()
		if c == nil {
			return n
		}
		switch lastName(c.TypeName.GetNames()) {
		case "text", "varchar", "bool":
			n = c.Arg
		default:
			return n
		}
	}
}
