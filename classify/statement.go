package classify

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v5"
)

// statement judges a whole statement. What is not named here or in definition is
// a write.
func (j *judge) statement(n *pg.Node) {
	switch x := n.GetNode().(type) {
	case *pg.Node_SelectStmt:
		j.selects(x.SelectStmt)
	case *pg.Node_InsertStmt, *pg.Node_UpdateStmt, *pg.Node_DeleteStmt, *pg.Node_MergeStmt:
		j.walk(n)
	case *pg.Node_TransactionStmt:
		j.transaction(x.TransactionStmt)
	case *pg.Node_VariableSetStmt:
		j.variableSet(x.VariableSetStmt)
	case *pg.Node_VariableShowStmt:
		j.show(x.VariableShowStmt)
	case *pg.Node_DiscardStmt:
		j.discard(x.DiscardStmt)
	case *pg.Node_ExplainStmt:
		j.explain(x.ExplainStmt)
	case *pg.Node_CopyStmt:
		j.copy(x.CopyStmt)
	case *pg.Node_PrepareStmt, *pg.Node_ExecuteStmt, *pg.Node_DeallocateStmt:
		j.prepared(n)
	case *pg.Node_DeclareCursorStmt, *pg.Node_FetchStmt, *pg.Node_ClosePortalStmt:
		j.cursor(n)
	case *pg.Node_ListenStmt, *pg.Node_UnlistenStmt, *pg.Node_NotifyStmt:
		j.notification(n)
	case *pg.Node_LockStmt, *pg.Node_TruncateStmt, *pg.Node_ConstraintsSetStmt:
		j.locking(n)
	case *pg.Node_CallStmt:
		j.tag("CALL")
		j.runs("runs a procedure")
		j.walk(n)
		j.st.Functions = nil // procedures are never reads, whatever the catalog says
	case *pg.Node_DoStmt:
		j.tag("DO")
		j.runs("runs a code block")
		for _, a := range n.GetDoStmt().Args {
			if usesLargeObjects(a.GetDefElem().GetArg().GetString_().GetSval()) {
				j.refuse(refuseLargeObjects)
			}
		}
	case *pg.Node_CheckPointStmt:
		j.tag("CHECKPOINT")
		j.raise(LeaderRead, "acts on one server")
	case *pg.Node_LoadStmt:
		j.tag("LOAD")
		j.refuse(refuseLoad)
	default:
		if !j.maintenance(n) && !j.definition(n) {
			j.raise(Write, "is of a kind not known here")
			j.st.Sequences = true
		}
	}
}

var refuseLoad = &Refusal{
	Feature: "LOAD",
	Message: "LOAD is not supported: it loads a library into one server process",
	Hint:    "Set session_preload_libraries or shared_preload_libraries on every server.",
}

// runs is for statements whose effects are not in their text.
func (j *judge) runs(because string) {
	j.raise(Write, because)
	j.st.Sequences = true
}

// selects judges SELECT, VALUES, TABLE and SELECT INTO.
func (j *judge) selects(s *pg.SelectStmt) {
	j.tag("SELECT")
	j.setConfigs(s)
	j.walkMessage(s.ProtoReflect())
}

func (j *judge) show(s *pg.VariableShowStmt) {
	j.tag("SHOW")
	name := strings.ToLower(s.Name)
	j.set(SetStmt{Kind: SetShow, Name: name})
	if name == "all" || strings.HasPrefix(name, "transaction_") {
		j.raise(LeaderRead, "shows the transaction's characteristics")
	}
}

func (j *judge) discard(d *pg.DiscardStmt) {
	j.raise(Session, "discards state of the session")
	switch d.Target {
	case pg.DiscardMode_DISCARD_ALL:
		j.tag("DISCARD ALL")
		j.st.NoTx = true
		j.st.Unpin = PinAll &^ PinSeed
		j.set(SetStmt{Kind: SetDiscardAll})
	case pg.DiscardMode_DISCARD_PLANS:
		j.tag("DISCARD PLANS")
		j.set(SetStmt{Kind: SetDiscard, Name: "plans"})
	case pg.DiscardMode_DISCARD_SEQUENCES:
		j.tag("DISCARD SEQUENCES")
		j.st.Unpin = PinSequence
		j.set(SetStmt{Kind: SetDiscard, Name: "sequences"})
	default:
		j.tag("DISCARD TEMP")
		j.st.Unpin = PinTemp
		j.set(SetStmt{Kind: SetDiscard, Name: "temp"})
	}
}

// explain judges EXPLAIN: without ANALYZE nothing is run but the planner.
func (j *judge) explain(e *pg.ExplainStmt) {
	j.tag("EXPLAIN")
	x := &ExplainStmt{}
	for _, o := range e.Options {
		if d := o.GetDefElem(); d.GetDefname() == "analyze" {
			x.Analyze = optionOn(d)
		}
	}
	if x.Analyze {
		j.statement(e.Query)
	} else {
		j.planned(e.Query)
	}
	j.st.Explain = x
	j.st.Cursor = nil // EXPLAIN DECLARE declares nothing
}

// planned judges what EXPLAIN only plans.
func (j *judge) planned(n *pg.Node) {
	switch x := n.GetNode().(type) {
	case *pg.Node_ExecuteStmt: // evaluates the parameters
		j.st.Prepared = &PreparedStmt{Kind: Execute, Name: x.ExecuteStmt.Name}
		j.raise(LeaderRead, "explains what was prepared on the leader")
		j.walk(n)
	case *pg.Node_CreateTableAsStmt:
		j.planned(x.CreateTableAsStmt.Query)
	case *pg.Node_DeclareCursorStmt:
		j.planned(x.DeclareCursorStmt.Query)
	default:
		quiet := &judge{st: &Statement{base: Read}, inert: true}
		quiet.walk(n)
		j.st.Reads, j.st.Catalog = quiet.st.Reads, quiet.st.Catalog
		if quiet.st.Catalog {
			j.raise(LeaderRead, "plans a query of system catalogs")
		}
		if quiet.st.Temp {
			j.st.Temp = true
			j.raise(LeaderRead, "uses a temporary object")
		}
	}
}

// optionOn reads the value of a boolean option; what cannot be read is on.
func optionOn(d *pg.DefElem) bool {
	switch v := d.GetArg().GetNode().(type) {
	case nil:
		return true
	case *pg.Node_Integer:
		return v.Integer.Ival != 0
	case *pg.Node_Boolean:
		return v.Boolean.Boolval
	case *pg.Node_String_:
		on, ok := parseBool(v.String_.Sval)
		return on || !ok
	}
	return true
}

func (j *judge) copy(c *pg.CopyStmt) {
	j.tag("COPY")
	j.st.Copy = &CopyStmt{From: c.IsFrom, Server: c.IsProgram || c.Filename != "", Query: c.Query != nil}
	if c.IsFrom {
		j.raise(Write, "copies rows into a table")
		j.target(c.Relation)
		j.refuseCatalogWrite(c.Relation)
	} else if j.st.Copy.Server {
		j.raise(LeaderRead, "writes a file or runs a program on the server")
	}
	j.walkMessage(c.ProtoReflect())
}

// prepared judges PREPARE, EXECUTE and DEALLOCATE.
func (j *judge) prepared(n *pg.Node) {
	switch x := n.GetNode().(type) {
	case *pg.Node_PrepareStmt:
		j.tag("PREPARE")
		inner := &Statement{End: -1}
		j.literal = judgeStatement(x.PrepareStmt.Query, inner) || j.literal
		j.st.Prepared = &PreparedStmt{Kind: Prepare, Name: x.PrepareStmt.Name, Inner: inner}
		j.st.Pin |= PinPrepared
		j.refuse(inner.Refusal)
		j.raise(LeaderRead, "prepares a statement on the leader's connection")
	case *pg.Node_ExecuteStmt:
		j.tag("EXECUTE")
		j.st.Prepared = &PreparedStmt{Kind: Execute, Name: x.ExecuteStmt.Name}
		j.runs("runs what was prepared")
		j.walk(n)
	case *pg.Node_DeallocateStmt:
		j.st.Prepared = &PreparedStmt{Kind: Deallocate, Name: x.DeallocateStmt.Name}
		j.raise(LeaderRead, "deallocates what was prepared on the leader's connection")
		if x.DeallocateStmt.Name == "" {
			j.tag("DEALLOCATE ALL")
			j.st.Unpin = PinPrepared
		}
		j.tag("DEALLOCATE")
	}
}

// cursorHold is CURSOR_OPT_HOLD of the server's parsenodes.h.
const cursorHold = 0x0020

// cursor judges DECLARE, FETCH, MOVE and CLOSE.
func (j *judge) cursor(n *pg.Node) {
	switch x := n.GetNode().(type) {
	case *pg.Node_DeclareCursorStmt:
		d := x.DeclareCursorStmt
		j.tag("DECLARE CURSOR")
		c := &CursorStmt{Kind: CursorDeclare, Name: d.Portalname, Hold: d.Options&cursorHold != 0}
		j.st.Cursor = c
		if c.Hold {
			j.st.Pin |= PinHoldCursor
			j.raise(LeaderRead, "declares a cursor that outlives its transaction")
		}
		j.walk(d.Query)
	case *pg.Node_FetchStmt:
		j.st.Cursor = &CursorStmt{Kind: CursorFetch, Name: x.FetchStmt.Portalname}
		if x.FetchStmt.Ismove {
			j.st.Cursor.Kind = CursorMove
			j.tag("MOVE")
		}
		j.tag("FETCH")
	case *pg.Node_ClosePortalStmt:
		j.st.Cursor = &CursorStmt{Kind: CursorClose, Name: x.ClosePortalStmt.Portalname}
		if x.ClosePortalStmt.Portalname == "" {
			j.tag("CLOSE CURSOR ALL")
			j.st.Unpin = PinHoldCursor
		}
		j.tag("CLOSE CURSOR")
	}
}

func (j *judge) notification(n *pg.Node) {
	switch x := n.GetNode().(type) {
	case *pg.Node_ListenStmt:
		j.tag("LISTEN")
		j.st.Channel = x.ListenStmt.Conditionname
		j.st.Pin |= PinListen
		j.raise(LeaderRead, "listens on the leader's connection")
	case *pg.Node_UnlistenStmt:
		j.tag("UNLISTEN")
		j.st.Channel = x.UnlistenStmt.Conditionname
		if x.UnlistenStmt.Conditionname == "" {
			j.st.Unpin = PinListen
		}
		j.raise(LeaderRead, "listens on the leader's connection")
	case *pg.Node_NotifyStmt:
		j.tag("NOTIFY")
		j.st.Channel = x.NotifyStmt.Conditionname
		j.raise(LeaderRead, effects["pg_notify"].because)
	}
}

// accessShare is AccessShareLock of the server's lockdefs.h.
const accessShare = 1

// locking judges LOCK, TRUNCATE and SET CONSTRAINTS.
func (j *judge) locking(n *pg.Node) {
	switch x := n.GetNode().(type) {
	case *pg.Node_LockStmt:
		j.tag("LOCK TABLE")
		j.raise(LeaderRead, "locks tables")
		if x.LockStmt.Mode == accessShare { // which keeps nobody from writing: pg_dump locks all there is
			for _, n := range x.LockStmt.Relations {
				if r := n.GetRangeVar(); r != nil && r.Schemaname != ownSchema {
					j.target(r)
				}
			}
			return
		}
		j.targetNodes(x.LockStmt.Relations)
	case *pg.Node_TruncateStmt:
		j.tag("TRUNCATE TABLE")
		j.raise(Write, "empties tables")
		j.targetNodes(x.TruncateStmt.Relations)
		for _, n := range x.TruncateStmt.Relations {
			j.shut(n.GetRangeVar())
		}
		j.st.Sequences = x.TruncateStmt.RestartSeqs
	case *pg.Node_ConstraintsSetStmt:
		j.tag("SET CONSTRAINTS")
		j.runs("may run deferred triggers")
	}
}
